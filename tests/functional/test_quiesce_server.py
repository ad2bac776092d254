# SPDX-License-Identifier: Apache-2.0
"""Quiesce and unquiesce through the API of a whole nova in one process."""

import json
from typing import Any
from unittest import mock

import fixtures
from nova import context as nova_context
from nova import objects, service
from oslo_utils import importutils, timeutils

from nova_ext.compute.quiesce import api as quiesce_api
from nova_ext.guard.guests import AgentError, GuestAbsent
from nova_ext.objects import capability
from nova_ext.objects.quiesce_window import QuiesceWindowList
from tests.functional import base


class MicroversionTest(base.FunctionalTest):
    def test_version_document_offers_2_105(self) -> None:
        response = self.api.api_request("/", strip_version=True)
        current = [v for v in response.json()["versions"] if v["status"] == "CURRENT"]
        self.assertEqual(["2.105"], [v["version"] for v in current])

    def test_latest_is_2_105(self) -> None:
        self.api.microversion = "latest"
        server = self.boot()
        response = self.api.api_request(f"/servers/{server}")
        self.assertEqual("2.105", response.headers["x-openstack-nova-api-version"])
        self.assertIn("quiesce_status", response.json()["server"])

    def test_below_2_105_there_is_no_such_action_and_no_such_field(self) -> None:
        server = self.quiesced()
        self.api.microversion = "2.104"
        self.refused(404, server, "quiesce")
        self.refused(404, server, "unquiesce")
        for shown in (self.api.get_server(server), *self.api.get_servers()):
            self.assertFalse(
                {"quiesce_status", "quiesced_at", "unquiesce_at"} & set(shown)
            )

    def test_fields_in_show_list_update_and_rebuild(self) -> None:
        server = self.quiesced(timeout=90)
        updated = self.api.put_server(server, {"server": {"name": "new"}})["server"]
        for shown in (self.api.get_server(server), self.api.get_servers()[0], updated):
            self.assertEqual("quiesced", shown["quiesce_status"])
            self.assertEqual(
                90,
                timeutils.delta_seconds(
                    timeutils.parse_isotime(shown["quiesced_at"]),
                    timeutils.parse_isotime(shown["unquiesce_at"]),
                ),
            )
        self.accepted(server, "unquiesce")
        self.wait_status(server, None)
        response = self.act(
            server, "rebuild", {"imageRef": self.api.get_server(server)["image"]["id"]}
        )
        self.assertEqual(202, response.status_code, response.text)
        rebuilt = response.json()["server"]
        self.assertIsNone(rebuilt["quiesce_status"])
        self.assertIsNone(rebuilt["unquiesce_at"])


