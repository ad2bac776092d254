# SPDX-License-Identifier: Apache-2.0
"""The life of an operation: one start, one end, and no failure of the backup."""

import pathlib
import threading
from collections.abc import Callable
from typing import Any

import pytest

from cinder_ext.backup import journal, recorder
from cinder_ext.notifications import emitter, events
from cinder_ext.objects import operation
from tests.unit.cinder_ext import backups


class Emitter:
    """Sends nothing; each event is there at once."""

    def __init__(self) -> None:
        self.sent: list[emitter.Event] = []

    def put(self, event: emitter.Event) -> None:
        self.sent.append(event)

    @property
    def types(self) -> list[str]:
        return [event.event_type for event in self.sent]

    @property
    def ends(self) -> list[emitter.Event]:
        return [
            event for event in self.sent if event.payload["phase"] in operation.TERMINAL
        ]


@pytest.fixture
def clock() -> backups.Clock:
    return backups.Clock()


@pytest.fixture
def sending() -> Emitter:
    return Emitter()


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "journal"


Started = Callable[..., recorder.Recorder]


@pytest.fixture
def started(path: pathlib.Path, sending: Emitter, clock: backups.Clock) -> Started:
    """Another service, or another process of it, on the same journal."""

    def start(*, enabled: bool = True, **options: Any) -> recorder.Recorder:
        chosen: Any = backups.options(**options)
        to: Any = sending
        return recorder.Recorder(
            chosen,
            journal.Journal(path),
            to,
            events.Events(chosen, backups.usage, clock),
            lambda: enabled,
            clock,
        )

    return start


@pytest.fixture(params=["journal", "no journal"])
def made(
    request: pytest.FixtureRequest, started: Started, path: pathlib.Path
) -> recorder.Recorder:
    """A service, with a journal and with one that not even root can write."""
    if request.param == "no journal":
        path.write_text("")
    return started()


def created(made: recorder.Recorder, backup: Any) -> operation.Operation:
    with made.operation(backups.context(), backup, "create") as op:
        made.start(op, backup)
    return op


def test_a_start_is_announced_once(made: recorder.Recorder, sending: Emitter) -> None:
    backup = backups.backup()
    op = created(made, backup)
    made.start(op, backup)
    assert sending.types == ["backup.create.start"]


def test_the_journal_has_an_operation_before_anybody_hears_of_it(
    started: Started, sending: Emitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = started()
    running: list[str] = []
    monkeypatch.setattr(
        sending,
        "put",
        lambda event: running.extend(op.id for op in made.journal.running()),
    )
    op = created(made, backups.backup())
    assert running == [op.id]


def test_an_end_follows_its_start(made: recorder.Recorder, sending: Emitter) -> None:
    """Also if the work fails before it has begun."""
    backup = backups.backup()
    with (
        pytest.raises(ValueError, match="no volume"),
        made.operation(backups.context(), backup, "create"),
    ):
        raise ValueError("no volume")
    assert sending.types == ["backup.create.start", "backup.create.error"]
    first, last = (event.payload["sequence"] for event in sending.sent)
    assert first < last


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("succeed", "fail"),
        ("fail", "succeed"),
        ("cancel", "fail"),
        ("succeed", "succeed"),
    ],
)
def test_an_operation_has_one_end(
    made: recorder.Recorder, sending: Emitter, first: str, second: str
) -> None:
    backup = backups.backup()
    op = created(made, backup)
    for name in (first, second):
        more = (ValueError("late"),) if name == "fail" else ()
        getattr(made, name)(op, backup, *more)
    assert len(sending.ends) == 1
    assert (
        sending.ends[0].payload["phase"]
        == {
            "succeed": "end",
            "fail": "error",
            "cancel": "cancelled",
        }[first]
    )


def test_what_fails_after_the_end_is_no_second_end(
    made: recorder.Recorder, sending: Emitter
) -> None:
    """Cinder tells the end before it cleans up, which may fail."""
    backup = backups.backup(status="available")

    def clean_up() -> None:
        with made.operation(backups.context(), backup, "create") as op:
            made.start(op, backup)
            made.succeed(op, backup)
            raise OSError("busy")

    with pytest.raises(OSError, match="busy"):
        clean_up()
    assert sending.types == ["backup.create.start", "backup.create.end"]


