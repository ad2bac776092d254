# SPDX-License-Identifier: Apache-2.0
"""Persistent memory that goes along, on real guests, ssh, RabbitMQ and MariaDB.

daxio, ndctl and the devices are stand-ins over files here, because kernels have no
device DAX without the hardware; the real ones are in tests/pmem.
"""

from collections.abc import Callable
from typing import Any

import pytest
from aiolib import devices, moves
from aiolib.bus import Listener
from aiolib.client import Cloud

from nova_ext.client import compute
from tests.e2e import steps
from tests.e2e.pmem_guest import SLOW, Guest

pytestmark = pytest.mark.xdist_group("pmem")
HOSTS = ("cmp1", "cmp2")


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
    assert (figures["source_compute"], figures["dest_compute"]) == guest.hosts
    guest.assert_reads(guest.away)
    assert {host for host, _name in guest.dirty()} == set(guest.hosts)
    assert set(guest.dirty().values()) == {guest.sum}
    assert not moves.pending_sanitize(guest.cloud, guest.hosts)
    guest.revert()
    guest.assert_back()


def test_confirm_and_the_way_back_to_the_first_host(guest: Guest) -> None:
    for host in (guest.away, guest.home):
        move = ["--copy-pmem-devices", "--host", host, "--wait", guest.id]
        done = steps.openstack("--os-cloud", "aio-admin", "server", "migrate", *move)
        assert done.returncode == 0, done.stderr
        guest.cloud.wait_agent(guest.id, 90)
        guest.admin.compute.confirm_server_resize(guest.id)
        guest.until("ACTIVE")
        guest.assert_reads(host)
        assert list(guest.dirty().values()) == [guest.sum]
    guest.assert_back()


def test_a_stopped_server_is_moved_stopped(guest: Guest) -> None:
    guest.admin.compute.stop_server(guest.id)
    guest.until("SHUTOFF")
    guest.wait(guest.order())
    guest.admin.compute.confirm_server_resize(guest.id)
    guest.until("SHUTOFF")
    guest.wait(guest.order(guest.home))
    guest.admin.compute.confirm_server_resize(guest.id)
    guest.until("SHUTOFF")
    guest.admin.compute.start_server(guest.id)
    guest.assert_back()


def test_resize_by_the_tenant_pairs_by_label(guest: Guest, tenant: Any) -> None:
    flavor = tenant.compute.find_flavor("pmem.small.big", ignore_missing=False)
    guest.wait(compute.resize_copying_pmem(tenant, guest.id, flavor.id))
    guest.cloud.wait_agent(guest.id, 90)
    guest.assert_reads(guest.away, device=1)
    guest.revert()
    guest.assert_back()


def test_hard_reboot_keeps_the_data(guest: Guest) -> None:
    guest.admin.compute.reboot_server(guest.id, "HARD")
    guest.until("ACTIVE")
    guest.assert_back()


def test_delete_before_confirm_and_two_servers_at_once(
    guest: Guest, cloud: Cloud, admin: Any, tenant: Any, boot: Callable[..., Any]
) -> None:
    server = boot(f"{guest.name}-2", flavor="pmem.small", host=guest.home, movable=True)
    other = Guest(cloud, admin, server, guest.hosts, seed=8)
    with cloud.daxio_fault(guest.home, only="input", rate=SLOW):
        requests = [guest.order(), other.order()]
        guest.wait(requests[0])
        other.wait(requests[1])
    for each in (guest, other):
        cloud.wait_agent(each.id, 90)
        each.assert_reads(guest.away)
    tenant.compute.delete_server(other.id)
    tenant.compute.wait_for_delete(other.server, wait=60)
    guest.revert()
    guest.assert_back()


def test_a_host_without_the_extension_is_refused(guest: Guest, admin: Any) -> None:
    stock = guest.cloud.settings.stock_computes[0]
    body = {"migrate": {"host": stock, "copy_pmem_devices": True}}
    code, message = steps.refusal(admin, guest.server, body)
    assert code == 400, message
    assert stock in message