class QuiesceTest(base.FunctionalTest):
    def test_quiesce_and_unquiesce(self) -> None:
        server = self.boot()
        shown = self.api.get_server(server)
        self.assertIsNone(shown["quiesce_status"])
        self.assertIsNone(shown["quiesced_at"])
        self.assertIsNone(shown["unquiesce_at"])

        self.accepted(server, "quiesce", {"timeout": 60})
        shown = self.wait_status(server, "quiesced")
        self.assertIn(server, self.agents.frozen)
        self.assertEqual("ACTIVE", shown["status"])
        event = self.wait_event(server, "quiesce")
        self.assertEqual("Success", event["result"])
        self.assertEqual("compute_quiesce_instance", event["event"])
        self.assertEqual("compute1", event["host"])

        self.accepted(server, "unquiesce")
        self.wait_status(server, None)
        self.assertNotIn(server, self.agents.frozen)
        event = self.wait_event(server, "unquiesce")
        self.assertEqual("Success", event["result"])
        self.assertEqual(["freeze", "thaw"], self.agents.calls)

    def test_default_timeout_is_an_option_within_the_maximum(self) -> None:
        self.flags(
            quiesce_default_timeout=120, quiesce_max_timeout=30, group="nova_ext"
        )
        shown = self.api.get_server(self.quiesced())
        self.assertEqual(
            30,
            timeutils.delta_seconds(
                timeutils.parse_isotime(shown["quiesced_at"]),
                timeutils.parse_isotime(shown["unquiesce_at"]),
            ),
        )

    def test_malformed_bodies_are_400(self) -> None:
        server = self.boot()
        for argument in (
            {"timeout": 0},
            {"timeout": "10"},
            {"timeout": 1.5},
            {"timeout": True},
            {"timeout": None},
            {"partial": None},
            {"partial": 1},
            {"partial": "false"},
            {"time": 1},
            [],
            "",
            5,
        ):
            self.refused(400, server, "quiesce", argument)
        for argument in ({}, 1, "now"):
            self.refused(400, server, "unquiesce", argument)
        self.assertEqual([], self.agents.calls)

    def test_timeout_above_the_maximum_is_400_and_says_the_maximum(self) -> None:
        self.flags(quiesce_max_timeout=30, group="nova_ext")
        server = self.boot()
        message = self.refused(400, server, "quiesce", {"timeout": 31})
        self.assertIn("at most 30 seconds", message)

    def test_image_without_agent_is_400_and_says_the_property(self) -> None:
        server = self.boot(agent=False)
        self.assertIn("hw_qemu_guest_agent=yes", self.refused(400, server, "quiesce"))

    def test_compute_service_without_the_extension_is_400(self) -> None:
        server = self.boot()
        context = nova_context.get_admin_context()
        node = objects.ComputeNode.get_first_node_by_host_for_old_compat(
            context, "compute1"
        )
        self.assertEqual(str(capability.VERSION), node.stats[capability.STATS_KEY])
        node.stats = {k: v for k, v in node.stats.items() if k != capability.STATS_KEY}
        node.save()
        self.assertIn("does not support quiesce", self.refused(400, server, "quiesce"))

    def test_compute_service_that_just_lost_the_extension_is_400(self) -> None:
        # Its compute node still shows the version until the next resource audit.
        server = self.boot()
        self.useFixture(
            fixtures.MonkeyPatch(
                "nova.service.SERVICE_MANAGERS",
                {
                    **service.SERVICE_MANAGERS,
                    "nova-compute": "nova.compute.manager.ComputeManager",
                },
            )
        )
        self.restart_compute_service("compute1")
        self.assertIn("does not support quiesce", self.refused(400, server, "quiesce"))

    def test_unknown_server_is_404(self) -> None:
        self.boot()
        missing = "00000000-0000-4000-8000-000000000000"
        self.refused(404, missing, "quiesce")
        self.refused(404, missing, "unquiesce")

    def test_policy_is_403(self) -> None:
        server = self.boot()
        for action in ("quiesce", "unquiesce"):
            rule = f"os_compute_api:os-quiesce-server:{action}"
            self.policy.set_rules({rule: "role:nobody"}, overwrite=False)
            self.assertIn(rule, self.refused(403, server, action))
        self.assertEqual([], self.agents.calls)

    def test_wrong_states_are_409(self) -> None:
        server = self.boot()
        self.assertIn("quiesce_status null", self.refused(409, server, "unquiesce"))
        self.api.post_server_action(server, {"os-stop": None})
        self._wait_for_state_change({"id": server}, "SHUTOFF")
        self.assertIn("vm_state stopped", self.refused(409, server, "quiesce"))

    def test_locked_server_is_409_for_its_owner(self) -> None:
        server = self.boot()
        self.api.post_server_action(server, {"lock": None})
        self.assertIn("locked", self.refused(409, server, "quiesce"))
        self.assertIn("locked", self.refused(409, server, "unquiesce"))

    def test_second_quiesce_is_409_before_and_after_the_freeze(self) -> None:
        server = self.boot()
        self.agents.freeze_gate.clear()
        self.accepted(server, "quiesce")
        self.assertEqual(
            "quiescing", self.wait_status(server, "quiescing")["quiesce_status"]
        )
        self.refused(409, server, "quiesce")
        self.assertIn("quiescing", self.refused(409, server, "unquiesce"))
        self.agents.freeze_gate.set()
        self.wait_status(server, "quiesced")
        self.assertIn("quiesced", self.refused(409, server, "quiesce"))
        self.assertEqual(["freeze"], self.agents.calls)

    def test_the_compute_host_decides_between_two_quiesces_at_once(self) -> None:
        # Both were let through by an API that had not seen the other's row yet.
        server = self.quiesced()
        self.clear_row(server)
        self.assertIn("quiesced", self.refused(409, server, "quiesce"))
        self.assertEqual(["freeze"], self.agents.calls)

    def test_second_unquiesce_is_409(self) -> None:
        server = self.quiesced()
        self.accepted(server, "unquiesce")
        self.wait_status(server, None)
        self.refused(409, server, "unquiesce")

    def test_quiesced_again_after_unquiesce(self) -> None:
        server = self.quiesced()
        self.accepted(server, "unquiesce")
        self.wait_event(server, "unquiesce")
        self.until_idle(server)
        self.accepted(server, "quiesce")
        self.wait_status(server, "quiesced")


