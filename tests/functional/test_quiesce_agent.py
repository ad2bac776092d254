# SPDX-License-Identifier: Apache-2.0
"""What quiesce and unquiesce make of what the guest's agent does and says."""

import errno
import json
from typing import Any
from unittest import mock

import fixtures

from nova_ext.guard import clock, guests
from nova_ext.guard.guests import AgentError, GuestAbsent, Refused
from nova_ext.guard.records import Phase, Record, Records
from tests.functional import base

VFAT = guests.FileSystem("vda3", "/boot/efi", "vfat")


class PartialTest(base.FunctionalTest):
    """A file system that no freeze can freeze."""

    def left_out(self, server: str) -> Any:
        row = self.row(server)
        assert row is not None
        return row.left_out and json.loads(row.left_out)

    def test_quiesce_fails_and_names_the_mount_point(self) -> None:
        server = self.boot()
        self.agents.mounted.append(VFAT)
        self.accepted(server, "quiesce")
        event = self.wait_event(server, "quiesce")
        self.assertEqual("Error", event["result"])
        self.assertIn("/boot/efi", event["details"])
        self.assertIn('"partial": true', event["details"])
        self.wait_status(server, None)
        self.until_idle(server)
        self.assertNotIn(server, self.agents.frozen)
        self.assertEqual(["freeze", "thaw"], self.agents.calls)
        self.assertIsNone(self.row(server))
        self.assertEqual([], self.records.uuids())

    def test_quiesce_fails_also_if_the_request_says_false(self) -> None:
        server = self.boot()
        self.agents.mounted.append(VFAT)
        self.accepted(server, "quiesce", {"partial": False})
        self.assertEqual("Error", self.wait_event(server, "quiesce")["result"])
        self.wait_status(server, None)

    def test_a_partial_window_says_what_is_left_out(self) -> None:
        server = self.boot()
        self.agents.mounted.append(VFAT)
        self.accepted(server, "quiesce", {"partial": True})
        self.wait_status(server, "quiesced")
        told = "without the file systems /boot/efi"
        event = self.wait_event(server, "quiesce")
        self.assertEqual(("Success", told), (event["result"], event["details"]))
        self.assertEqual(["/boot/efi"], self.left_out(server))
        self.accepted(server, "unquiesce")
        event = self.wait_event(server, "unquiesce")
        self.assertEqual(("Success", told), (event["result"], event["details"]))

    def test_a_window_that_may_be_partial_and_is_whole_says_so(self) -> None:
        server = self.boot()
        self.accepted(server, "quiesce", {"partial": True})
        self.wait_status(server, "quiesced")
        self.assertIsNone(self.left_out(server))


