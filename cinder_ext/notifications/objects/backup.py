# SPDX-License-Identifier: Apache-2.0
"""Owns the versioned payloads: the flat one, with types, versions and a schema.

They have Cinder's namespace, in the form that consumers know from Nova. Cinder has no
notification objects, and its registry is that of oslo.versionedobjects, so that these
classes stay out of it: only the tests that write schema and samples register them.
"""

from typing import Any

from oslo_versionedobjects import base, fields

from cinder_ext.notifications import emitter
from cinder_ext.objects import failures, operation

PHASES = ("start", "progress", "stalled", *operation.TERMINAL)


def _optional(kind: Any, **more: Any) -> Any:
    return kind(nullable=True, **more)


class _Payload(base.VersionedObject):
    """Base of all payloads, and of their parts."""

    OBJ_SERIAL_NAMESPACE = "cinder_object"
    OBJ_PROJECT_NAMESPACE = "cinder"

    #: Fields that have another name in the flat payload.
    FLAT: dict[str, str] = {}

    @classmethod
    def from_flat(cls, flat: dict[str, Any]) -> Any:
        """The object for a flat payload; fields that are missing there are null."""
        values = {
            name: flat.get(cls.FLAT.get(name, name))
            for name, field in cls.fields.items()
            if not isinstance(field, fields.ObjectField)
        }
        return cls(**values)


@base.VersionedObjectRegistry.register_if(False)
class BackupProgressPayload(_Payload):
    """How far a transfer is; what the driver does not expose is null."""

    # Version 1.0: Initial version
    VERSION = "1.0"

    FLAT = {"percent": "backup_percent"}

    fields = {
        "percent": _optional(fields.FloatField),
        "bytes_done": _optional(fields.IntegerField),
        "bytes_total": _optional(fields.IntegerField),
        "objects_done": _optional(fields.IntegerField),
        "objects_total": _optional(fields.IntegerField),
        "rate_bps": _optional(fields.FloatField),
        "eta_seconds": _optional(fields.FloatField),
    }


@base.VersionedObjectRegistry.register_if(False)
class BackupFaultPayload(_Payload):
    """What failed, and in which phase."""

    # Version 1.0: Initial version
    VERSION = "1.0"

    fields = {
        "code": fields.EnumField(failures.CODES),
        "type": fields.StringField(),
        "message": fields.StringField(),
        "phase": fields.EnumField(failures.PHASES),
    }


@base.VersionedObjectRegistry.register_if(False)
class BackupResultPayload(_Payload):
    """What a successful create or restore has transferred."""

    # Version 1.0: Initial version
    VERSION = "1.0"

    fields = {
        "bytes_read": _optional(fields.IntegerField),
        "bytes_stored": _optional(fields.IntegerField),
        "object_count": _optional(fields.IntegerField),
        "bytes_written": _optional(fields.IntegerField),
        "volume_bytes": _optional(fields.IntegerField),
    }


@base.VersionedObjectRegistry.register_if(False)
class BackupPayload(_Payload):
    """A backup, and the operation that the notification is about."""

    # Version 1.0: Initial version
    VERSION = "1.0"

    fields = {
        # The keys of Cinder's own notifications.
        "tenant_id": _optional(fields.StringField),
        "user_id": _optional(fields.StringField),
        "availability_zone": _optional(fields.StringField),
        "backup_id": fields.StringField(),
        "host": _optional(fields.StringField),
        "display_name": _optional(fields.StringField),
        "created_at": _optional(fields.DateTimeField),
        "status": _optional(fields.StringField),
        "volume_id": _optional(fields.StringField),
        "size": _optional(fields.IntegerField),
        "service_metadata": _optional(fields.StringField),
        "service": _optional(fields.StringField),
        "fail_reason": _optional(fields.StringField),
        "parent_id": _optional(fields.StringField),
        "num_dependent_backups": _optional(fields.IntegerField),
        "snapshot_id": _optional(fields.StringField),
        # What they lack.
        "payload_version": fields.StringField(),
        "operation_id": fields.StringField(),
        "sequence": fields.IntegerField(),
        "action": fields.EnumField(operation.ACTIONS),
        "phase": fields.EnumField(PHASES),
        "occurred_at": fields.DateTimeField(),
        "is_incremental": fields.BooleanField(),
        "restore_volume_id": _optional(fields.StringField),
        "object_count": _optional(fields.IntegerField),
        "data_timestamp": _optional(fields.DateTimeField),
        "request_id": _optional(fields.StringField),
        "worker": fields.StringField(),
        # What only some actions and phases have.
        "backup_service": _optional(fields.StringField),
        "volume_is_new": _optional(fields.BooleanField),
        "chain_length": _optional(fields.IntegerField),
        "resumed": _optional(fields.BooleanField),
        "age_seconds": _optional(fields.FloatField),
        "duration": _optional(fields.FloatField),
        "progress": _optional(fields.ObjectField, objtype="BackupProgressPayload"),
        "fault": _optional(fields.ObjectField, objtype="BackupFaultPayload"),
        "result": _optional(fields.ObjectField, objtype="BackupResultPayload"),
    }

    @classmethod
    def from_flat(cls, flat: dict[str, Any]) -> Any:
        """The object for a flat payload, with its parts."""
        made = super().from_flat(flat)
        made.progress = made.fault = made.result = None
        if "backup_percent" in flat:
            made.progress = BackupProgressPayload.from_flat(flat)
        if flat.get("error"):
            made.fault = BackupFaultPayload.from_flat(flat["error"])
        if flat.get("result"):
            made.result = BackupResultPayload.from_flat(flat["result"])
        return made


@base.VersionedObjectRegistry.register_if(False)
class BackupNotificationsDroppedPayload(_Payload):
    """Number of notifications lost because the message bus did not accept them."""

    # Version 1.0: Initial version
    VERSION = "1.0"

    fields = {
        "payload_version": fields.StringField(),
        "dropped": fields.IntegerField(),
        "occurred_at": fields.DateTimeField(),
        "worker": fields.StringField(),
    }


#: Parts before the whole, as the hashes and the schema need them.
PAYLOADS = (
    BackupProgressPayload,
    BackupFaultPayload,
    BackupResultPayload,
    BackupPayload,
    BackupNotificationsDroppedPayload,
)


def notification(event: emitter.Event) -> tuple[str, dict[str, Any]]:
    """The versioned event type and payload of an event."""
    kind = BackupPayload if event.operation_id else BackupNotificationsDroppedPayload
    made = kind.from_flat(event.payload)
    # Otherwise the message would list all its fields a second time, as changed.
    made.obj_reset_changes(recursive=True)
    return f"volume_{event.event_type}", made.obj_to_primitive()
