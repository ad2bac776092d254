# SPDX-License-Identifier: Apache-2.0
"""The retry queue: order, patience with the message bus, and nothing else."""

import types
from collections.abc import Callable
from typing import Any

import oslo_messaging as messaging
import pytest
from nova import exception

from nova_ext.compute import retry_queue


class FakeThread:
    """A thread that runs when the test says so."""

    def __init__(self, target: Callable[[], None], name: str, daemon: bool) -> None:
        self.run, self.name, self.daemon = target, name, daemon
        self.started = False
        made.append(self)

    def start(self) -> None:
        self.started = True


made: list[FakeThread] = []


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that would have been waited."""
    seconds: list[float] = []
    made.clear()
    monkeypatch.setattr(
        retry_queue, "threading", types.SimpleNamespace(Thread=FakeThread), raising=True
    )
    monkeypatch.setattr("tenacity.nap.time.sleep", seconds.append)
    return seconds


def written(records: retry_queue.RetryQueue) -> None:
    """Close the queue and let its thread run to the end."""
    records.close()
    (thread,) = made
    assert thread.started
    thread.run()


def failing(times: int, error: Exception, then: Callable[[], Any]) -> Any:
    left = [error] * times

    def record() -> None:
        if left:
            raise left.pop()
        then()

    return record


def test_records_are_written_in_order(slept: list[float]) -> None:
    records = retry_queue.RetryQueue("quiesce-records-x")
    seen: list[int] = []
    for number in range(5):
        records.put(seen.append, number)
    written(records)
    assert seen == [0, 1, 2, 3, 4]
    assert slept == []


def test_thread_does_not_keep_nova_compute_from_ending(slept: list[float]) -> None:
    retry_queue.RetryQueue("quiesce-records-x")
    assert made[0].daemon
    assert made[0].name == "quiesce-records-x"


@pytest.mark.parametrize(
    "error",
    [messaging.MessagingTimeout("no reply"), messaging.MessageDeliveryFailure("down")],
)
def test_what_the_bus_lost_is_repeated_before_the_next_record(
    slept: list[float], error: Exception
) -> None:
    records = retry_queue.RetryQueue("x")
    seen: list[str] = []
    records.put(failing(9, error, lambda: seen.append("first")))
    records.put(seen.append, "second")
    written(records)
    assert seen == ["first", "second"]
    assert len(slept) == 9
    assert slept == sorted(slept)
    assert slept[0] <= 2
    assert max(slept) == 30


def test_waits_start_small_again_with_each_record(slept: list[float]) -> None:
    records = retry_queue.RetryQueue("x")
    error = messaging.MessagingTimeout("no reply")
    records.put(failing(6, error, lambda: None))
    records.put(failing(1, error, lambda: None))
    written(records)
    assert slept[-1] == slept[0]


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError(28, "disk full")])
def test_other_errors_are_repeated_too(slept: list[float], error: Exception) -> None:
    records = retry_queue.RetryQueue("x")
    seen: list[str] = []
    records.put(failing(20, error, lambda: seen.append("first")))
    records.put(seen.append, "second")
    written(records)
    assert seen == ["first", "second"]
    assert len(slept) == 20


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a bug"),
        # The bus works, and the conductor says no.
        messaging.RemoteError("DBError", "the database is down"),
    ],
)
def test_other_errors_lose_a_record_after_a_quarter_of_an_hour(
    slept: list[float], error: Exception
) -> None:
    records = retry_queue.RetryQueue("x")
    seen: list[str] = []
    records.put(failing(30, error, lambda: seen.append("lost")))
    records.put(seen.append, "next")
    records.put_last(seen.append, "last")
    written(records)
    assert seen == ["next"]  # what the last one ends is not over
    assert 600 < sum(slept) < 1200


def test_a_bus_that_is_down_loses_nothing(slept: list[float]) -> None:
    records = retry_queue.RetryQueue("x")
    seen: list[str] = []
    error = messaging.MessagingTimeout("no reply")
    records.put(failing(100, error, lambda: seen.append("first")))
    records.put_last(seen.append, "last")
    written(records)
    assert seen == ["first", "last"]


def test_what_is_told_of_an_instance_that_is_gone_is_not_missed(
    slept: list[float],
) -> None:
    records = retry_queue.RetryQueue("x")
    seen: list[str] = []
    error = exception.InstanceNotFound(instance_id="x")
    records.put(failing(1, error, lambda: seen.append("gone")))
    records.put_last(seen.append, "last")
    written(records)
    assert seen == ["last"]
    assert slept == []


def test_nothing_is_written_after_close(slept: list[float]) -> None:
    records = retry_queue.RetryQueue("x")
    seen: list[str] = []
    records.put(seen.append, "before")
    records.close()
    records.put(seen.append, "after")
    made[0].run()
    assert seen == ["before"]
