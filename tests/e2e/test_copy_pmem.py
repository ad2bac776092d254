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

"""Persistent memory that goes along, on real guests, ssh, RabbitMQ and MariaDB.

daxio, ndctl and the devices are stand-ins over files here, because kernels have no
device DAX without the hardware; the real ones are in tests/pmem.
"""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiolib import devices, moves
from aiolib.bus import Listener
from aiolib.client import Cloud

from nova_ext import client
from tests.e2e import steps

SLOW = 1 << 20  # bytes a second for each of the streams: a copy takes eight seconds


class Guest:
    """A server on cmp1 that has filled its SMALL device."""

    def __init__(self, cloud: Cloud, admin: Any, server: Any, seed: int) -> None:
        self.cloud, self.admin, self.server = cloud, admin, server
        self.id: str = server.id
        self.sum = cloud.pmem_write(server.id, 0, seed)

    def order(self, host: str = "cmp2") -> str:
        return client.migrate_copying_pmem(self.admin, self.id, host)

    def wait(self, request: str) -> None:
        client.wait_moved(self.admin, self.id, request, interval=0.3)

    def moved(self, host: str = "cmp2") -> None:
        self.wait(self.order(host))
        self.cloud.wait_agent(self.id, 90)

    def until(self, status: str, seconds: float = 90) -> None:
        moves.wait_status(self.admin, self.id, status, seconds)

    def copying(self) -> Callable[[], bool]:
        """Tells whether some of the data has arrived."""
        mine = set(moves.used(self.cloud, self.id))
        return lambda: bool(set(moves.dirty(self.cloud)) - mine)

    def told(self, listener: Listener) -> list[dict[str, Any]]:
        """The notifications of the copy, once it has ended."""
        found = steps.told(listener, self.id, "copy_pmem")
        return found if found and found[-1]["event_type"].endswith(".end") else []

    def revert(self) -> None:
        self.admin.compute.revert_server_resize(self.id)
        self.until("ACTIVE")
        self.cloud.wait_agent(self.id, 90)

    def assert_reads(self, host: str, device: int = 0) -> None:
        """The guest is on ``host`` and reads what it wrote."""
        assert self.cloud.find_host(self.id) == host
        assert self.cloud.pmem_sum(self.id, device) == self.sum

    def is_home(self) -> bool:
        """Whether it runs on cmp1, and its data is nowhere else."""
        server = self.admin.compute.get_server(self.id)
        return (server.status, server.compute_host) == ("ACTIVE", "cmp1") and list(
            moves.dirty(self.cloud).values()
        ) == [self.sum]

    def assert_back(self) -> None:
        """It runs on cmp1 with its data, of which nothing is elsewhere."""
        self.until("ACTIVE")
        self.cloud.wait_agent(self.id, 90)
        self.assert_reads("cmp1")
        steps.until(
            "nothing of the data elsewhere",
            lambda: (
                moves.dirty(self.cloud)
                == {moves.used(self.cloud, self.id)[0]: self.sum}
            ),
            100,
        )
        steps.until("nothing to be zeroed", lambda: not moves.ledger(self.cloud), 100)
        self.assert_allocated("cmp1")

    def assert_allocated(self, *hosts: str) -> None:
        """Placement has the server on these hosts and nowhere else."""
        providers = {
            each["uuid"]: each["name"]
            for each in self.admin.placement.get("/resource_providers").json()[
                "resource_providers"
            ]
        }
        path = f"/allocations/{self.id}"
        taken = self.admin.placement.get(path).json()["allocations"]
        assert sorted(providers[uuid] for uuid in taken) == sorted(hosts)


@pytest.fixture(scope="module")
def guests() -> list[Guest]:
    """The one that the tests of this module share, once there is one."""
    return []


@pytest.fixture
def guest(
    cloud: Cloud,
    tenant: Any,
    admin: Any,
    boot: Callable[..., Any],
    guests: list[Guest],
) -> Guest:
    """A guest that each test leaves on cmp1, with its data.

    After a test that did not, it is a new one.
    """
    if guests and not guests[0].is_home():
        tenant.compute.delete_server(guests[0].id, force=True, ignore_missing=True)
        tenant.compute.wait_for_delete(guests.pop().server, wait=60)
    if not guests:
        steps.until("no data of others", lambda: not moves.dirty(cloud), 100)
        server = boot("e2e-pmem", flavor="pmem.small", host="cmp1", movable=True)
        guests.append(Guest(cloud, admin, server, seed=7))
    return guests[0]


@pytest.fixture
def slow(cloud: Cloud) -> Iterator[None]:
    """The source reads its devices slowly, so that a fault hits the middle."""
    with cloud.daxio_fault("cmp1", only="input", rate=SLOW):
        yield


