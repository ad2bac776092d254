# SPDX-License-Identifier: Apache-2.0
"""When the work of a driver is told."""

from typing import Any

import pytest

from cinder_ext.backup import transfer
from cinder_ext.objects import operation

SIZE = 1000


class Journal:
    def touch(self, op: operation.Operation) -> None:
        pass

    def is_running(self, op: operation.Operation) -> bool:
        return True


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told() -> list[float]:
    return []


@pytest.fixture
def work(clock: Clock, told: list[float]) -> transfer.Transfer:
    """A transfer that is told at steps of 10 percent, or after 100 seconds."""

    def announce(facts: dict[str, Any]) -> None:
        told.append(facts["backup_percent"])

    op = operation.Operation(
        id="op", action="create", backup_id="backup", started_at=clock.now
    )
    journal: Any = Journal()
    return transfer.Transfer(
        op,
        operation.Progress(SIZE, None, clock),
        operation.ProgressThrottle(0, 100, 10.0, clock),
        journal,
        announce,
        clock,
    )


def advance(work: transfer.Transfer, position: int) -> None:
    work.progress.reached_byte(position)
    work.moved()


def test_a_driver_that_counts_chunks_is_told_after_them(
    work: transfer.Transfer, told: list[float]
) -> None:
    work.by_count = True
    advance(work, 500)
    assert told == []
    work.counted()
    assert told == [50.0]


def test_many_chunks_of_a_big_volume_are_no_step(
    work: transfer.Transfer, told: list[float]
) -> None:
    work.by_count = True
    for position in range(0, SIZE, 5):
        advance(work, position)
        work.counted()
    assert told == [10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0]


def test_any_other_driver_is_told_at_steps(
    work: transfer.Transfer, told: list[float]
) -> None:
    for position in range(0, SIZE, 250):
        advance(work, position)
    assert told == [25.0, 50.0, 75.0]


def test_a_slow_driver_is_told_by_the_heartbeat(
    work: transfer.Transfer, told: list[float], clock: Clock
) -> None:
    work.by_count = True
    advance(work, 1)
    work.heartbeat()
    clock.now += 100
    work.heartbeat()
    assert told == [0.1]