class FailedFreezeTest(base.FunctionalTest):
    def assert_begins_anew(self, server: str) -> None:
        """Nothing is left of a window, and the next one can begin."""
        self.assert_no_trace(server)
        self.agents.freeze_error = None
        self.accepted(server, "quiesce")
        self.wait_status(server, "quiesced")
        self.accepted(server, "unquiesce")
        self.assertEqual("Success", self.wait_event(server, "unquiesce")["result"])

    def test_failed_freeze_is_an_error_event_and_no_500(self) -> None:
        server = self.boot()
        self.agents.freeze_error = Refused("no agent")
        self.accepted(server, "quiesce")
        event = self.wait_event(server, "quiesce")
        self.assertEqual("Error", event["result"])
        self.assertIn("no agent", event["details"])
        self.assertEqual(["freeze"], self.agents.calls)
        self.assert_begins_anew(server)

    def test_freeze_that_the_agent_does_not_allow_is_not_sent(self) -> None:
        server = self.boot()
        self.agents.allowed.remove(guests.FREEZE)
        self.accepted(server, "quiesce")
        event = self.wait_event(server, "quiesce")
        self.assertEqual("Error", event["result"])
        self.assertIn("does not allow guest-fsfreeze-freeze", event["details"])
        self.assertEqual([], self.agents.calls)
        self.agents.allowed.add(guests.FREEZE)
        self.assert_begins_anew(server)

    def test_freeze_whose_record_cannot_be_written_is_not_sent(self) -> None:
        server = self.boot()
        full = OSError(errno.ENOSPC, "no space left on device")
        with mock.patch.object(Records, "write", side_effect=full):
            self.accepted(server, "quiesce")
            event = self.wait_event(server, "quiesce")
        self.assertEqual("Error", event["result"])
        self.assertIn("no space left", event["details"])
        self.assertEqual([], self.agents.calls)
        self.assert_begins_anew(server)

    def short(self) -> None:
        """Let a freeze be carried out within four seconds, or never."""
        self.flags(quiesce_agent_timeout=1, group="nova_ext")
        self.useFixture(
            fixtures.MonkeyPatch("nova_ext.guard.guests.LIBVIRT_JOB_WAIT", 3)
        )

    def test_freeze_that_happens_after_its_timeout_is_thawed(self) -> None:
        self.short()
        server = self.boot()
        self.agents.freeze_error = AgentError("timed out")
        self.accepted(server, "quiesce")
        event = self.wait_event(server, "quiesce")
        self.assertEqual("Error", event["result"])
        self.assertIn("timed out", event["details"])
        # Told at once, but it may still be carried out.
        self.assertEqual("unquiescing", self.status(server))
        self.agents.frozen.add(server)
        self.wait_status(server, None)
        self.assertNotIn(server, self.agents.frozen)
        self.assertEqual(["freeze", "thaw"], self.agents.calls)

    def test_freeze_that_may_still_happen_keeps_the_server_unquiescing(self) -> None:
        self.short()
        server = self.boot()
        self.agents.freeze_error = AgentError("timed out")
        self.accepted(server, "quiesce")
        self.wait_status(server, "unquiescing")
        began = self.record(server).began
        self.wait_status(server, None)
        self.assertGreaterEqual(clock.now().monotonic - began.monotonic, 4)
        self.assertEqual(["freeze"], self.agents.calls)

    def test_thaw_is_retried_until_the_agent_answers(self) -> None:
        self.short()
        server = self.boot()
        self.agents.freeze_error = AgentError("timed out")
        self.agents.thaw_errors = [AgentError("hung")] * 2
        self.accepted(server, "quiesce")
        # Told at once, while the thaw still goes on.
        self.assertEqual("Error", self.wait_event(server, "quiesce")["result"])
        self.agents.frozen.add(server)
        self.wait_status(server, None)
        self.assertEqual(["freeze", "thaw", "thaw", "thaw"], self.agents.calls)

    def test_unexpected_error_of_a_thaw_does_not_leave_the_guest_frozen(self) -> None:
        server = self.quiesced()
        self.agents.thaw_errors = [ZeroDivisionError("a defect")]
        self.accepted(server, "unquiesce")
        self.wait_status(server, None)
        self.assertNotIn(server, self.agents.frozen)

    def test_while_the_thaw_is_stuck_only_forced_power_operations_pass(self) -> None:
        server = self.boot()
        self.agents.freeze_error = AgentError("timed out")
        self.agents.thaw_errors = [AgentError("hung")] * 1000
        self.accepted(server, "quiesce")
        self.wait_status(server, "unquiescing")
        self.agents.frozen.add(server)
        self.refused(409, server, "quiesce")
        self.refused(409, server, "unquiesce")
        self.refused(409, server, "pause")
        self.refused(409, server, "reboot", {"type": "SOFT"})
        self.accepted_as(202, server, "reboot", {"type": "HARD"})
        self.wait_status(server, None)

    def test_unquiesce_that_takes_long_is_told_and_goes_on(self) -> None:
        self.flags(quiesce_agent_timeout=1, group="nova_ext")
        self.useFixture(
            fixtures.MonkeyPatch("nova_ext.compute.quiesce.window._HOOK", 0)
        )
        server = self.quiesced()
        self.agents.thaw_errors = [AgentError("hung")] * 1000
        self.accepted(server, "unquiesce")
        event = self.wait_event(server, "unquiesce")
        self.assertEqual("Error", event["result"])
        self.assertIn("being retried: hung", event["details"])
        self.assertEqual("unquiescing", self.status(server))
        self.agents.thaw_errors = []
        self.wait_status(server, None)
        self.assertNotIn(server, self.agents.frozen)