def fails(guest: Guest, request: str, reason: str) -> None:
    """The move ends with this reason, and the server is as before."""
    with pytest.raises(client.MoveFailed, match=reason):
        guest.wait(request)
    guest.assert_back()


# What a user gets


def test_the_data_goes_along_and_comes_back(guest: Guest, listener: Listener) -> None:
    guest.moved()
    begin, *between, end = steps.until("its end", lambda: guest.told(listener))
    assert begin["event_type"] == "instance.copy_pmem.start"
    assert {each["event_type"] for each in between} <= {"instance.copy_pmem.progress"}
    assert end["event_type"] == "instance.copy_pmem.end"
    figures = end["payload"]["nova_object.data"]
    _label, size = devices.NAMESPACES["ns_small_0"]
    assert figures["bytes_copied"] == figures["bytes_total"] == size
    assert figures["rate"] == pytest.approx(size / figures["duration"], rel=0.01)
    assert (figures["source_compute"], figures["dest_compute"]) == ("cmp1", "cmp2")
    guest.assert_reads("cmp2")
    assert {host for host, _name in moves.dirty(guest.cloud)} == {"cmp1", "cmp2"}
    assert set(moves.dirty(guest.cloud).values()) == {guest.sum}
    assert not moves.ledger(guest.cloud)
    guest.revert()
    guest.assert_back()


@pytest.mark.long
def test_confirm_and_the_way_back_to_the_first_host(guest: Guest) -> None:
    for host in ("cmp2", "cmp1"):
        move = ["--copy-pmem-devices", "--host", host, "--wait", guest.id]
        done = steps.openstack("--os-cloud", "aio-admin", "server", "migrate", *move)
        assert done.returncode == 0, done.stderr
        guest.cloud.wait_agent(guest.id, 90)
        guest.admin.compute.confirm_server_resize(guest.id)
        guest.until("ACTIVE")
        guest.assert_reads(host)
        assert list(moves.dirty(guest.cloud).values()) == [guest.sum]
    guest.assert_back()


@pytest.mark.long
def test_a_stopped_server_is_moved_stopped(guest: Guest) -> None:
    guest.admin.compute.stop_server(guest.id)
    guest.until("SHUTOFF")
    guest.wait(guest.order())
    guest.admin.compute.confirm_server_resize(guest.id)
    guest.until("SHUTOFF")
    guest.wait(guest.order("cmp1"))
    guest.admin.compute.confirm_server_resize(guest.id)
    guest.until("SHUTOFF")
    guest.admin.compute.start_server(guest.id)
    guest.assert_back()


def test_resize_by_the_tenant_pairs_by_label(guest: Guest, tenant: Any) -> None:
    flavor = tenant.compute.find_flavor("pmem.small.big", ignore_missing=False)
    guest.wait(client.resize_copying_pmem(tenant, guest.id, flavor.id))
    guest.cloud.wait_agent(guest.id, 90)
    guest.assert_reads("cmp2", device=1)
    guest.revert()
    guest.assert_back()


def test_hard_reboot_keeps_the_data(guest: Guest) -> None:
    guest.admin.compute.reboot_server(guest.id, "HARD")
    guest.until("ACTIVE")
    guest.assert_back()


@pytest.mark.long
def test_delete_before_confirm_and_two_servers_at_once(
    guest: Guest, cloud: Cloud, admin: Any, tenant: Any, boot: Callable[..., Any]
) -> None:
    server = boot("e2e-pmem-2", flavor="pmem.small", host="cmp1", movable=True)
    other = Guest(cloud, admin, server, seed=8)
    with cloud.daxio_fault("cmp1", only="input", rate=SLOW):
        requests = [guest.order(), other.order()]
        guest.wait(requests[0])
        other.wait(requests[1])
    for each in (guest, other):
        cloud.wait_agent(each.id, 90)
        each.assert_reads("cmp2")
    tenant.compute.delete_server(other.id)
    tenant.compute.wait_for_delete(other.server, wait=60)
    guest.revert()
    guest.assert_back()


def test_a_host_without_the_extension_is_refused(guest: Guest, admin: Any) -> None:
    (stock,) = guest.cloud.settings.stock_computes
    body = {"migrate": {"host": stock, "copy_pmem_devices": True}}
    code, message = steps.refusal(admin, guest.server, body)
    assert code == 400, message
    assert stock in message


# What fails, and what is left of it


