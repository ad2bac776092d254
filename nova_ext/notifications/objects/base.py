#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

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
