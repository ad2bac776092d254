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

"""The versioned notifications as they arrive from the message bus."""

from collections.abc import Callable
from typing import Any

from aiolib.bus import Listener
from aiolib.client import Cloud

from tests.e2e import steps


def test_start_and_end_of_quiesce_and_unquiesce_then_the_switch(
    cloud: Cloud, tenant: Any, listener: Listener, boot: Callable[..., Any]
) -> None:
    server = boot("e2e-notify")

    def told() -> list[dict[str, Any]]:
        return steps.told(listener, server.id, "quiesce")

    steps.quiesce(tenant, server, timeout=60)
    steps.unquiesce(tenant, server)
    expected = [
        "instance.quiesce.start",
        "instance.quiesce.end",
        "instance.unquiesce.start",
        "instance.unquiesce.end",
    ]
    steps.until("four notifications", lambda: len(told()) == 4)
    seen = told()
    assert [one["event_type"] for one in seen] == expected
    assert {one["publisher_id"] for one in seen} == {"nova-compute:cmp1"}
    end = seen[1]["payload"]["nova_object.data"]
    assert end["timeout"] == 60
    assert end["quiesced_at"] < end["unquiesce_at"]

    steps.quiesce(tenant, server, timeout=1)
    steps.until("eight notifications", lambda: len(told()) == 8)
    last = told()[-1]
    assert last["event_type"] == "instance.unquiesce.error"
    assert last["priority"] == "ERROR"
    fault = last["payload"]["nova_object.data"]["fault"]["nova_object.data"]
    assert fault["exception"] == "QuiesceWindowBroken"
    assert "not unquiesced by" in fault["exception_message"]
    steps.until("thawed", lambda: steps.status(tenant, server) is None)
