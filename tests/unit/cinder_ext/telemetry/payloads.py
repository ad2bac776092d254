# SPDX-License-Identifier: Apache-2.0
"""Builds notifications of backups as they arrive in Ceilometer."""

import copy
import dataclasses
import itertools
from typing import Any

from cinder_ext.notifications import emitter
from cinder_ext.notifications.objects import backup as objects

BACKUP = "00000000-0000-4000-8000-00000000000b"
VOLUME = "00000000-0000-4000-8000-00000000000a"
OPERATION = "00000000-0000-5000-8000-00000000000c"
RESTORED = "00000000-0000-4000-8000-00000000000d"
PROJECT = "6f70656e737461636b20342065766572"
USER = "9f70656e737461636b20342065766571"

_MESSAGES = itertools.count(1)


@dataclasses.dataclass
class Message:
    """What oslo.messaging hands to the dispatcher of the listener."""

    message: dict[str, Any]
    ctxt: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def payload(self) -> dict[str, Any]:
        payload: dict[str, Any] = self.message["payload"]
        return payload


def message(
    event_type: str, payload: Any, priority: str = "INFO", publisher: str = "backup.b1"
) -> Message:
    return Message(
        {
            "message_id": f"00000000-0000-4000-9000-{next(_MESSAGES):012d}",
            "timestamp": "2026-11-21 10:01:00.000000",
            "event_type": event_type,
            "publisher_id": publisher,
            "priority": priority,
            "payload": payload,
        }
    )


def upstream(**changes: Any) -> dict[str, Any]:
    """The 16 keys of cinder itself."""
    return {
        "tenant_id": PROJECT,
        "user_id": USER,
        "availability_zone": "nova",
        "backup_id": BACKUP,
        "host": "b1@posix",
        "display_name": "nightly",
        "created_at": "2026-11-21T10:00:00+00:00",
        "status": "creating",
        "volume_id": VOLUME,
        "size": 3,
        "service_metadata": "volume_a/20261121/az_nova_backup_b",
        "service": "cinder.backup.drivers.posix.PosixBackupDriver",
        "fail_reason": None,
        "parent_id": None,
        "num_dependent_backups": 0,
        "snapshot_id": None,
        **changes,
    }


def _common(action: str, phase: str, **changes: Any) -> dict[str, Any]:
    return {
        **upstream(),
        "payload_version": "1.0",
        "operation_id": OPERATION,
        "sequence": 60001,
        "action": action,
        "phase": phase,
        "occurred_at": "2026-11-21T10:00:30.250Z",
        "is_incremental": False,
        "restore_volume_id": None,
        "object_count": 0,
        "data_timestamp": "2026-11-21T10:00:00+00:00",
        "request_id": "req-00000000-0000-4000-8000-00000000000e",
        "worker": "b1:4242",
        **changes,
    }


def _progress(percent: float | None = 50.0) -> dict[str, Any]:
    return {
        "backup_percent": percent,
        "bytes_done": 1610612736,
        "bytes_total": 3221225472,
        "objects_done": 15,
        "objects_total": 30,
        "rate_bps": 53687091.2,
        "eta_seconds": 30.0,
    }


def _error() -> dict[str, Any]:
    return {
        "code": "no_space",
        "type": "OSError",
        "message": "[Errno 28] No space left on device",
        "phase": "transfer",
    }


#: What the events have beyond the common block.
_MORE: dict[str, dict[str, Any]] = {
    "create.progress": _progress(),
    "create.end": {
        **_progress(100.0),
        "duration": 60.5,
        "result": {"bytes_read": 3221225472, "bytes_stored": 9000, "object_count": 30},
    },
    "create.error": {**_progress(), "duration": 31.0, "error": _error()},
    "create.cancelled": {**_progress(), "duration": 31.0},
    "create.stalled": {"age_seconds": 3600.0},
    "restore.progress": _progress(25.0),
    "restore.end": {
        **_progress(100.0),
        "duration": 70.0,
        "result": {"bytes_written": 3221225472, "volume_bytes": 3221225472},
    },
    "restore.error": {**_progress(), "duration": 31.0, "error": _error()},
    "restore.cancelled": {**_progress(), "duration": 31.0},
    "delete.start": {"resumed": True},
    "delete.end": {"resumed": True, "duration": 2.25},
    "delete.error": {"resumed": True, "duration": 2.25, "error": _error()},
    "import.start": {"backup_service": "cinder.backup.drivers.ceph.CephBackupDriver"},
    "import.end": {"backup_service": "cinder.backup.drivers.ceph.CephBackupDriver"},
    "import.error": {
        "backup_service": "cinder.backup.drivers.ceph.CephBackupDriver",
        "error": _error(),
    },
    "export.end": {"backup_service": "cinder.backup.drivers.ceph.CephBackupDriver"},
    "export.error": {
        "backup_service": "cinder.backup.drivers.ceph.CephBackupDriver",
        "error": _error(),
    },
    "reset_status.start": {"old_status": "creating", "new_status": "error"},
    "reset_status.end": {"old_status": "creating", "new_status": "error"},
}

_RESTORE = {
    "restore_volume_id": RESTORED,
    "volume_is_new": True,
    "chain_length": 2,
}

#: Each event of an operation, without its prefix.
OPERATIONS = sorted({*_MORE, "create.start", "restore.start"})

#: All unversioned events.
FLAT = sorted(f"backup.{event}" for event in (*OPERATIONS, "createprogress", "exists"))

#: All versioned events.
VERSIONED = [
    f"volume_backup.{event}"
    for event in OPERATIONS
    if not event.startswith("reset_status")
]


def _priority(event: str) -> str:
    return {"error": "ERROR", "stalled": "WARN"}.get(event.rpartition(".")[2], "INFO")


def flat(event_type: str, priority: str | None = None, **changes: Any) -> Message:
    """An unversioned notification of this package."""
    event = event_type.removeprefix("backup.")
    if event == "exists":
        payload = upstream(
            status="available",
            audit_period_beginning="2026-11-21 09:00:00",
            audit_period_ending="2026-11-21 10:00:00",
        )
    else:
        event = "create.progress" if event == "createprogress" else event
        action, _, phase = event.rpartition(".")
        payload = _common(action, phase, **copy.deepcopy(_MORE.get(event, {})))
        if action == "restore":
            payload.update(_RESTORE)
    payload.update(changes)
    return message(event_type, payload, priority or _priority(event))


def versioned(event_type: str) -> Message:
    """The same notification as an object."""
    like = flat(event_type.removeprefix("volume_"))
    event = emitter.Event(
        like.message["event_type"], like.message["priority"], like.payload, {}
    )
    name, payload = objects.notification(event)
    assert name == event_type
    return message(name, payload, event.priority, "cinder-backup:b1")


def dropped() -> Message:
    """That some notifications were lost."""
    payload = {
        "payload_version": "1.0",
        "dropped": 12,
        "occurred_at": "2026-11-21T10:00:30.250Z",
        "worker": "b1:4242",
    }
    return message("backup.notifications.dropped", payload)


def stock_progress(percent: float) -> Message:
    """What cinder's own driver sends."""
    payload = upstream(
        id=VOLUME,
        list=[{"volume_a-00001": {"md5": "8423", "length": 1}}],
        prefix="volume_a",
        volume_meta=None,
        backup_percent=percent,
    )
    return message("backup.createprogress", payload)
