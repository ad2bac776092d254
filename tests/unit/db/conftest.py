# SPDX-License-Identifier: Apache-2.0
"""Owns the databases that the tests of the ground floor run on."""

import itertools
from collections.abc import Callable

import pytest
from nova import objects as nova_objects

from nova_ext import objects
from nova_ext.db import migration
from tests.unit.db import databases, servers

nova_objects.register_all()
objects.register_all()

NAME = "nova_cell1"
ENGINES = ("sqlite", "mariadb", "postgresql")

_numbers = itertools.count()


@pytest.fixture(scope="session")
def on_mariadb(mariadb: servers.Server) -> databases.Database:
    return _cell(mariadb)


@pytest.fixture(scope="session")
def on_postgresql(postgresql: servers.Server) -> databases.Database:
    return _cell(postgresql)


def _cell(server: servers.Server) -> databases.Database:
    server.run(f"CREATE DATABASE {NAME}")
    made = databases.make(server.url(NAME))
    migration.create(made.engine)
    migration.upgrade(made.engine, migration.MAIN)
    return made


@pytest.fixture(params=ENGINES)
def database(request: pytest.FixtureRequest) -> databases.Database:
    """A cell's database without servers, on each engine."""
    return _database(request)


@pytest.fixture(params=ENGINES[1:])
def real_database(request: pytest.FixtureRequest) -> databases.Database:
    """A cell's database without servers, for several connections at a time."""
    return _database(request)


def _database(request: pytest.FixtureRequest) -> databases.Database:
    if request.param == "sqlite":
        made = databases.make("sqlite://")
        migration.upgrade(made.engine, migration.MAIN)
        return made
    kept: databases.Database = request.getfixturevalue(f"on_{request.param}")
    kept.clear()
    return kept


@pytest.fixture(params=ENGINES)
def bare(request: pytest.FixtureRequest) -> databases.Database:
    """A cell's database with nothing but ``instances``, and nothing beside it."""
    if request.param == "sqlite":
        return databases.make("sqlite://", bare=True)
    server: servers.Server = request.getfixturevalue(request.param)
    name = f"bare{next(_numbers)}"
    server.run(f"CREATE DATABASE {name}")
    return databases.make(server.url(name), bare=True)


@pytest.fixture
def new_name() -> Callable[[], str]:
    """Names of databases and accounts that no other test uses."""
    return lambda: f"own{next(_numbers)}"