@pytest.mark.long
@pytest.mark.parametrize(
    ("host", "fault", "reason"),
    [
        ("cmp2", {"only": "output", "short": 4096}, "was sent pieces"),
        ("cmp2", {"only": "output", "code": 1}, "Input/output error"),
        ("cmp1", {"only": "input", "code": 1}, "Input/output error"),
        ("cmp1", {"only": "input", "short": 4096}, "daxio"),
        ("cmp2", {"only": "zero", "code": 1}, "Input/output error"),
    ],
    ids=["short", "target-broken", "source-broken", "source-short", "probe"],
)
def test_a_daxio_that_fails(
    guest: Guest, host: str, fault: dict[str, Any], reason: str
) -> None:
    with (
        guest.cloud.daxio_fault(host, **fault),
        pytest.raises(client.MoveFailed, match=reason),
    ):
        guest.wait(guest.order())
    guest.assert_back()


@pytest.mark.long
def test_a_daxio_that_hangs(guest: Guest) -> None:
    with guest.cloud.daxio_fault("cmp2", only="output", hang=1):
        fails(guest, guest.order(), r"more than|did not end")


@pytest.mark.long
def test_a_network_cut_in_the_middle(guest: Guest, slow: None) -> None:
    copying = guest.copying()
    request = guest.order()
    steps.until("some data on cmp2", copying)
    with guest.cloud.cut_ssh("cmp2"):
        fails(guest, request, "ssh ended with 255")


@pytest.mark.long
def test_no_way_to_the_destination(guest: Guest) -> None:
    with guest.cloud.cut_ssh("cmp2"):
        fails(guest, guest.order(), "ssh")


def test_the_source_killed_in_the_middle(guest: Guest, slow: None) -> None:
    copying = guest.copying()
    guest.order()
    steps.until("some data on cmp2", copying)
    guest.cloud.kill("nova-compute-cmp1")
    guest.cloud.start("nova-compute-cmp1")
    guest.cloud.wait_reported(guest.admin, "cmp1", 60)
    guest.assert_back()


@pytest.mark.long
def test_the_destination_killed_before_it_finishes(guest: Guest, slow: None) -> None:
    copying = guest.copying()
    request = guest.order()
    steps.until("some data on cmp2", copying)
    guest.cloud.kill("nova-compute-cmp2")
    steps.until(
        "the copy is done",
        lambda: (
            guest.admin.compute.get_server(guest.id).task_state == "resize_migrated"
        ),
        60,
    )
    guest.cloud.start("nova-compute-cmp2")
    guest.wait(request)
    guest.cloud.wait_agent(guest.id, 90)
    guest.assert_reads("cmp2")
    guest.revert()
    guest.assert_back()


@pytest.mark.long
def test_the_destination_killed_while_it_finishes(guest: Guest) -> None:
    guest.order()
    steps.until(
        "it finishes",
        lambda: guest.admin.compute.get_server(guest.id).task_state == "resize_finish",
        60,
    )
    guest.cloud.kill("nova-compute-cmp2")
    guest.cloud.start("nova-compute-cmp2")
    guest.assert_back()


@pytest.mark.long
def test_a_destination_that_cannot_start_the_guest(guest: Guest) -> None:
    guest.cloud.stop("libvirtd-cmp2")
    try:
        with pytest.raises(client.MoveFailed):
            guest.wait(guest.order())
    finally:
        guest.cloud.start("libvirtd-cmp2")
        # nova disables a host that has lost its libvirt.
        guest.cloud.restart("nova-compute-cmp2")
        guest.cloud.wait_reported(guest.admin, "cmp2", 60)
    guest.assert_back()


@contextlib.contextmanager
def stopped(cloud: Cloud, service: str) -> Iterator[None]:
    """Let a service stand still for a while."""
    cloud.kill(service, signal.SIGSTOP)
    try:
        yield
    finally:
        cloud.kill(service, signal.SIGCONT)


@pytest.mark.long
def test_the_conductor_gone_for_a_while(guest: Guest, slow: None) -> None:
    copying = guest.copying()
    request = guest.order()
    steps.until("some data on cmp2", copying)
    with stopped(guest.cloud, "nova-conductor"):
        steps.until(
            "the copy is over",
            lambda: (
                guest.sum
                in [
                    digest
                    for (host, _name), digest in moves.dirty(guest.cloud).items()
                    if host == "cmp2"
                ]
            ),
            60,
        )
    guest.wait(request)
    guest.cloud.wait_agent(guest.id, 90)
    guest.assert_reads("cmp2")
    guest.revert()
    guest.assert_back()


@pytest.mark.long
def test_rabbitmq_restarted_in_the_middle(guest: Guest, slow: None) -> None:
    copying = guest.copying()
    request = guest.order()
    steps.until("some data on cmp2", copying)
    guest.cloud.restart("rabbitmq")
    try:
        guest.wait(request)
    except client.MoveFailed:
        pass  # a record of the copy may be lost with the bus
    else:
        guest.cloud.wait_agent(guest.id, 90)
        guest.assert_reads("cmp2")
        guest.revert()
    guest.assert_back()
