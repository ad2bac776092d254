# SPDX-License-Identifier: Apache-2.0
"""Owns the cell that the tests of the objects reach through nova-conductor."""

from collections.abc import Iterator

import pytest
from nova import rpc

from nova_ext.db import migration
from tests.unit.db import databases


@pytest.fixture
def cell() -> databases.Database:
    made = databases.make("sqlite://", bare=True)
    migration.upgrade(made.engine, migration.MAIN)
    return made


@pytest.fixture(autouse=True)
def exceptions_of_the_extension() -> Iterator[None]:
    """Let them over the bus, as ``install()`` does."""
    rpc.add_extra_exmods("nova_ext.exception")
    yield
    rpc.clear_extra_exmods()
