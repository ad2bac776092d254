# SPDX-License-Identifier: Apache-2.0
"""How notifications leave the process, and what a bad message bus may not do."""

import threading
from typing import Any
from unittest import mock

import oslo_messaging
from cinder.objects import fields
from oslo_messaging import conffixture  # noqa: F401 - registers the options

from cinder_ext import conf
from tests.functional_cinder import base

SEND = "oslo_messaging._drivers.impl_fake.FakeDriver.send_notification"


class Listener:
    """A consumer at the other side of the bus."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str, dict[str, Any]]] = []

    def _take(
        self, priority: str, publisher_id: str, event_type: str, payload: Any
    ) -> None:
        self.seen.append((priority, publisher_id, event_type, payload))

    def info(
        self, _ctxt: Any, publisher: str, kind: str, payload: Any, _m: Any
    ) -> None:
        self._take("info", publisher, kind, payload)

    def error(
        self, _ctxt: Any, publisher: str, kind: str, payload: Any, _m: Any
    ) -> None:
        self._take("error", publisher, kind, payload)


class FormatCase(base.BackupCase):
    def listened(
        self, *topics: str, ends: int = 1
    ) -> list[tuple[str, str, str, dict[str, Any]]]:
        """What consumers of the topics get of a create.

        :param ends: how many ends to wait for
        """
        listener = Listener()
        done = threading.Event()
        server = oslo_messaging.get_notification_listener(
            oslo_messaging.get_notification_transport(base.CONF),
            [oslo_messaging.Target(topic=topic) for topic in topics],
            [listener],
            executor="threading",
        )
        server.start()
        self.created()
        self.flush()
        for _try in range(300):
            if sum("create.end" in seen[2] for seen in listener.seen) == ends:
                break
            done.wait(0.1)
        server.stop()
        server.wait()
        return [seen for seen in listener.seen if "progress" not in seen[2]]


class UnversionedTest(FormatCase):
    def test_topics(self) -> None:
        self.assertEqual(
            [
                ("info", f"backup.{base.HOST}", "backup.create.start"),
                ("info", f"backup.{base.HOST}", "backup.create.end"),
            ],
            [
                seen[:3]
                for seen in self.listened("notifications", "versioned_notifications")
            ],
        )


class VersionedTest(FormatCase):
    OPTIONS = {"format": "versioned"}

    def test_topics(self) -> None:
        seen = self.listened("notifications", "versioned_notifications")
        self.assertEqual(
            [
                ("info", f"cinder-backup:{base.HOST}", "volume_backup.create.start"),
                ("info", f"cinder-backup:{base.HOST}", "volume_backup.create.end"),
            ],
            [message[:3] for message in seen],
        )
        payload = seen[1][3]
        self.assertEqual("BackupPayload", payload["cinder_object.name"])
        self.assertEqual("cinder", payload["cinder_object.namespace"])
        progress = payload["cinder_object.data"]["progress"]
        self.assertEqual(100.0, progress["cinder_object.data"]["percent"])


class BothTest(FormatCase):
    OPTIONS = {"format": "both"}

    def test_each_format_has_its_topic(self) -> None:
        seen = self.listened("notifications", "versioned_notifications", ends=2)
        self.assertEqual(
            [
                "backup.create.end",
                "backup.create.start",
                "volume_backup.create.end",
                "volume_backup.create.start",
            ],
            sorted(message[2] for message in seen),
        )


class PoisonTest(base.BackupCase):
    OPTIONS = {"format": "both"}

    def test_an_event_that_cannot_be_made_holds_up_no_other(self) -> None:
        with mock.patch(
            "cinder_ext.notifications.objects.backup.notification",
            side_effect=ValueError,
        ):
            self.created()
            self.flush()
        self.assertEqual(["backup.create.start", "backup.create.end"], self.types())
        self.assertEqual([], self.journal())


class ChoiceTest(base.BackupCase):
    OPTIONS = {"legacy_progress": False, "include_service_metadata": False}

    def test_what_can_be_left_out(self) -> None:
        self.created()
        self.assertNotEqual([], self.sent("backup.create.progress"))
        self.assertEqual([], self.sent("backup.createprogress"))
        self.assertIsNone(self.only("backup.create.end")["service_metadata"])


class BadBusTest(base.BackupCase):
    def test_a_bus_that_refuses_fails_no_backup_and_loses_no_end(self) -> None:
        self.manager.recorder.emitter.pause = 0
        with mock.patch(SEND, side_effect=ConnectionError("refused")):
            backup = self.created()
            self.flush()
        self.assertEqual(fields.BackupStatus.AVAILABLE, backup.status)
        self.assertEqual(1, len(self.journal()))
        base._impl_test.reset()
        self.delete(backup)
        self.flush()
        self.assertIn("backup.create.end", self.types())
        self.assertIn("backup.notifications.dropped", self.types())
        self.assertEqual([], self.journal())

    def test_a_bus_that_hangs_costs_a_backup_nothing(self) -> None:
        running = threading.Event()
        hung = threading.Event()

        def hang(*_args: Any, **_more: Any) -> None:
            hung.set()
            assert running.wait(base.PATIENCE)

        with mock.patch(SEND, side_effect=hang):
            backup = self.created()
            self.assertEqual(fields.BackupStatus.AVAILABLE, backup.status)
            self.assertTrue(hung.wait(base.PATIENCE))
            self.assertFalse(self.manager.recorder.emitter.flush(0))
            running.set()
            self.flush()
        self.assertEqual(["backup.create.start", "backup.create.end"], self.types())
        # What was sent late says when it happened.
        (end,) = self.sent("backup.create.end")
        occurred_at = end["payload"]["occurred_at"].replace("T", " ")
        self.assertLess(occurred_at, end["timestamp"])

    def test_the_retries_are_limited(self) -> None:
        retries = []

        def refuse(*_args: Any, retry: Any = None, **_more: Any) -> None:
            retries.append(retry)
            raise ConnectionError("refused")

        self.manager.recorder.emitter.pause = 0
        with mock.patch(SEND, side_effect=refuse):
            self.manager.create_backup(self.context, self.backup(self.volume()))
            self.flush()
        self.assertEqual([3] * 4, retries)


class OptionsTest(base.BackupCase):
    def refused(self, **options: Any) -> str:
        for name, value in options.items():
            self.override_config(name, value, group="backup_notifications")
        left = self.assertRaises(SystemExit, self.started)
        return str(left)

    def test_intervals_that_contradict_each_other_refuse_the_start(self) -> None:
        message = self.refused(min_interval=60, max_interval=30)
        self.assertIn("min_interval (60) is above max_interval (30)", message)
        self.assertNotIn("\n", message)

    def test_formats_need_topics_of_their_own(self) -> None:
        message = self.refused(format="both", versioned_topic="notifications")
        self.assertIn("versioned_topic", message)

    def test_the_options_are_listed(self) -> None:
        ((group, options),) = conf.list_opts()
        self.assertEqual("backup_notifications", group.name)
        for option in options:
            self.assertIn(option.dest, base.CONF.backup_notifications)
