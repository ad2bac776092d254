# SPDX-License-Identifier: Apache-2.0
"""Owns what tests and tools ask the message bus: notifications, and who consumes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterable
from typing import Any

import amqp
import kombu


def _connect(url: str) -> kombu.Connection:
    return kombu.Connection(url.replace("rabbit://", "amqp://"), connect_timeout=5)


def consumed(url: str, queues: Iterable[str]) -> set[str]:
    """Which of the queues have a consumer; none if the bus is away, or goes."""
    found: set[str] = set()
    away = (OSError, amqp.ConnectionError)
    with contextlib.suppress(*away), _connect(url) as connection:
        for name in queues:
            with contextlib.suppress(amqp.NotFound), connection.channel() as channel:
                if channel.queue_declare(name, passive=True).consumer_count:
                    found.add(name)
    return found


@dataclasses.dataclass(frozen=True)
class Message:
    """A notification as it came over the wire.

    :ivar size: of the whole message, in bytes
    """

    event: dict[str, Any]
    size: int


class Listener:
    """Collects the notifications of a service from now on.

    :param exchange: of the service
    :param topic: ``notifications`` or ``versioned_notifications``
    """

    def __init__(self, url: str, exchange: str, topic: str) -> None:
        self._connection = _connect(url)
        queue = kombu.Queue(
            exchange=kombu.Exchange(
                exchange, type="topic", durable=False, passive=True
            ),
            routing_key=f"{topic}.#",
            exclusive=True,
        )
        self._seen: list[Message] = []
        self._consumer = self._connection.Consumer(
            queue, callbacks=[self._take], no_ack=True, accept=["json"]
        )
        self._consumer.consume()

    def _take(self, body: Any, message: Any) -> None:
        envelope = json.loads(body) if isinstance(body, str | bytes) else body
        event = json.loads(envelope["oslo.message"])
        self._seen.append(Message(event, len(message.body)))

    def messages(self, silence: float = 0.2) -> list[Message]:
        """All that has arrived, oldest first.

        :param silence: seconds without a message after which it is all
        """
        with contextlib.suppress(TimeoutError):
            while True:
                self._connection.drain_events(timeout=silence)
        return list(self._seen)

    def close(self) -> None:
        self._connection.release()
