# SPDX-License-Identifier: Apache-2.0
"""Quiesce of guests that are in a special state, and what the host refuses."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiolib import windows
from aiolib.client import Cloud

from nova_ext.client import compute, exceptions
from tests.e2e import steps

pytestmark = pytest.mark.xdist_group("servers")
HOST, OTHER = "cmp4", "cmp5"

Boot = Callable[..., Any]


@pytest.fixture(scope="module")
def shared(boot: Boot) -> Any:
    """A server that all tests use which leave it as it was."""
    return boot("e2e-states", movable=True)


@pytest.fixture
def server(cloud: Cloud, tenant: Any, shared: Any) -> Iterator[Any]:
    """The shared server, thawed and writing before and after the test."""
    yield shared
    steps.leave_thawed(cloud, tenant, shared)


def shell(cloud: Cloud, server: Any, script: str) -> None:
    """Run a script in the guest to its end."""
    cloud.guest_output(server.id, "/bin/sh", "-c", script)


def quiesce_partial(tenant: Any, server: Any) -> None:
    """Quiesce as far as the guest can be frozen."""
    answer = tenant.compute.post(
        f"/servers/{server.id}/action",
        json={"quiesce": {"timeout": 60, "partial": True}},
        microversion="2.105",
    )
    assert answer.status_code == 202, answer.text
    request = answer.headers["x-openstack-request-id"]
    compute.wait_quiesced(tenant, server.id, request, interval=0.1)


def left_out(cloud: Cloud, server: Any) -> str:
    """What the record of the window says that was not frozen."""
    statement = (
        "select instance_uuid, left_out from nova_cell1_nova_ext.quiesce_windows"
    )
    rows = steps.sql(cloud, statement).splitlines()
    return dict(row.split("\t") for row in rows)[server.id]


class TestFileSystems:
    """A file system that Linux cannot freeze."""

    @pytest.fixture
    def vfat(self, cloud: Cloud, server: Any) -> Iterator[None]:
        shell(cloud, server, "vfat-mount rw")
        yield
        steps.until("thawed", lambda: steps.agent_says(cloud, server) == "thawed", 90)
        shell(cloud, server, "umount /mnt")

    def test_one_that_can_be_written_is_an_error_and_named(
        self, cloud: Cloud, tenant: Any, admin: Any, server: Any, vfat: None
    ) -> None:
        shell(cloud, server, "echo lost >/mnt/file")
        with pytest.raises(exceptions.QuiesceFailed):
            steps.quiesce(tenant, server)
        details = steps.event(admin, server, "quiesce")["details"]
        assert "could not be frozen: /mnt;" in details
        steps.until("no state", lambda: steps.status(tenant, server) is None, 10)
        assert steps.agent_says(cloud, server) == "thawed"
        steps.until_writing(cloud, server)

    def test_partial_quiesces_all_the_same_and_records_it(
        self, cloud: Cloud, tenant: Any, server: Any, vfat: None
    ) -> None:
        quiesce_partial(tenant, server)
        assert steps.agent_says(cloud, server) == "frozen"
        assert left_out(cloud, server) == '["/mnt"]'
        steps.unquiesce(tenant, server)

    def test_one_that_is_read_only_does_not_matter(
        self, cloud: Cloud, tenant: Any, server: Any, vfat: None
    ) -> None:
        shell(cloud, server, "mount -o remount,ro /mnt")
        steps.quiesce(tenant, server)
        assert left_out(cloud, server) == "NULL"
        steps.unquiesce(tenant, server)


class TestAgent:
    def test_one_that_refuses_to_freeze_is_an_error_and_leaves_no_state(
        self, cloud: Cloud, tenant: Any, admin: Any, server: Any
    ) -> None:
        commands = "guest-fsfreeze-freeze,guest-fsfreeze-thaw"

        def run_anew(script: str) -> None:
            shell(cloud, server, f"{script}; agent-kill")
            time.sleep(1)  # it is killed a moment later
            cloud.wait_agent(server.id)

        run_anew(f"echo {commands} >/run/agent-block")
        try:
            begin = time.monotonic()
            with pytest.raises(exceptions.QuiesceFailed):
                steps.quiesce(tenant, server)
            assert time.monotonic() - begin < 4
            details = steps.event(admin, server, "quiesce")["details"]
            assert "does not allow guest-fsfreeze-freeze" in details
            steps.until("no state", lambda: steps.status(tenant, server) is None, 5)
            assert steps.agent_says(cloud, server) == "thawed"
            assert windows.record(cloud.settings, HOST, server.id) is None
            assert steps.writes(cloud, server) > 0
        finally:
            run_anew("rm /run/agent-block")

    # The guest is thawed before its hook runs, and the window was whole.

    def test_slow_thaw_hook_does_not_spoil_a_window(
        self, cloud: Cloud, tenant: Any, server: Any
    ) -> None:
        shell(cloud, server, "echo 14 >/run/hook-thaw-slow")  # the agent has 5 s
        try:
            steps.quiesce(tenant, server)
            steps.unquiesce(tenant, server)
            steps.until_writing(cloud, server)
            steps.until("no state", lambda: steps.status(tenant, server) is None, 10)
        finally:
            cloud.wait_agent(server.id)
            shell(cloud, server, "rm /run/hook-thaw-slow")

    def test_failing_thaw_hook_does_not_spoil_a_window(
        self, cloud: Cloud, tenant: Any, server: Any
    ) -> None:
        shell(cloud, server, "touch /run/hook-thaw-fail")
        try:
            steps.quiesce(tenant, server)
            steps.unquiesce(tenant, server)
            steps.until_writing(cloud, server)
            steps.until("no state", lambda: steps.status(tenant, server) is None, 10)
        finally:
            shell(cloud, server, "rm /run/hook-thaw-fail")


#: What a frozen guest cannot do; a stock API lets all of it through.
REFUSED: dict[str, dict[str, Any]] = {
    "live-migration": {"os-migrateLive": {"host": OTHER, "block_migration": "auto"}},
    "migrate": {"migrate": {"host": OTHER}},
    "pause": {"pause": None},
    "reboot": {"reboot": {"type": "SOFT"}},
    "hard-reboot": {"reboot": {"type": "HARD"}},
    "rescue": {"rescue": {}},
    "shelve": {"shelve": None},
    "stop": {"os-stop": None},
    "suspend": {"suspend": None},
    "password": {"changePassword": {"adminPass": "secret"}},
}


def order_refused(cloud: Cloud, admin: Any, server: Any, order: dict[str, Any]) -> int:
    """Order something of a stock API and wait until it is refused; the API's answer."""
    status, request = steps.stock_order(cloud, admin, server, order)

    def refused() -> list[str]:
        return [
            event["details"] or ""
            for event in steps.events_of(admin, server, request)
            if event["result"] == "Error"
        ]

    found = steps.until("an Error on the action", refused, 30)
    assert any("quiesce_status" in details for details in found)
    after = steps.idle(admin, server)
    assert (after.status, after.quiesce_status) == ("ACTIVE", "quiesced")
    assert cloud.find_host(server.id) == HOST
    assert steps.agent_says(cloud, server) == "frozen"
    return status


@pytest.mark.parametrize("name", REFUSED)
def test_host_refuses_what_a_stock_api_lets_through(
    cloud: Cloud, tenant: Any, admin: Any, server: Any, name: str
) -> None:
    steps.quiesce(tenant, server)
    status = order_refused(cloud, admin, server, REFUSED[name])
    # a password is set while the API waits, which gets to know of the refusal, too
    assert status in (200, 202) or (name, status) == ("password", 409)
    steps.unquiesce(tenant, server)  # Success: nothing has touched the guest


def test_host_refuses_a_rebuild_and_gives_the_image_back(
    cloud: Cloud, tenant: Any, admin: Any, server: Any
) -> None:
    before = tenant.compute.get_server(server.id)
    other = tenant.image.find_image("guest-require", ignore_missing=False)
    steps.quiesce(tenant, server)
    order_refused(cloud, admin, server, {"rebuild": {"imageRef": other.id}})
    assert tenant.compute.get_server(server.id).image.id == before.image.id
    steps.unquiesce(tenant, server)  # Success: nothing has touched the guest
