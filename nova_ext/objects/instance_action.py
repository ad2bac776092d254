# SPDX-License-Identifier: Apache-2.0
"""Owns what the extension records with an event that nova's own objects leave out."""

from typing import Any

from nova.objects import base as nova_base
from nova.objects import instance_action
from typing_extensions import override


@nova_base.NovaObjectRegistry.register
class DetailedActionEvent(instance_action.InstanceActionEvent):
    """nova's event of an action, which has details after a success, too.

    They are ``exc_val`` of ``event_finish_with_failure``, without an ``exc_tb``.
    """

    # Version 1.0: Initial version, on InstanceActionEvent 1.4
    VERSION = "1.0"

    @staticmethod
    @override
    def pack_action_event_finish(
        context: Any,
        instance_uuid: str,
        event_name: str,
        exc_val: Any = None,
        exc_tb: Any = None,
    ) -> dict[str, Any]:
        """What nova stores of an event that ends."""
        values: dict[str, Any] = (
            instance_action.InstanceActionEvent.pack_action_event_finish(
                context, instance_uuid, event_name, exc_val=exc_val, exc_tb=exc_tb
            )
        )
        if exc_tb is None and exc_val:
            values["details"] = exc_val
        return values
