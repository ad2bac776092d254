# SPDX-License-Identifier: Apache-2.0
"""The groups of the tests of consistency snapshots, and how fast the library looks."""

import pytest

from nova_ext.client.consistency import groups, members, restore, transaction
from tests.unit.client.consistency import shop


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """Let the library look often, and give up soon what a real cloud may still do."""
    monkeypatch.setattr(members, "SNAPSHOT_INTERVAL", 0.01)
    monkeypatch.setattr(members, "INTERVAL", 0.01)
    monkeypatch.setattr(restore, "_INTERVAL", 0.01)
    monkeypatch.setattr(restore, "_DELETE_LIMIT", 2)


@pytest.fixture
def other(build):
    """A second cloud."""
    return build()


@pytest.fixture
def servers(cloud):
    """The servers of the shop, by name."""
    return shop.open_in(cloud)


@pytest.fixture
def create(conn):
    """Return the making of a snapshot of the shop."""

    def create(stages=shop.STAGES, **options):
        return transaction.create(conn, stages, **options)

    return create


@pytest.fixture
def find(conn):
    """Return the way to a group of the first cloud, by name or ID."""
    return lambda name: groups.find(conn, name)
