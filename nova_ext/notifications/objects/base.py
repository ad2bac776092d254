# SPDX-License-Identifier: Apache-2.0
"""Owns what all notifications of this package have around their payload."""

from typing import Any

from nova.notifications.objects import base
from nova.notifications.objects import exception as exception_payload
from nova.objects import fields


def fault(failure: Exception | None) -> Any:
    """The ``fault`` of a payload: None unless something failed."""
    return failure and exception_payload.ExceptionPayload.from_exception(failure)


def envelope(host: str, failure: Any) -> dict[str, Any]:
    """Publisher and priority of a notification of nova-compute on ``host``.

    :param failure: None unless something failed
    """
    return {
        "publisher": base.NotificationPublisher(
            host=host, source=fields.NotificationSource.COMPUTE
        ),
        "priority": fields.NotificationPriority.ERROR
        if failure
        else fields.NotificationPriority.INFO,
    }
