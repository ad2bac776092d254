# SPDX-License-Identifier: Apache-2.0
"""The guard, the rows and the windows of a host, when one of them fails the others."""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import fixtures
from nova import context as nova_context
from nova.db.main import api as main_api
from oslo_utils import uuidutils

from nova_ext.compute.quiesce import rpc
from nova_ext.db import api as db
from nova_ext.guard import clock
from nova_ext.guard.guests import AgentError, GuestAbsent
from nova_ext.guard.records import Phase, Record
from nova_ext.objects.quiesce_window import QuiesceWindowList
from tests.functional import base

#: What nova-compute has its conductor do to end a window.
WRITES = (
    (main_api, "action_start"),
    (main_api, "action_event_start"),
    (main_api, "action_event_finish"),
    (db, "quiesce_window_update"),
    (db, "quiesce_window_delete"),
)


class Reconciled(base.FunctionalTest):
    """A host whose periodic task runs when the test says so."""

    def reconcile(self) -> None:
        """What the periodic task does each minute."""
        manager = self.computes["compute1"].manager
        manager._reconcile_wings(nova_context.get_admin_context())

    def unquiesces(self, server: str) -> int:
        """How many actions ``unquiesce`` the server has."""
        listed = self.api.get_instance_actions(server)
        return [each["action"] for each in listed].count("unquiesce")


class ConductorHangsTest(base.FunctionalTest):
    """Nothing on the way to the thaw waits for what nova-compute writes."""

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Let nova-compute's writes hang."""
        gate = threading.Event()

        def late(function: Any) -> Any:
            def wait(*args: Any, **kwargs: Any) -> Any:
                # The test itself goes on.
                if threading.current_thread() is not threading.main_thread():
                    assert gate.wait(60)
                return function(*args, **kwargs)

            return wait

        with contextlib.ExitStack() as stack:
            for module, name in WRITES:
                function = late(getattr(module, name))
                stack.enter_context(mock.patch.object(module, name, function))
            try:
                yield
            finally:
                gate.set()

    def wait_thawed(self, server: str, since: float) -> float:
        """Wait until the guest is thawed; how long that took."""
        while server in self.agents.frozen:
            self.assertLess(time.monotonic(), since + 30)
            time.sleep(0.02)
        return time.monotonic() - since

    def test_unquiesce_thaws_first_and_records_later(self) -> None:
        server = self.quiesced()
        with self.hanging():
            began = time.monotonic()
            request = threading.Thread(
                target=self.accepted, args=(server, "unquiesce"), daemon=True
            )
            request.start()
            self.assertLess(self.wait_thawed(server, began), 5)
            # The answer waits for the action, the thaw for nothing.
            self.assertTrue(request.is_alive())
            request.join(30)
            self.assertEqual("quiesced", self.status(server))
        self.assertEqual("Success", self.wait_event(server, "unquiesce")["result"])
        self.wait_status(server, None)

    def test_an_unquiesce_in_time_is_one_whose_record_comes_after_the_deadline(
        self,
    ) -> None:
        server = self.quiesced()
        with self.hanging():
            self.accepted(server, "unquiesce")
            self.age(server, seconds=3600)
        self.assertEqual("Success", self.wait_event(server, "unquiesce")["result"])

    def test_the_deadline_does_not_wait_for_the_conductor(self) -> None:
        server = self.quiesced()
        self.age(server, seconds=3600)
        with self.hanging():
            self.assertLess(self.wait_thawed(server, time.monotonic()), 5)
        event = self.wait_event(server, "unquiesce")
        self.assertEqual("Error", event["result"])
        self.assertIn("it was not unquiesced by", event["details"])


