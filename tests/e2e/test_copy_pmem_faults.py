# SPDX-License-Identifier: Apache-2.0
"""What fails while persistent memory is copied, and what is left of it."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from aiolib.client import Cloud

from nova_ext.client import exceptions
from tests.e2e import steps
from tests.e2e.pmem_guest import Guest

pytestmark = pytest.mark.xdist_group("pmem-faults")
HOSTS = ("cmp6", "cmp7")


@pytest.mark.parametrize(
    ("host", "fault", "reason"),
    [
        ("away", {"only": "output", "short": 4096}, "was sent pieces"),
        ("away", {"only": "output", "code": 1}, "Input/output error"),
        ("home", {"only": "input", "code": 1}, "Input/output error"),
        ("home", {"only": "input", "short": 4096}, "daxio"),
        ("away", {"only": "zero", "code": 1}, "Input/output error"),
    ],
    ids=["short", "target-broken", "source-broken", "source-short", "probe"],
)
def test_a_daxio_that_fails(
    guest: Guest, host: str, fault: dict[str, Any], reason: str
) -> None:
    with (
        guest.cloud.daxio_fault(getattr(guest, host), **fault),
        pytest.raises(exceptions.MoveFailed, match=reason),
    ):
        guest.wait(guest.order())
    guest.assert_back()


def test_a_daxio_that_hangs(guest: Guest) -> None:
    with guest.cloud.daxio_fault(guest.away, only="output", hang=1):
        guest.fails(guest.order(), r"more than|did not end")


def test_a_network_cut_in_the_middle(guest: Guest, slow: None) -> None:
    copying = guest.copying()
    request = guest.order()
    steps.until("some data there", copying)
    with guest.cloud.cut_ssh(guest.away):
        guest.fails(request, "ssh ended with 255")


def test_no_way_to_the_destination(guest: Guest) -> None:
    with guest.cloud.cut_ssh(guest.away):
        guest.fails(guest.order(), "ssh")


def test_the_source_killed_in_the_middle(guest: Guest, slow: None) -> None:
    copying = guest.copying()
    guest.order()
    steps.until("some data there", copying)
    guest.cloud.kill(f"nova-compute-{guest.home}")
    guest.cloud.start(f"nova-compute-{guest.home}")
    guest.cloud.wait_reported(guest.admin, guest.home, 60)
    guest.assert_back()


def test_the_destination_killed_before_it_finishes(guest: Guest, slow: None) -> None:
    copying = guest.copying()
    request = guest.order()
    steps.until("some data there", copying)
    guest.cloud.kill(f"nova-compute-{guest.away}")
    steps.until(
        "the copy is done",
        lambda: (
            guest.admin.compute.get_server(guest.id).task_state == "resize_migrated"
        ),
        60,
    )
    guest.cloud.start(f"nova-compute-{guest.away}")
    guest.wait(request)
    guest.cloud.wait_agent(guest.id, 90)
    guest.assert_reads(guest.away)
    guest.revert()
    guest.assert_back()


def test_the_destination_killed_while_it_finishes(guest: Guest) -> None:
    guest.order()
    steps.until(
        "it finishes",
        lambda: guest.admin.compute.get_server(guest.id).task_state == "resize_finish",
        60,
    )
    guest.cloud.kill(f"nova-compute-{guest.away}")
    guest.cloud.start(f"nova-compute-{guest.away}")
    guest.assert_back()


def test_a_destination_that_cannot_start_the_guest(guest: Guest) -> None:
    guest.cloud.stop(f"libvirtd-{guest.away}")
    try:
        with pytest.raises(exceptions.MoveFailed):
            guest.wait(guest.order())
    finally:
        guest.cloud.start(f"libvirtd-{guest.away}")
        # nova disables a host that has lost its libvirt.
        guest.cloud.restart(f"nova-compute-{guest.away}")
        guest.cloud.wait_reported(guest.admin, guest.away, 60)
    guest.assert_back()


@contextlib.contextmanager
def stopped(cloud: Cloud, service: str) -> Iterator[None]:
    """Let a service stand still for a while."""
    cloud.kill(service, signal.SIGSTOP)
    try:
        yield
    finally:
        cloud.kill(service, signal.SIGCONT)


@pytest.mark.disturbs
def test_the_conductor_gone_for_a_while(guest: Guest, slow: None) -> None:
    copying = guest.copying()
    request = guest.order()
    steps.until("some data there", copying)
    with stopped(guest.cloud, "nova-conductor"):
        steps.until(
            "the copy is over",
            lambda: (
                guest.sum
                in [
                    digest
                    for (host, _name), digest in guest.dirty().items()
                    if host == guest.away
                ]
            ),
            60,
        )
    guest.wait(request)
    guest.cloud.wait_agent(guest.id, 90)
    guest.assert_reads(guest.away)
    guest.revert()
    guest.assert_back()


@pytest.mark.disturbs
def test_rabbitmq_restarted_in_the_middle(guest: Guest, slow: None) -> None:
    copying = guest.copying()
    request = guest.order()
    steps.until("some data there", copying)
    guest.cloud.restart("rabbitmq")
    try:
        guest.wait(request)
    except exceptions.MoveFailed:
        pass  # a record of the copy may be lost with the bus
    else:
        guest.cloud.wait_agent(guest.id, 90)
        guest.assert_reads(guest.away)
        guest.revert()
    guest.assert_back()
