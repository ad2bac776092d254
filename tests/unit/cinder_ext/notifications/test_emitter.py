# SPDX-License-Identifier: Apache-2.0

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from cinder_ext.notifications import emitter

PATIENCE = 30  # s; how long a test waits for the thread before it fails


class Bus:
    """A message bus that can be dead or hung."""

    def __init__(self) -> None:
        self.sent: list[emitter.Event] = []
        self.dead = False
        self.tries = 0
        self.running = threading.Event()
        self.running.set()
        self.busy = threading.Event()

    def connect(self) -> emitter.Send:
        return self.send

    def send(self, event: emitter.Event) -> None:
        self.busy.set()
        assert self.running.wait(PATIENCE)
        self.tries += 1
        if self.dead:
            raise ConnectionError("no broker")
        self.sent.append(event)

    def types(self) -> list[str]:
        return [event.event_type for event in self.sent]


class Outbox:
    """What the journal keeps."""

    def __init__(self) -> None:
        self.kept: list[emitter.Event] = []
        self.delivered: list[emitter.Event] = []

    def undelivered(self) -> list[emitter.Event]:
        return [event for event in self.kept if event not in self.delivered]


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
def outbox() -> Outbox:
    return Outbox()


@pytest.fixture
def made(bus: Bus, outbox: Outbox) -> emitter.Emitter:
    return emitter.Emitter(
        bus.connect,
        length=3,
        retries=2,
        pause=0,
        delivered=outbox.delivered.append,
        dropped=lambda count: event("backup.notifications.dropped", dropped=count),
        undelivered=outbox.undelivered,
    )


def event(name: str, *, kept: bool = False, **payload: Any) -> emitter.Event:
    return emitter.Event(name, "info", payload, {}, kept)


def progress(operation: str, percent: float) -> emitter.Event:
    return event(
        "backup.create.progress",
        operation_id=operation,
        phase="progress",
        percent=percent,
    )


def hang(bus: Bus, made: emitter.Emitter) -> None:
    """Have the thread wait within the bus."""
    bus.running.clear()
    made.put(event("first"))
    assert bus.busy.wait(PATIENCE)


def resume(bus: Bus, made: emitter.Emitter) -> None:
    bus.running.set()
    assert made.flush(PATIENCE)


def test_events_are_sent_in_order(bus: Bus, made: emitter.Emitter) -> None:
    for name in ("a", "b", "c"):
        made.put(event(name))
        assert made.flush(PATIENCE)
    assert bus.types() == ["a", "b", "c"]


def test_a_hung_bus_holds_nobody_up(bus: Bus, made: emitter.Emitter) -> None:
    hang(bus, made)
    for _each in range(1000):
        made.put(event("more"))
    assert not made.flush(0)
    assert bus.sent == []
    resume(bus, made)


def test_progress_that_waits_is_replaced_by_newer(
    bus: Bus, made: emitter.Emitter
) -> None:
    hang(bus, made)
    for percent in (10.0, 20.0, 30.0):
        made.put(progress("one", percent))
        made.put(progress("two", percent))
    resume(bus, made)
    assert [sent.payload.get("percent") for sent in bus.sent[1:]] == [30.0, 30.0]
    assert {sent.operation_id for sent in bus.sent[1:]} == {"one", "two"}


def test_progress_is_dropped_before_lifecycle(bus: Bus, made: emitter.Emitter) -> None:
    hang(bus, made)
    for waiting in (event("a"), progress("one", 1.0), event("b"), event("c")):
        made.put(waiting)
    made.put(progress("two", 2.0))
    resume(bus, made)
    assert bus.types() == ["first", "backup.notifications.dropped", "a", "b", "c"]
    assert bus.sent[1].payload == {"dropped": 2}


def test_the_oldest_is_dropped_where_there_is_no_progress(
    bus: Bus, made: emitter.Emitter
) -> None:
    hang(bus, made)
    for name in "abcd":
        made.put(event(name))
    resume(bus, made)
    assert [name for name in bus.types() if len(name) == 1] == ["b", "c", "d"]


