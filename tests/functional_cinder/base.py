# SPDX-License-Identifier: Apache-2.0
"""Owns the real manager and the posix driver on real files, and what they announce.

cinder's test base stubs the database with sqlite and the message bus with oslo's own
fake; the notifications go through oslo.messaging and its ``test`` driver. The volume
service is played by the tests: they hand the path of a file to the manager.
"""

import os
import pathlib
import shutil
import tempfile
import threading
import time
from typing import Any

import oslo_messaging
from cinder import context, objects
from cinder.backup import driver  # noqa: F401 - for the tests
from cinder.backup.drivers import posix  # noqa: F401 - for the tests
from cinder.db import api as db
from cinder.objects import fields
from cinder.tests.unit import test
from oslo_config import cfg
from oslo_messaging.notify import _impl_test, notifier

from cinder_ext.backup import manager

CONF = cfg.CONF
HOST = "host1@posix"
USER = "6f70656e737461636b20342065766572"
PROJECT = "70656e737461636b2034206576657220"

#: A "GiB" of these tests, in bytes, and the chunks that a volume of one has.
GIB = 4 << 20
CHUNKS = 8
CHUNK = GIB // CHUNKS

PATIENCE = 30  # s


def threads(name: str) -> list[threading.Thread]:
    """The threads of this name that are alive."""
    return [thread for thread in threading.enumerate() if thread.name == name]


def age(path: pathlib.Path, seconds: float) -> None:
    """Let the operations have shown no activity for so long."""
    then = time.time() - seconds
    for file in path.glob("cinder_ext/**/*.json"):
        os.utime(file, (then, then))


class Killed(BaseException):
    """The process is gone: no handler of exceptions sees this."""


class Device:
    """What the volume service answers to get_backup_device."""

    def __init__(self, volume: Any) -> None:
        self.device_obj = volume
        self.is_snapshot = False
        self.secure_enabled = True


