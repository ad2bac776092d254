# SPDX-License-Identifier: Apache-2.0
"""Images of a server that is quiesced, or is being thawed."""

import threading
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import fixtures
from nova import context as nova_context
from nova import objects
from nova.tests.fixtures import libvirt as fakelibvirt

from nova_ext.guard.guests import AgentError
from tests.functional import volumes


class ImageWhileQuiescedTest(volumes.VolumeBacked):
    """createImage neither freezes again nor thaws the user's freeze."""

    def assert_image_keeps_the_freeze(self, require: bool) -> None:
        server = self.volume_backed(require)
        self.accepted(server, "quiesce")
        self.wait_status(server, "quiesced")
        response = self.act(server, "createImage", {"name": "image"})
        self.assertEqual(202, response.status_code, response.text)
        self.assertIn(server, self.agents.frozen)
        self.assertEqual("quiesced", self.api.get_server(server)["quiesce_status"])
        self.accepted(server, "unquiesce")
        self.assertEqual("Success", self.wait_event(server, "unquiesce")["result"])
        self.assertEqual(["freeze", "thaw"], self.agents.calls)

    def test_volume_backed_server(self) -> None:
        self.assert_image_keeps_the_freeze(require=False)

    def test_volume_backed_server_that_requires_quiesce(self) -> None:
        self.assert_image_keeps_the_freeze(require=True)

    def test_driver_leaves_the_users_freeze_alone(self) -> None:
        server = self.quiesced()
        instance = self.instance(server)
        driver = self.computes["compute1"].driver
        context = nova_context.get_admin_context()
        image_meta = objects.ImageMeta.from_instance(instance)
        guest = driver._host.get_guest(instance)
        frozen: list[str] = []
        guest._domain.__class__.fsFreeze = lambda domain: frozen.append("freeze")
        guest._domain.__class__.fsThaw = lambda domain: frozen.append("thaw")
        driver.quiesce(context, instance, image_meta)
        driver.unquiesce(context, instance, image_meta)
        self.assertEqual([], frozen)
        self.accepted(server, "unquiesce")
        self.wait_event(server, "unquiesce")
        self.until_idle(server)
        driver.quiesce(context, instance, image_meta)
        driver.unquiesce(context, instance, image_meta)
        self.assertEqual(["freeze", "thaw"], frozen)


