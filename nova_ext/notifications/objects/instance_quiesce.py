# SPDX-License-Identifier: Apache-2.0
"""Owns the versioned notifications of quiesce and unquiesce.

nova's ``EventType`` knows a closed list of actions; these notifications bring an event
type of their own and extend nova's instance payload.
"""

from typing import Any

from nova import rpc
from nova.notifications.objects import base
from nova.notifications.objects import instance as instance_payload
from nova.objects import base as nova_base
from nova.objects import fields

from nova_ext.notifications.objects import base as common
from nova_ext.objects.quiesce_window import QuiesceWindow


class QuiesceAction(fields.BaseNovaEnum):
    """The actions of this module's notifications."""

    QUIESCE = "quiesce"
    UNQUIESCE = "unquiesce"
    ALL = (QUIESCE, UNQUIESCE)


class QuiesceActionField(fields.BaseEnumField):
    """The field type of :class:`QuiesceAction`."""

    AUTO_TYPE = QuiesceAction()


@nova_base.NovaObjectRegistry.register_notification
class InstanceQuiesceEventType(base.NotificationObject):
    """The event type ``instance.{quiesce,unquiesce}.{start,end,error}``."""

    # Version 1.0: Initial version
    VERSION = "1.0"

    fields = {
        "object": fields.StringField(nullable=False),
        "action": QuiesceActionField(nullable=False),
        "phase": fields.NotificationPhaseField(nullable=True),
    }

    def to_notification_event_type_field(self) -> str:
        """The event type as it goes over the wire."""
        return f"{self.object}.{self.action}.{self.phase}"


@nova_base.NovaObjectRegistry.register_notification
class InstanceQuiescePayload(instance_payload.InstanceActionPayload):
    """nova's instance payload and the times of the window.

    ``quiesced_at`` and ``unquiesce_at`` are null before the guest is frozen;
    ``left_out`` has the mount points of writable file systems that are not.
    """

    # Version 1.0: Initial version, on InstanceActionPayload 1.9
    VERSION = "1.0"

    fields = {
        "timeout": fields.IntegerField(),
        "quiesced_at": fields.DateTimeField(nullable=True),
        "unquiesce_at": fields.DateTimeField(nullable=True),
        "left_out": fields.ListOfStringsField(),
    }

    def __init__(
        self, context: Any, instance: Any, fault: Any, window: QuiesceWindow
    ) -> None:
        super().__init__(context=context, instance=instance, fault=fault)
        self.timeout = window.timeout
        self.quiesced_at = window.quiesced_at
        self.unquiesce_at = window.unquiesce_at
        self.left_out = window.mount_points_left_out


@base.notification_sample("instance-quiesce-start.json")
@base.notification_sample("instance-quiesce-end.json")
@base.notification_sample("instance-quiesce-error.json")
@base.notification_sample("instance-unquiesce-start.json")
@base.notification_sample("instance-unquiesce-end.json")
@base.notification_sample("instance-unquiesce-error.json")
@nova_base.NovaObjectRegistry.register_notification
class InstanceQuiesceNotification(base.NotificationBase):
    """All notifications of quiesce and unquiesce."""

    # Version 1.0: Initial version
    VERSION = "1.0"

    fields = {
        "event_type": fields.ObjectField("InstanceQuiesceEventType"),
        "payload": fields.ObjectField("InstanceQuiescePayload"),
    }


@rpc.if_notifications_enabled
def emit(
    context: Any,
    instance: Any,
    host: str,
    action: str,
    phase: str,
    window: QuiesceWindow,
    failure: Exception | None = None,
) -> None:
    """Send one notification, if versioned notifications are enabled.

    :param action: ``quiesce`` or ``unquiesce``
    :param phase: ``start``, ``end`` or ``error``
    :param failure: the reason, with phase ``error``
    """
    InstanceQuiesceNotification(
        context=context,
        event_type=InstanceQuiesceEventType(
            object="instance", action=action, phase=phase
        ),
        payload=InstanceQuiescePayload(
            context, instance, common.fault(failure), window
        ),
        **common.envelope(host, failure),
    ).emit(context)
