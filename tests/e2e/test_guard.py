# SPDX-License-Identifier: Apache-2.0
"""The guard keeps the deadlines when nova-compute is dead, and acts beside it."""

import concurrent.futures
import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiolib import settings, windows
from aiolib.client import Cloud

from nova_ext.client import compute, exceptions
from tests.e2e import guard_container, steps

pytestmark = pytest.mark.xdist_group("servers")
HOST = "cmp4"
COMPUTE = f"nova-compute-{HOST}"
GUARD = f"nova-ext-guard-{HOST}"

#: Rounds of the race, of three windows each.
ROUNDS = int(os.environ.get("AIO_ROUNDS", "8"))


@pytest.fixture(scope="module")
def three(cloud: Cloud, boot: Callable[..., Any]) -> list[Any]:
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        return list(pool.map(lambda n: boot(f"e2e-guard{n}"), range(3)))


@pytest.fixture
def servers(cloud: Cloud, tenant: Any, three: list[Any]) -> Iterator[list[Any]]:
    """Three servers, thawed and writing before and after the test."""
    yield three
    for server in three:
        with contextlib.suppress(exceptions.ClientError):
            steps.unquiesce(tenant, server)
    for server in three:
        steps.until("no state", lambda s=server: steps.status(tenant, s) is None, 90)
        steps.until_writing(cloud, server)


@pytest.fixture
def witnesses(cloud: Cloud, servers: list[Any]) -> Iterator[list[windows.Witness]]:
    found = [windows.Witness(cloud.console_log(server.id)) for server in servers]
    yield found
    for witness in found:
        witness.close()


@pytest.fixture
def known(admin: Any, servers: list[Any]) -> set[str]:
    """The requests whose actions were there before the test."""
    return {
        request for server in servers for request in steps.known_actions(admin, server)
    }


def frozen_until(
    cloud: Cloud, tenant: Any, servers: list[Any], timeouts: tuple[int, ...]
) -> list[float]:
    """Quiesce all; their deadlines."""
    requests = [
        compute.quiesce(tenant, server.id, timeout=timeout)
        for server, timeout in zip(servers, timeouts, strict=True)
    ]
    for server, request in zip(servers, requests, strict=True):
        compute.wait_quiesced(tenant, server.id, request, interval=0.1)
    return [windows.due(cloud.settings, HOST, server.id) for server in servers]


def thawed_in_time(
    witnesses: list[windows.Witness], dues: list[float], begin: float
) -> list[float]:
    """Wait until all guests said that they thawed; how late each of them was."""
    steps.until(
        "guests that are thawed",
        lambda: all(witness.first("H thaw", begin) for witness in witnesses),
        max(dues) + 30 - time.time(),
    )
    lateness = [
        (witness.first("H thaw", begin) or 0) - due
        for witness, due in zip(witnesses, dues, strict=True)
    ]
    assert all(0 <= late < 2 for late in lateness), lateness
    return lateness


def assert_told(tenant: Any, admin: Any, servers: list[Any], known: set[str]) -> None:
    for server in servers:
        found = steps.event(admin, server, "unquiesce", 180, known)
        assert found["result"] == "Error"
        assert "not unquiesced by" in found["details"]
        steps.until("no state", lambda s=server: steps.status(tenant, s) is None, 90)


@pytest.mark.parametrize("contained", [False, True], ids=["beside", "container"])
def test_deadlines_are_kept_while_nova_compute_is_dead(
    cloud: Cloud,
    tenant: Any,
    admin: Any,
    servers: list[Any],
    known: set[str],
    witnesses: list[windows.Witness],
    record_property: Callable[[str, object], None],
    contained: bool,
) -> None:
    """By a guard beside it, or in a container whose account is not root's."""
    guard: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if contained:
        cloud.kill(GUARD)
        guard = guard_container.running(cloud.settings, HOST)
    try:
        begin = time.time()
        dues = frozen_until(cloud, tenant, servers, (12, 12, 13))
        cloud.kill(COMPUTE)
        with guard:
            record_property("late", thawed_in_time(witnesses, dues, begin))
    finally:
        cloud.start(COMPUTE)
        cloud.start(GUARD)
    assert_told(tenant, admin, servers, known)
    cloud.wait_reported(admin, HOST, 60)


