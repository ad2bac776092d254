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

"""The journal: order, patience with the message bus, and nothing else."""

import types
from collections.abc import Callable
from typing import Any

import oslo_messaging as messaging
import pytest
from nova import exception

from nova_ext.compute import journal


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
        journal, "threading", types.SimpleNamespace(Thread=FakeThread), raising=True
    )
    monkeypatch.setattr("tenacity.nap.time.sleep", seconds.append)
    return seconds


def written(records: journal.Journal) -> None:
    """Close the journal and let its thread run to the end."""
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
    records = journal.Journal("quiesce-journal-x")
    seen: list[int] = []
    for number in range(5):
        records.put(seen.append, number)
    written(records)
    assert seen == [0, 1, 2, 3, 4]
    assert slept == []


def test_thread_does_not_keep_nova_compute_from_ending(slept: list[float]) -> None:
    journal.Journal("quiesce-journal-x")
    assert made[0].daemon
    assert made[0].name == "quiesce-journal-x"


@pytest.mark.parametrize(
    "error",
    [messaging.MessagingTimeout("no reply"), messaging.MessageDeliveryFailure("down")],
)
def test_what_the_bus_lost_is_repeated_before_the_next_record(
    slept: list[float], error: Exception
) -> None:
    records = journal.Journal("x")
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
    records = journal.Journal("x")
    error = messaging.MessagingTimeout("no reply")
    records.put(failing(6, error, lambda: None))
    records.put(failing(1, error, lambda: None))
    written(records)
    assert slept[-1] == slept[0]


@pytest.mark.parametrize(
    "error",
    [exception.InstanceNotFound(instance_id="x"), ValueError("a bug"), KeyError()],
)
def test_other_errors_lose_one_record_and_are_not_repeated(
    slept: list[float], error: Exception
) -> None:
    records = journal.Journal("x")
    seen: list[str] = []
    records.put(failing(1, error, lambda: seen.append("lost")))
    records.put(seen.append, "next")
    written(records)
    assert seen == ["next"]
    assert slept == []


def test_nothing_is_written_after_close(slept: list[float]) -> None:
    records = journal.Journal("x")
    seen: list[str] = []
    records.put(seen.append, "before")
    records.close()
    records.put(seen.append, "after")
    made[0].run()
    assert seen == ["before"]
