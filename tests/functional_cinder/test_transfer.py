# SPDX-License-Identifier: Apache-2.0
"""What is told of a transfer while it runs, with a clock that the tests turn."""

import threading
from typing import Any
from unittest import mock

from cinder.objects import fields

from cinder_ext.backup import factory
from tests.functional_cinder import base


class Clock:
    def __init__(self) -> None:
        self.now = base.time.time()

    def __call__(self) -> float:
        return self.now


class TransferCase(base.BackupCase):
    OPTIONS: dict[str, Any] = {
        "min_interval": 5,
        "max_interval": 120,
        "min_percent_step": 1.0,
    }

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.recorder = factory.make_recorder(base.CONF, base.HOST, clock=self.clock)
        self.made = self.backup(self.volume())
        self.told: list[dict[str, Any]] = []
        self.recorder.emitter.put = self.put

    def put(self, event: Any) -> None:
        if event.is_progress:
            self.told.append(event.payload)

    def flush(self) -> None:
        """Nothing waits: each event is taken at once."""

    def running(self) -> Any:
        during = self.recorder.operation(self.context, self.made, "create")
        op = during.__enter__()
        self.addCleanup(during.__exit__, None, None, None)
        self.recorder.start(op, self.made)
        return op

    def percents(self) -> list[Any]:
        return [payload["backup_percent"] for payload in self.told]


