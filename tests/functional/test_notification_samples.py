# SPDX-License-Identifier: Apache-2.0
"""The versioned notifications, held against doc/notification_samples.

``GENERATE_SAMPLES=1`` writes the samples anew.
"""

import json
import pathlib
import re
import types
from typing import Any
from unittest import mock

from oslo_utils import fixture as utils_fixture

from nova_ext.guard import guests
from nova_ext.privsep import pmem
from tests.functional import base, samples, test_copy_pmem

SAMPLES = pathlib.Path(__file__).parents[2] / "doc/notification_samples"


class Samples:
    """Holds what was sent against the samples."""

    notifier: Any
    assertEqual: Any  # noqa: N815 - of unittest

    def verify(self, action: str, phase: str, **payload: Any) -> None:
        """Hold the one notification of this type against its sample.

        :param payload: what a reader of the sample relies on
        """
        event_type = f"instance.{action}.{phase}"
        (sent,) = self.notifier.wait_for_versioned_notifications(event_type)
        seen = samples.normalised(
            {
                "priority": sent["priority"],
                "event_type": sent["event_type"],
                "payload": sent["payload"],
                "publisher_id": sent["publisher_id"],
            }
        )
        for name, value in payload.items():
            self.assertEqual(value, seen["payload"]["nova_object.data"][name], name)
        path = SAMPLES / f"instance-{action}-{phase}.json"
        if samples.GENERATE:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(seen, indent=4, sort_keys=True) + "\n")
        self.assertEqual(json.loads(path.read_text()), seen)

    def sent(self) -> list[str]:
        """The types of our notifications, in order."""
        return [
            notification["event_type"]
            for notification in self.notifier.versioned_notifications
            if re.search(r"quiesce\.|copy_pmem\.", notification["event_type"])
        ]


class NotificationSamplesTest(Samples, base.FunctionalTest):
    def setUp(self) -> None:
        super().setUp()
        self.useFixture(utils_fixture.TimeFixture(samples.NOW))
        self.useFixture(samples.wall_clock())

    def test_quiesce_and_unquiesce(self) -> None:
        server = self.boot(name="guest")
        self.agents.freeze_gate.clear()
        self.accepted(server, "quiesce", {"timeout": 60})
        self.verify("quiesce", "start", timeout=60, quiesced_at=None, unquiesce_at=None)
        self.agents.freeze_gate.set()
        self.wait_event(server, "quiesce")
        window = {
            "timeout": 60,
            "quiesced_at": "2026-11-21T10:00:00Z",
            "unquiesce_at": "2026-11-21T10:01:00Z",
            "fault": None,
        }
        self.verify("quiesce", "end", **window)
        self.accepted(server, "unquiesce")
        self.wait_event(server, "unquiesce")
        self.verify("unquiesce", "start", **window)
        self.verify("unquiesce", "end", **window)
        self.assertEqual(
            [
                "instance.quiesce.start",
                "instance.quiesce.end",
                "instance.unquiesce.start",
                "instance.unquiesce.end",
            ],
            self.sent(),
        )

    def test_quiesce_that_fails(self) -> None:
        server = self.boot(name="guest")
        self.agents.freeze_error = guests.Refused("the guest agent does not answer")
        self.accepted(server, "quiesce", {"timeout": 60})
        self.wait_event(server, "quiesce")
        self.verify("quiesce", "error", timeout=60, quiesced_at=None)
        self.assertEqual(
            ["instance.quiesce.start", "instance.quiesce.error"], self.sent()
        )

    def test_unquiesce_of_a_broken_window(self) -> None:
        server = self.quiesced(timeout=60, name="guest")
        self.agents.domain += 1
        self.accepted(server, "unquiesce")
        self.wait_event(server, "unquiesce")
        self.verify("unquiesce", "error", quiesced_at="2026-11-21T10:00:00Z")
        self.assertEqual("instance.unquiesce.error", self.sent()[-1])
        self.assertNotIn("instance.unquiesce.end", self.sent())

    def test_nobody_is_told_where_notifications_are_off(self) -> None:
        self.flags(notification_format="unversioned", group="notifications")
        server = self.quiesced()
        self.accepted(server, "unquiesce")
        self.assertEqual("Success", self.wait_event(server, "unquiesce")["result"])
        self.assertEqual([], self.sent())


class CopyPmemSamplesTest(Samples, test_copy_pmem.CopyPmemTest):
    """A server with two devices, that one stream copies one after the other."""

    NOW = samples.NOW

    def setUp(self) -> None:
        super().setUp()
        self.flags(pmem_copy_streams=1, pmem_progress_interval=30, group="nova_ext")
        clock = mock.patch(
            "nova_ext.compute.pmem.manager.time",
            types.SimpleNamespace(monotonic=lambda: self.seconds),
        )
        clock.start()
        self.addCleanup(clock.stop)
        self.seconds = 1000.0
        self.server, _path = self.booted(self.both)

    def takes(self, *seconds: float, fails: bool = False) -> None:
        """Let the devices take so long, and the one after them fail."""
        left = list(seconds)

        def before(what: str, *paths: str) -> None:
            if what != "copy":
                return
            if fails and not left:
                raise pmem.DaxioError("ssh ended with 255: Connection reset by peer")
            self.seconds += left.pop(0)

        self.devices.before = before

    def test_copy(self) -> None:
        self.takes(40, 20)
        self.migrate(self.server)
        total = 2 * test_copy_pmem.SIZE
        whole = {"bytes_total": total, "fault": None}
        self.verify("copy_pmem", "start", bytes_copied=0, duration=0.0, **whole)
        half = {"bytes_copied": total // 2, "rate": total // 80, "duration": 40.0}
        self.verify("copy_pmem", "progress", **half, **whole)
        end = {"bytes_copied": total, "rate": total // 60, "duration": 60.0}
        self.verify("copy_pmem", "end", **end, **whole)
        self.assertEqual(
            [f"instance.copy_pmem.{phase}" for phase in ("start", "progress", "end")],
            self.sent(),
        )

    def test_copy_that_fails(self) -> None:
        self.takes(20, fails=True)
        self.migrate(self.server, "ACTIVE")
        self.verify("copy_pmem", "error", bytes_copied=test_copy_pmem.SIZE)
        self.assertEqual(
            ["instance.copy_pmem.start", "instance.copy_pmem.error"], self.sent()
        )