class RefusedWhileQuiescedTest(base.FunctionalTest):
    def test_what_a_frozen_guest_cannot_do_is_409_and_says_unquiesce_first(
        self,
    ) -> None:
        server = self.quiesced()
        image = self.api.get_server(server)["image"]["id"]
        flavor = self._create_flavor(name="other")
        for action, argument in (
            ("os-stop", None),
            ("os-start", None),
            ("reboot", {"type": "SOFT"}),
            ("reboot", {"type": "HARD"}),
            ("pause", None),
            ("suspend", None),
            ("shelve", None),
            ("rescue", None),
            ("rebuild", {"imageRef": image}),
            ("resize", {"flavorRef": flavor}),
            ("changePassword", {"adminPass": "secret"}),
            ("trigger_crash_dump", None),
        ):
            message = self.refused(409, server, action, argument)
            self.assertIn("quiesced; unquiesce first", message, action)
        for action, argument in (
            ("migrate", None),
            ("os-migrateLive", {"host": None, "block_migration": "auto"}),
        ):
            response = self.act(server, action, argument, api=self.admin_api)
            self.assertEqual(409, response.status_code, action)
            self.assertIn("unquiesce first", response.text)
        self.assertEqual("quiesced", self.api.get_server(server)["quiesce_status"])
        self.assertIn(server, self.agents.frozen)

    def test_a_frozen_guest_keeps_its_devices(self) -> None:
        server = self.boot()
        volume = {"volumeAttachment": {"volumeId": self.cinder.SWAP_OLD_VOL}}
        other = {"volumeAttachment": {"volumeId": self.cinder.SWAP_NEW_VOL}}
        port = {"interfaceAttachment": {"port_id": self.neutron.port_2["id"]}}
        volumes, interfaces = "os-volume_attachments", "os-interface"
        self.api.api_post(f"/servers/{server}/{volumes}", volume)
        self.wait_event(server, "attach_volume")
        self.accepted(server, "quiesce")
        self.wait_status(server, "quiesced")
        for method, path, body in (
            ("POST", volumes, other),
            ("PUT", f"{volumes}/{self.cinder.SWAP_OLD_VOL}", other),
            ("DELETE", f"{volumes}/{self.cinder.SWAP_OLD_VOL}", None),
            ("POST", interfaces, port),
            ("DELETE", f"{interfaces}/{self.neutron.port_2['id']}", None),
        ):
            response = self.admin_api.api_request(
                f"/servers/{server}/{path}",
                method=method,
                body=json.dumps(body),
                headers={"content-type": "application/json"},
            )
            self.assertEqual(409, response.status_code, f"{method} {path}")
            self.assertIn("quiesced; unquiesce first", response.text)

    def test_also_below_2_105(self) -> None:
        server = self.quiesced()
        self.api.microversion = "2.1"
        self.assertIn("unquiesce first", self.refused(409, server, "os-stop"))

    def test_lock_metadata_and_tags_are_allowed_and_keep_the_window(self) -> None:
        server = self.quiesced()
        self.api.post_server_metadata(server, {"a": "b"})
        self.api.post_server_action(server, {"lock": {"locked_reason": "snapshot"}})
        shown = self.api.get_server(server)
        self.assertEqual("quiesced", shown["quiesce_status"])
        self.assertEqual("snapshot", shown["locked_reason"])
        self.api.post_server_action(server, {"unlock": None})
        self.accepted(server, "unquiesce")
        self.assertEqual("Success", self.wait_event(server, "unquiesce")["result"])

    def test_delete_is_allowed_and_ends_the_window(self) -> None:
        server = self.quiesced()
        self.api.delete_server(server)
        self._wait_until_deleted({"id": server})
        self.until_idle(server)

    def test_force_delete_is_allowed_and_ends_the_window(self) -> None:
        server = self.quiesced()
        self.api.post_server_action(server, {"forceDelete": None})
        self._wait_until_deleted({"id": server})
        self.until_idle(server)