class ImageDuringTheThawTest(volumes.VolumeBacked):
    """createImage that meets the end of the user's freeze freezes by itself."""

    def setUp(self) -> None:
        super().setUp()
        self.nova_did: list[str] = []
        for name in ("fsFreeze", "fsThaw"):
            patcher = mock.patch.object(
                fakelibvirt.Domain,
                name,
                lambda domain, name=name: self.nova_did.append(name),
                create=True,
            )
            patcher.start()
            self.addCleanup(patcher.stop)

    def assert_freezes(self, server: str, end: Callable[[], Any]) -> None:
        """nova freezes for an image, but not before ``end`` ends the user's freeze."""
        done: list[int] = []

        def create_image() -> None:
            done.append(self.act(server, "createImage", {"name": "i"}).status_code)

        request = threading.Thread(target=create_image, daemon=True)
        request.start()
        time.sleep(1)
        self.assertEqual([], done)
        self.assertEqual([], self.nova_did)
        end()
        request.join(60)
        self.assertEqual([202], done)
        self.assertEqual(["fsFreeze", "fsThaw"], self.nova_did)
        self.assertEqual(["freeze", "thaw"], self.agents.calls[:2])
        self.assertNotIn(server, self.agents.frozen)

    def unquiescing(self) -> str:
        server = self.volume_backed(require=True)
        self.accepted(server, "quiesce")
        self.wait_status(server, "quiesced")
        self.accepted(server, "unquiesce")
        self.wait_status(server, "unquiescing")
        return server

    def test_while_the_agent_thaws(self) -> None:
        self.agents.thaw_gate.clear()
        server = self.unquiescing()
        self.assert_freezes(server, self.agents.thaw_gate.set)
        self.assertEqual("Success", self.wait_event(server, "unquiesce")["result"])

    def test_between_two_tries_to_thaw(self) -> None:
        self.agents.thaw_errors = [AgentError("hung")] * 1000
        server = self.unquiescing()
        self.assert_freezes(server, self.agents.thaw_errors.clear)
        self.assertEqual("Success", self.wait_event(server, "unquiesce")["result"])

    def test_between_the_deadline_and_the_thaw(self) -> None:
        server = self.volume_backed(require=True)
        self.accepted(server, "quiesce")
        self.wait_status(server, "quiesced")
        self.agents.hung = AgentError("hung")
        self.age(server, seconds=3600)
        self.assert_freezes(server, lambda: setattr(self.agents, "hung", None))
        self.assertEqual("Error", self.wait_event(server, "unquiesce")["result"])

    def test_a_guest_that_is_not_thawed_is_not_taken_for_frozen(self) -> None:
        self.flags(quiesce_agent_timeout=1, group="nova_ext")
        self.agents.thaw_errors = [AgentError("hung")] * 1000
        server = self.unquiescing()
        message = self.refused(409, server, "createImage", {"name": "image"})
        self.assertIn("still being undone", message)
        self.assertEqual([], self.nova_did)
        self.agents.thaw_errors.clear()
        self.wait_status(server, None)

    def test_a_server_that_is_not_quiesced_is_frozen_by_nova_alone(self) -> None:
        server = self.volume_backed(require=True)
        self.accepted_as(202, server, "createImage", {"name": "image"})
        self.assertEqual(["fsFreeze", "fsThaw"], self.nova_did)
        self.assertEqual([], self.agents.calls)

    def test_also_where_the_guard_has_no_directory(self) -> None:
        (self.guards / "compute1").write_text("not a directory")
        server = self.volume_backed(require=True)
        self.accepted_as(202, server, "createImage", {"name": "image"})
        self.assertEqual(["fsFreeze", "fsThaw"], self.nova_did)

    def volume_snapshot(self, server: str) -> list[bool]:
        """Begin an assisted volume snapshot; then whether the guest is frozen."""
        seen: list[bool] = []

        def snapshot(driver: Any, *args: Any) -> None:
            seen.append(server in self.agents.frozen)

        self.useFixture(
            fixtures.MonkeyPatch(
                "nova.virt.libvirt.driver.LibvirtDriver._volume_snapshot_create",
                snapshot,
            )
        )
        driver = self.computes["compute1"].driver
        context = nova_context.get_admin_context()
        threading.Thread(
            target=driver._volume_snapshot_create,
            args=(context, self.instance(server)),
            daemon=True,
        ).start()
        return seen

    def test_a_volume_snapshot_waits_for_the_end_of_the_users_freeze(self) -> None:
        self.agents.thaw_errors = [AgentError("hung")] * 1000
        server = self.unquiescing()
        seen = self.volume_snapshot(server)
        time.sleep(1)
        self.assertEqual([], seen)
        self.agents.thaw_errors.clear()
        self._wait_for_assert(lambda: self.assertEqual([False], seen))

    def test_a_volume_snapshot_does_not_wait_for_ever(self) -> None:
        self.flags(quiesce_agent_timeout=1, group="nova_ext")
        self.agents.thaw_errors = [AgentError("hung")] * 1000
        server = self.unquiescing()
        instance = self.instance(server)
        instance.system_metadata["image_os_require_quiesce"] = "False"
        instance.save()
        seen = self.volume_snapshot(server)
        self._wait_for_assert(lambda: self.assertEqual([True], seen))
        self.agents.thaw_errors.clear()

    def test_a_volume_snapshot_does_not_wait_for_a_freeze_that_holds(self) -> None:
        server = self.quiesced()
        seen = self.volume_snapshot(server)
        self._wait_for_assert(lambda: self.assertEqual([True], seen))
        self.accepted(server, "unquiesce")
        self.assertEqual("Success", self.wait_event(server, "unquiesce")["result"])