class TransferTest(TransferCase):
    def test_a_driver_that_shows_nothing_has_a_heartbeat(self) -> None:
        """As Ceph between two pools, which copies without the volume file."""
        self.running()
        with self.recorder.transfer(self.made) as transfer:
            for _second in range(600):
                self.clock.now += 1
                transfer.heartbeat()
        self.assertEqual([None] * 5, self.percents())
        self.assertEqual(base.GIB, self.told[0]["bytes_total"])
        for key in ("bytes_done", "rate_bps", "eta_seconds"):
            self.assertIsNone(self.told[0][key])

    def test_a_driver_that_stands_still_has_none(self) -> None:
        self.running()
        with self.recorder.transfer(self.made) as transfer:
            self.clock.now += 10
            transfer.progress.reached_byte(base.GIB // 2)
            transfer.moved()
            for _second in range(600):
                self.clock.now += 1
                transfer.heartbeat()
        self.assertEqual([50.0], self.percents())

    def test_what_was_kept_back_is_told_by_the_heartbeat(self) -> None:
        self.running()
        with self.recorder.transfer(self.made) as transfer:
            transfer.progress.reached_byte(base.GIB // 1000)
            transfer.moved()
            self.clock.now += 119
            transfer.heartbeat()
            self.assertEqual([], self.percents())
            self.clock.now += 1
            transfer.heartbeat()
        self.assertEqual([0.09], self.percents())

    def test_the_interval_of_a_fast_driver(self) -> None:
        self.running()
        with self.recorder.transfer(self.made) as transfer:
            for step in range(100):
                self.clock.now += 0.5
                transfer.progress.reached_byte(base.GIB * (step + 1) // 100)
                transfer.moved()
                transfer.counted()
        self.assertEqual(
            [10 * n for n in range(1, 11)], [round(each) for each in self.percents()]
        )

    def test_the_heart_stops_with_a_driver_that_fails(self) -> None:
        """cinder's own timer went on until the service was restarted."""
        self.running()
        with self.assertRaises(OSError), self.recorder.transfer(self.made):
            self.assertEqual(1, len(base.threads("backup-heartbeat")))
            raise OSError("disk")
        for thread in base.threads("backup-heartbeat"):
            thread.join(base.PATIENCE)
        self.assertEqual([], base.threads("backup-heartbeat"))

    def test_no_progress_after_another_process_ended_the_operation(self) -> None:
        self.running()
        other = factory.make_recorder(base.CONF, base.HOST, clock=self.clock)
        with self.recorder.transfer(self.made) as transfer:
            (op,) = other.journal.running()
            other.cancel(op, self.made)
            other.emitter.flush(base.PATIENCE)
            self.clock.now += 10
            transfer.progress.reached_byte(base.GIB // 2)
            transfer.moved()
        self.assertEqual([], self.percents())

    def test_activity_is_kept_for_the_watchdog(self) -> None:
        op = self.running()
        base.age(self.path, 1000)
        with self.recorder.transfer(self.made) as transfer:
            transfer.progress.reached_byte(1)
            transfer.moved()
            active_at = self.recorder.journal.active_at(op)
            self.assertGreater(active_at, base.time.time() - 100)
            base.age(self.path, 1000)
            transfer.moved()
            self.assertLess(self.recorder.journal.active_at(op), base.time.time() - 100)
            self.clock.now += 10
            transfer.moved()
            self.assertGreater(
                self.recorder.journal.active_at(op), base.time.time() - 100
            )

    def test_a_driver_that_stands_still_is_not_active(self) -> None:
        op = self.running()
        with self.recorder.transfer(self.made) as transfer:
            transfer.progress.reached_byte(1)
            base.age(self.path, 1000)
            self.clock.now += 20
            transfer.heartbeat()
        self.assertLess(self.recorder.journal.active_at(op), base.time.time() - 100)

    def test_a_driver_without_an_operation_works_and_tells_nothing(self) -> None:
        with self.recorder.transfer(self.made) as transfer:
            self.clock.now += 1000
            transfer.moved()
            transfer.counted()
            transfer.heartbeat()
        self.assertEqual([], self.told)
        self.assertIsNone(self.recorder.current_transfer())

    def test_a_host_without_threads_left_loses_the_heartbeat_only(self) -> None:
        self.running()
        with (
            mock.patch.object(threading.Thread, "start", side_effect=RuntimeError),
            self.recorder.transfer(self.made) as transfer,
        ):
            self.clock.now += 10
            transfer.progress.reached_byte(base.GIB // 2)
            transfer.moved()
        self.assertEqual([50.0], self.percents())


class TwoOperationsTest(base.BackupCase):
    def test_operations_at_the_same_time_stay_apart(self) -> None:
        """Two creates in two threads, each in the middle of the other."""
        volumes = [self.volume(), self.volume()]
        backups = [self.backup(volume) for volume in volumes]
        for backup in backups:
            self.manager.create_backup(self.context, backup)
        upstream = base.posix.PosixBackupDriver.get_object_writer
        inner: list[bool] = []

        def get_object_writer(driver: Any, *args: Any) -> Any:
            if not inner:
                inner.append(True)
                thread = threading.Thread(
                    target=self.manager.continue_backup,
                    args=(self.context, backups[1], base.Device(volumes[1])),
                )
                thread.start()
                thread.join(base.PATIENCE)
                assert not thread.is_alive()
            return upstream(driver, *args)

        self.patch(
            "cinder.backup.drivers.posix.PosixBackupDriver.get_object_writer",
            get_object_writer,
        )
        self.manager.continue_backup(self.context, backups[0], base.Device(volumes[0]))
        ends = [m["payload"] for m in self.sent("backup.create.end")]
        self.assertEqual(
            [backups[1].id, backups[0].id], [end["backup_id"] for end in ends]
        )
        for end in ends:
            self.assertEqual(base.GIB, end["result"]["bytes_read"])
            self.assertEqual(base.CHUNKS, end["result"]["object_count"])
        for types in self.ends().values():
            self.assertEqual(["backup.create.start", "backup.create.end"], types)


class OpaqueTest(base.BackupCase):
    """A driver of somebody else, that works beside the file it is given."""

    def test_create_and_restore(self) -> None:
        self.override_config("backup_driver", f"{__name__}.OpaqueDriver")
        self.manager = self.started()
        made = self.created()
        self.assertEqual(fields.BackupStatus.AVAILABLE, made.status)
        self.restore(made, self.volume(status="restoring-backup"))
        self.assertEqual(
            [
                "backup.create.start",
                "backup.create.end",
                "backup.restore.start",
                "backup.restore.end",
            ],
            self.types(),
        )
        end = self.only("backup.create.end")
        self.assertEqual((100.0, None), (end["backup_percent"], end["bytes_done"]))


class OpaqueDriver(base.driver.BackupDriver):
    def backup(
        self, backup: Any, volume_file: Any, backup_metadata: Any = False
    ) -> Any:
        return {"object_count": 1}

    def restore(
        self, backup: Any, volume_id: Any, volume_file: Any, volume_is_new: Any
    ) -> None:
        return None

    def delete_backup(self, backup: Any) -> None:
        return None