class BrokenWindowTest(base.FunctionalTest):
    def test_deadline_thaws_and_records_an_error(self) -> None:
        server = self.quiesced(timeout=1)
        event = self.wait_event(server, "unquiesce")
        self.assertEqual("Error", event["result"])
        self.assertIn("it was not unquiesced by", event["details"])
        self.assertNotIn(server, self.agents.frozen)
        shown = self.wait_status(server, None)
        self.assertIsNone(shown["quiesced_at"])

    def test_unquiesce_after_the_deadline_ends_with_the_reason_once(self) -> None:
        server = self.quiesced(timeout=1)
        self.wait_event(server, "unquiesce")
        self.until_idle(server)
        self.accepted(server, "unquiesce")
        self.until_idle(server)
        event = self.wait_event(server, "unquiesce")
        self.assertEqual("Error", event["result"])
        self.assertIn("it was not unquiesced by", event["details"])
        actions = self.api.get_instance_actions(server)
        self.assertEqual(2, len([a for a in actions if a["action"] == "unquiesce"]))
        self.refused(409, server, "unquiesce")

    def test_quiesce_after_the_deadline_begins_a_new_window(self) -> None:
        server = self.quiesced(timeout=1)
        self.wait_event(server, "unquiesce")
        self.until_idle(server)
        self.accepted(server, "quiesce")
        self.wait_status(server, "quiesced")
        self.accepted(server, "unquiesce")
        self.wait_status(server, None)
        self.assertEqual("Success", self.wait_event(server, "unquiesce")["result"])

    def test_unquiesce_tells_what_broke_the_window(self) -> None:
        server = self.quiesced()
        self.agents.domain += 1
        self.accepted(server, "unquiesce")
        event = self.wait_event(server, "unquiesce")
        self.assertEqual("Error", event["result"])
        self.assertIn("the guest was powered off and on", event["details"])
        self.assertIn("not consistent", event["details"])
        self.wait_status(server, None)

    def test_guest_that_stopped_running_breaks_the_window(self) -> None:
        server = self.quiesced()
        self.agents.absent = GuestAbsent("the guest is not running", True)
        self.accepted(server, "unquiesce")
        event = self.wait_event(server, "unquiesce")
        self.assertEqual("Error", event["result"])
        self.assertIn("the guest was powered off", event["details"])

    def test_power_off_behind_the_api_breaks_the_window(self) -> None:
        # As nova-compute does by itself when it finds a guest in the wrong power state.
        server = self.quiesced()
        instance = self.instance(server)
        self.computes["compute1"].driver.power_off(instance)
        event = self.wait_event(server, "unquiesce")
        self.assertEqual("Error", event["result"])
        self.assertIn("powered off", event["details"])
        self.wait_status(server, None)


class RestartTest(base.FunctionalTest):
    """nova-compute dies at some step and is started again."""

    def restart(self) -> None:
        self.kill()
        self.agents.calls.clear()
        self.restart_compute_service("compute1")

    def test_window_survives_a_restart(self) -> None:
        server = self.quiesced()
        self.restart()
        self.assertEqual("quiesced", self.api.get_server(server)["quiesce_status"])
        self.assertIn(server, self.agents.frozen)
        self.accepted(server, "unquiesce")
        self.wait_status(server, None)
        self.assertEqual("Success", self.wait_event(server, "unquiesce")["result"])

    def test_deadline_fires_after_a_restart(self) -> None:
        server = self.quiesced(timeout=4)
        self.restart()
        event = self.wait_event(server, "unquiesce")
        self.assertEqual("Error", event["result"])
        self.assertNotIn(server, self.agents.frozen)

    def test_deadline_passed_while_nova_compute_was_down(self) -> None:
        server = self.quiesced()
        self.age(server, seconds=3600)
        self.restart()
        event = self.wait_event(server, "unquiesce")
        self.assertEqual("Error", event["result"])
        self.assertNotIn(server, self.agents.frozen)

    def test_died_while_freezing(self) -> None:
        server = self.boot()
        self.agents.freeze_gate.clear()
        self.accepted(server, "quiesce")
        self.wait_status(server, "quiescing")
        self.agents.frozen.add(server)
        self.restart()
        event = self.wait_event(server, "quiesce")
        self.assertEqual("Error", event["result"])
        self.assertIn("nova-compute was restarted", event["details"])
        self.wait_status(server, None)
        self.assertNotIn(server, self.agents.frozen)
        self.agents.freeze_gate.set()

    def test_died_between_the_order_to_thaw_and_the_thaw(self) -> None:
        server = self.quiesced()
        self.agents.thaw_errors = [AgentError("dying")] * 1000
        self.accepted(server, "unquiesce")
        self.wait_status(server, "unquiescing")
        self.kill()
        self.agents.thaw_errors = []
        self.restart_compute_service("compute1")
        # The window held until somebody began to thaw, as the record proves.
        self.assertEqual("Success", self.wait_event(server, "unquiesce")["result"])
        self.wait_status(server, None)
        self.assertNotIn(server, self.agents.frozen)