class AbsentGuestTest(Reconciled):
    """A guest that does not run on this host when its deadline comes."""

    def overdue(self, memory_lost: bool) -> str:
        server = self.quiesced()
        self.agents.absent = GuestAbsent("the guest is not running", memory_lost)
        self.age(server, seconds=3600)
        return server

    def test_it_keeps_its_window_and_is_thawed_when_it_is_back(self) -> None:
        server = self.overdue(memory_lost=False)
        self.wait_status(server, "unquiescing")
        self.reconcile()
        time.sleep(2.5)  # the guard looks each second
        self.assertIn(server, self.agents.frozen)
        self.assertEqual("unquiescing", self.status(server))
        self.assertEqual(Phase.FROZEN, self.record(server).phase)
        self.assertEqual(0, self.unquiesces(server))
        self.agents.absent = None
        event = self.wait_event(server, "unquiesce")
        self.assertEqual("Error", event["result"])
        self.assertIn("it was not unquiesced by", event["details"])
        self.assertNotIn(server, self.agents.frozen)
        self.wait_status(server, None)
        self.until_idle(server)
        self.assertEqual([], self.records.uuids())

    def test_it_keeps_its_window_over_a_restart(self) -> None:
        server = self.overdue(memory_lost=False)
        self.wait_status(server, "unquiescing")
        self.restart_compute_service("compute1")
        self.assertEqual("unquiescing", self.status(server))
        self.assertEqual(Phase.FROZEN, self.record(server).phase)
        self.agents.absent = None
        event = self.wait_event(server, "unquiesce")
        self.assertEqual("Error", event["result"])
        self.assertIn("it was not unquiesced by", event["details"])
        self.assertNotIn(server, self.agents.frozen)

    def test_it_may_be_stopped(self) -> None:
        server = self.overdue(memory_lost=False)
        self.wait_status(server, "unquiescing")
        self.accepted(server, "os-stop")
        self._wait_for_state_change({"id": server}, "SHUTOFF")
        self.wait_status(server, None)

    def test_its_window_ends_at_once_when_its_memory_is_lost(self) -> None:
        server = self.overdue(memory_lost=True)
        event = self.wait_event(server, "unquiesce")
        self.assertEqual("Error", event["result"])
        self.assertIn("the guest was powered off", event["details"])
        self.wait_status(server, None)
        self.until_idle(server)
        self.assertEqual([], self.records.uuids())

    def test_a_guest_whose_agent_hangs_at_its_deadline_may_be_stopped(self) -> None:
        server = self.quiesced()
        self.agents.hung = AgentError("hung")
        self.age(server, seconds=3600)
        self.wait_status(server, "unquiescing")
        self.accepted(server, "os-stop")
        self._wait_for_state_change({"id": server}, "SHUTOFF")
        self.wait_status(server, None)


