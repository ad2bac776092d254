# SPDX-License-Identifier: Apache-2.0
"""Owns how the lack of the extension's database is told from any other failure."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import sqlalchemy as sa
from oslo_db import exception as db_exc

from nova_ext import exception
from nova_ext.db import models, schema

P = ParamSpec("P")
R = TypeVar("R")

#: https://mariadb.com/kb/en/mariadb-error-codes/: access denied to a database, unknown
#: database, command denied on a table or column, no such table; unknown column, which
#: tables of an earlier release lack.
_MYSQL_MISSING = (1049, 1146)
_MYSQL_OLDER = (1054,)
_MYSQL_DENIED = (1044, 1142, 1143)

#: https://www.postgresql.org/docs/current/errcodes-appendix.html: invalid schema name,
#: undefined table, insufficient privilege; undefined column.
_POSTGRESQL_MISSING = ("3F000", "42P01")
_POSTGRESQL_OLDER = ("42703",)
_POSTGRESQL_DENIED = ("42501",)


def translated(function: Callable[P, R]) -> Callable[P, R]:
    """Name what is missing when a statement of ``function`` finds no table of ours.

    ``function`` runs in a transaction of its first argument, the context.

    :raises: nova_ext.exception.StateDatabaseMissing
    """

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except (db_exc.DBError, sa.exc.DBAPIError) as exc:
            context: Any = args[0]
            missing = missing_state(exc, context.session.get_bind())
            if missing is None:
                raise
            raise missing from exc

    return wrapper


def missing_state(exc: Exception, engine: Any) -> exception.StateDatabaseMissing | None:
    """What to tell of an error of SQLAlchemy or oslo.db; None if it is another one.

    :param engine: the engine or connection that the statement ran on
    """
    missing, denied = _kind(exc, engine)
    database = schema.database_of(engine)
    if denied:
        return exception.StateDatabaseDenied(
            database=database, name=schema.name_of(engine)
        )
    if missing:
        return exception.StateDatabaseMissing(database=database)
    return None


def is_denied(exc: Exception, engine: Any) -> bool:
    """Whether an account has not the right to do something with what is ours."""
    return _kind(exc, engine)[1]


def _kind(exc: Exception, engine: Any) -> tuple[bool, bool]:
    """Whether something of ours is missing, and whether a right to it is."""
    cause: Any = exc.inner_exception if isinstance(exc, db_exc.DBError) else exc
    original = getattr(cause, "orig", None)
    if original is None:
        return False, False
    text = str(original)
    names = [table.name for table in models.metadata.sorted_tables]
    names += [models.VERSION_TABLE, str(schema.name_of(engine))]
    if engine.dialect.name == schema.POSTGRESQL:
        state = getattr(original, "pgcode", None) or getattr(original, "sqlstate", None)
        if state == "42501" and f"database {schema.database_of(engine)}" in text:
            return False, True  # to make a schema
        if state in _POSTGRESQL_OLDER:  # which column, but not of which table
            return True, False
    code = original.args[0] if original.args else None
    if engine.dialect.name in schema.MYSQL and code in _MYSQL_OLDER:
        return True, False
    if not any(name in text for name in names):
        return False, False
    if engine.dialect.name in schema.MYSQL:
        return code in _MYSQL_MISSING, code in _MYSQL_DENIED
    if engine.dialect.name == schema.POSTGRESQL:
        return state in _POSTGRESQL_MISSING, state in _POSTGRESQL_DENIED
    return "no such table" in text or "no such column" in text, False