def test_of_many_threads_one_ends_an_operation(
    made: recorder.Recorder, sending: Emitter
) -> None:
    backup = backups.backup()
    op = created(made, backup)
    together = threading.Barrier(8)

    def end(number: int) -> None:
        together.wait()
        if number % 2:
            made.succeed(op, backup)
        else:
            made.fail(op, backup, ValueError())

    threads = [threading.Thread(target=end, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sending.ends) == 1


def test_of_two_processes_one_ends_an_operation(
    started: Started, sending: Emitter
) -> None:
    first, second = started(), started()
    backup = backups.backup()
    op = created(first, backup)
    (same,) = second.journal.running()
    second.cancel(same, backup)
    first.succeed(op, backup)
    assert [event.payload["phase"] for event in sending.ends] == ["cancelled"]


def test_an_end_is_kept_before_anybody_hears_of_it(
    started: Started, sending: Emitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = started()
    backup = backups.backup()
    op = created(made, backup)
    kept = []
    monkeypatch.setattr(
        sending, "put", lambda event: kept.append(made.journal.undelivered() == [event])
    )
    made.succeed(op, backup)
    assert kept == [True]


def test_both_halves_of_a_create_are_one_operation(
    made: recorder.Recorder, sending: Emitter
) -> None:
    backup = backups.backup()
    op = created(made, backup)
    with made.operation(
        backups.context(), backup, "create", second_half=True
    ) as second:
        made.succeed(second, backup)
    assert sending.types == ["backup.create.start", "backup.create.end"]
    assert {event.operation_id for event in sending.sent} == {op.id}
    assert sending.sent[-1].payload["resumed"] is False


def test_the_second_half_of_what_has_ended_is_an_operation_of_its_own(
    made: recorder.Recorder, sending: Emitter
) -> None:
    """Cinder goes on with a create that its clean-up has given up."""
    backup = backups.backup()
    made.cancel(created(made, backup), backup)
    with made.operation(
        backups.context(), backup, "create", second_half=True
    ) as second:
        made.succeed(second, backup)
    assert sending.types == [
        "backup.create.start",
        "backup.create.cancelled",
        "backup.create.start",
        "backup.create.end",
    ]
    assert len({event.operation_id for event in sending.sent}) == 2
    assert sending.sent[-1].payload["resumed"] is True


def test_a_delete_ends_the_create_and_says_how_far_it_came(
    made: recorder.Recorder, sending: Emitter
) -> None:
    backup = backups.backup()
    with made.operation(backups.context(), backup, "create") as create:
        made.start(create, backup)
        with made.transfer(backup) as transfer:
            transfer.progress.reached_byte(1 << 29)
            with made.operation(backups.context("req-2"), backup, "delete") as op:
                made.start(op, backup)
                made.succeed(op, backup)
    assert [event for event in sending.types if "progress" not in event] == [
        "backup.create.start",
        "backup.delete.start",
        "backup.create.cancelled",
        "backup.delete.end",
    ]
    assert sending.ends[0].payload["backup_percent"] == 50.0
    made.succeed(create, backup)
    assert len(sending.ends) == 2


def test_a_create_that_fails_while_a_delete_runs_is_cancelled(
    made: recorder.Recorder, sending: Emitter
) -> None:
    backup = backups.backup()

    def create() -> None:
        with made.operation(backups.context(), backup, "create"):
            with made.operation(backups.context("req-2"), backup, "delete") as op:
                made.start(op, backup)
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        create()
    assert sending.types[-1] == "backup.create.cancelled"


def test_a_process_that_is_killed_announces_nothing(
    started: Started, sending: Emitter
) -> None:
    class Killed(BaseException):
        pass

    made = started()
    backup = backups.backup()

    def create() -> None:
        with made.operation(backups.context(), backup, "create") as op:
            made.start(op, backup)
            raise Killed

    with pytest.raises(Killed):
        create()
    assert sending.types == ["backup.create.start"]
    assert len(made.journal.running()) == 1


def test_only_operations_from_before_the_start_were_interrupted(
    started: Started, clock: backups.Clock
) -> None:
    op = created(started(), backups.backup())
    clock.now += 1
    made = started()
    clock.now += 1
    created(made, backups.backup())
    assert [found.id for found in made.interrupted()] == [op.id]


@pytest.mark.parametrize(
    ("action", "resumed"), [("create", False), ("restore", False), ("delete", True)]
)
def test_an_interrupted_operation_is_found_again(
    started: Started, sending: Emitter, action: str, resumed: bool
) -> None:
    backup = backups.backup()
    first = started()
    with first.operation(backups.context(), backup, action) as op:
        first.start(op, backup)
    made = started()
    again = made.resume(backups.context("req-2"), backup, action)
    assert (again.id, again.resumed) == (op.id, resumed)
    assert [kept.resumed for kept in made.journal.running()] == [resumed]
    assert len(sending.sent) == 1


def test_an_operation_of_which_there_is_no_trace_begins_again(
    started: Started, sending: Emitter
) -> None:
    made = started()
    backup = backups.backup(restore_volume_id="volume")
    op = made.resume(backups.context(), backup, "restore")
    assert sending.types == ["backup.restore.start"]
    assert op.restore_volume_id == "volume"


def test_what_no_process_delivered_is_sent_again(
    started: Started, sending: Emitter
) -> None:
    backup = backups.backup()
    made = started()
    made.succeed(created(made, backup), backup)
    (end,) = sending.ends
    sending.sent.clear()
    started().repeat()
    assert sending.sent == [end]


def test_nothing_is_kept_or_sent_where_notifications_are_off(
    started: Started, sending: Emitter, path: pathlib.Path
) -> None:
    made = started(enabled=False)
    backup = backups.backup()
    made.succeed(created(made, backup), backup)
    assert sending.sent == []
    assert not path.exists()


def test_no_failure_of_ours_reaches_the_backup(
    started: Started, sending: Emitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = started()
    backup = backups.backup()

    def broken(*_args: Any, **_more: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(events.Events, "_event", broken)
    with made.operation(backups.context(), backup, "create") as op:
        made.start(op, backup)
        made.stalled(op, backup, 1.0)
        with made.transfer(backup) as transfer:
            transfer.progress.reached_byte(1)
            transfer.moved()
        made.succeed(op, backup)
        made.fail(op, backup, ValueError())
    assert sending.sent == []


def test_an_operation_is_that_of_its_thread(started: Started) -> None:
    made = started()
    seen = []
    with made.operation(backups.context(), backups.backup(), "delete") as op:
        assert made.current() is made.current("delete") is op
        assert made.current("create") is None
        thread = threading.Thread(target=lambda: seen.append(made.current()))
        thread.start()
        thread.join()
    assert seen == [None]
    assert made.current() is None


def test_phases(started: Started) -> None:
    made = started()
    with made.at("attach"):
        assert made.current() is None
    with made.operation(backups.context(), backups.backup(), "create") as op:
        with made.at("attach"):
            assert op.phase == "attach"
        with made.transfer(backups.backup()):
            assert op.phase == "transfer"
        assert op.phase == "finalize"


def test_progress_is_announced(
    started: Started, sending: Emitter, clock: backups.Clock
) -> None:
    made = started()
    backup = backups.backup(size=2)
    with (
        made.operation(backups.context(), backup, "create") as op,
        made.transfer(backup) as transfer,
    ):
        assert made.current_transfer() is transfer
        assert op.progress is transfer.progress
        made.start(op, backup)
        clock.now += 1
        transfer.progress.reached_byte(1 << 30)
        transfer.moved()
    assert made.current_transfer() is None
    assert sending.types == ["backup.create.start", "backup.create.progress"]
    assert sending.sent[-1].payload["backup_percent"] == 50.0
    assert sending.sent[-1].payload["bytes_total"] == 2 << 30


class WatchedLock:
    """A lock that says when somebody comes to it."""

    def __init__(self, reached: threading.Event) -> None:
        self._lock = threading.RLock()
        self._reached = reached

    def __enter__(self) -> None:
        self._reached.set()
        self._lock.acquire()

    def __exit__(self, *_error: Any) -> None:
        self._lock.release()


def test_no_progress_comes_after_the_end(
    started: Started, sending: Emitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end waits for progress that is just being announced."""
    made = started()
    backup = backups.backup()
    reached = threading.Event()
    put = sending.put
    enders: list[threading.Thread] = []

    def slow(event: emitter.Event) -> None:
        if event.is_progress:
            reached.clear()
            enders.append(threading.Thread(target=made.succeed, args=(op, backup)))
            enders[0].start()
            reached.wait(30)
            put(event)
        else:
            put(event)
            reached.set()

    with (
        made.operation(backups.context(), backup, "create") as op,
        made.transfer(backup) as transfer,
    ):
        made.start(op, backup)
        monkeypatch.setattr(op, "lock", WatchedLock(reached))
        monkeypatch.setattr(sending, "put", slow)
        transfer.progress.reached_byte(1 << 29)
        transfer.moved()
        enders[0].join()
        transfer.progress.reached_byte(1 << 30)
        transfer.moved()
    assert [event.payload["phase"] for event in sending.sent] == [
        "start",
        "progress",
        "end",
    ]


def test_a_driver_without_an_operation_announces_nothing(
    started: Started, sending: Emitter
) -> None:
    made = started()
    with made.transfer(backups.backup()) as transfer:
        transfer.progress.reached_byte(1)
        transfer.moved()
        assert made.current_transfer() is None
    assert sending.sent == []
