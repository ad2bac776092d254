# SPDX-License-Identifier: Apache-2.0
"""The clouds and connections of the client's tests.

It imports nothing of nova, so that these tests run where there is none, with
``--confcutdir``.
"""

import pytest

from nova_ext.client import polling
from tests.unit.client import fake_cloud, http_cloud, openstack_cli


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
def cloud(build):
    return build()


@pytest.fixture
def connect(cloud, tmp_path, monkeypatch):
    """Return a maker of SDK connections, with the microversion that a user chose."""
    monkeypatch.setenv("HOME", str(tmp_path))
    made = []

    def make(microversion=None, *, to=cloud, **chosen):
        if microversion:
            chosen["compute_api_version"] = microversion
        made.append(http_cloud.connect(to.credentials, **chosen))
        return made[-1]

    yield make
    for conn in made:
        conn.close()


@pytest.fixture
def conn(connect):
    return connect()


class FakeClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    """Let the library's waits take no time; ``clock.now`` is what they took."""
    fake = FakeClock()
    monkeypatch.setattr(polling, "time", fake)
    return fake


@pytest.fixture
def user(cloud, tmp_path):
    """The environment of a user of the cloud."""
    return openstack_cli.environment(cloud.credentials, tmp_path)


@pytest.fixture(scope="session")
def _programs(tmp_path_factory):
    """``openstack`` with and without the plugin, ready to run what is asked for."""
    caches = tmp_path_factory.mktemp("caches")
    with (
        openstack_cli.Forks(caches / "ours") as ours,
        openstack_cli.Forks(caches / "stock", openstack_cli.STOCK) as stock,
    ):
        yield {"ours": ours, "stock": stock}


@pytest.fixture
def run_openstack(_programs, user):
    """Return a runner of ``openstack`` against the cloud."""
    return lambda *arguments: _programs["ours"](user, *arguments)


@pytest.fixture
def run_stock(_programs, user):
    """Return a runner of ``openstack`` as it is without this distribution."""
    return lambda *arguments: _programs["stock"](user, *arguments)


@pytest.fixture
def run_program(user, tmp_path_factory):
    """Return a runner of the installed program, which takes seconds to start."""
    cache = str(tmp_path_factory.getbasetemp() / "program")
    return lambda *arguments: openstack_cli.program(
        {**user, "XDG_CACHE_HOME": cache}, *arguments
    )
