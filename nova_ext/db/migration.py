# SPDX-License-Identifier: Apache-2.0
"""Owns the schema of the extension's databases: how it is made, versioned and dropped.

There are two kinds: ``main`` lies beside the database of a cell, ``api`` beside nova's
API database. Each keeps the version that it has in a table of its own.
"""

import contextlib
import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import command, config, script
from alembic.runtime import migration

from nova_ext.db import models, schema

MAIN = "main"
API = "api"

#: Seconds; by default MariaDB waits for a day.
_WAIT = 60

_SCRIPTS = pathlib.Path(__file__).parent / "migrations"


def head(kind: str) -> str:
    """The newest version of a kind of database."""
    found = script.ScriptDirectory.from_config(_config(kind)).get_current_head()
    assert found is not None  # each kind has a first version
    return found


def version(engine: Any) -> str | None:
    """The version of the database beside that of ``engine``; None if it has none.

    :raises: the driver's errors, those of a missing right among them
    """
    if not exists(engine):
        return None
    with engine.connect() as connection:
        context = migration.MigrationContext.configure(
            connection, opts=_version_table(engine)
        )
        return context.get_current_revision()


@functools.cache
def older(kind: str) -> frozenset[str]:
    """The versions that came before the newest.

    One that is neither of these nor the newest is that of a newer extension, in an
    upgrade.
    """
    scripts = script.ScriptDirectory.from_config(_config(kind))
    revisions = {each.revision for each in scripts.walk_revisions()}
    return frozenset(revisions - set(scripts.get_heads()))


def exists(engine: Any) -> bool:
    """Whether the database or schema is there, as far as the account may see it."""
    name = schema.name_of(engine)
    return name is None or name in sa.inspect(engine).get_schema_names()


def create(engine: Any) -> None:
    """Make the database or schema, unless it is there.

    :raises: the driver's errors, those of a missing right among them
    """
    name = schema.name_of(engine)
    if name is None or exists(engine):
        return
    with _begin(engine) as connection:
        connection.execute(sa.schema.CreateSchema(name))


def upgrade(engine: Any, kind: str) -> None:
    """Bring the tables, for which there is a place, to the newest version."""
    settings = _config(kind)
    with _begin(engine) as connection:
        settings.attributes["connection"] = connection
        settings.attributes["options"] = _version_table(engine)
        command.upgrade(settings, "heads")


def drop(engine: Any, kind: str) -> None:
    """Remove the tables and the place that they lie in; what is gone is no error."""
    name = schema.name_of(engine)
    if not exists(engine):
        return
    if name is not None:
        with _begin(engine) as connection:
            cascade = engine.dialect.name == schema.POSTGRESQL
            connection.execute(sa.schema.DropSchema(name, cascade=cascade))
        return
    settings = _config(kind)
    with _begin(engine) as connection:
        settings.attributes["connection"] = connection
        settings.attributes["options"] = _version_table(engine)
        command.downgrade(settings, "base")
        connection.execute(sa.text(f"DROP TABLE IF EXISTS {models.VERSION_TABLE}"))


@contextlib.contextmanager
def _begin(engine: Any) -> Iterator[Any]:
    """A transaction that waits a minute at most for those who use the tables."""
    with engine.begin() as connection:
        if engine.dialect.name in schema.MYSQL:
            connection.execute(sa.text(f"SET SESSION lock_wait_timeout = {_WAIT}"))
        elif engine.dialect.name == schema.POSTGRESQL:
            connection.execute(sa.text(f"SET LOCAL lock_timeout = '{_WAIT}s'"))
        yield connection


def _version_table(engine: Any) -> dict[str, Any]:
    return {
        "version_table": models.VERSION_TABLE,
        "version_table_schema": schema.name_of(engine),
    }


def _config(kind: str) -> config.Config:
    made = config.Config()
    made.set_main_option("script_location", str(_SCRIPTS))
    made.set_main_option("version_locations", str(_SCRIPTS / kind))
    made.set_main_option("path_separator", "newline")
    return made
