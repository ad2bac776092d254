# SPDX-License-Identifier: Apache-2.0
"""Owns the versioned notifications of the copy of a server's persistent memory.

nova's ``EventType`` knows a closed list of actions and phases; these notifications
bring an event type of their own and extend nova's instance payload.
"""

import dataclasses
from typing import Any

from nova import rpc
from nova.notifications.objects import base
from nova.notifications.objects import instance as instance_payload
from nova.objects import base as nova_base
from nova.objects import fields

from nova_ext.notifications.objects import base as common

#: The payload of a failure; made where it is handled, it tells where it was raised.
fault = common.fault


@dataclasses.dataclass(frozen=True)
class Figures:
    """What there is to tell of a copy.

    :ivar total: bytes to copy, zeros included
    :ivar copied: bytes copied so far, zeros included
    :ivar seconds: since the first byte
    """

    migration: Any
    total: int
    copied: int
    seconds: float

    @property
    def rate(self) -> int:
        """Bytes per second so far; 0 before the first."""
        return int(self.copied / self.seconds) if self.seconds else 0


class CopyPmemPhase(fields.BaseNovaEnum):
    """The phases of this module's notifications."""

    START = "start"
    PROGRESS = "progress"
    END = "end"
    ERROR = "error"
    ALL = (START, PROGRESS, END, ERROR)


class CopyPmemPhaseField(fields.BaseEnumField):
    """The field type of :class:`CopyPmemPhase`."""

    AUTO_TYPE = CopyPmemPhase()


@nova_base.NovaObjectRegistry.register_notification
class InstanceCopyPmemEventType(base.NotificationObject):
    """The event type ``instance.copy_pmem.{start,progress,end,error}``."""

    # Version 1.0: Initial version
    VERSION = "1.0"

    fields = {
        "object": fields.StringField(nullable=False),
        "action": fields.StringField(nullable=False),
        "phase": CopyPmemPhaseField(nullable=False),
    }

    def to_notification_event_type_field(self) -> str:
        """The event type as it goes over the wire."""
        return f"{self.object}.{self.action}.{self.phase}"


@nova_base.NovaObjectRegistry.register_notification
class InstanceCopyPmemPayload(instance_payload.InstanceActionPayload):
    """nova's instance payload and the figures of the copy.

    Sizes are in bytes and count zeros too, ``rate`` is in bytes per second since the
    first byte and ``duration`` in seconds.
    """

    # Version 1.0: Initial version, on InstanceActionPayload 1.9
    VERSION = "1.0"

    fields = {
        "migration_uuid": fields.UUIDField(),
        "source_compute": fields.StringField(),
        "dest_compute": fields.StringField(),
        "bytes_total": fields.IntegerField(),
        "bytes_copied": fields.IntegerField(),
        "rate": fields.IntegerField(),
        "duration": fields.FloatField(),
    }

    def __init__(
        self, context: Any, instance: Any, fault: Any, figures: Figures
    ) -> None:
        super().__init__(context=context, instance=instance, fault=fault)
        self.migration_uuid = figures.migration.uuid
        self.source_compute = figures.migration.source_compute
        self.dest_compute = figures.migration.dest_compute
        self.bytes_total = figures.total
        self.bytes_copied = figures.copied
        self.rate = figures.rate
        self.duration = round(figures.seconds, 3)


@base.notification_sample("instance-copy_pmem-start.json")
@base.notification_sample("instance-copy_pmem-progress.json")
@base.notification_sample("instance-copy_pmem-end.json")
@base.notification_sample("instance-copy_pmem-error.json")
@nova_base.NovaObjectRegistry.register_notification
class InstanceCopyPmemNotification(base.NotificationBase):
    """All notifications of the copy."""

    # Version 1.0: Initial version
    VERSION = "1.0"

    fields = {
        "event_type": fields.ObjectField("InstanceCopyPmemEventType"),
        "payload": fields.ObjectField("InstanceCopyPmemPayload"),
    }


@rpc.if_notifications_enabled
def emit(
    context: Any,
    instance: Any,
    host: str,
    phase: str,
    figures: Figures,
    failed: Any = None,
) -> None:
    """Send one notification, if versioned notifications are enabled.

    :param phase: ``start``, ``progress``, ``end`` or ``error``
    :param failed: what :func:`fault` made of the reason, with phase ``error``
    """
    InstanceCopyPmemNotification(
        context=context,
        event_type=InstanceCopyPmemEventType(
            object="instance", action="copy_pmem", phase=phase
        ),
        payload=InstanceCopyPmemPayload(context, instance, failed, figures),
        **common.envelope(host, failed),
    ).emit(context)
