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

"""Owns the reading of nova's message bus."""

import json
from typing import Any

import kombu


class Listener:
    """Collects the versioned notifications of nova."""

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

    def events(self, server_id: str, action: str) -> list[dict[str, Any]]:
        """What has arrived of this server's actions with ``action`` in their name."""
        try:
            while True:
                self._connection.drain_events(timeout=0.2)
        except TimeoutError:
            pass
        return [
            one
            for one in self._seen
            if action in one["event_type"]
            and one["payload"]["nova_object.data"]["uuid"] == server_id
        ]

    def close(self) -> None:
        self._connection.release()