class ProofTest(base.FunctionalTest):
    """What the guest was until somebody began to thaw it, and what the thaw made of it.

    A thaw makes these guests write: Success says that the proof was taken before.
    """

    def assert_unquiesce_succeeds(self, server: str) -> None:
        self.accepted(server, "unquiesce")
        self.assertEqual("Success", self.wait_event(server, "unquiesce")["result"])
        self.wait_status(server, None)
        self.until_idle(server)
        self.assertNotIn(server, self.agents.frozen)
        self.assertEqual([], self.records.uuids())

    def assert_unquiesce_fails(self, server: str, reason: str) -> None:
        self.accepted(server, "unquiesce")
        event = self.wait_event(server, "unquiesce")
        self.assertEqual("Error", event["result"])
        self.assertIn(reason, event["details"])
        self.assertNotIn(server, self.agents.frozen)
        self.wait_status(server, None)

    def test_a_thaw_hook_that_fails_does_not_break_the_window(self) -> None:
        server = self.quiesced()
        self.agents.hook_error = Refused("the hook ended with 1")
        self.assert_unquiesce_succeeds(server)
        # It is not run again and again.
        self.assertEqual(["freeze", "thaw"], self.agents.calls)

    def test_a_thaw_hook_that_is_slow_does_not_break_the_window(self) -> None:
        server = self.quiesced()
        self.agents.hook_error = AgentError("timed out")
        self.assert_unquiesce_succeeds(server)
        self.assertEqual(["freeze", "thaw"], self.agents.calls)

    def test_a_thaw_that_is_carried_out_late_does_not_break_the_window(self) -> None:
        server = self.quiesced()
        self.agents.thaw_errors = [AgentError("timed out")] * 1000
        self.accepted(server, "unquiesce")
        self.wait_status(server, "unquiescing")
        self._wait_for_assert(lambda: self.assertIn("thaw", self.agents.calls))
        self.agents.bytes += 512
        self.agents.frozen.discard(server)
        self.assertEqual("Success", self.wait_event(server, "unquiesce")["result"])

    def test_what_the_guest_wrote_while_it_was_frozen_breaks_it(self) -> None:
        server = self.quiesced()
        self.agents.bytes += 4096
        self.assert_unquiesce_fails(server, "4096 bytes written")

    def test_a_guest_that_was_thawed_in_between_breaks_it(self) -> None:
        server = self.quiesced()
        self.agents.frozen.discard(server)
        self.assert_unquiesce_fails(server, "thawed in between")

    def test_a_disk_that_was_taken_away_breaks_it_without_negative_numbers(
        self,
    ) -> None:
        server = self.quiesced()
        self.agents.bytes -= 1
        self.assert_unquiesce_fails(server, "a disk was taken from the guest")

    def test_a_guest_whose_memory_is_lost_breaks_it(self) -> None:
        server = self.quiesced()
        self.agents.absent = GuestAbsent("not running", memory_lost=True)
        self.agents.frozen.discard(server)
        self.assert_unquiesce_fails(server, "the guest was powered off")

    def test_a_proof_that_cannot_be_written_does_not_hold_up_the_thaw(self) -> None:
        server = self.quiesced()
        write = Records.write

        def full(records: Records, record: Record) -> None:
            if record.phase is Phase.THAWING:
                raise OSError(errno.ENOSPC, "no space left on device")
            write(records, record)

        with mock.patch.object(Records, "write", full):
            self.assert_unquiesce_fails(server, "no space left")