def test_tries_are_limited_and_the_loss_is_told(
    bus: Bus, made: emitter.Emitter
) -> None:
    bus.dead = True
    made.put(event("lost"))
    assert made.flush(PATIENCE)
    assert bus.tries == 3
    bus.dead = False
    made.put(event("next"))
    assert made.flush(PATIENCE)
    made.put(event("last"))
    assert made.flush(PATIENCE)
    assert bus.types() == ["next", "backup.notifications.dropped", "last"]
    assert bus.sent[1].payload == {"dropped": 1}


def test_what_the_journal_keeps_is_sent_when_the_bus_is_back(
    bus: Bus, made: emitter.Emitter, outbox: Outbox
) -> None:
    bus.dead = True
    outbox.kept = [event("backup.create.end", kept=True)]
    made.put(outbox.kept[0])
    assert made.flush(PATIENCE)
    assert outbox.delivered == []
    bus.dead = False
    made.put(event("next"))
    assert made.flush(PATIENCE)
    assert bus.types() == ["next", "backup.create.end"]
    assert outbox.kept[0] in outbox.delivered


def test_what_the_journal_keeps_outlives_a_full_queue(
    bus: Bus, made: emitter.Emitter, outbox: Outbox
) -> None:
    outbox.kept = [event("backup.create.end", kept=True)]
    hang(bus, made)
    made.put(outbox.kept[0])
    for name in "abc":
        made.put(event(name))
    resume(bus, made)
    assert bus.types() == ["first", "a", "b", "c", "backup.create.end"]


def test_an_event_of_the_journal_waits_once(bus: Bus, made: emitter.Emitter) -> None:
    hang(bus, made)
    for _each in range(2):
        made.put(event("backup.create.end", kept=True))
    resume(bus, made)
    assert bus.types() == ["first", "backup.create.end"]


def test_the_thread_outlives_whatever_happens(bus: Bus, outbox: Outbox) -> None:
    broken = iter([True, False])

    def delivered(sent: emitter.Event) -> None:
        if next(broken):
            raise OSError("disk")
        outbox.delivered.append(sent)

    made = emitter.Emitter(
        bus.connect,
        length=10,
        retries=0,
        pause=0,
        delivered=delivered,
        dropped=lambda count: event("dropped"),
        undelivered=list,
    )
    for name in "ab":
        made.put(event(name))
    assert made.flush(PATIENCE)
    assert bus.types() == ["a", "b"]


def test_what_is_kept_is_tried_until_the_bus_is_back(
    bus: Bus, made: emitter.Emitter, outbox: Outbox
) -> None:
    """Nobody has to announce something else before an end gets through."""
    made.again = 0.01
    tried_again, delivered = threading.Event(), threading.Event()
    end = event("end", kept=True)
    outbox.kept.append(end)

    def undelivered() -> list[emitter.Event]:
        if bus.tries >= 6:
            tried_again.set()
        return outbox.undelivered()

    def at_last(sent: emitter.Event) -> None:
        outbox.delivered.append(sent)
        delivered.set()

    made.undelivered, made.delivered = undelivered, at_last
    bus.dead = True
    made.put(end)
    assert tried_again.wait(PATIENCE)
    assert bus.sent == []
    bus.dead = False
    assert delivered.wait(PATIENCE)
    assert made.flush(PATIENCE)
    assert bus.types() == ["end"]


def in_child(work: Callable[[], bool]) -> bool:
    """Whether ``work`` succeeds in a forked process."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            status = 0 if work() else 1
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_that_is_forked_later_sends(bus: Bus, made: emitter.Emitter) -> None:
    """cinder forks its workers after it built the manager."""
    made.put(event("parent"))
    assert made.flush(PATIENCE)

    def child() -> bool:
        made.put(event("child"))
        return made.flush(PATIENCE) and bus.types() == ["parent", "child"]

    assert in_child(child)
    made.put(event("again"))
    assert made.flush(PATIENCE)
    assert bus.types() == ["parent", "again"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_takes_nothing_of_the_queue_along(
    bus: Bus, made: emitter.Emitter
) -> None:
    hang(bus, made)
    made.put(event("of the parent"))

    def child() -> bool:
        bus.running = threading.Event()
        bus.running.set()
        made.put(event("child"))
        return made.flush(PATIENCE) and bus.types() == ["child"]

    assert in_child(child)
    resume(bus, made)
    assert bus.types() == ["first", "of the parent"]
