# SPDX-License-Identifier: Apache-2.0
"""What is announced of operations that the end of a service interrupted.

A process that dies is played by an exception that no handler sees.
"""

import uuid
from typing import Any
from unittest import mock

from cinder import context, exception, objects
from cinder.objects import fields

from tests.functional_cinder import base

DRIVER = "cinder.backup.drivers.posix.PosixBackupDriver"
SUCCEED = "cinder_ext.backup.recorder.Recorder.succeed"


class RestartTest(base.BackupCase):
    def setUp(self) -> None:
        super().setUp()
        self.override_config("backup_service_inithost_offload", False)

    def killed_at(self, name: str, function: Any, *args: Any) -> None:
        patch = mock.patch(name, side_effect=base.Killed)
        with patch:
            self.assertRaises(base.Killed, function, *args)
        self.flush()

    def test_create_that_waited_for_its_volume(self) -> None:
        backup = self.backup(self.volume())
        self.manager.create_backup(self.context, backup)
        self.flush()
        self.restarted()
        self.assertEqual(
            [["backup.create.start", "backup.create.error"]], list(self.ends().values())
        )
        payload = self.only("backup.create.error")
        self.assertEqual("service_restart", payload["error"]["code"])
        self.assertEqual("ServiceRestarted", payload["error"]["type"])
        self.assertIs(False, payload["resumed"])
        self.assertEqual("error", payload["status"])
        self.assertEqual([], self.journal())

    def test_create_that_died_in_the_transfer(self) -> None:
        volume = self.volume()
        backup = self.backup(volume)
        self.killed_at(f"{DRIVER}.get_object_writer", self.create, backup, volume)
        self.assertEqual(1, len(self.journal()))
        self.restarted()
        self.assertEqual(
            [["backup.create.start", "backup.create.error"]], list(self.ends().values())
        )

    def test_create_that_died_before_its_end_was_kept(self) -> None:
        volume = self.volume()
        backup = self.backup(volume)
        self.killed_at(SUCCEED, self.create, backup, volume)
        self.restarted()
        self.assertEqual(
            [["backup.create.start", "backup.create.end"]], list(self.ends().values())
        )

    def test_an_end_that_no_bus_took_is_sent_after_the_restart(self) -> None:
        self.manager.recorder.emitter.pause = 0
        self.manager.recorder.emitter.connect = mock.Mock(side_effect=ConnectionError)
        self.created()
        self.flush()
        self.assertEqual([], self.types())
        self.assertEqual(1, len(self.journal()))
        self.restarted()
        self.assertEqual(["backup.create.end"], self.types())
        self.assertEqual([], self.journal())

    def test_create_whose_call_waited_meanwhile(self) -> None:
        """Seen with cinder: the clean-up ends it, then the call comes and fails."""
        volume = self.volume()
        backup = self.backup(volume)
        self.restarted()
        self.assertRaises(
            exception.InvalidVolume, self.manager.create_backup, self.context, backup
        )
        self.assertEqual(
            [["backup.create.start", "backup.create.error"]] * 2,
            list(self.ends().values()),
        )

    def test_create_that_cinder_goes_on_with_after_the_restart(self) -> None:
        """The volume service answers late, and cinder makes the backup all the same."""
        volume = self.volume()
        backup = self.backup(volume)
        self.manager.create_backup(self.context, backup)
        self.flush()
        self.restarted()
        self.manager.continue_backup(self.context, backup, base.Device(volume))
        self.assertEqual(
            [
                ["backup.create.start", "backup.create.error"],
                ["backup.create.start", "backup.create.end"],
            ],
            list(self.ends().values()),
        )
        end = self.only("backup.create.end")
        self.assertEqual((True, "available"), (end["resumed"], end["status"]))

    def test_restore(self) -> None:
        made = self.created()
        self.forget()
        target = self.volume(status="restoring-backup")
        self.killed_at(f"{DRIVER}.get_object_reader", self.restore, made, target)
        self.restarted()
        self.assertEqual(
            [["backup.restore.start", "backup.restore.error"]],
            list(self.ends().values()),
        )
        payload = self.only("backup.restore.error")
        self.assertEqual("service_restart", payload["error"]["code"])
        self.assertEqual(target.id, payload["restore_volume_id"])
        self.assertEqual("available", payload["status"])

    def test_restore_that_died_before_its_end_was_kept(self) -> None:
        made = self.created()
        self.forget()
        target = self.volume(status="restoring-backup")
        self.killed_at(SUCCEED, self.restore, made, target)
        self.restarted()
        self.assertEqual(
            [["backup.restore.start", "backup.restore.end"]], list(self.ends().values())
        )

    def test_delete_goes_on(self) -> None:
        made = self.created()
        self.forget()
        self.killed_at(f"{DRIVER}.delete_object", self.delete, made)
        self.restarted()
        self.assertEqual(
            [["backup.delete.start", "backup.delete.end"]], list(self.ends().values())
        )
        self.assertIs(True, self.only("backup.delete.end")["resumed"])
        self.assertEqual([], self.journal())

    def test_delete_goes_on_in_a_thread(self) -> None:
        self.override_config("backup_service_inithost_offload", True)
        made = self.created()
        self.forget()
        self.killed_at(f"{DRIVER}.delete_object", self.delete, made)
        tasks: list[Any] = []
        self.restarted(_add_to_threadpool=lambda *task: tasks.append(task))
        self.assertEqual(["backup.delete.start"], self.types())
        for function, *args in tasks:
            function(*args)
        self.assertEqual(["backup.delete.start", "backup.delete.end"], self.types())

    def test_delete_of_which_nothing_was_kept(self) -> None:
        made = self.created()
        self.forget()
        self.set_status(made, fields.BackupStatus.DELETING)
        self.restarted()
        self.assertEqual(["backup.delete.start", "backup.delete.end"], self.types())
        self.assertIs(True, self.only("backup.delete.start")["resumed"])

    def test_delete_that_died_before_its_end_was_kept(self) -> None:
        made = self.created()
        self.forget()
        self.killed_at(SUCCEED, self.delete, made)
        self.restarted()
        self.assertEqual(["backup.delete.start", "backup.delete.end"], self.types())

    def test_delete_that_cinder_does_not_go_on_with(self) -> None:
        made = self.created(encryption_key_id=uuid.uuid4().hex)
        self.forget()
        self.killed_at(f"{DRIVER}.delete_object", self.delete, made)
        self.restarted()
        self.assertEqual(["backup.delete.start", "backup.delete.error"], self.types())
        payload = self.only("backup.delete.error")
        self.assertEqual("error_deleting", payload["status"])
        self.assertNotIn(made.encryption_key_id, str(self.sent()))

    def test_import(self) -> None:
        made = self.created()
        record = self.manager.export_record(self.context, made)
        self.forget()
        self.killed_at(
            f"{DRIVER}.import_record",
            self.manager.import_record,
            self.context,
            made,
            record["backup_service"],
            record["backup_url"],
            [],
        )
        self.set_status(made, fields.BackupStatus.ERROR)
        self.restarted()
        self.assertEqual(["backup.import.start", "backup.import.error"], self.types())

    def test_a_backup_that_is_gone_for_good(self) -> None:
        backup = self.backup(self.volume())
        self.manager.create_backup(self.context, backup)
        self.forget()
        with mock.patch.object(
            objects.Backup,
            "get_by_id",
            side_effect=exception.BackupNotFound(backup_id=backup.id),
        ):
            self.set_status(backup, fields.BackupStatus.AVAILABLE)
            self.restarted()
        self.assertEqual([], self.types())
        self.assertEqual([], self.journal())

    def test_operations_of_other_workers_go_on(self) -> None:
        """All workers begin to serve while the first one cleans up."""
        first = self.started()
        volume = self.volume()
        backup = self.backup(volume)
        self.manager = self.started()

        def serve(_self: Any, _ctxt: Any) -> None:
            self.manager.create_backup(self.context, backup)

        with mock.patch(
            "cinder.backup.manager.BackupManager._cleanup_incomplete_backup_operations",
            serve,
        ):
            first._cleanup_incomplete_backup_operations(context.get_admin_context())
        self.manager.continue_backup(self.context, backup, base.Device(volume))
        self.assertEqual(["backup.create.start", "backup.create.end"], self.types())

    def test_only_the_first_worker_cleans_up(self) -> None:
        backup = self.backup(self.volume())
        self.manager.create_backup(self.context, backup)
        self.flush()
        self.manager = self.started()
        self.manager._process_number = 2
        self.manager._cleanup_incomplete_backup_operations(context.get_admin_context())
        self.assertEqual(["backup.create.start"], self.types())
