# SPDX-License-Identifier: Apache-2.0
"""Owns the first tables: freeze windows and copies of persistent memory."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from nova_ext.db import schema

revision = "7c1e5d0a9b42"
down_revision = None
branch_labels = None
depends_on = None

_COLLATION = sa.text(
    "SELECT character_set_name, collation_name FROM information_schema.columns"
    " WHERE table_schema = DATABASE() AND table_name = 'instances'"
    " AND column_name = 'uuid'"
)


def upgrade() -> None:
    """Make both tables."""
    name = schema.name_of(op.get_bind())
    op.create_table(
        "quiesce_windows",
        sa.Column("instance_uuid", _instance_uuid(), primary_key=True),
        sa.Column("window_id", sa.String(36), nullable=False),
        sa.Column("change_id", sa.String(36), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("request_id", sa.String(255), nullable=False),
        sa.Column("timeout", sa.Integer, nullable=False),
        sa.Column(
            "quiesced_at",
            sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb"),
        ),
        sa.Column("partial", sa.Boolean, nullable=False),
        sa.Column("left_out", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("updated_at", sa.DateTime),
        schema=name,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
    )
    op.create_table(
        "pmem_copies",
        sa.Column("instance_uuid", _instance_uuid(), primary_key=True),
        sa.Column("change_id", sa.String(36), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("request_id", sa.String(255), nullable=False),
        sa.Column("migration_id", sa.Integer),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("updated_at", sa.DateTime),
        schema=name,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
    )


def downgrade() -> None:
    """Remove both tables."""
    name = schema.name_of(op.get_bind())
    op.drop_table("pmem_copies", schema=name)
    op.drop_table("quiesce_windows", schema=name)


def _instance_uuid() -> Any:
    """The type of a column that is joined with ``instances.uuid``.

    MySQL uses no index, or refuses to compare, where the collations differ.
    """
    bind = op.get_bind()
    if bind.dialect.name not in schema.MYSQL:
        return sa.String(36)
    found = bind.execute(_COLLATION).first()
    if found is None:
        return sa.String(36)
    charset, collation = found
    return mysql.VARCHAR(36, charset=charset, collation=collation)