class BackupCase(test.TestCase):
    """A backup service with the posix driver, and volumes that are files.

    :cvar OPTIONS: of ``[backup_notifications]``
    """

    OPTIONS: dict[str, Any] = {}

    def setUp(self) -> None:
        super().setUp()
        self.mock_object(oslo_messaging, "Notifier", notifier.Notifier)
        self.addCleanup(_impl_test.reset)
        _impl_test.reset()
        self.patch("oslo_utils.units.Gi", GIB)
        self.path = pathlib.Path(self.tmp())
        self.override_config("state_path", str(self.path))
        self.override_config(
            "backup_driver", "cinder.backup.drivers.posix.PosixBackupDriver"
        )
        self.override_config("backup_posix_path", str(self.path / "store"))
        self.override_config("backup_file_size", CHUNK)
        self.override_config("backup_object_number_per_notification", 1)
        self.override_config("host", HOST)
        options = {"min_interval": 0, "min_percent_step": 0.01, **self.OPTIONS}
        for name, value in options.items():
            self.override_config(name, value, group="backup_notifications")
        self.override_config(
            "driver", ["test", "messagingv2"], group="oslo_messaging_notifications"
        )
        self.context = context.RequestContext(
            user_id=USER, project_id=PROJECT, is_admin=True
        )
        for name in ("get_backup_device", "detach_volume", "delete_volume"):
            self.patch(f"cinder.volume.rpcapi.VolumeAPI.{name}")
        self.patch(
            "cinder.volume.rpcapi.VolumeAPI.secure_file_operations_enabled",
            return_value=True,
        )
        self.patch("cinder.volume.volume_utils.brick_get_connector_properties")
        self.patch(
            "cinder.backup.manager.BackupManager._attach_device",
            side_effect=self.attached,
        )
        self.patch("cinder.backup.manager.BackupManager._detach_device")
        self.manager = self.started()

    def _common_cleanup(self) -> None:
        """cinder drops all attributes of the test, of which pytest needs one."""
        method = self.__dict__.get(self._testMethodName)
        super()._common_cleanup()
        if method:
            setattr(self, self._testMethodName, method)

    def tmp(self) -> str:
        path = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, path)
        return path

    def started(self) -> Any:
        """A backup service, as after a start of the process."""
        made = manager.BackupManager(host=HOST)
        made.is_initialized = True
        return made

    def restarted(self, **stubs: Any) -> Any:
        """Another one on the same host, after its clean-up."""
        self.manager = self.started()
        for name, stub in stubs.items():
            setattr(self.manager, name, stub)
        self.manager._cleanup_incomplete_backup_operations(context.get_admin_context())
        return self.manager

    def attached(self, ctxt: Any, volume: Any, *_more: Any, **_kw: Any) -> Any:
        return {"device": {"path": str(self.file(volume))}}

    def file(self, volume: Any) -> pathlib.Path:
        return self.path / f"volume-{volume.id}"

    def volume(self, status: str = "backing-up", data: bytes = b"") -> Any:
        volume = objects.Volume(
            context=self.context,
            size=1,
            host="host1@files",
            user_id=self.context.user_id,
            project_id=self.context.project_id,
            status=status,
            previous_status="available",
            attach_status=fields.VolumeAttachStatus.DETACHED,
            availability_zone="nova",
            volume_type_id=self.vt["id"],
        )
        volume.create()
        self.file(volume).write_bytes(data or os.urandom(GIB))
        return volume

    def backup(self, volume: Any, **more: Any) -> Any:
        values = {
            "volume_id": volume.id,
            "user_id": self.context.user_id,
            "project_id": self.context.project_id,
            "host": HOST,
            "availability_zone": "nova",
            "display_name": "nightly",
            "status": fields.BackupStatus.CREATING,
            "size": 1,
            "object_count": 0,
            "fail_reason": None,
            **more,
        }
        backup = objects.Backup(context=self.context, **values)
        backup.create()
        return backup

    def created(self, volume: Any = None, **more: Any) -> Any:
        """A backup that is made in the two steps that cinder makes it in."""
        volume = volume or self.volume()
        backup = self.backup(volume, **more)
        self.create(backup, volume)
        return backup

    def create(self, backup: Any, volume: Any) -> None:
        self.manager.create_backup(self.context, backup)
        self.manager.continue_backup(self.context, backup, Device(volume))

    def restore(self, backup: Any, volume: Any, *, new: bool = False) -> None:
        self.set_status(backup, fields.BackupStatus.RESTORING)
        backup.restore_volume_id = volume.id
        backup.save()
        self.manager.restore_backup(self.context, backup, volume.id, new)

    def delete(self, backup: Any) -> None:
        self.set_status(backup, fields.BackupStatus.DELETING)
        self.manager.delete_backup(self.context, backup)

    def set_status(self, backup: Any, status: str) -> None:
        """As the API does, in the database and in the message to the service."""
        db.backup_update(self.context, backup.id, {"status": status})
        backup.status = status

    def flush(self) -> None:
        assert self.manager.recorder.emitter.flush(PATIENCE)

    def forget(self) -> None:
        """Begin anew with what was sent."""
        self.flush()
        _impl_test.reset()

    def sent(self, pattern: str = "backup.") -> list[dict[str, Any]]:
        """The messages so far whose event type begins like this."""
        self.flush()
        return [
            {**message, "context": ctxt}
            for ctxt, message, _priority, _retry in _impl_test.NOTIFICATIONS
            if message["event_type"].startswith(pattern)
        ]

    def types(self, pattern: str = "backup.", *, progress: bool = False) -> list[str]:
        """Their event types, without progress."""
        return [
            message["event_type"]
            for message in self.sent(pattern)
            if progress or "progress" not in message["event_type"]
        ]

    def only(self, event_type: str) -> dict[str, Any]:
        """The payload of the one message of this type."""
        (message,) = (m for m in self.sent() if m["event_type"] == event_type)
        payload: dict[str, Any] = message["payload"]
        return payload

    def ends(self) -> dict[str, list[str]]:
        """The types of each operation in order, after a look at their numbers."""
        seen: dict[str, list[str]] = {}
        last: dict[str, int] = {}
        for message in self.sent():
            payload = message["payload"]
            if message["event_type"] == "backup.createprogress":
                continue
            op = payload["operation_id"]
            self.assertLess(last.get(op, 0), payload["sequence"])
            last[op] = payload["sequence"]
            if payload["phase"] != "progress":
                seen.setdefault(op, []).append(message["event_type"])
        return seen

    def journal(self) -> list[str]:
        return sorted(
            file.name
            for file in self.path.glob("cinder_ext/**/*.json")
            if file.is_file()
        )
