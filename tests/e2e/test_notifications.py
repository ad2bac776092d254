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

import json
from collections.abc import Callable, Iterator
from typing import Any

import kombu
import pytest
from aiolib.client import Cloud

from tests.e2e import steps


class Listener:
    """Collects the quiesce notifications of one server."""

    def __init__(self, url: str) -> None:
        self._connection = kombu.Connection(url.replace("rabbit://", "amqp://"))
        exchange = kombu.Exchange("nova", type="topic", durable=False, passive=True)
        queue = kombu.Queue(
            exchange=exchange, routing_key="versioned_notifications.#", exclusive=True
        )
        self._seen: list[dict[str, Any]] = []
        self._consumer = self._connection.Consumer(
            queue, callbacks=[self._take], no_ack=True, accept=["json"]
        )
        self._consumer.consume()

    def _take(self, body: Any, message: Any) -> None:
        envelope = json.loads(body) if isinstance(body, str | bytes) else body
        self._seen.append(json.loads(envelope["oslo.message"]))

    def events(self, server: Any) -> list[dict[str, Any]]:
        """What has arrived about this server's quiesce, oldest first."""
        try:
            while True:
                self._connection.drain_events(timeout=0.2)
        except TimeoutError:
            pass
        return [
            one
            for one in self._seen
            if "quiesce" in one["event_type"]
            and one["payload"]["nova_object.data"]["uuid"] == server.id
        ]

    def close(self) -> None:
        self._connection.release()


@pytest.fixture
def listener(cloud: Cloud) -> Iterator[Listener]:
    found = Listener(cloud.rabbit_url)
    yield found
    found.close()


def test_start_and_end_of_quiesce_and_unquiesce_then_the_switch(
    cloud: Cloud, tenant: Any, listener: Listener, boot: Callable[..., Any]
) -> None:
    server = boot("e2e-notify")
    steps.quiesce(tenant, server, timeout=60)
    steps.unquiesce(tenant, server)
    expected = [
        "instance.quiesce.start",
        "instance.quiesce.end",
        "instance.unquiesce.start",
        "instance.unquiesce.end",
    ]
    steps.until("four notifications", lambda: len(listener.events(server)) == 4)
    seen = listener.events(server)
    assert [one["event_type"] for one in seen] == expected
    assert {one["publisher_id"] for one in seen} == {"nova-compute:cmp1"}
    end = seen[1]["payload"]["nova_object.data"]
    assert end["timeout"] == 60
    assert end["quiesced_at"] < end["unquiesce_at"]

    steps.quiesce(tenant, server, timeout=1)
    steps.until("eight notifications", lambda: len(listener.events(server)) == 8)
    last = listener.events(server)[-1]
    assert last["event_type"] == "instance.unquiesce.error"
    assert last["priority"] == "ERROR"
    fault = last["payload"]["nova_object.data"]["fault"]["nova_object.data"]
    assert fault["exception"] == "QuiesceWindowBroken"
    assert "not unquiesced by" in fault["exception_message"]
    steps.until("thawed", lambda: steps.status(tenant, server) is None)