def test_deadlines_are_kept_by_nova_compute_while_the_guard_is_dead(
    cloud: Cloud,
    tenant: Any,
    admin: Any,
    servers: list[Any],
    known: set[str],
    witnesses: list[windows.Witness],
) -> None:
    cloud.kill(GUARD)
    try:
        begin = time.time()
        dues = frozen_until(cloud, tenant, servers, (4, 4, 5))
        thawed_in_time(witnesses, dues, begin)
    finally:
        cloud.start(GUARD)
    assert_told(tenant, admin, servers, known)


@pytest.mark.disturbs
def test_deadlines_are_kept_while_nova_the_bus_and_the_database_are_dead(
    cloud: Cloud,
    tenant: Any,
    admin: Any,
    servers: list[Any],
    known: set[str],
    witnesses: list[windows.Witness],
    record_property: Callable[[str, object], None],
) -> None:
    begin = time.time()
    dues = frozen_until(cloud, tenant, servers, (15, 15, 17))
    dead = ("rabbitmq", "mariadb", "nova-conductor", COMPUTE)
    for name in reversed(dead):
        cloud.kill(name)
    try:
        record_property("late", thawed_in_time(witnesses, dues, begin))
    finally:
        for name in dead:
            cloud.start(name)
    assert_told(tenant, admin, servers, known)


class Reader:
    """Reads the record of a guest all the time; keeps who began to thaw it."""

    def __init__(self, cloud: Cloud, server: Any) -> None:
        self.began: dict[str, Any] | None = None
        self._settings = cloud.settings
        self._server = server
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._ended.wait(0.002):
            found = windows.record(self._settings, HOST, self._server.id)
            if found and found["phase"] in ("thawing", "thawed"):
                self.began = found
                return

    def close(self) -> None:
        """Stop reading."""
        self._ended.set()
        self._thread.join()


def test_success_only_for_who_thawed_first(
    cloud: Cloud,
    tenant: Any,
    servers: list[Any],
    record_property: Callable[[str, object], None],
) -> None:
    """Unquiesce at the same moment as the guard, in either of its places."""
    chance = random.Random()  # noqa: S311 - moments, not secrets
    won = {"request": 0, "guard": 0, "refused": 0}

    def deadline(server: Any) -> float | None:
        found = windows.record(cloud.settings, HOST, server.id)
        if found is None or found["phase"] != "frozen":
            return None
        return float(found["due"]["wall"])

    def race(server: Any) -> None:
        compute.quiesce(tenant, server.id, timeout=2)
        due = steps.until("it is frozen", lambda: deadline(server), 30)
        reader = Reader(cloud, server)
        # The answer of the API to a request takes some 50 ms until it is on the host.
        time.sleep(max(0.0, due + chance.uniform(-0.3, 0.15) - time.time()))
        try:
            request = compute.unquiesce(tenant, server.id)
            compute.wait_unquiesced(tenant, server.id, request, interval=0.1)
            outcome = "request"
        except exceptions.UnquiesceFailed:
            outcome = "guard"
        except exceptions.WrongState:
            outcome = "refused"
        steps.until("no state", lambda: steps.status(tenant, server) is None, 60)
        reader.close()
        won[outcome] += 1
        assert reader.began, "nobody has thawed it"
        if outcome == "request":
            assert reader.began["request_id"] == request
            assert reader.began["breach"] == ""
        with contextlib.suppress(exceptions.ClientError):
            steps.unquiesce(tenant, server)  # what broke is told once

    with concurrent.futures.ThreadPoolExecutor(len(servers)) as pool:
        for _ in range(ROUNDS):
            list(pool.map(race, servers))
    record_property("won", won)


@pytest.mark.disturbs
def test_two_minutes_of_chaos() -> None:
    """The same plan each time, so that what fails can be run again."""
    tool = settings.TOOLS / "chaos"
    words = [sys.executable, str(tool), "quiesce", "--seed", "1", "--minutes", "2"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
