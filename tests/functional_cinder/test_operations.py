# SPDX-License-Identifier: Apache-2.0

import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any

from cinder import exception, objects
from cinder.objects import fields

from tests.backup_keys import UPSTREAM
from tests.functional_cinder import base


def percents(messages: list[dict[str, Any]]) -> list[float]:
    return [message["payload"]["backup_percent"] for message in messages]


class CreateTest(base.BackupCase):
    def test_create(self) -> None:
        backup = self.created()
        self.assertEqual(["backup.create.start", "backup.create.end"], self.types())
        start, end = self.only("backup.create.start"), self.only("backup.create.end")
        self.assertEqual(set(UPSTREAM), set(UPSTREAM) & start.keys())
        self.assertEqual("creating", start["status"])
        self.assertEqual("available", end["status"])
        self.assertEqual(start["operation_id"], end["operation_id"])
        self.assertLess(start["sequence"], end["sequence"])
        self.assertEqual(backup.id, end["backup_id"])
        self.assertEqual(100.0, end["backup_percent"])
        self.assertEqual(base.GIB, end["result"]["bytes_read"])
        self.assertGreaterEqual(end["result"]["bytes_stored"], base.GIB)
        self.assertEqual(base.CHUNKS, end["result"]["object_count"])
        self.assertGreaterEqual(end["duration"], 0)
        self.assertEqual([], self.journal())

    def test_messages_have_publisher_priority_and_context(self) -> None:
        self.created()
        (end,) = self.sent("backup.create.end")
        self.assertEqual(f"backup.{base.HOST}", end["publisher_id"])
        self.assertEqual("INFO", end["priority"])
        self.assertEqual(self.context.request_id, end["context"]["request_id"])
        self.assertEqual(self.context.project_id, end["context"]["project_id"])
        self.assertIsNone(end["context"].get("auth_token"))

    def test_progress_grows_and_is_below_100(self) -> None:
        self.created()
        # What waits is replaced by what is newer, so that not each chunk is seen.
        seen = percents(self.sent("backup.create.progress"))
        self.assertNotEqual([], seen)
        self.assertEqual(sorted(set(seen)), seen)
        self.assertLessEqual(seen[-1], 99.9)

    def test_cinders_name_of_the_progress_is_an_alias(self) -> None:
        self.created()
        ours = percents(self.sent("backup.create.progress"))
        self.assertEqual([*ours, 100.0], percents(self.sent("backup.createprogress")))
        for message in self.sent("backup.createprogress"):
            self.assertNotIn("list", message["payload"])

    def test_no_message_grows_with_the_volume(self) -> None:
        self.override_config("backup_file_size", 32768)
        self.created()
        end = self.only("backup.create.end")
        self.assertEqual(base.GIB // 32768, end["result"]["object_count"])
        for message in self.sent():
            self.assertLess(len(json.dumps(message["payload"])), 4096)

    def test_an_operation_starts_when_it_has_got_its_turn(self) -> None:
        """cinder's limit_operations stays on cinder's methods."""
        turns: list[list[str]] = []

        @contextlib.contextmanager
        def turn() -> Iterator[None]:
            turns.append(self.types())
            yield

        made = self.created()
        self.forget()
        target = self.volume(status="restoring-backup")
        self.manager._semaphore = turn()
        self.restore(made, target)
        self.assertEqual([[]], turns)
        self.assertEqual(["backup.restore.start", "backup.restore.end"], self.types())

    def test_each_event_is_told_once(self) -> None:
        self.created()
        seen = [
            (message["payload"]["operation_id"], message["payload"]["sequence"])
            for message in self.sent()
            if message["event_type"] != "backup.createprogress"
        ]
        self.assertEqual(sorted(set(seen)), seen)

    def test_two_processes_serve_one_create(self) -> None:
        volume = self.volume()
        backup = self.backup(volume)
        self.manager.create_backup(self.context, backup)
        self.flush()
        self.manager = self.started()
        self.manager.continue_backup(self.context, backup, base.Device(volume))
        self.assertEqual(["backup.create.start", "backup.create.end"], self.types())
        start, end = self.only("backup.create.start"), self.only("backup.create.end")
        self.assertEqual(start["operation_id"], end["operation_id"])
        self.assertLess(start["sequence"], end["sequence"])

    def test_the_second_half_may_begin_before_the_first_has_ended(self) -> None:
        volume = self.volume()
        backup = self.backup(volume)

        def answer(*_args: Any) -> None:
            thread = threading.Thread(
                target=self.manager.continue_backup,
                args=(self.context, backup, base.Device(volume)),
            )
            thread.start()
            thread.join(base.PATIENCE)

        self.patch("cinder.volume.rpcapi.VolumeAPI.get_backup_device", answer)
        self.manager.create_backup(self.context, backup)
        self.assertEqual(["backup.create.start", "backup.create.end"], self.types())
        self.assertEqual([], self.journal())

    def test_incremental(self) -> None:
        volume = self.volume()
        parent = self.created(volume)
        self.forget()
        volume.status = "backing-up"
        volume.save()
        child = self.created(volume, parent_id=parent.id)
        end = self.only("backup.create.end")
        self.assertIs(True, end["is_incremental"])
        self.assertEqual(parent.id, end["parent_id"])
        self.assertEqual(0, end["result"]["object_count"])
        self.assertEqual(child.id, end["backup_id"])

    def test_a_status_that_does_not_fit_is_an_error(self) -> None:
        volume = self.volume(status="available")
        backup = self.backup(volume)
        self.assertRaises(
            exception.InvalidVolume, self.manager.create_backup, self.context, backup
        )
        self.assertEqual(["backup.create.start", "backup.create.error"], self.types())
        error = self.only("backup.create.error")["error"]
        self.assertEqual(("unknown", "prepare"), (error["code"], error["phase"]))
        self.assertEqual("InvalidVolume", error["type"])

    def test_a_volume_that_is_gone_is_an_error_with_a_start(self) -> None:
        volume = self.volume()
        backup = self.backup(volume)
        volume.destroy()
        self.assertRaises(
            exception.VolumeNotFound, self.manager.create_backup, self.context, backup
        )
        self.assertEqual(["backup.create.start", "backup.create.error"], self.types())

    def test_no_space(self) -> None:
        writers = []

        def get_object_writer(
            driver: Any, container: str, name: str, *_more: Any
        ) -> Any:
            writers.append(name)
            return open("/dev/full" if len(writers) == 4 else "/dev/null", "wb")

        self.patch(
            "cinder.backup.drivers.posix.PosixBackupDriver.get_object_writer",
            get_object_writer,
        )
        volume = self.volume()
        backup = self.backup(volume)
        self.assertRaises(OSError, self.create, backup, volume)
        self.assertEqual(["backup.create.start", "backup.create.error"], self.types())
        (message,) = self.sent("backup.create.error")
        self.assertEqual("ERROR", message["priority"])
        payload = message["payload"]
        self.assertEqual("no_space", payload["error"]["code"])
        self.assertEqual("transfer", payload["error"]["phase"])
        self.assertEqual("error", payload["status"])
        self.assertEqual(50.0, payload["backup_percent"])
        self.assertEqual([], self.journal())

    def test_nothing_is_told_after_an_error(self) -> None:
        self.test_no_space()
        before = len(self.sent())
        for thread in base.threads("backup-heartbeat"):
            thread.join(base.PATIENCE)
        self.assertEqual(before, len(self.sent()))

    def test_attach_that_fails(self) -> None:
        volume = self.volume()
        backup = self.backup(volume)
        self.patch(
            "cinder.backup.manager.BackupManager._attach_device",
            side_effect=exception.CinderException("no target"),
        )
        self.assertRaises(exception.CinderException, self.create, backup, volume)
        error = self.only("backup.create.error")["error"]
        self.assertEqual(("attach", "attach"), (error["code"], error["phase"]))

    def test_detach_that_fails(self) -> None:
        self.patch(
            "cinder.backup.manager.BackupManager._detach_device",
            side_effect=exception.CinderException("busy"),
        )
        volume = self.volume()
        backup = self.backup(volume)
        self.assertRaises(exception.CinderException, self.create, backup, volume)
        error = self.only("backup.create.error")["error"]
        self.assertEqual(("detach", "detach"), (error["code"], error["phase"]))

    def test_force_delete_while_creating_is_a_cancellation(self) -> None:
        chunks = []
        upstream = base.posix.PosixBackupDriver.get_object_writer

        def get_object_writer(driver: Any, *args: Any) -> Any:
            chunks.append(args)
            if len(chunks) == 3:
                again = objects.Backup.get_by_id(self.context, backup.id)
                self.delete(again)
            return upstream(driver, *args)

        self.patch(
            "cinder.backup.drivers.posix.PosixBackupDriver.get_object_writer",
            get_object_writer,
        )
        volume = self.volume()
        backup = self.backup(volume)
        self.create(backup, volume)
        self.assertEqual(
            [
                "backup.create.start",
                "backup.delete.start",
                "backup.create.cancelled",
                "backup.delete.end",
            ],
            self.types(),
        )
        self.assertEqual(37.5, self.only("backup.create.cancelled")["backup_percent"])
        self.assertEqual([], self.journal())

    def test_delete_of_a_backup_that_waits_for_its_volume(self) -> None:
        """The volume service failed: nobody else will ever end the create."""
        backup = self.backup(self.volume())
        self.manager.create_backup(self.context, backup)
        self.delete(backup)
        self.assertEqual(
            [
                "backup.create.start",
                "backup.delete.start",
                "backup.create.cancelled",
                "backup.delete.end",
            ],
            self.types(),
        )

    def test_nothing_is_told_where_notifications_are_off(self) -> None:
        self.override_config("driver", ["noop"], group="oslo_messaging_notifications")
        backup = self.created()
        self.assertEqual(fields.BackupStatus.AVAILABLE, backup.status)
        self.assertEqual([], self.types())
        self.assertEqual([], self.journal())

    def test_a_payload_that_cannot_be_built_fails_no_backup(self) -> None:
        self.patch(
            "cinder.volume.volume_utils._usage_from_backup", side_effect=KeyError
        )
        backup = self.created()
        self.assertEqual(fields.BackupStatus.AVAILABLE, backup.status)

    def test_a_journal_that_cannot_be_written_fails_no_backup(self) -> None:
        (self.path / "cinder_ext").write_text("")
        backup = self.created()
        self.assertEqual(fields.BackupStatus.AVAILABLE, backup.status)
        self.assertEqual(["backup.create.start", "backup.create.end"], self.types())

    def test_without_a_journal_an_operation_has_one_end(self) -> None:
        """The delete ends the create, which then ends itself."""
        (self.path / "cinder_ext").write_text("")
        self.test_force_delete_while_creating_is_a_cancellation()


class StallTest(base.BackupCase):
    OPTIONS = {"stall_time": 600}

    def test_a_backup_that_waits_for_its_volume_is_stalled(self) -> None:
        backup = self.backup(self.volume())
        self.manager.create_backup(self.context, backup)
        base.age(self.path, 700)
        for _minute in range(3):
            self.manager._announce_stalled(self.context)
        (message,) = self.sent("backup.create.stalled")
        self.assertEqual("WARN", message["priority"])
        self.assertGreaterEqual(message["payload"]["age_seconds"], 700)
        base.age(self.path, 1300)
        self.manager._announce_stalled(self.context)
        self.assertEqual(2, len(self.sent("backup.create.stalled")))

    def test_the_priority_is_an_option(self) -> None:
        self.override_config("stalled_priority", "info", group="backup_notifications")
        backup = self.backup(self.volume())
        self.manager.create_backup(self.context, backup)
        base.age(self.path, 700)
        self.manager._announce_stalled(self.context)
        (message,) = self.sent("backup.create.stalled")
        self.assertEqual("INFO", message["priority"])

    def test_a_backup_whose_status_was_reset_has_ended(self) -> None:
        backup = self.backup(self.volume())
        self.manager.create_backup(self.context, backup)
        self.set_status(backup, fields.BackupStatus.ERROR)
        base.age(self.path, 700)
        self.manager._announce_stalled(self.context)
        self.assertEqual(["backup.create.start", "backup.create.error"], self.types())
        self.assertEqual("Abandoned", self.only("backup.create.error")["error"]["type"])

    def test_only_one_worker_looks(self) -> None:
        self.manager.create_backup(self.context, self.backup(self.volume()))
        base.age(self.path, 700)
        self.manager._process_number = 2
        self.manager._announce_stalled(self.context)
        self.assertEqual([], self.sent("backup.create.stalled"))


class RestoreTest(base.BackupCase):
    def setUp(self) -> None:
        super().setUp()
        self.source = self.volume(
            data=b"\0" * base.CHUNK + b"x" * (base.GIB - base.CHUNK)
        )
        self.made = self.created(self.source)
        self.forget()

    def test_restore(self) -> None:
        target = self.volume(status="restoring-backup")
        self.restore(self.made, target)
        self.assertEqual(
            self.file(self.source).read_bytes(), self.file(target).read_bytes()
        )
        self.assertEqual(["backup.restore.start", "backup.restore.end"], self.types())
        end = self.only("backup.restore.end")
        self.assertEqual(target.id, end["restore_volume_id"])
        self.assertEqual(self.source.id, end["volume_id"])
        self.assertEqual((False, 1), (end["volume_is_new"], end["chain_length"]))
        self.assertEqual(
            {"bytes_written": base.GIB, "volume_bytes": base.GIB}, end["result"]
        )
        self.assertEqual(base.CHUNKS, end["objects_total"])
        self.assertEqual([], self.journal())

    def test_progress_counts_objects_and_not_bytes(self) -> None:
        target = self.volume(status="creating")
        self.restore(self.made, target, new=True)
        seen = percents(self.sent("backup.restore.progress"))
        self.assertNotEqual([], seen)
        self.assertEqual(sorted(set(seen)), seen)
        self.assertTrue(set(seen) <= {12.5 * n for n in range(9)}, seen)
        end = self.only("backup.restore.end")
        self.assertEqual(base.GIB - base.CHUNK, end["result"]["bytes_written"])

    def test_a_chain(self) -> None:
        self.source.status = "backing-up"
        self.source.save()
        self.file(self.source).write_bytes(b"y" * base.GIB)
        child = self.created(self.source, parent_id=self.made.id)
        self.forget()
        self.restore(child, self.volume(status="restoring-backup"))
        end = self.only("backup.restore.end")
        self.assertEqual(
            (2, 2 * base.CHUNKS), (end["chain_length"], end["objects_total"])
        )

    def test_a_lost_object_is_an_error(self) -> None:
        (lost,) = self.path.glob("store/**/*-00003")
        lost.unlink()
        self.assertRaises(
            exception.InvalidBackup,
            self.restore,
            self.made,
            self.volume(status="restoring-backup"),
        )
        self.assertEqual(["backup.restore.start", "backup.restore.error"], self.types())
        payload = self.only("backup.restore.error")
        self.assertEqual("driver_io", payload["error"]["code"])
        self.assertEqual("available", payload["status"])

    def test_a_reset_of_the_status_is_a_cancellation(self) -> None:
        reads = []
        upstream = base.posix.PosixBackupDriver.get_object_reader

        def get_object_reader(
            driver: Any, container: str, name: str, *more: Any
        ) -> Any:
            reads.append(name)
            if name.endswith("-00004"):
                base.db.backup_update(self.context, self.made.id, {"status": "error"})
            return upstream(driver, container, name, *more)

        self.patch(
            "cinder.backup.drivers.posix.PosixBackupDriver.get_object_reader",
            get_object_reader,
        )
        self.restore(self.made, self.volume(status="restoring-backup"))
        self.assertEqual(
            ["backup.restore.start", "backup.restore.cancelled"], self.types()
        )
        payload = self.only("backup.restore.cancelled")
        self.assertLess(payload["backup_percent"], 100)


class DeleteTest(base.BackupCase):
    def setUp(self) -> None:
        super().setUp()
        self.made = self.created()
        self.forget()

    def test_delete(self) -> None:
        self.delete(self.made)
        self.assertEqual(["backup.delete.start", "backup.delete.end"], self.types())
        self.assertFalse(self.only("backup.delete.end")["resumed"])
        self.assertEqual([], list(self.path.glob("store/**/volume_*")))

    def test_a_delete_that_fails(self) -> None:
        self.patch(
            "cinder.backup.drivers.posix.PosixBackupDriver.delete_object",
            side_effect=OSError(5, "Input/output error", "/store/x"),
        )
        self.assertRaises(OSError, self.delete, self.made)
        self.assertEqual(["backup.delete.start", "backup.delete.error"], self.types())
        payload = self.only("backup.delete.error")
        self.assertNotIn("/store", str(payload["error"]))
        self.assertNotIn("/store", str(payload["fail_reason"]))

    def test_a_second_try_is_another_operation(self) -> None:
        self.test_a_delete_that_fails()
        first = self.only("backup.delete.error")["operation_id"]
        self.forget()
        self.patch("cinder.backup.drivers.posix.PosixBackupDriver.delete_object")
        self.context = self.context.elevated()
        self.context.request_id = "req-2"
        self.delete(self.made)
        end = self.only("backup.delete.end")
        self.assertNotEqual(first, end["operation_id"])


class RecordTest(base.BackupCase):
    def setUp(self) -> None:
        super().setUp()
        self.made = self.created()
        self.forget()

    def imported(self, **record: Any) -> Any:
        exported = self.manager.export_record(self.context, self.made)
        self.forget()
        db_backup = objects.Backup.get_by_id(self.context, self.made.id)
        self.set_status(db_backup, fields.BackupStatus.CREATING)
        exported |= record
        self.manager.import_record(
            self.context,
            db_backup,
            exported["backup_service"],
            exported["backup_url"],
            record.get("hosts", []),
        )
        return db_backup

    def test_export(self) -> None:
        self.manager.export_record(self.context, self.made)
        self.assertEqual(["backup.export.end"], self.types())
        self.assertIn("posix", self.only("backup.export.end")["backup_service"])

    def test_an_export_that_fails(self) -> None:
        self.set_status(self.made, fields.BackupStatus.ERROR)
        self.assertRaises(
            exception.InvalidBackup,
            self.manager.export_record,
            self.context,
            self.made,
        )
        self.assertEqual(["backup.export.error"], self.types())

    def test_import(self) -> None:
        self.imported()
        self.assertEqual(["backup.import.start", "backup.import.end"], self.types())
        end = self.only("backup.import.end")
        self.assertEqual("available", end["status"])
        self.assertNotIn("backup_url", end)

    def test_an_import_that_fails(self) -> None:
        self.assertRaises(exception.InvalidBackup, self.imported, backup_url="x")
        self.assertEqual(["backup.import.start", "backup.import.error"], self.types())

    def test_the_host_that_passes_an_import_on_is_silent(self) -> None:
        cast = self.patch("cinder.backup.rpcapi.BackupAPI.import_record")
        self.imported(backup_service="other.Driver", hosts=["host2"])
        self.assertEqual(1, cast.call_count)
        self.assertEqual([], self.types())

    def test_the_last_host_that_cannot_import_tells_it(self) -> None:
        self.assertRaises(
            exception.ServiceNotFound, self.imported, backup_service="other.Driver"
        )
        self.assertEqual(["backup.import.start", "backup.import.error"], self.types())
