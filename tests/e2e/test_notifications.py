# SPDX-License-Identifier: Apache-2.0
"""The versioned notifications as they arrive from the message bus."""

from collections.abc import Callable
from typing import Any

import pytest
from aiolib.bus import Listener
from aiolib.client import Cloud

from tests.e2e import steps

pytestmark = pytest.mark.xdist_group("servers")
HOST = "cmp4"


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
    assert {one["publisher_id"] for one in seen} == {f"nova-compute:{HOST}"}
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