class ResetAndEvacuateTest(base.FunctionalTest):
    CAST_AS_CALL = False  # a cast to a host that is down must not be waited for

    def test_reset_state_clears_the_marker_and_thaws(self) -> None:
        server = self.quiesced()
        response = self.act(
            server, "os-resetState", {"state": "active"}, api=self.admin_api
        )
        self.assertEqual(202, response.status_code)
        self.wait_status(server, None)
        self.until_idle(server)
        self.assertNotIn(server, self.agents.frozen)
        self.assertIsNone(self.row(server))
        self.accepted(server, "quiesce")
        self.wait_status(server, "quiesced")

    def test_reset_state_while_nova_compute_is_down_thaws_at_its_start(self) -> None:
        server = self.quiesced()
        self.kill()
        self.computes["compute1"].stop()
        self.act(server, "os-resetState", {"state": "active"}, api=self.admin_api)
        self.wait_status(server, None)
        self.assertIn(server, self.agents.frozen)
        self.restart_compute_service("compute1")
        self.until_idle(server)
        self.assertNotIn(server, self.agents.frozen)
        self.assertIsNone(self.row(server))

    def test_reset_state_of_a_server_that_is_not_quiesced(self) -> None:
        server = self.boot()
        response = self.act(
            server, "os-resetState", {"state": "error"}, api=self.admin_api
        )
        self.assertEqual(202, response.status_code)
        self.assertEqual("ERROR", self.api.get_server(server)["status"])
        self.assertEqual([], self.agents.calls)

    def test_evacuate_clears_the_marker(self) -> None:
        server = self.quiesced()
        self.start_compute("compute2")
        self.kill()
        self.computes["compute1"].stop()
        self.computes["compute1"].service_ref.forced_down = True
        self.computes["compute1"].service_ref.save()
        body: dict[str, Any] = {"evacuate": {}}
        self.admin_api.post_server_action(server, body)
        shown = self._wait_for_server_parameter(
            {"id": server}, {"OS-EXT-SRV-ATTR:host": "compute2", "status": "SHUTOFF"}
        )
        self.assertIsNone(shown["quiesce_status"])


