# SPDX-License-Identifier: Apache-2.0
"""What a stock API worker orders for a frozen guest: the compute host refuses it."""

import json
from typing import Any
from unittest import mock

import fixtures
from nova import context as nova_context
from nova import exception, objects
from nova.compute import rpcapi, task_states
from nova.virt.libvirt.driver import LibvirtDriver

from nova_ext.guard.guests import AgentError
from tests.functional import stock_api, volumes

#: The orders that take a frozen guest away or need its agent: the action that nova
#: records for each, and whether it is an administrator's.
ORDERS: dict[str, tuple[Any, str, bool]] = {
    "pause": (None, "pause", False),
    "soft reboot": ({"type": "SOFT"}, "reboot", False),
    "hard reboot": ({"type": "HARD"}, "reboot", False),
    "rescue": (None, "rescue", False),
    "changePassword": ({"adminPass": "secret"}, "changePassword", False),
    "shelve": (None, "shelve", False),
    "os-stop": (None, "stop", False),
    "suspend": (None, "suspend", False),
    "resize": ({}, "resize", False),
    "rebuild": ({}, "rebuild", False),
    "migrate": (None, "migrate", True),
    "trigger_crash_dump": (None, "trigger_crash_dump", False),
    "os-migrateLive": (
        {"host": None, "block_migration": "auto"},
        "live-migration",
        True,
    ),
}

FORCED = ("os-stop", "hard reboot")


