# SPDX-License-Identifier: Apache-2.0

from typing import Any
from unittest import mock

from cinder import exception
from cinder.scheduler import manager as cinder_scheduler

from cinder_ext.scheduler import manager
from tests.functional_cinder import base


class SchedulerTest(base.BackupCase):
    """The real scheduler with no backup service in the database."""

    def setUp(self) -> None:
        super().setUp()
        self.scheduler = self.scheduler_started()

    def scheduler_started(self) -> Any:
        return manager.SchedulerManager(host="scheduler1")

    def flush(self) -> None:
        assert self.scheduler.recorder.emitter.flush(base.PATIENCE)

    def test_no_backup_service(self) -> None:
        backup = self.backup(self.volume(), host=None)
        self.scheduler.create_backup(self.context, backup)
        self.assertEqual(["backup.create.start", "backup.create.error"], self.types())
        payload = self.only("backup.create.error")
        self.assertEqual(
            ("scheduler_no_host", "schedule"),
            (payload["error"]["code"], payload["error"]["phase"]),
        )
        self.assertEqual("error", payload["status"])
        self.assertEqual([], self.journal())

    def test_cinder_alone_says_nothing(self) -> None:
        """When this fails, cinder tells it and this manager is no longer needed."""
        scheduler = cinder_scheduler.SchedulerManager(host="scheduler1")
        backup = self.backup(self.volume(), host=None)
        scheduler.create_backup(self.context, backup)
        self.assertEqual("error", backup.status)
        self.assertEqual([], self.types())
        self.assertEqual([], self.notifier.notifications)

    def test_a_backup_that_finds_a_service_is_not_of_the_scheduler(self) -> None:
        cast = self.patch("cinder.backup.rpcapi.BackupAPI.create_backup")
        backup = self.backup(self.volume(), host=base.HOST)
        self.scheduler.create_backup(self.context, backup)
        self.assertEqual(1, cast.call_count)
        self.assertEqual([], self.types())
        self.assertEqual([], self.journal())

    def test_a_volume_that_is_gone(self) -> None:
        volume = self.volume()
        backup = self.backup(volume)
        volume.destroy()
        self.assertRaises(
            exception.VolumeNotFound,
            self.scheduler.create_backup,
            self.context,
            backup,
        )
        self.assertEqual(["backup.create.start", "backup.create.error"], self.types())
        self.assertEqual("schedule", self.only("backup.create.error")["error"]["phase"])

    def test_a_scheduler_that_died_before_the_error_was_kept(self) -> None:
        backup = self.backup(self.volume(), host=None)
        with mock.patch(
            "cinder_ext.backup.journal.Journal.end", side_effect=base.Killed
        ):
            self.assertRaises(
                base.Killed, self.scheduler.create_backup, self.context, backup
            )
        self.flush()
        self.scheduler = self.scheduler_started()
        with mock.patch("cinder.scheduler.manager.SchedulerManager.init_host_with_rpc"):
            self.scheduler.init_host_with_rpc()
        self.assertEqual(["backup.create.start", "backup.create.error"], self.types())
        self.assertEqual(
            "scheduler_no_host", self.only("backup.create.error")["error"]["code"]
        )