class StateTest(base.FunctionalTest):
    def test_state_lies_outside_of_the_instance(self) -> None:
        server = self.quiesced()
        row = self.row(server)
        assert row is not None
        self.assertEqual("quiesced", row.status)
        stored = self.instance(server).system_metadata
        self.assertEqual([], [key for key in stored if key.startswith("nova_ext")])
        self.accepted(server, "unquiesce")
        self.wait_status(server, None)
        self.assertIsNone(self.row(server))

    def test_a_stale_save_of_the_instance_brings_nothing_back(self) -> None:
        server = self.quiesced()
        stale = self.instance(server)
        self.accepted(server, "unquiesce")
        self.wait_status(server, None)
        stale.system_metadata["locked_reason"] = "stale"
        stale.save()
        self.assertIsNone(self.api.get_server(server)["quiesce_status"])
        self.accepted(server, "quiesce")
        self.wait_status(server, "quiesced")
        stale.system_metadata["locked_reason"] = "staler"
        stale.save()
        self.assertEqual("quiesced", self.api.get_server(server)["quiesce_status"])

    def test_rows_of_servers_deleted_while_their_host_is_down_go(self) -> None:
        server = self.quiesced()
        self.kill()
        self.computes["compute1"].stop()
        self.computes["compute1"].service_ref.forced_down = True
        self.computes["compute1"].service_ref.save()
        self.api.delete_server(server)
        self._wait_until_deleted({"id": server})
        context = nova_context.get_admin_context()
        self.assertEqual(0, QuiesceWindowList.destroy_of_deleted(context, "compute1"))

    def test_a_deleted_server_is_shown_without_its_window(self) -> None:
        server = self.quiesced()
        self.api.delete_server(server)
        self._wait_until_deleted({"id": server})
        for shown in self.admin_api.get_servers(
            search_opts={"deleted": True, "all_tenants": True}
        ):
            self.assertIsNone(shown["quiesce_status"])

    def test_soft_delete_and_restore_end_the_window(self) -> None:
        self.flags(reclaim_instance_interval=30)
        server = self.quiesced()
        self.api.delete_server(server)
        self._wait_for_state_change({"id": server}, "SOFT_DELETED")
        self.until_idle(server)
        self.api.post_server_action(server, {"restore": {}})
        shown = self._wait_for_state_change({"id": server}, "ACTIVE")
        self.assertIsNone(shown["quiesce_status"])
        self.accepted(server, "quiesce")
        self.wait_status(server, "quiesced")

    def test_a_stop_that_has_passed_the_first_look_is_taken_back(self) -> None:
        server = self.boot()
        found = quiesce_api.visible
        looks: list[Any] = []

        def look(context: Any, instance: Any) -> Any:
            looks.append(instance.task_state)
            if looks == [None]:
                # The first look sees nothing; the window begins right after it.
                self.act(server, "quiesce")
                self.wait_status(server, "quiesced")
                return None
            return found(context, instance)

        with mock.patch.object(quiesce_api, "visible", look):
            self.assertIn("unquiesce first", self.refused(409, server, "os-stop"))
        self.assertEqual([None, "powering-off"], looks)
        shown = self.admin_api.get_server(server)
        self.assertIsNone(shown["OS-EXT-STS:task_state"])
        self.assertEqual("ACTIVE", shown["status"])
        self.assertNotIn("stop", self.actions(server))
        self.accepted(server, "unquiesce")
        self.assertEqual("Success", self.wait_event(server, "unquiesce")["result"])

    def test_a_quiesce_that_has_passed_the_first_look_is_refused_by_its_host(
        self,
    ) -> None:
        server = self.boot()
        rpcapi = "nova_ext.compute.quiesce.rpc.QuiesceRPCAPI.quiesce_instance"
        call = importutils.import_class(rpcapi.rpartition(".")[0]).quiesce_instance

        def stop_first(api: Any, context: Any, instance: Any, *args: Any) -> None:
            self.accepted(server, "os-stop")
            self._wait_for_state_change({"id": server}, "SHUTOFF")
            call(api, context, instance, *args)

        with mock.patch(rpcapi, stop_first):
            self.assertIn("vm_state stopped", self.refused(409, server, "quiesce"))
        self.assertEqual([], self.agents.calls)
        self.assertIsNone(self.row(server))

    def actions(self, server: str) -> list[str]:
        return [each["action"] for each in self.api.get_instance_actions(server)]


class WithoutDatabaseTest(base.FunctionalTest):
    """A cell whose database of the extension is missing."""

    def sync_databases(self) -> None:
        """Not in this cloud."""

    def test_stock_actions_go_on_and_quiesce_says_what_to_do(self) -> None:
        server = self.boot()
        self.assertIn("nova-ext-manage db sync", self.refused(400, server, "quiesce"))
        self.assertIn("nova-ext-manage db sync", self.refused(400, server, "unquiesce"))
        self.assertIsNone(self.api.get_server(server)["quiesce_status"])
        self.assertIsNone(self.api.get_servers()[0]["quiesce_status"])
        self.accepted(server, "os-stop")
        self._wait_for_state_change({"id": server}, "SHUTOFF")
        self.api.delete_server(server)
        self._wait_until_deleted({"id": server})

    def test_the_host_publishes_nothing_until_the_database_is_there(self) -> None:
        self.boot()
        service = self.computes["compute1"]
        self.assertNotIn(capability.STATS_KEY, self.stats())
        super().sync_databases()
        context = nova_context.get_admin_context()
        service.manager._reconcile(context)
        service.manager.update_available_resource(context)
        self.assertIn(capability.STATS_KEY, self.stats())

    def stats(self) -> Any:
        context = nova_context.get_admin_context()
        node = objects.ComputeNode.get_first_node_by_host_for_old_compat(
            context, "compute1"
        )
        return node.stats