class ResetStateTest(Reconciled):
    def reset(self, server: str) -> None:
        response = self.act(
            server, "os-resetState", {"state": "active"}, api=self.admin_api
        )
        self.assertEqual(202, response.status_code)

    def release(self, server: str, window_id: str) -> None:
        """Tell the host that a state was cleared."""
        context = nova_context.get_admin_context()
        rpcapi = rpc.QuiesceRPCAPI()
        rpcapi.release_instance(context, self.instance(server), window_id)

    def assert_unquiesces(self, server: str) -> None:
        self.assertEqual("quiesced", self.status(server))
        self.assertIn(server, self.agents.frozen)
        self.accepted(server, "unquiesce")
        self.assertEqual("Success", self.wait_event(server, "unquiesce")["result"])

    def test_a_stale_release_does_not_touch_a_new_window(self) -> None:
        server = self.quiesced()
        self.release(server, uuidutils.generate_uuid())
        self.assert_unquiesces(server)

    def test_a_stale_release_after_a_restart_does_not_touch_a_new_window(self) -> None:
        server = self.quiesced()
        self.kill()
        # As one that has not looked yet.
        self.computes["compute1"].manager.quiesce_manager._windows.clear()
        self.release(server, uuidutils.generate_uuid())
        self.assertNotIn(server, self.windows())
        self.restart_compute_service("compute1")
        self.assert_unquiesces(server)

    def test_a_release_that_was_lost_is_made_up_for(self) -> None:
        server = self.quiesced()
        with mock.patch.object(rpc.QuiesceRPCAPI, "release_instance"):
            self.reset(server)
        self.assertIsNone(self.status(server))
        self.assertIn(server, self.agents.frozen)
        self.reconcile()
        self.assert_no_trace(server)

    def reset_while_freezing(self) -> str:
        server = self.boot()
        self.agents.freeze_gate.clear()
        self.accepted(server, "quiesce")
        self.wait_status(server, "quiescing")
        self.reset(server)
        self.assertIsNone(self.status(server))
        return server

    def assert_stays_clear(self, server: str) -> None:
        """The state does not come back; what it stood for goes."""
        while server in self.windows():
            self.assertIsNone(self.status(server))
            time.sleep(0.1)
        self.assert_no_trace(server)

    def test_during_a_freeze_that_succeeds(self) -> None:
        server = self.reset_while_freezing()
        self.agents.freeze_gate.set()
        self.assert_stays_clear(server)
        self.assertEqual(["freeze", "thaw"], self.agents.calls)

    def test_during_a_freeze_that_fails(self) -> None:
        self.flags(quiesce_agent_timeout=1, group="nova_ext")
        self.useFixture(
            fixtures.MonkeyPatch("nova_ext.guard.guests.LIBVIRT_JOB_WAIT", 2)
        )
        server = self.reset_while_freezing()
        self.agents.freeze_error = AgentError("timed out")
        self.agents.freeze_gate.set()
        self.assert_stays_clear(server)
        self.assertEqual("Error", self.wait_event(server, "quiesce")["result"])


class RecordWithoutRowTest(Reconciled):
    def recorded(self) -> str:
        """A server of whose frozen guest the database knows nothing."""
        server = self.boot()
        self.agents.frozen.add(server)
        now = clock.now()
        self.records.write(
            Record(
                uuid=server,
                window_id=uuidutils.generate_uuid(),
                phase=Phase.FROZEN,
                began=now,
                until=now,
                due=now.after(3600),
                domain_id=1,
                frozen=2,
                written=3,
            )
        )
        return server

    def test_it_is_thawed_and_removed(self) -> None:
        server = self.recorded()
        self.reconcile()
        self.assert_no_trace(server)
        self.assertEqual(0, self.unquiesces(server))

    def test_it_goes_when_its_guest_is_destroyed(self) -> None:
        server = self.recorded()
        self.agents.absent = GuestAbsent("not on this host", memory_lost=False)
        self.reconcile()
        self.assertEqual([server], self.records.uuids())
        self.api.delete_server(server)
        self._wait_until_deleted({"id": server})
        self.reconcile()
        self.assertEqual([], self.records.uuids())

    def test_it_stays_until_the_guest_is_thawed(self) -> None:
        server = self.quiesced()
        self.kill()
        self.clear_row(server)
        self.agents.thaw_errors = [AgentError("hung")] * 1000
        self.restart_compute_service("compute1")
        self.assertIn(server, self.agents.frozen)
        self.assertEqual([server], self.records.uuids())
        self.agents.thaw_errors = []
        self.reconcile()
        self.assert_no_trace(server)

    def test_a_look_that_is_out_of_date_does_not_touch_a_new_window(self) -> None:
        server = self.quiesced()
        manager = self.computes["compute1"].manager.quiesce_manager
        # The window began after the look at the rows and windows.
        manager._settle(server, uuidutils.generate_uuid())
        self.assertIn(server, self.agents.frozen)
        self.assertEqual(Phase.FROZEN, self.record(server).phase)
        self.accepted(server, "unquiesce")
        self.assertEqual("Success", self.wait_event(server, "unquiesce")["result"])

    def test_a_look_that_is_out_of_date_does_not_touch_a_freeze_of_an_image(
        self,
    ) -> None:
        server = self.boot()
        self.agents.frozen.add(server)
        manager = self.computes["compute1"].manager.quiesce_manager
        manager._settle(server, uuidutils.generate_uuid())
        self.assertIn(server, self.agents.frozen)
        self.assertEqual([], self.records.uuids())

    def test_a_new_window_is_not_ended_for_the_row_of_an_old_one(self) -> None:
        server = self.quiesced()
        known: list[str] = []

        def read(context: Any, host: str) -> QuiesceWindowList:
            # The old window ends and the new one begins after the look at windows.
            if not known:
                known.append(server)
                self.accepted(server, "unquiesce")
                self.wait_event(server, "unquiesce")
                self.until_idle(server)
                self.accepted(server, "quiesce")
                self.wait_status(server, "quiesced")
            return QuiesceWindowList(context, objects=[])

        with mock.patch.object(QuiesceWindowList, "get_by_host", read):
            self.reconcile()
        self.assertEqual([server], known)
        self.accepted(server, "unquiesce")
        self.assertEqual("Success", self.wait_event(server, "unquiesce")["result"])

    def test_a_window_whose_row_was_removed_ends(self) -> None:
        server = self.quiesced()
        self.clear_row(server)
        self.reconcile()
        self.assert_no_trace(server)