class HostRefusalsTest(stock_api.StockApi, volumes.VolumeBacked):
    CAST_AS_CALL = False  # the API must not see what the host makes of an order

    def order(self, server: str, name: str, argument: Any = None) -> str:
        """Have the stock worker order ``name``; the ID of the request."""
        default, action, admin = ORDERS[name]
        body = {name.split()[-1]: default if argument is None else argument}
        known = self.requests(server)
        answer = self.ask(
            self.stock,
            "2.90",
            f"servers/{server}/action",
            body,
            user="admin" if admin else "fake",
        )
        # An order that waits for the host's answer may say so itself.
        expected = (200, 202, 409) if name == "changePassword" else (200, 202)
        self.assertIn(answer.status_int, expected, answer.text)
        (new,) = self.requests(server).items() - known.items()
        self.assertEqual(action, new[1])
        return new[0]

    def order_at(self, server: str, method: str, path: str, body: Any = None) -> str:
        """Have the stock worker change a device; the ID of the request."""
        known = self.requests(server)
        answer = self.ask(
            self.stock, "2.90", f"servers/{server}/{path}", body, method, user="admin"
        )
        self.assertIn(answer.status_int, (200, 202, 409), answer.text)
        (new,) = self.requests(server).keys() - known.keys()
        return new

    def requests(self, server: str) -> dict[str, str]:
        """The requests that have recorded an action, and which."""
        listed = self.api.get_instance_actions(server)
        return {each["request_id"]: each["action"] for each in listed}

    def failure(self, server: str, request_id: str) -> str:
        """Wait until an action has an event that failed; the reason."""
        reasons: list[str] = []

        def failed() -> None:
            detail = self.admin_api.api_get(
                f"/servers/{server}/os-instance-actions/{request_id}"
            ).body["instanceAction"]
            reasons[:] = [
                each["details"]
                for each in detail["events"]
                if each["result"] == "Error"
            ]
            self.assertTrue(reasons, json.dumps(detail))

        self._wait_for_assert(failed)
        return " ".join(reasons)

    def domain(self, server: str) -> Any:
        """The domain of a server, by which a new one can be told."""
        driver = self.computes["compute1"].driver
        return driver._host.get_guest(self.instance(server))._domain

    def wait_idle(self, server: str) -> dict[str, Any]:
        """Wait until the server has no task; the server."""
        return self._wait_for_server_parameter(
            {"id": server}, {"OS-EXT-STS:task_state": None}, api=self.admin_api
        )

    def assert_refused(
        self, server: str, name: str, status: str = "quiesced", **kwargs: Any
    ) -> None:
        """A stock worker's order leaves the server and its guest as they are."""
        domain, calls = self.domain(server), list(self.agents.calls)
        request_id = self.order(server, name, **kwargs)
        self.assertIn(f"quiesce_status {status}", self.failure(server, request_id))
        shown = self.wait_idle(server)
        self.assertEqual("ACTIVE", shown["status"], name)
        self.assertEqual("compute1", shown["OS-EXT-SRV-ATTR:host"], name)
        self.assertEqual(status, shown["quiesce_status"], name)
        self.assertIs(domain, self.domain(server), name)
        self.assertEqual(calls, self.agents.calls, name)

    def assert_unquiesces(self, server: str) -> None:
        self.assertIn(server, self.agents.frozen)
        self.accepted(server, "unquiesce")
        self.assertEqual("Success", self.wait_event(server, "unquiesce")["result"])

    def test_the_host_refuses_what_a_frozen_guest_cannot_do(self) -> None:
        server = self.quiesced()
        self.start_compute("compute2")
        other = {"flavorRef": self._create_flavor(name="other")}
        arguments = {"resize": other}
        arguments["rebuild"] = {"imageRef": self.instance(server).image_ref}
        for name in ORDERS:
            self.assert_refused(server, name, argument=arguments.get(name))
        self.assert_unquiesces(server)

    def test_the_host_refuses_them_while_it_freezes(self) -> None:
        server = self.boot()
        self.agents.freeze_gate.clear()
        self.accepted(server, "quiesce")
        self.wait_status(server, "quiescing")
        self._wait_for_assert(lambda: self.assertEqual(["freeze"], self.agents.calls))
        for name in FORCED:
            self.assert_refused(server, name, "quiescing")
        self.agents.freeze_gate.set()
        self.wait_status(server, "quiesced")
        self.assert_unquiesces(server)

    def test_the_host_refuses_to_offload_a_frozen_guest(self) -> None:
        server = self.volume_backed()
        self.accepted(server, "quiesce")
        self.wait_status(server, "quiesced")
        self.assert_refused(server, "shelve")
        self.assert_unquiesces(server)

    def test_the_host_refuses_to_change_the_devices_of_a_frozen_guest(self) -> None:
        server = self.volume_backed()
        volumes, interfaces = "os-volume_attachments", "os-interface"
        swapped, new = self.cinder.SWAP_OLD_VOL, self.cinder.SWAP_NEW_VOL
        attach = {"volumeAttachment": {"volumeId": swapped}}
        self.api.api_post(f"/servers/{server}/{volumes}", attach)
        self.wait_event(server, "attach_volume")
        self.neutron.create_port({"port": self.neutron.port_2})
        plug = {"interfaceAttachment": {"port_id": self.neutron.port_2["id"]}}
        self.api.api_post(f"/servers/{server}/{interfaces}", plug)
        self.accepted(server, "quiesce")
        self.wait_status(server, "quiesced")
        other = {"volumeAttachment": {"volumeId": new}}
        unplug = plug["interfaceAttachment"]["port_id"]
        more = {"interfaceAttachment": {"port_id": self.neutron.port_1["id"]}}
        devices, attached = self.devices(server), self.attached(server)
        for method, path, body in (
            ("POST", volumes, other),
            ("DELETE", f"{volumes}/{swapped}", None),
            ("PUT", f"{volumes}/{swapped}", other),
            ("POST", interfaces, more),
            ("DELETE", f"{interfaces}/{unplug}", None),
        ):
            request_id = self.order_at(server, method, path, body)
            reason = self.failure(server, request_id)
            self.assertIn("quiesce_status quiesced", reason, f"{method} {path}")
            self.assertEqual(devices, self.devices(server), f"{method} {path}")
            self._wait_for_assert(
                lambda: self.assertEqual(attached, self.attached(server))
            )
        self.assert_unquiesces(server)

    def devices(self, server: str) -> str:
        return str(self.domain(server).XMLDesc(0))

    def attached(self, server: str) -> tuple[list[str], list[str]]:
        """The volumes of a server, as nova and as Cinder have them."""
        listed = self.api.get_server_volumes(server)
        return (
            sorted(each["volumeId"] for each in listed),
            sorted(self.cinder.volume_ids_for_instance(server)),
        )

    def test_the_host_refuses_a_rebuild_and_gives_the_image_back(self) -> None:
        """All that nova's API has saved of the image, and what the scheduler reads."""
        server = self.quiesced()
        before = self.known_of_the_image(server)
        other = self.image(os_type="windows", hw_disk_bus="scsi")
        self.assert_refused(server, "rebuild", argument={"imageRef": other})
        self.assertEqual(before, self.known_of_the_image(server))
        self.assert_unquiesces(server)

    def test_a_refusal_whose_undo_fails_still_ends_its_action(self) -> None:
        server, volume = self.boot(), self.cinder.SWAP_OLD_VOL
        path = f"os-volume_attachments/{volume}"
        attach = {"volumeAttachment": {"volumeId": volume}}
        self.api.api_post(f"/servers/{server}/os-volume_attachments", attach)
        self.wait_event(server, "attach_volume")
        self.accepted(server, "quiesce")
        self.wait_status(server, "quiesced")

        def fail(*args: Any, **kwargs: Any) -> None:
            raise exception.CinderConnectionFailed(reason="it is away")

        other = {"imageRef": self.image()}
        for undo, order in (
            (
                "nova.volume.cinder.API.roll_detaching",
                lambda: self.order_at(server, "DELETE", path),
            ),
            (
                "nova_ext.compute.quiesce.rebuild.give_image_back",
                lambda: self.order(server, "rebuild", other),
            ),
        ):
            with mock.patch(undo, fail):
                self.assertIn("it is away", self.failure(server, order()), undo)
            self.assertEqual("ACTIVE", self.wait_idle(server)["status"], undo)
        self.assert_unquiesces(server)

    def known_of_the_image(self, server: str) -> list[Any]:
        """What the databases of the cell and of the API know of a server's image."""
        instance = self.instance(server)
        spec = objects.RequestSpec.get_by_instance_uuid(
            nova_context.get_admin_context(), server
        )
        names = ("architecture", "os_type", "vm_mode", "kernel_id", "ramdisk_id")
        read = ("os_type", "hw_qemu_guest_agent")
        return [
            instance.image_ref,
            instance.system_metadata,
            *(instance[name] for name in names),
            spec.image.id,
            *(spec.image.properties.get(name) for name in read),
        ]

    def test_the_host_refuses_to_power_off_for_a_resize_to_another_cell(self) -> None:
        server = self.quiesced()
        instance = self.instance(server)
        instance.task_state = task_states.RESIZE_PREP
        instance.save()
        context = nova_context.get_admin_context()
        objects.InstanceAction.action_start(context, server, "resize")
        self.assertRaises(
            exception.InstanceInvalidState,
            rpcapi.ComputeAPI().prep_snapshot_based_resize_at_source,
            context,
            instance,
            objects.Migration(),
        )
        reason = self.failure(server, context.request_id)
        self.assertIn("quiesce_status quiesced", reason)
        self.assertEqual("ACTIVE", self.wait_idle(server)["status"])
        self.assert_unquiesces(server)

    def test_the_host_refuses_to_migrate_a_guest_that_was_frozen_since_its_check(
        self,
    ) -> None:
        self.useFixture(
            fixtures.MonkeyPatch(
                "nova_ext.virt.libvirt.quiesce.driver.QuiesceDriver"
                ".check_can_live_migrate_source",
                LibvirtDriver.check_can_live_migrate_source,
            )
        )
        server = self.quiesced()
        self.start_compute("compute2")
        self.assert_refused(server, "os-migrateLive")
        self.assert_unquiesces(server)

    def stuck(self) -> str:
        """A server whose agent does not thaw it."""
        server = self.quiesced()
        self.agents.thaw_errors = [AgentError("hung")] * 1000
        self.accepted(server, "unquiesce")
        self.wait_status(server, "unquiescing")
        return server

    def test_the_host_lets_a_guest_be_stopped_that_cannot_be_thawed(self) -> None:
        server = self.stuck()
        self.order(server, "os-stop")
        shown = self._wait_for_state_change({"id": server}, "SHUTOFF")
        self.wait_status(server, None)
        self.until_idle(server)
        self.assertIsNone(shown["quiesce_status"])
        self.assertEqual([], self.records.uuids())

    def test_the_host_lets_a_guest_be_reset_that_cannot_be_thawed(self) -> None:
        server = self.stuck()
        domain = self.domain(server)
        self.order(server, "hard reboot")
        self.wait_event(server, "reboot")
        self.wait_status(server, None)
        self.until_idle(server)
        self.assertEqual("ACTIVE", self.wait_idle(server)["status"])
        self.assertIsNot(domain, self.domain(server))
        self.assertEqual([], self.records.uuids())

    def test_the_host_refuses_the_rest_for_a_guest_that_cannot_be_thawed(self) -> None:
        server = self.stuck()
        for name in ("pause", "soft reboot"):
            request_id = self.order(server, name)
            reason = self.failure(server, request_id)
            self.assertIn("quiesce_status unquiescing", reason)
            self.assertEqual("ACTIVE", self.wait_idle(server)["status"])
        self.agents.thaw_errors = []
        self.assertEqual("Success", self.wait_event(server, "unquiesce")["result"])
