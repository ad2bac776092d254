#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

"""Owns the clouds and connections of the tests of consistency snapshots."""

import pytest

from nova_ext.consistency import catalog, parts, restore, transaction
from tests.unit import http_cloud, openstack_cli
from tests.unit.consistency import fake_cloud, shop


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """Let the library look often, and give up soon what a real cloud may still do."""
    monkeypatch.setattr(parts, "CUT_INTERVAL", 0.01)
    monkeypatch.setattr(parts, "INTERVAL", 0.01)
    monkeypatch.setattr(restore, "_INTERVAL", 0.01)
    monkeypatch.setattr(restore, "_DELETE_LIMIT", 2)


@pytest.fixture
def build():
    """Return a maker of clouds; at the end, none was asked what it does not know."""
    made = []

    def make():
        made.append(fake_cloud.FakeCloud())
        return made[-1]

    yield make
    for cloud in made:
        cloud.close()
    assert [cloud.unknown for cloud in made] == [[] for _cloud in made]


@pytest.fixture
def connect(tmp_path, monkeypatch):
    """Return a maker of SDK connections."""
    monkeypatch.setenv("HOME", str(tmp_path))
    made = []

    def make(cloud):
        made.append(http_cloud.connect(cloud.credentials))
        return made[-1]

    yield make
    for conn in made:
        conn.close()


@pytest.fixture
def cloud(build):
    return build()


@pytest.fixture
def conn(connect, cloud):
    return connect(cloud)


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
    return lambda name: catalog.find(conn, name)


@pytest.fixture
def run_openstack(cloud, tmp_path, tmp_path_factory):
    """Return a runner of the real ``openstack`` program against the first cloud."""
    caches = tmp_path_factory.getbasetemp()
    return openstack_cli.Program(cloud.credentials, tmp_path, caches)
