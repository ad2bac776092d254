# SPDX-License-Identifier: Apache-2.0
"""The endpoint for failures, which must neither count twice nor ever raise."""

import collections
import concurrent.futures
import time
from typing import Any

import pytest

from cinder_ext.telemetry.endpoint import BackupFailures
from tests.unit.cinder_ext.telemetry import payloads
from tests.unit.cinder_ext.telemetry.conftest import Agent, configuration


class Publisher:
    """Stands where the pipelines are."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.samples: list[Any] = []
        self.failure = failure

    def __enter__(self) -> Any:
        return self._publish

    def __exit__(self, *failure: Any) -> None:
        pass

    def _publish(self, samples: list[Any]) -> None:
        if self.failure:
            raise self.failure
        self.samples.extend(samples)


def heard(message: payloads.Message) -> dict[str, Any]:
    """The message as an endpoint gets it."""
    return {
        "ctxt": message.ctxt,
        "publisher_id": message.message["publisher_id"],
        "event_type": message.message["event_type"],
        "payload": message.message["payload"],
        "metadata": {
            "message_id": message.message["message_id"],
            "timestamp": message.message["timestamp"],
        },
    }


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()


@pytest.fixture
def endpoint(publisher: Publisher) -> BackupFailures:
    return BackupFailures(configuration(), publisher)


def test_stock_ceilometer_makes_no_sample_of_a_failure(stock: Agent) -> None:
    samples, events = stock.hear(payloads.flat("backup.create.error"))
    assert samples == []
    assert len(events) == 1


def test_sent_again_with_another_message_id(
    endpoint: BackupFailures, publisher: Publisher
) -> None:
    for _ in range(2):
        endpoint.error([heard(payloads.flat("backup.create.error"))])
    assert len(publisher.samples) == 1


def test_delivered_again_without_an_operation_id(
    endpoint: BackupFailures, publisher: Publisher
) -> None:
    message = heard(payloads.flat("backup.create.error", operation_id=None))
    endpoint.error([message, message])
    assert len(publisher.samples) == 1


def test_another_operation_counts(
    endpoint: BackupFailures, publisher: Publisher
) -> None:
    endpoint.error(
        [
            heard(payloads.flat("backup.create.error", operation_id="first")),
            heard(payloads.flat("backup.delete.error", operation_id="second")),
        ]
    )
    assert len(publisher.samples) == 2


class Slow(collections.deque[Any]):
    """Lets another thread in between the look and the entry."""

    def __contains__(self, item: object) -> bool:
        found = super().__contains__(item)
        time.sleep(0.001)
        return found


def test_many_threads_count_once(
    endpoint: BackupFailures, publisher: Publisher
) -> None:
    messages = [
        heard(payloads.flat("backup.create.error", operation_id=f"operation{number}"))
        for number in range(50)
        for _ in range(4)
    ]
    endpoint._counted = Slow(maxlen=1000)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda message: endpoint.error([message]), messages))
    assert len(publisher.samples) == 50


def test_what_it_remembers_is_bounded(
    endpoint: BackupFailures, publisher: Publisher
) -> None:
    first = heard(payloads.flat("backup.create.error", operation_id="first"))
    others = [{**first, "payload": {"operation_id": str(n)}} for n in range(1000)]
    endpoint.error([first, *others, first])
    assert len(publisher.samples) == 1002


@pytest.mark.parametrize(
    "change",
    [
        {"payload": None},
        {"payload": "text"},
        {"payload": []},
        {"payload": {"error": "text", "operation_id": ["a", "list"]}},
        {"metadata": {"message_id": "1", "timestamp": None}},
        {"metadata": {"message_id": "2", "timestamp": "yesterday"}},
        {"metadata": {}},
    ],
)
def test_nothing_raises_and_the_next_one_counts(
    endpoint: BackupFailures, publisher: Publisher, change: dict[str, Any]
) -> None:
    message = heard(payloads.flat("backup.create.error", operation_id="odd"))
    good = heard(payloads.flat("backup.create.error", operation_id="good"))
    endpoint.error([{**message, **change}, good])
    assert publisher.samples[-1].resource_metadata["operation_id"] == "good"


def test_a_publisher_that_fails_does_not_raise() -> None:
    endpoint = BackupFailures(configuration(), Publisher(RuntimeError("down")))
    endpoint.error([heard(payloads.flat("backup.create.error"))])


@pytest.mark.parametrize("priority", ["info", "sample"])
def test_other_priorities_are_left_to_ceilometer(
    endpoint: BackupFailures, publisher: Publisher, priority: str
) -> None:
    getattr(endpoint, priority)([heard(payloads.flat("backup.create.error"))])
    assert publisher.samples == []


def test_other_errors_are_not_heard(endpoint: BackupFailures) -> None:
    for event_type, wanted in (
        ("backup.create.error", True),
        ("volume_backup.create.error", False),
        ("volume.create.error", False),
        ("backup.create.end", False),
        ("instance.quiesce.error", False),
    ):
        match = endpoint.filter_rule.match({}, "p", event_type, {}, {})
        assert bool(match) is wanted, event_type
