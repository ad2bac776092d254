# SPDX-License-Identifier: Apache-2.0
"""Owns how the commands of the extension find the databases of a cloud."""

import dataclasses
from typing import Any

import nova.conf
import sqlalchemy as sa
from nova import context as nova_context
from nova import exception, objects, rpc
from nova.db.api import api as api_api
from nova.db.main import api as main_api
from oslo_db import exception as db_exc

from nova_ext.db import migration

CONF = nova.conf.CONF

#: What a database that cannot be used makes of a command.
ERRORS = (
    db_exc.CantStartEngineError,
    db_exc.DBError,
    exception.NovaException,
    sa.exc.SQLAlchemyError,
)


@dataclasses.dataclass(frozen=True)
class Place:
    """A database of nova that the extension has one of its own beside.

    :ivar name: for a person
    :ivar kind: of :mod:`nova_ext.db.migration`
    :ivar context: one for functions on this database
    :ivar others: the same for other accounts of nova with which it is reached
    """

    name: str
    kind: str
    context: Any
    others: tuple[Any, ...] = ()

    @property
    def engine(self) -> Any:
        """nova's engine for it.

        :raises: see :data:`ERRORS`
        """
        return main_api.get_engine(context=self.context)


def configure() -> None:
    """Let nova's database functions use the configuration, and give up soon.

    A service waits for minutes until its database is back, a command tells.
    """
    for group in ("database", "api_database"):
        CONF.set_override("max_retries", 1, group=group)
        CONF.set_override("retry_interval", 1, group=group)
    main_api.configure(CONF)
    api_api.configure(CONF)
    rpc.get_transport_url()  # registers the option that cell mappings refer to


def cells() -> list[Place]:
    """The cells of the cloud by their mappings, without cell0, which needs no state.

    :raises: see :data:`ERRORS`
    """
    objects.register_all()
    mappings = objects.CellMappingList.get_all(nova_context.get_admin_context())
    return [
        Place(
            name=f"cell {mapping.identity}",
            kind=migration.MAIN,
            context=_context(mapping.database_connection),
            others=_others(mapping.database_connection),
        )
        for mapping in mappings
        if not mapping.is_cell0()
    ]


def local_cell() -> Place:
    """The cell that ``[database] connection`` names."""
    return Place("the local cell", migration.MAIN, _context(CONF.database.connection))


def api_database() -> Place:
    """nova's API database."""
    return Place(
        "the API database", migration.API, _context(CONF.api_database.connection)
    )


def reason(exc: Exception) -> str:
    """An error in one line."""
    if isinstance(exc, exception.NovaException):
        return str(exc.format_message())
    return (str(exc).splitlines() or [type(exc).__name__])[0]


def _context(url: str) -> Any:
    context = nova_context.get_admin_context()
    context.db_connection = main_api.create_context_manager(url)
    return context


def _others(url: str) -> tuple[Any, ...]:
    """Contexts with the account of ``[database] connection``, if it leads there too."""
    if not CONF.database.connection:
        return ()
    mapped, own = sa.make_url(url), sa.make_url(CONF.database.connection)
    same = all(
        getattr(mapped, part) == getattr(own, part)
        for part in ("host", "port", "database")
    )
    if not same or mapped.username == own.username:
        return ()
    return (_context(CONF.database.connection),)
