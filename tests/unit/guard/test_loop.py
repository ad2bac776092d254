# SPDX-License-Identifier: Apache-2.0
"""The loop that keeps the deadlines, and what it tells of itself."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from nova_ext.guard import loop
from nova_ext.guard.clock import Moment
from nova_ext.guard.guests import AgentError, GuestAbsent
from nova_ext.guard.records import Phase
from tests.unit.guard.fake_host import OTHER, UUID, Disk, Host, fails

NAME = "test"
PATIENCE = 20
HUNG = AgentError("the guest agent does not answer")


class Threads:
    """Threads that begin when a test says so.

    :ivar waiting: what they are to run
    :ivar none_left: no further thread can be started
    """

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []
        self.none_left = False

    def start(self, function: Callable[[], None]) -> None:
        if self.none_left:
            raise RuntimeError("can't start new thread")
        self.waiting.append(function)

    def run(self) -> int:
        """Run all that wait, each to its end; how many."""
        functions, self.waiting = self.waiting, []
        for function in functions:
            function()
        return len(functions)


@pytest.fixture
def threads() -> Threads:
    return Threads()


@pytest.fixture
def guard(host: Host, threads: Threads) -> loop.Loop:
    return loop.Loop(NAME, host.thawer, threads.start)


def is_beating(host: Host, name: str = NAME) -> bool:
    return loop.is_beating(host.records.directory, name, host.clock())


# Deadlines.


def test_the_nap_ends_at_the_next_deadline(host: Host, guard: loop.Loop) -> None:
    assert guard.look() == 1
    host.frozen(seconds=60)
    assert guard.look() == 1
    host.frozen(OTHER, seconds=0.25)
    assert guard.look() == 0.25
    host.clock.forward(0.25)
    assert guard.look() == 1


def test_a_guest_is_thawed_at_its_deadline(
    host: Host, guard: loop.Loop, threads: Threads
) -> None:
    host.frozen(seconds=60)
    host.frozen(OTHER, seconds=70)
    host.clock.forward(59.9)
    guard.look()
    assert threads.run() == 0
    host.clock.forward(0.1)
    guard.look()
    assert threads.run() == 1
    assert host.recorded().phase is Phase.THAWED
    assert host.recorded(OTHER).phase is Phase.FROZEN


def test_what_has_ended_is_left_to_nova_compute(
    host: Host, guard: loop.Loop, threads: Threads
) -> None:
    host.frozen(phase=Phase.THAWED, breach="")
    guard.look()
    assert threads.waiting == []


@pytest.mark.parametrize("phase", [Phase.FREEZING, Phase.THAWING])
def test_what_is_not_settled_is_due_at_once(
    host: Host, guard: loop.Loop, threads: Threads, phase: Phase
) -> None:
    host.frozen(phase=phase)
    guard.look()
    assert threads.run() == 1
    assert not host.guest.frozen


def test_a_guest_of_another_boot_is_due_at_once(
    host: Host, guard: loop.Loop, threads: Threads
) -> None:
    host.frozen(seconds=3600)
    host.clock.reboot()
    guard.look()
    assert threads.run() == 1
    assert host.recorded().breach == "its host was rebooted"


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_wall_clock_that_is_set_does_not_matter(
    host: Host, guard: loop.Loop, threads: Threads, hours: int
) -> None:
    host.frozen(seconds=60)
    now = host.clock.now
    host.clock.now = Moment(now.boot_id, now.monotonic, now.wall + 3600 * hours)
    host.clock.forward(59)
    guard.look()
    assert threads.run() == 0
    host.clock.forward(1)
    guard.look()
    assert threads.run() == 1
    assert not host.guest.frozen


# One guest holds up no other.


def test_a_guest_that_hangs_holds_up_no_other(host: Host) -> None:
    guard = loop.Loop(NAME, host.thawer)
    wakes_up, thawed = threading.Event(), threading.Event()
    host.frozen(seconds=0)
    host.frozen(OTHER, seconds=0)
    assert host.records.uuids() == [UUID, OTHER]  # in this order
    hangs, works = host.guest, host.guests.of[OTHER]
    assert not isinstance(works, Exception)
    hangs.does["status"] = lambda: wakes_up.wait(PATIENCE)
    works.does["thaw"] = thawed.set
    try:
        guard.look()
        assert thawed.wait(PATIENCE)
        assert hangs.frozen
        assert is_beating(host)
    finally:
        wakes_up.set()
        join()
    assert not hangs.frozen


def join() -> None:
    """Wait for all threads of the guard."""
    for thread in threading.enumerate():
        if thread.name == "nova-ext-guard":
            thread.join(PATIENCE)


def test_a_guest_that_is_being_thawed_is_not_begun_again(
    host: Host, guard: loop.Loop, threads: Threads
) -> None:
    host.frozen(seconds=0)
    host.guest.does["status"] = fails(HUNG)
    guard.look()
    guard.look()
    assert threads.run() == 1
    guard.look()
    assert threads.run() == 1
    host.guest.does.clear()
    guard.look()
    assert threads.run() == 1
    assert host.recorded().phase is Phase.THAWED
    guard.look()
    assert threads.run() == 0


@pytest.mark.parametrize("error", [HUNG, KeyError("a bug"), OSError("broken")])
def test_a_guest_is_tried_again_whatever_went_wrong(
    host: Host, guard: loop.Loop, threads: Threads, error: Exception
) -> None:
    host.frozen(seconds=0)
    host.guest.does["status"] = fails(error)
    for _ in range(3):
        guard.look()
        assert threads.run() == 1
    host.guest.does.clear()
    guard.look()
    threads.run()
    assert not host.guest.frozen


def test_there_is_no_thread(host: Host, guard: loop.Loop, threads: Threads) -> None:
    host.frozen(seconds=0)
    host.frozen(OTHER, seconds=0)
    threads.none_left = True
    guard.look()
    assert is_beating(host)
    threads.none_left = False
    guard.look()
    assert threads.run() == 2
    assert not host.guest.frozen


# Records that say nothing.


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"version": 1}', pytest.param("[" * 100_000, id="very deep")],
)
def test_a_damaged_record_ends_in_a_thaw(
    host: Host, guard: loop.Loop, threads: Threads, text: str
) -> None:
    host.damage(text=text)
    host.frozen(OTHER, seconds=0)
    host.guest.frozen = 2
    guard.look()
    assert threads.run() == 2
    assert not host.guest.frozen
    assert host.records.uuids() == [OTHER]
    assert host.recorded(OTHER).phase is Phase.THAWED
    assert is_beating(host)


def test_a_record_of_a_later_release_is_left_alone(
    host: Host, guard: loop.Loop, threads: Threads
) -> None:
    host.damage(text='{"version": 2}')
    host.frozen(OTHER, seconds=0)
    host.guest.frozen = 2
    guard.look()
    assert threads.run() == 1
    assert host.guest.frozen
    assert host.path().read_text() == '{"version": 2}'
    assert host.recorded(OTHER).phase is Phase.THAWED
    assert not is_beating(host)
    host.records.remove(UUID)
    guard.look()
    assert is_beating(host)


def test_a_record_that_cannot_be_read_is_left_alone(
    host: Host, guard: loop.Loop, threads: Threads
) -> None:
    host.frozen(OTHER, seconds=0)
    host.path().mkdir()
    guard.look()
    assert threads.run() == 1
    assert not is_beating(host)


# The heartbeat.


def test_the_heartbeat_has_an_age(host: Host, guard: loop.Loop) -> None:
    assert not is_beating(host)
    guard.look()
    assert is_beating(host)
    host.clock.forward(9.9)
    assert is_beating(host)
    host.clock.forward(0.1)
    assert not is_beating(host)
    guard.look()
    assert is_beating(host)


def test_the_heartbeat_is_of_one_directory_and_name(
    host: Host, guard: loop.Loop
) -> None:
    guard.look()
    assert not is_beating(host, "another")
    assert not loop.is_beating(host.records.directory / "x", NAME, host.clock())


def test_the_heartbeat_of_another_boot(host: Host, guard: loop.Loop) -> None:
    guard.look()
    same_uptime = host.clock.now.monotonic + 1
    host.clock.reboot()
    host.clock.forward(same_uptime - host.clock.now.monotonic)
    assert not is_beating(host)


def test_a_heartbeat_of_the_future(host: Host, guard: loop.Loop) -> None:
    host.clock.forward(1)
    guard.look()
    host.clock.forward(-1)
    assert not is_beating(host)


@pytest.mark.parametrize(
    "changes",
    [
        {"boot_id": None},
        {"monotonic": None},
        {"monotonic": "1000"},
        {"monotonic": 10**400},
        {"monotonic": float("nan")},
        {"monotonic": float("-inf")},
        {"left_alone": [UUID]},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_a_heartbeat_that_is_none(
    host: Host, guard: loop.Loop, changes: dict[str, Any]
) -> None:
    guard.look()
    path = host.records.directory / f"heartbeat-{NAME}"
    beat = json.loads(path.read_text())
    assert beat == {"boot_id": "boot", "monotonic": 1000.0, "left_alone": []}
    path.write_text(json.dumps({**beat, **changes}))
    assert not is_beating(host)
    for key in changes:
        del beat[key]
    path.write_text(json.dumps(beat))
    assert not is_beating(host)


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"{", b"[]", b"null", b"\xff"),
        pytest.param(b"[" * 100_000, id="very deep"),
    ],
)
def test_a_damaged_heartbeat(host: Host, guard: loop.Loop, text: bytes) -> None:
    guard.look()
    (host.records.directory / f"heartbeat-{NAME}").write_bytes(text)
    assert not is_beating(host)


def test_a_full_disk_stops_the_heartbeat_but_no_thaw(
    host: Host, guard: loop.Loop, threads: Threads, disk: Disk
) -> None:
    host.frozen(seconds=0)
    disk.fill()
    guard.look()
    assert threads.run() == 1
    assert not host.guest.frozen
    assert not is_beating(host)


# What is logged.


def test_what_is_wrong_with_a_guest_is_told_once(
    host: Host, guard: loop.Loop, threads: Threads, caplog: pytest.LogCaptureFixture
) -> None:
    host.frozen(seconds=0)
    host.damage(OTHER, '{"version": 2}')
    host.guest.does["status"] = fails(HUNG)
    for _ in range(3):
        guard.look()
        threads.run()
    hung = f"Instance {UUID} is not thawed yet: {HUNG}"
    assert caplog.messages == [
        f"Instance {OTHER} is left alone: the record of {OTHER} has version 2",
        hung,
    ]
    host.guest.does["status"] = fails(GuestAbsent("it is off", memory_lost=False))
    for _ in range(3):
        guard.look()
        threads.run()
    assert caplog.messages[2:] == [f"Instance {UUID} is not thawed yet: it is off"]


def test_it_is_told_again_of_the_next_freeze(
    host: Host, guard: loop.Loop, threads: Threads, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        host.frozen(seconds=0)
        host.guest.does["status"] = fails(HUNG)
        guard.look()
        threads.run()
        host.records.remove(UUID)
        guard.look()
    assert caplog.messages == [f"Instance {UUID} is not thawed yet: {HUNG}"] * 2


def test_a_heartbeat_that_cannot_be_written_is_told_once(
    guard: loop.Loop, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    told = (
        f"Could not write the heartbeat of {NAME}: [Errno 28] No space left on device"
    )
    disk.fill()
    for _ in range(3):
        guard.look()
    assert caplog.messages == [told]
    disk.fill(lambda number: number > 1)
    for _ in range(3):
        guard.look()
    assert caplog.messages == [told, told]


# The loop itself.


class Naps:
    """Ends the loop after some naps.

    :ivar taken: how long they were, in seconds
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        self.taken: list[float] = []
        self._number = number
        monkeypatch.setattr(time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.taken.append(seconds)
        if len(self.taken) == self._number:
            raise SystemExit


def test_the_loop_goes_on(
    host: Host, guard: loop.Loop, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.frozen(seconds=0.5)
    naps = Naps(monkeypatch, 3)
    with pytest.raises(SystemExit):
        guard.run()
    assert naps.taken == [0.5] * 3


def test_a_look_that_fails_does_not_end_the_loop(
    host: Host, guard: loop.Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.frozen(seconds=0.5)
    naps = Naps(monkeypatch, 3)
    real, errors = host.records.uuids, [OSError("broken"), ValueError("a bug")]

    def uuids() -> list[str]:
        if errors:
            raise errors.pop()
        return real()

    monkeypatch.setattr(host.records, "uuids", uuids)
    with pytest.raises(SystemExit):
        guard.run()
    assert naps.taken == [1, 1, 0.5]
    assert is_beating(host)


def test_a_guard_that_cannot_look_does_not_beat(
    host: Host, guard: loop.Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard.look()
    Naps(monkeypatch, 1)
    monkeypatch.setattr(host.records, "uuids", fails(OSError("broken")))
    host.clock.forward(loop.STALE)
    with pytest.raises(SystemExit):
        guard.run()
    assert not is_beating(host)


def test_the_loop_is_a_thread_that_holds_up_no_end(
    guard: loop.Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[threading.Thread] = []
    monkeypatch.setattr(guard, "run", lambda: seen.append(threading.current_thread()))
    guard.start()
    join()
    (thread,) = seen
    assert thread is not threading.current_thread()
    assert thread.daemon
