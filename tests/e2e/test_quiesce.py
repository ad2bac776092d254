# SPDX-License-Identifier: Apache-2.0
"""Quiesce and unquiesce of a real guest with a real agent, through the public API."""

import pathlib
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiolib import evidence
from aiolib.client import Cloud

from nova_ext.client import exceptions
from tests.e2e import steps

pytestmark = pytest.mark.xdist_group("servers")
HOST = "cmp4"
SERVICE = f"nova-compute-{HOST}"

Boot = Callable[..., Any]


@pytest.fixture(scope="module")
def shared(boot: Boot) -> Any:
    """A server that all tests use which leave it as it was."""
    return boot("e2e-quiesce")


@pytest.fixture
def server(cloud: Cloud, tenant: Any, shared: Any) -> Iterator[Any]:
    """The shared server, thawed and writing before and after the test."""
    yield shared
    steps.leave_thawed(cloud, tenant, shared)


def virsh(cloud: Cloud, server: Any, *words: str) -> str:
    """Run virsh on the host of a server; its output."""
    done = subprocess.run(
        [*cloud.virsh(cloud.find_host(server.id)), *words],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestWindow:
    def test_no_write_gets_through_until_unquiesce(
        self, cloud: Cloud, tenant: Any, admin: Any, server: Any
    ) -> None:
        steps.until_writing(cloud, server)
        state = steps.quiesce(tenant, server)
        assert state.quiesced_at
        assert state.unquiesce_at
        assert steps.agent_says(cloud, server) == "frozen"
        written = evidence.bytes_written(cloud, server.id)
        assert steps.writes(cloud, server, 3) == 0
        assert evidence.bytes_written(cloud, server.id) == written
        assert steps.event(admin, server, "quiesce")["result"] == "Success"
        steps.unquiesce(tenant, server)
        assert steps.agent_says(cloud, server) == "thawed"
        steps.until_writing(cloud, server)
        found = steps.event(admin, server, "unquiesce")
        assert (found["event"], found["result"]) == (
            "compute_unquiesce_instance",
            "Success",
        )

    def test_second_quiesce_is_409(self, tenant: Any, server: Any) -> None:
        steps.quiesce(tenant, server)
        code, message = steps.refusal(tenant, server, {"quiesce": None})
        assert code == 409
        assert "quiesced" in message

    def test_stop_is_409_and_says_unquiesce_first(
        self, tenant: Any, server: Any
    ) -> None:
        steps.quiesce(tenant, server)
        code, message = steps.refusal(tenant, server, {"os-stop": None})
        assert code == 409
        assert "unquiesce first" in message

    def test_deadline_thaws(
        self, cloud: Cloud, tenant: Any, admin: Any, server: Any
    ) -> None:
        known = steps.known_actions(admin, server)
        steps.quiesce(tenant, server, timeout=3)
        found = steps.event(admin, server, "unquiesce", known=known)
        assert found["result"] == "Error"
        assert "not unquiesced by" in found["details"]
        steps.until_writing(cloud, server)
        assert steps.status(tenant, server) is None
        with pytest.raises(exceptions.UnquiesceFailed):
            steps.unquiesce(tenant, server)

    def test_image_of_a_frozen_server_is_clean_and_keeps_the_freeze(
        self, cloud: Cloud, tenant: Any, server: Any, tmp_path: pathlib.Path
    ) -> None:
        steps.quiesce(tenant, server)
        image = tenant.compute.create_server_image(server, "e2e-frozen")
        try:
            path = evidence.download(tenant, image.id, tmp_path / "image")
        finally:
            tenant.image.delete_image(image.id)
        assert not evidence.needs_recovery(path)
        assert steps.agent_says(cloud, server) == "frozen"
        assert steps.status(tenant, server) == "quiesced"
        steps.unquiesce(tenant, server)

    def test_image_of_a_frozen_server_that_requires_quiesce(
        self, cloud: Cloud, tenant: Any, boot: Boot
    ) -> None:
        server = boot("e2e-require", image="guest-require")
        steps.quiesce(tenant, server)
        image = tenant.compute.create_server_image(server, "e2e-require", wait=True)
        tenant.image.delete_image(image.id)
        assert steps.agent_says(cloud, server) == "frozen"
        steps.unquiesce(tenant, server)

    def test_delete_while_frozen(self, cloud: Cloud, tenant: Any, boot: Boot) -> None:
        server = boot("e2e-delete")
        steps.quiesce(tenant, server)
        tenant.compute.delete_server(server)
        tenant.compute.wait_for_delete(server, wait=30)

    def test_reset_state_thaws(
        self, cloud: Cloud, tenant: Any, admin: Any, server: Any
    ) -> None:
        steps.quiesce(tenant, server)
        admin.compute.reset_server_state(server, "active")
        assert steps.status(tenant, server) is None
        steps.until_writing(cloud, server)


class TestProof:
    """Unquiesce ends with Success only if the guest was frozen without a gap."""

    def assert_broken(self, tenant: Any, admin: Any, server: Any, reason: str) -> None:
        with pytest.raises(exceptions.UnquiesceFailed):
            steps.unquiesce(tenant, server)
        assert reason in steps.event(admin, server, "unquiesce")["details"]

    def test_thawed_from_inside(
        self, cloud: Cloud, tenant: Any, admin: Any, server: Any
    ) -> None:
        cloud.guest_run(server.id, "/usr/sbin/thaw-later", "2")
        steps.quiesce(tenant, server)
        steps.until_writing(cloud, server)
        self.assert_broken(tenant, admin, server, "thawed in between")

    def test_thawed_and_frozen_again_on_the_host(
        self, cloud: Cloud, tenant: Any, admin: Any, server: Any
    ) -> None:
        steps.quiesce(tenant, server)
        virsh(cloud, server, "domfsthaw", server.id)
        virsh(cloud, server, "domfsfreeze", server.id)
        self.assert_broken(tenant, admin, server, "bytes written")

    def test_rebooted_from_inside(
        self, cloud: Cloud, tenant: Any, admin: Any, server: Any
    ) -> None:
        cloud.guest_run(server.id, "/usr/sbin/reboot-later", "6")
        steps.quiesce(tenant, server)
        time.sleep(6)  # the guest resets itself; nothing outside tells when
        cloud.wait_agent(server.id)
        steps.until_writing(cloud, server)
        self.assert_broken(tenant, admin, server, "thawed in between")


class TestAgent:
    """Agents that are dead, hung or not there."""

    def test_image_without_agent_is_400(self, tenant: Any, boot: Boot) -> None:
        server = boot("e2e-noagent", image="guest-noagent", agent=False)
        code, message = steps.refusal(tenant, server, {"quiesce": None})
        assert code == 400
        assert "hw_qemu_guest_agent=yes" in message

    def test_stock_compute_service_is_400(
        self, cloud: Cloud, tenant: Any, boot: Boot
    ) -> None:
        server = boot("e2e-stock", host=cloud.settings.stock_computes[0])
        code, message = steps.refusal(tenant, server, {"quiesce": None})
        assert code == 400
        assert "does not support quiesce" in message

    def test_hung_agent_is_an_error_and_nothing_freezes_later(
        self, cloud: Cloud, tenant: Any, admin: Any, server: Any
    ) -> None:
        cloud.guest_run(server.id, "/usr/sbin/agent-pause", "8")
        time.sleep(1)  # the agent answers that call first
        with pytest.raises(exceptions.QuiesceFailed):
            steps.quiesce(tenant, server)
        assert "does not answer" in steps.event(admin, server, "quiesce")["details"]
        steps.until("thawed", lambda: steps.agent_says(cloud, server) == "thawed")
        assert steps.writes(cloud, server) > 0

    def test_agent_stopped_during_a_freeze_and_continued_later(
        self, cloud: Cloud, tenant: Any, admin: Any, server: Any
    ) -> None:
        # The freeze hook holds the freeze for 8 s; within them the agent is stopped,
        # for longer than the compute host waits (5 s).
        cloud.guest_run(
            server.id,
            "/bin/sh",
            "-c",
            "echo 8 >/run/hook-slow; sleep 3; agent-pause 12",
        )
        try:
            with pytest.raises(exceptions.QuiesceFailed):
                steps.quiesce(tenant, server)
            # The mark is written right after the end of the action.
            steps.until(
                "unquiescing", lambda: steps.status(tenant, server) == "unquiescing", 10
            )
            steps.until(
                "thawed and not marked",
                lambda: steps.status(tenant, server) is None,
                60,
            )
            assert steps.agent_says(cloud, server) == "thawed"
            steps.until_writing(cloud, server)
        finally:
            cloud.wait_agent(server.id)
            cloud.guest_run(server.id, "/bin/rm", "-f", "/run/hook-slow")

    def test_failing_freeze_hook_is_an_error_and_the_guest_goes_on(
        self, cloud: Cloud, tenant: Any, server: Any
    ) -> None:
        cloud.guest_run(server.id, "/bin/touch", "/run/hook-fail")
        try:
            with pytest.raises(exceptions.QuiesceFailed):
                steps.quiesce(tenant, server)
            steps.until("thawed", lambda: steps.status(tenant, server) is None)
            steps.until_writing(cloud, server)
        finally:
            cloud.guest_run(server.id, "/bin/rm", "-f", "/run/hook-fail")

    def test_paused_guest_is_an_error(
        self, cloud: Cloud, tenant: Any, admin: Any, boot: Boot
    ) -> None:
        server = boot("e2e-paused")
        virsh(cloud, server, "suspend", server.id)
        with pytest.raises(exceptions.QuiesceFailed):
            steps.quiesce(tenant, server)
        details = steps.event(admin, server, "quiesce")["details"]
        assert "paused or not running" in details
        virsh(cloud, server, "resume", server.id)
        steps.until_writing(cloud, server)

    def test_agent_that_died_while_frozen_is_thawed_when_it_is_back(
        self, cloud: Cloud, tenant: Any, server: Any
    ) -> None:
        cloud.guest_run(server.id, "/bin/sh", "-c", "sleep 3; agent-kill")
        steps.quiesce(tenant, server)
        steps.until("killed", lambda: steps.agent_says(cloud, server) != "frozen")
        # The new agent remembers the freeze, so that the window is whole.
        steps.unquiesce(tenant, server)
        steps.until_writing(cloud, server)


class TestFaults:
    """Processes of the cloud die while a server is frozen."""

    def test_nova_compute_killed_and_restarted_thaws_at_the_deadline(
        self, cloud: Cloud, tenant: Any, admin: Any, server: Any
    ) -> None:
        known = steps.known_actions(admin, server)
        state = steps.quiesce(tenant, server, timeout=30)
        cloud.kill(SERVICE)
        steps.until("dead", lambda: not cloud.running(SERVICE))
        assert steps.agent_says(cloud, server) == "frozen"
        cloud.start(SERVICE)
        assert steps.status(tenant, server) == "quiesced"
        found = steps.event(admin, server, "unquiesce", 90, known)
        assert found["result"] == "Error"
        assert "not unquiesced by" in found["details"]
        assert state.unquiesce_at is not None
        assert found["start_time"] >= state.unquiesce_at.rstrip("Z")
        steps.until_writing(cloud, server)
        cloud.wait_reported(admin, HOST, 60)

    def test_window_survives_a_restart_of_nova_compute(
        self, cloud: Cloud, tenant: Any, admin: Any, server: Any
    ) -> None:
        steps.quiesce(tenant, server)
        cloud.kill(SERVICE)
        cloud.start(SERVICE)
        cloud.wait_reported(admin, HOST, 60)
        assert steps.agent_says(cloud, server) == "frozen"
        steps.unquiesce(tenant, server)

    @pytest.mark.disturbs
    def test_rabbitmq_restarted_while_frozen(
        self, cloud: Cloud, tenant: Any, server: Any
    ) -> None:
        steps.quiesce(tenant, server)
        cloud.restart("rabbitmq")
        assert steps.agent_says(cloud, server) == "frozen"

        def unquiesced() -> bool:
            try:
                steps.unquiesce(tenant, server)
            except exceptions.WrongState:
                return False  # the services have not all come back to the bus yet
            return True

        steps.until("unquiesced with Success", unquiesced, 120)
        steps.until_writing(cloud, server)

    @pytest.mark.disturbs
    def test_deadline_thaws_without_the_message_bus(
        self, cloud: Cloud, tenant: Any, admin: Any, server: Any
    ) -> None:
        known = steps.known_actions(admin, server)
        steps.quiesce(tenant, server, timeout=5)
        cloud.stop("rabbitmq")
        try:
            steps.until_writing(cloud, server, 20)
        finally:
            cloud.start("rabbitmq")
        found = steps.event(admin, server, "unquiesce", 180, known)
        assert found["result"] == "Error"
        steps.until("not quiesced", lambda: steps.status(tenant, server) is None, 120)