class LostRecordsTest(Reconciled):
    """What cannot be written for another reason than the bus is given up for now."""

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(
            fixtures.MonkeyPatch("nova_ext.compute.retry_queue._MOST_ERRORS", 1)
        )

    def failing(self, module: Any, name: str) -> Any:
        return mock.patch.object(module, name, side_effect=OSError("no entropy"))

    def lost(self, module: Any, name: str, timeout: bool = False) -> str:
        """A server whose window has ended, while ``name`` of ``module`` failed."""
        server = self.quiesced()
        with self.failing(module, name):
            if timeout:
                self.age(server, seconds=3600)
            else:
                self.accepted(server, "unquiesce")
            self._wait_for_assert(lambda: self.assertNotIn(server, self.agents.frozen))
            self.until_idle(server)
        # By one of them it is found again.
        self.assertTrue(self.row(server) or self.records.read(server))
        return server

    def assert_told(self, server: str, result: str) -> None:
        self.assertEqual(result, self.wait_event(server, "unquiesce")["result"])
        self.assertEqual(1, self.unquiesces(server))

    def test_the_action(self) -> None:
        server = self.lost(main_api, "action_start")
        self.reconcile()
        self.assert_told(server, "Success")
        self.assert_no_trace(server)

    def test_the_begin_of_the_event(self) -> None:
        server = self.lost(main_api, "action_event_start")
        self.reconcile()
        self.assert_told(server, "Success")
        self.assert_no_trace(server)

    def test_the_outcome(self) -> None:
        server = self.lost(main_api, "action_event_finish")
        self.reconcile()
        self.assert_told(server, "Success")
        self.assert_no_trace(server)

    def test_the_state(self) -> None:
        server = self.lost(db, "quiesce_window_update")
        self.reconcile()
        self.assert_told(server, "Success")
        self.assert_no_trace(server)

    def test_the_end_of_the_row(self) -> None:
        server = self.lost(db, "quiesce_window_delete")
        self.reconcile()
        self.assert_told(server, "Success")
        self.assert_no_trace(server)

    def test_the_outcome_of_a_deadline(self) -> None:
        server = self.lost(main_api, "action_event_finish", timeout=True)
        self.reconcile()
        self.until_idle(server)
        event = self.wait_event(server, "unquiesce")
        self.assertEqual("Error", event["result"])
        self.assertIn("it was not unquiesced by", event["details"])
        self.assertEqual(1, self.unquiesces(server))
        self.assertEqual([], self.records.uuids())
        self.accepted(server, "unquiesce")
        self.until_idle(server)
        self.assertIsNone(self.row(server))
