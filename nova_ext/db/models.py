# SPDX-License-Identifier: Apache-2.0
"""Owns the tables of the extension in a database beside a cell's.

Nothing that nova knows is copied here: host and deletion of a server are read from its
row in ``instances``. There are no foreign keys either, which would end nova's archiving
of deleted rows.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from nova_ext.db import schema

metadata = sa.MetaData(schema=schema.SCHEMA)

#: A time with microseconds, in UTC.
EXACT_TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def _changed() -> tuple[sa.Column[Any], ...]:
    """What compare-and-swap needs, and who caused the change."""
    return (
        # Of the writer that changed the row last: a new one for each change.
        sa.Column("change_id", sa.String(36), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("request_id", sa.String(255), nullable=False),
    )


def _times() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("updated_at", sa.DateTime),
    )


#: One row for each server with a freeze window; see objects/quiesce_window.py.
quiesce_windows = sa.Table(
    "quiesce_windows",
    metadata,
    sa.Column("instance_uuid", sa.String(36), primary_key=True),
    sa.Column("window_id", sa.String(36), nullable=False),
    *_changed(),
    sa.Column("timeout", sa.Integer, nullable=False),
    sa.Column("quiesced_at", EXACT_TIME),
    sa.Column("partial", sa.Boolean, nullable=False),
    sa.Column("left_out", sa.Text),
    sa.Column("reason", sa.Text),
    *_times(),
    mysql_engine="InnoDB",
)

#: One row for each server whose persistent memory is to be copied or was; see
#: objects/pmem_copy.py.
pmem_copies = sa.Table(
    "pmem_copies",
    metadata,
    sa.Column("instance_uuid", sa.String(36), primary_key=True),
    *_changed(),
    sa.Column("migration_id", sa.Integer),
    *_times(),
    mysql_engine="InnoDB",
)

#: Alembic's; not by its usual name, which nova's own has where both lie together.
VERSION_TABLE = "nova_ext_alembic_version"

version = sa.Table(
    VERSION_TABLE,
    sa.MetaData(schema=schema.SCHEMA),  # alembic makes it
    sa.Column("version_num", sa.String(32), primary_key=True),
)
