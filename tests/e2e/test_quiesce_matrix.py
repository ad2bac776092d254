# SPDX-License-Identifier: Apache-2.0
"""Each way in which a running guest leaves and comes back, around its deadline.

No guest runs frozen for longer than 30 s after its deadline, none has a state at the
end, and no window counts as whole that was not. One guest goes each way, all at once.
The worst of them once was an image half a second before the deadline, on a host that
puts the guest's memory away for it: the guest was gone when it was to be thawed.
"""

import concurrent.futures
import dataclasses
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiolib import config, evidence, windows
from aiolib.client import Cloud

from nova_ext.client import compute, exceptions
from tests.e2e import steps

#: So many guests at once would slow down the other lanes.
pytestmark = [pytest.mark.xdist_group("backups"), pytest.mark.disturbs]
HOST, OTHER = "cmp9", "cmp5"

#: Seconds after a deadline in which a guest that runs has to be thawed.
LATEST = 30


@dataclasses.dataclass(frozen=True)
class Guest:
    """One guest of the matrix and what orders something of it."""

    cloud: Cloud
    tenant: Any
    admin: Any
    server: Any

    @property
    def host(self) -> str:
        return self.cloud.find_host(self.server.id)

    def virsh(self, command: str) -> None:
        windows.domain(self.cloud, self.host, command, self.server.id)

    def stock(self, body: dict[str, Any]) -> Any:
        """Order something of an API that refuses nothing; the server afterwards."""
        steps.stock_order(self.cloud, self.admin, self.server, body)
        return steps.idle(self.admin, self.server)


# The ways. Each returns once the guest is back, or it was refused to leave.


def suspend(guest: Guest) -> None:
    if guest.stock({"suspend": None}).status == "SUSPENDED":
        guest.stock({"resume": None})


def managed_save(guest: Guest) -> None:
    guest.virsh("managedsave")
    time.sleep(1)
    guest.virsh("start")


def cold_image(guest: Guest) -> None:
    compute_api = guest.tenant.compute
    image = compute_api.create_server_image(guest.server.id, "e2e-matrix")
    steps.idle(guest.admin, guest.server)
    guest.tenant.image.delete_image(image.id)


def live_migration(guest: Guest) -> None:
    target = OTHER if guest.host == HOST else HOST
    guest.stock({"os-migrateLive": {"host": target, "block_migration": "auto"}})


def rescue(guest: Guest) -> None:
    if guest.stock({"rescue": {}}).status == "RESCUE":
        guest.stock({"unrescue": None})


def pause(guest: Guest) -> None:
    guest.virsh("suspend")
    time.sleep(3)
    guest.virsh("resume")


def crash(guest: Guest) -> None:
    windows.crash(guest.cloud, guest.host, guest.server.id)
    guest.virsh("start")


#: Each way, and whether a window that is not over is whole afterwards.
WAYS: dict[Callable[[Guest], None], bool] = {
    suspend: True,  # refused
    managed_save: False,
    cold_image: False,
    live_migration: True,  # refused
    rescue: True,  # refused
    pause: True,
    crash: False,
}


@pytest.fixture(scope="module")
def guests(
    cloud: Cloud, tenant: Any, admin: Any, boot: Callable[..., Any]
) -> Iterator[list[Guest]]:
    """One for each way, on a host that puts a guest away to make an image of it."""

    def start(way: Callable[..., Any]) -> Guest:
        server = boot(f"e2e-matrix-{way.__name__}", movable=True)
        return Guest(cloud, tenant, admin, server)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(start, WAYS))
    options = "\n[DEFAULT]\nresume_guests_state_on_host_boot = true\n"
    with steps.configured(cloud, admin, HOST, steps.NO_LIVE_SNAPSHOTS + options):
        yield found


def freeze(guest: Guest, timeout: int) -> float:
    """Quiesce a guest that works; its deadline, or now if that has passed."""
    try:
        steps.quiesce(guest.tenant, guest.server, timeout=timeout)
    except exceptions.FreezeLost:
        return time.time()
    return windows.due(guest.cloud.settings, guest.host, guest.server.id)


def unquiesced(guest: Guest) -> bool:
    """Whether unquiesce ends with Success."""
    try:
        steps.unquiesce(guest.tenant, guest.server)
    except (exceptions.UnquiesceFailed, exceptions.WrongState):
        return False
    return True


def check(guest: Guest, due: float) -> None:
    """What holds for each guest some time after its deadline."""
    cloud, server = guest.cloud, guest.server
    cloud.wait_agent(server.id, 120)  # one that boots is not frozen
    steps.until(
        f"{server.name} thawed, 30 s after its deadline",
        lambda: windows.is_thawed(cloud, server.id),
        max(5.0, due + LATEST - time.time()),
    )
    steps.until(
        f"no state of {server.name}",
        lambda: steps.status(guest.tenant, server) is None,
        60,
    )
    begin = evidence.records(cloud, server.id)
    steps.until(
        "records of the writer",
        lambda: evidence.records(cloud, server.id) != begin,
        30,
    )


