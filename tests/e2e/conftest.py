# SPDX-License-Identifier: Apache-2.0
"""Owns the running cloud of the e2e tests; `tox -e cloud` brings it up before.

With `pytest -n 5 --dist loadgroup` the lanes run at the same time. A lane is what has
the same mark ``xdist_group``; it has compute hosts of its own, ``HOST`` or ``HOSTS`` of
its modules, and may do with their services what it likes. What is marked ``disturbs``
does something to services that all lanes need: it runs at the end, and alone.

The emulator itself (QEMU 7.2 without KVM) crashes now and then, most of all when it
starts a guest on a busy machine. A test that fails while the kernel records such a
crash fails with :class:`GuestCrashed`, which is the one reason to run a test again.
"""

import fcntl
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from typing import IO, Any

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tools"))

from aiolib import moves, reports, waiting
from aiolib.bus import Listener
from aiolib.client import GONE, Cloud

from tests.e2e import second_site, steps
from tests.e2e.pmem_guest import SLOW, Guest

_CRASH = re.compile(r"\b(qemu-system\S*|worker|(CPU|IO) \S+)\[[0-9]+\]: segfault at ")


class GuestCrashed(Exception):
    """An emulator crashed while a test ran that failed."""


def crashes() -> set[str]:
    """What the kernel has recorded of crashed threads that have an emulator's name."""
    log = subprocess.run(
        ["dmesg"], capture_output=True, text=True, timeout=30, check=True
    )
    return {line for line in log.stdout.splitlines() if _CRASH.search(line)}


def _blame_the_emulator() -> Generator[None, Any, Any]:
    before = crashes()
    try:
        return (yield)
    except Exception as exc:
        if found := crashes() - before:
            raise GuestCrashed("; ".join(found)) from exc
        raise


def _lane(item: pytest.Item) -> str:
    mark = item.get_closest_marker("xdist_group")
    return str(mark.args[0]) if mark else ""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the lanes one after the other, and last what disturbs them."""
    for item in items:
        if item.get_closest_marker("disturbs"):
            item.add_marker(pytest.mark.xdist_group("disturbs"))
    lanes = list(dict.fromkeys(_lane(item) for item in items))
    items.sort(key=lambda item: (_lane(item) == "disturbs", lanes.index(_lane(item))))


# Each lane is in the room together with the others. What disturbs waits until they have
# left it, and for the cloud afterwards. The lock is held from before the first fixture
# of a test until after the last, because they start guests, too.

_ROOM = pytest.StashKey[IO[str]]()


def _enter(item: pytest.Item) -> None:
    stash = item.config.stash
    if _ROOM not in stash:
        stash[_ROOM] = (Cloud().settings.home / "e2e-room").open("w")
    alone = item.get_closest_marker("disturbs")
    fcntl.flock(stash[_ROOM], fcntl.LOCK_EX if alone else fcntl.LOCK_SH)


def _wait_for_reports(cloud: Cloud) -> None:
    now = time.time()
    waiting.until(
        lambda: f"reports of {reports.late(cloud.settings, cloud.admin, now)}",
        lambda: not reports.late(cloud.settings, cloud.admin, now),
        120,
        1,
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A lane that has ended leaves the room."""
    if _ROOM in session.config.stash:
        session.config.stash[_ROOM].close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    """Setting up a test starts guests too."""
    _enter(item)
    site = second_site.of(item)
    if site and _lane(site) == _lane(item):
        second_site.begin(item.config)
    return (yield from _blame_the_emulator())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, Any, Any]:
    """What disturbs may be in several lanes, which take turns by modules.

    Another lane would take from a module what its fixtures have made.
    """
    if not item.get_closest_marker("disturbs"):
        return (yield)
    try:
        result = yield
        _wait_for_reports(Cloud())
        return result
    finally:
        if nextitem is None or nextitem.path != item.path:
            fcntl.flock(item.config.stash[_ROOM], fcntl.LOCK_UN)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, Any, Any]:
    """See :class:`GuestCrashed`."""
    return (yield from _blame_the_emulator())


@pytest.fixture(scope="session")
def cloud() -> Cloud:
    """The one-machine cloud, all of it running."""
    found = Cloud()
    found.require_up()
    return found


@pytest.fixture(scope="session")
def tenant(cloud: Cloud) -> Any:
    """A connection of a project member."""
    return cloud.tenant


@pytest.fixture(scope="session")
def admin(cloud: Cloud) -> Any:
    """A connection of an administrator."""
    return cloud.admin


@pytest.fixture(scope="session", autouse=True)
def _beside(request: pytest.FixtureRequest) -> Iterator[None]:
    """The second site ends with the tests, if it was begun."""
    yield
    second_site.end(request.config)


@pytest.fixture(scope="module")
def boot(
    request: pytest.FixtureRequest, cloud: Cloud, tenant: Any
) -> Iterator[Callable[..., Any]]:
    """Boots servers of the tenant that end with the module, on its ``HOST``."""
    servers: list[Any] = []

    def start(name: str, **options: Any) -> Any:
        place = {} if "host" in options else {"host": request.module.HOST}
        server = cloud.boot(tenant, name, **place, **options)
        servers.append(server)
        return server

    yield start
    for server in servers:
        tenant.compute.delete_server(server, ignore_missing=True)
    for server in servers:
        tenant.compute.wait_for_delete(server, wait=GONE)


@pytest.fixture
def listener(cloud: Cloud) -> Iterator[Listener]:
    found = Listener(cloud.rabbit_url, "nova", "versioned_notifications")
    yield found
    found.close()


@pytest.fixture(scope="module")
def guests() -> list[Guest]:
    """The one that the tests of this module share, once there is one."""
    return []


@pytest.fixture
def guest(
    request: pytest.FixtureRequest,
    cloud: Cloud,
    tenant: Any,
    admin: Any,
    boot: Callable[..., Any],
    guests: list[Guest],
) -> Guest:
    """A guest of the module's ``HOSTS`` that each test leaves at home, with its data.

    After a test that did not, it is a new one.
    """
    hosts = request.module.HOSTS
    name = f"e2e-pmem-{hosts[0]}"
    if guests and not guests[0].is_home():
        guests.clear()
    if not guests:
        left = list(tenant.compute.servers(name=f"^{name}"))
        for server in left:  # what became of the last one, or of the start of one
            tenant.compute.delete_server(server, force=True, ignore_missing=True)
        for server in left:
            tenant.compute.wait_for_delete(server, wait=GONE)
        steps.until("no data of others", lambda: not moves.dirty(cloud, hosts), 100)
        server = boot(name, flavor="pmem.small", host=hosts[0], movable=True)
        guests.append(Guest(cloud, admin, server, hosts, seed=7))
    return guests[0]


@pytest.fixture
def slow(guest: Guest) -> Iterator[None]:
    """The source reads its devices slowly, so that a fault hits the middle."""
    with guest.cloud.daxio_fault(guest.home, only="input", rate=SLOW):
        yield
