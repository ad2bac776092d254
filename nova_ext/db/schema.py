# SPDX-License-Identifier: Apache-2.0
"""Owns where the tables of the extension lie: beside a database of nova, never in it.

Stock ``nova-manage db archive_deleted_rows`` reflects each table of a cell's database
and ends with KeyError at one that nova does not know. On MySQL and MariaDB a statement
reaches every database of the server, on PostgreSQL every schema of the database; so
joins and transactions over both work, on nova's own connection.
"""

from typing import Any

import sqlalchemy as sa

#: The schema of the tables in :mod:`nova_ext.db.models`, replaced in each statement.
SCHEMA = "nova_ext"

#: Of the database beside nova's on MySQL and MariaDB.
SUFFIX = "_nova_ext"

MYSQL = ("mysql", "mariadb")
POSTGRESQL = "postgresql"


def name_of(engine: Any) -> str | None:
    """The name of the extension's database or schema for an engine of nova.

    :param engine: a SQLAlchemy ``Engine`` or ``Connection``
    :returns: None where there are no such things (SQLite): the tables then lie beside
        nova's own
    """
    dialect = engine.dialect.name
    if dialect in MYSQL:
        return f"{engine.engine.url.database}{SUFFIX}"
    if dialect == POSTGRESQL:
        # Of the cell's own database, so that those of two cells cannot meet.
        return SCHEMA
    return None


def database_of(engine: Any) -> str:
    """The name of nova's own database, to tell a person."""
    return engine.engine.url.database or engine.dialect.name


def statements(engine: Any, account: str, place: bool) -> list[str]:
    """What the administrator of the database runs, for an account that may not.

    :param account: as the database names it
    :param place: also make the database or schema
    """
    name = name_of(engine)
    if engine.dialect.name in MYSQL:
        user, _, host = account.rpartition("@")
        grant = f"GRANT ALL PRIVILEGES ON `{name}`.* TO '{user}'@'{host}';"
        return [f"CREATE DATABASE IF NOT EXISTS `{name}`;", grant] if place else [grant]
    grant = f'GRANT ALL ON SCHEMA "{name}" TO "{account}";'
    if place:
        return [f'CREATE SCHEMA IF NOT EXISTS "{name}";', grant]
    return [grant, f'GRANT ALL ON ALL TABLES IN SCHEMA "{name}" TO "{account}";']


def drop_statement(engine: Any) -> str:
    """What the administrator of the database runs to remove what is ours."""
    name = name_of(engine)
    if engine.dialect.name in MYSQL:
        return f"DROP DATABASE `{name}`;"
    return f'DROP SCHEMA "{name}" CASCADE;'


def account_of(connection: Any) -> str:
    """The account of a connection, as the database names it."""
    if connection.dialect.name in MYSQL:
        return str(connection.scalar(sa.text("SELECT CURRENT_USER()")))
    return str(connection.scalar(sa.text("SELECT current_user")))


def options(engine: Any) -> dict[str, Any]:
    """The ``execution_options`` that each statement on our tables needs.

    Given to ``Session.connection()`` they would be ignored once the session has a
    connection, which is the case in a transaction that somebody else has begun.
    """
    return {"schema_translate_map": {SCHEMA: name_of(engine)}}