def go(guest: Guest, way: Callable[[Guest], None], timeout: int, lead: float) -> None:
    """Freeze a guest and send it a way some time before its deadline, or after it."""
    due = freeze(guest, timeout)
    time.sleep(max(0.0, due - lead - time.time()))
    way(guest)
    check(guest, due)
    assert not unquiesced(guest), f"{way.__name__}, {lead} s before the deadline"


def all_at_once(call: Callable[..., None], guests: list[Guest]) -> None:
    with concurrent.futures.ThreadPoolExecutor(len(WAYS)) as pool:
        running = [
            pool.submit(call, guest, way)
            for guest, way in zip(guests, WAYS, strict=True)
        ]
    failures = [done.exception() for done in running if done.exception()]
    if failures:
        raise ExceptionGroup("guests that did not keep the promise", failures)


def test_hanging_agents_do_not_hold_up_another_guest(guests: list[Guest]) -> None:
    """Not libvirt's answers, nor nova's own connection to it, nor an unquiesce."""
    here = [guest for guest in guests if guest.host == HOST]
    guest, *others = here
    cloud, server = guest.cloud, guest.server

    def seconds(call: Callable[[], Any]) -> float:
        begin = time.monotonic()
        call()
        return time.monotonic() - begin

    calls = (
        lambda: cloud.agent(server.id, "guest-ping"),
        lambda: guest.admin.compute.get_server_diagnostics(server.id),
    )
    freeze(guest, 120)
    usual = [seconds(call) for call in calls]
    for other in others:
        cloud.guest_run(other.server.id, "/usr/sbin/agent-pause", "20")
    time.sleep(1)  # the agents answer that call first
    requests = [
        compute.quiesce(other.tenant, other.server.id, timeout=60) for other in others
    ]
    time.sleep(1)  # the host asks them by now
    # As long as one agent that hangs is waited for, a call would have to wait.
    longest = config.EXTENSION_OPTIONS["quiesce_agent_timeout"] - 1
    for call, before in zip(calls, usual, strict=True):
        assert seconds(call) - before < longest
    steps.unquiesce(guest.tenant, server)
    for other, request in zip(others, requests, strict=True):
        with pytest.raises(exceptions.QuiesceFailed):
            compute.wait_quiesced(other.tenant, other.server.id, request, interval=0.5)
    for other in others:
        cloud.wait_agent(other.server.id)
        check(other, time.time())


def test_guest_that_is_back_before_its_deadline(guests: list[Guest]) -> None:
    def call(guest: Guest, way: Callable[[Guest], None]) -> None:
        freeze(guest, 120)
        way(guest)
        assert unquiesced(guest) == WAYS[way], way.__name__
        check(guest, time.time())

    all_at_once(call, guests)


@pytest.mark.parametrize(("timeout", "lead"), [(15, 0.5), (8, -1)], ids=["at", "after"])
def test_guest_that_leaves_around_its_deadline(
    guests: list[Guest], timeout: int, lead: float
) -> None:
    all_at_once(lambda guest, way: go(guest, way, timeout, lead), guests)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10))
def test_guest_that_leaves_at_any_moment(guests: list[Guest], seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - moments, not secrets
    leads = {way: chance.uniform(-1.5, 4) for way in WAYS}
    all_at_once(lambda guest, way: go(guest, way, 8, leads[way]), guests)


# What concerns all guests of the host.


def restart_libvirtd(cloud: Cloud, admin: Any) -> None:
    cloud.kill(f"libvirtd-{HOST}")
    time.sleep(1)
    cloud.start(f"libvirtd-{HOST}")


def restart_nova_compute(cloud: Cloud, admin: Any) -> None:
    cloud.kill(f"nova-compute-{HOST}")
    cloud.start(f"nova-compute-{HOST}")
    cloud.wait_reported(admin, HOST, 60)


@pytest.mark.parametrize("restart", [restart_libvirtd, restart_nova_compute])
def test_restart_on_the_host(
    cloud: Cloud, admin: Any, guests: list[Guest], restart: Callable[..., None]
) -> None:
    """Three guests, whose deadlines are after, at and before the restart."""
    three = [guest for guest in guests if guest.host == HOST][:3]
    dues = [
        freeze(guest, timeout) for guest, timeout in zip(three, (90, 6, 3), strict=True)
    ]
    time.sleep(max(0.0, dues[1] - 0.5 - time.time()))
    restart(cloud, admin)
    whole, *over = three
    assert unquiesced(whole)
    check(whole, time.time())
    for guest, due in zip(over, dues[1:], strict=True):
        check(guest, due)
        assert not unquiesced(guest)


def test_reboot_of_the_host(cloud: Cloud, admin: Any, guests: list[Guest]) -> None:
    """nova starts the guests again, thawed; a window that was open is no proof."""
    three = [guest for guest in guests if guest.host == HOST][:3]
    dues = [
        freeze(guest, timeout) for guest, timeout in zip(three, (90, 6, 3), strict=True)
    ]
    time.sleep(max(0.0, dues[1] - 0.5 - time.time()))
    windows.reboot_host(cloud, HOST)
    cloud.wait_reported(admin, HOST, 90)
    for guest in three:
        check(guest, time.time())
        assert not unquiesced(guest)
