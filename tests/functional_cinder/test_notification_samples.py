# SPDX-License-Identifier: Apache-2.0
"""The notifications, held against doc/notification_samples.

``GENERATE_SAMPLES=1`` writes the samples anew.
"""

import json
import pathlib
import types
from typing import Any

import jsonschema
from cinder import exception, objects
from cinder.objects import fields
from oslo_utils import fixture as utils_fixture

from cinder_ext.notifications import sender
from tests.functional import samples
from tests.functional_cinder import base

DOC = pathlib.Path(__file__).parents[2] / "doc"
SAMPLES = DOC / "notification_samples"
SCHEMA = json.loads((DOC / "notification_schema/volume_backup.json").read_text())

#: What differs from run to run, or with the speed of the machine.
FIXED = {
    "worker": "host1:4242",
    "occurred_at": "2026-11-21T10:00:00.000Z",
    "duration": 12.5,
    "age_seconds": 3600.0,
    "eta_seconds": 6.2,
    "rate_bps": 85899345.9,
}
SIZES = ("bytes_done", "bytes_total", "bytes_read", "bytes_written", "volume_bytes")

POSIX = "cinder.backup.drivers.posix.PosixBackupDriver"


def normalised(value: Any) -> Any:
    """The same without what differs, and with volumes of real size."""
    if not isinstance(value, dict):
        return value
    made = {key: normalised(item) for key, item in value.items()}
    for key, item in made.items():
        if item is not None and key in FIXED:
            made[key] = FIXED[key]
        elif item and key in SIZES:
            made[key] = item * ((1 << 30) // base.GIB)
    if 100.0 in (made.get("backup_percent"), made.get("percent")):
        made["eta_seconds"] = 0.0
    if made.get("bytes_stored"):
        made["bytes_stored"] = made["bytes_read"]
    if "cinder_object.version" in made and made["cinder_object.data"].get("worker"):
        made["cinder_object.data"]["occurred_at"] = "2026-11-21T10:00:00Z"
    if "sequence" in made:
        first = made["phase"] == "start" or made["action"] == "export"
        made["sequence"] = 1 if first else 6250
    return made


class SamplesTest(base.BackupCase):
    OPTIONS = {"format": "both", "stall_time": 600}

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(utils_fixture.TimeFixture(samples.NOW))
        # At once and all: else newer progress takes the place of older.
        send = sender.connect(base.CONF, base.HOST, "cinder-backup")
        self.manager.recorder.emitter.put = send

    def verify(self, event_type: str, **payload: Any) -> None:
        """Hold the one notification of this type, in both formats, against its sample.

        :param payload: what a reader of the sample relies on
        """
        for name in (event_type, f"volume_{event_type}"):
            found = [
                message
                for message in self.sent(name)
                if message["event_type"] == name
                and self.percent(message["payload"]) in (None, 50.0, 100.0)
            ]
            self.assertEqual(1, len(found), name)
            (message,) = found
            seen = samples.normalised(
                {
                    key: normalised(message[key])
                    for key in ("event_type", "payload", "priority", "publisher_id")
                }
            )
            flat = message["payload"].get("cinder_object.data", message["payload"])
            for key, value in payload.items():
                self.assertEqual(value, flat[key], key)
            prefix, _dot, rest = name.partition(".")
            # The flat names are those that are sent.
            file = name if prefix == "backup" else f"{prefix}-{rest.replace('.', '-')}"
            path = SAMPLES / f"{file}.json"
            if samples.GENERATE:
                path.write_text(json.dumps(seen, indent=4, sort_keys=True) + "\n")
            self.assertEqual(json.loads(path.read_text()), seen)

    @staticmethod
    def percent(payload: dict[str, Any]) -> Any:
        data = payload.get("cinder_object.data", payload)
        if data.get("phase") != "progress":
            return None
        if "progress" in data:
            return data["progress"]["cinder_object.data"]["percent"]
        return data["backup_percent"]

    def stop_at(self, method: str, suffix: str, action: Any) -> None:
        """Do something when the driver comes to an object."""
        upstream = getattr(base.posix.PosixBackupDriver, method)

        def stop(driver: Any, container: str, name: str, *more: Any) -> Any:
            if name.endswith(suffix):
                action()
            return upstream(driver, container, name, *more)

        self.patch(f"{POSIX}.{method}", stop)

    def test_create(self) -> None:
        self.created()
        self.verify("backup.create.start", status="creating")
        self.verify("backup.create.progress")
        self.verify("backup.create.end", status="available")

    def test_create_that_fails(self) -> None:
        def fail() -> None:
            raise OSError(28, "No space left on device", "/backup/volume")

        self.stop_at("get_object_writer", "-00005", fail)
        volume = self.volume()
        self.assertRaises(OSError, self.create, self.backup(volume), volume)
        self.verify("backup.create.error", status="error")

    def test_create_that_is_cancelled(self) -> None:
        volume = self.volume()
        backup = self.backup(volume)

        def delete() -> None:
            self.delete(objects.Backup.get_by_id(self.context, backup.id))

        self.stop_at("get_object_writer", "-00005", delete)
        self.create(backup, volume)
        self.verify("backup.create.cancelled", status="deleted")

    def test_create_that_stalls(self) -> None:
        self.manager.create_backup(self.context, self.backup(self.volume()))
        base.age(self.path, 3600)
        self.manager._announce_stalled(self.context)
        self.verify("backup.create.stalled", status="creating")

    def test_restore(self) -> None:
        made = self.created()
        target = self.volume(status="restoring-backup")
        self.restore(made, target)
        for phase in ("start", "progress", "end"):
            self.verify(f"backup.restore.{phase}", restore_volume_id=target.id)

    def test_restore_that_fails(self) -> None:
        made = self.created()

        def fail() -> None:
            raise OSError(5, "Input/output error", "/backup/volume")

        self.stop_at("get_object_reader", "-00005", fail)
        target = self.volume(status="restoring-backup")
        self.assertRaises(OSError, self.restore, made, target)
        self.verify("backup.restore.error", status="available")

    def test_restore_that_is_cancelled(self) -> None:
        made = self.created()

        def reset() -> None:
            base.db.backup_update(self.context, made.id, {"status": "available"})

        self.stop_at("get_object_reader", "-00004", reset)
        self.restore(made, self.volume(status="restoring-backup"))
        self.verify("backup.restore.cancelled", status="available")

    def test_delete(self) -> None:
        made = self.created()
        self.delete(made)
        self.verify("backup.delete.start", status="deleting")
        self.verify("backup.delete.end", status="deleted")

    def test_delete_that_fails(self) -> None:
        made = self.created()
        self.patch(f"{POSIX}.delete_object", side_effect=PermissionError(1, "refused"))
        self.assertRaises(PermissionError, self.delete, made)
        self.verify("backup.delete.error", status="error")

    def test_import_and_export(self) -> None:
        made = self.created()
        record = self.manager.export_record(self.context, made)
        self.verify("backup.export.end", status="available")
        arguments = (record["backup_service"], record["backup_url"], [])
        self.set_status(made, fields.BackupStatus.CREATING)
        self.manager.import_record(self.context, made, *arguments)
        self.verify("backup.import.start", status="creating")
        self.verify("backup.import.end", status="available")

    def test_import_and_export_that_fail(self) -> None:
        made = self.created()
        self.set_status(made, fields.BackupStatus.ERROR)
        self.assertRaises(
            exception.InvalidBackup, self.manager.export_record, self.context, made
        )
        self.verify("backup.export.error", status="error")
        arguments = (made.service, "x", [])
        self.assertRaises(
            exception.InvalidBackup,
            self.manager.import_record,
            self.context,
            made,
            *arguments,
        )
        self.verify("backup.import.error", status="error")

    def test_dropped(self) -> None:
        recorder = self.manager.recorder
        recorder.emitter.put(recorder.events.dropped(17))
        self.verify("backup.notifications.dropped", dropped=17)

    def test_each_event_of_the_catalogue_has_its_samples(self) -> None:
        events = {
            f"{action}.{phase}"
            for action, phases in {
                "create": "start progress end error cancelled stalled",
                "restore": "start progress end error cancelled",
                "delete": "start end error",
                "import": "start end error",
                "export": "end error",
                "notifications": "dropped",
            }.items()
            for phase in phases.split()
        }
        flat = {path.name for path in SAMPLES.glob("backup.*.json")}
        self.assertEqual({f"backup.{event}.json" for event in events}, flat)
        versioned = {path.name for path in SAMPLES.glob("volume_backup-*.json")}
        self.assertEqual(
            {f"volume_backup-{event.replace('.', '-')}.json" for event in events},
            versioned,
        )

    def test_the_versioned_samples_follow_the_schema(self) -> None:
        for path in SAMPLES.glob("volume_backup-*.json"):
            payload = json.loads(path.read_text())["payload"]
            if payload["cinder_object.name"] == "BackupPayload":
                jsonschema.validate(payload, SCHEMA)
        broken = types.SimpleNamespace(**payload)  # the last one read
        vars(broken).pop("cinder_object.data")
        with self.assertRaisesRegex(jsonschema.ValidationError, "required"):
            jsonschema.validate(vars(broken), SCHEMA)

    def test_no_sample_gives_anything_away(self) -> None:
        for path in SAMPLES.glob("*backup*.json"):
            text = path.read_text()
            for secret in (
                "/backup/volume",
                "md5",
                "sha256",
                "encryption",
                "auth_token",
            ):
                self.assertNotIn(secret, text, path.name)
