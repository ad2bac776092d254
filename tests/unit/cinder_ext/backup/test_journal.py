# SPDX-License-Identifier: Apache-2.0

import errno
import json
import multiprocessing
import os
import pathlib
import signal
import stat
import uuid
from typing import Any
from unittest import mock

import pytest

from cinder_ext.backup import journal
from cinder_ext.notifications import emitter
from cinder_ext.objects import operation

BACKUP = str(uuid.uuid4())

#: A child has nothing to import, and touches nothing that a thread may hold.
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return journal.directory(str(tmp_path), "node1@lvm")


@pytest.fixture
def kept(path: pathlib.Path) -> journal.Journal:
    return journal.Journal(path)


def operation_of(action: str = "create", **more: Any) -> operation.Operation:
    values = {"backup_id": BACKUP, "started_at": 1000.0, **more}
    return operation.Operation(id=str(uuid.uuid4()), action=action, **values)


def end_of(op: operation.Operation, phase: str = "end", **more: Any) -> emitter.Event:
    payload = {"operation_id": op.id, "phase": phase, "worker": "h:1", **more}
    return emitter.Event(f"backup.{op.action}.{phase}", "info", payload, {}, True)


def files(path: pathlib.Path) -> list[str]:
    return sorted(file.name for file in path.iterdir() if file.name != ".lock")


def test_the_name_of_a_host_cannot_leave_the_directory(tmp_path: pathlib.Path) -> None:
    made = journal.directory(str(tmp_path), "../../etc/x@lvm#pool")
    assert made.parent == tmp_path / "cinder_ext/backup_notifications"


def test_another_process_finds_the_operation(
    kept: journal.Journal, path: pathlib.Path
) -> None:
    """A create takes two RPCs, that two workers may serve."""
    op = operation_of(request_id="req-1")
    assert kept.begin(op)
    (found,) = journal.Journal(path).running(BACKUP, "create")
    assert found == op
    assert found.begun


def test_operations_of_other_backups_and_actions_stay_apart(
    kept: journal.Journal,
) -> None:
    create, restore = operation_of(), operation_of("restore", started_at=999.0)
    for op in (create, restore, operation_of(backup_id="other")):
        kept.begin(op)
    assert kept.running(BACKUP, "create") == [create]
    assert kept.running(BACKUP) == [restore, create]
    assert kept.running(BACKUP, "delete") == []


def test_the_first_end_wins(kept: journal.Journal) -> None:
    op = operation_of()
    kept.begin(op)
    assert kept.end(op, end_of(op))
    assert not kept.end(op, end_of(op, "error"))
    assert [event.event_type for event in kept.undelivered()] == ["backup.create.end"]
    assert kept.running() == []


def test_there_is_no_second_end_after_the_first_was_delivered(
    kept: journal.Journal, path: pathlib.Path
) -> None:
    op = operation_of()
    kept.begin(op)
    kept.end(op, end_of(op))
    kept.delivered(end_of(op))
    assert not kept.end(op, end_of(op, "error"))
    assert files(path) == []


def test_an_end_outlives_the_process(kept: journal.Journal, path: pathlib.Path) -> None:
    op = operation_of()
    kept.begin(op)
    kept.end(op, end_of(op, size=1))
    assert journal.Journal(path).undelivered() == [end_of(op, size=1)]


def test_each_process_repeats_its_own_ends(kept: journal.Journal) -> None:
    ops = [operation_of(), operation_of()]
    for number, op in enumerate(ops):
        kept.begin(op)
        kept.end(op, end_of(op, worker=f"h:{number}"))
    assert kept.undelivered("h:1") == [end_of(ops[1], worker="h:1")]
    assert len(kept.undelivered()) == 2


def test_ends_are_repeated_in_their_order(kept: journal.Journal) -> None:
    for second in (3, 1, 2):
        op = operation_of()
        kept.begin(op)
        kept.end(op, end_of(op, occurred_at=f"2026-11-21T10:00:0{second}.000Z"))
    seen = [event.payload["occurred_at"][-5:-1] for event in kept.undelivered()]
    assert seen == sorted(seen)


def test_delivery_of_progress_forgets_nothing(kept: journal.Journal) -> None:
    op = operation_of()
    kept.begin(op)
    kept.delivered(end_of(op, "progress"))
    assert kept.running() == [op]


def test_a_broken_file_is_put_aside(kept: journal.Journal, path: pathlib.Path) -> None:
    op = operation_of()
    kept.begin(op)
    for name, text in (
        ("a.create.1", ""),
        ("b.create.2", "[]"),
        ("c.create.3", '{"operation": {"id": "3"}}'),
        ("d.create.4", json.dumps({"operation": op.record(), "end": {"x": 1}})),
    ):
        (path / f"{name}.json").write_text(text)
    assert kept.running() == [op]
    assert kept.undelivered() == []
    assert len(files(path)) == 5
    assert len(list(path.glob("*.broken"))) == 4


def test_the_end_of_an_operation_with_a_broken_file_is_kept(
    kept: journal.Journal, path: pathlib.Path
) -> None:
    op = operation_of()
    kept.begin(op)
    (file,) = path.glob("*.json")
    file.write_text("x")
    assert kept.end(op, end_of(op))
    assert not kept.end(op, end_of(op))
    assert kept.undelivered() == [end_of(op)]


def test_a_crash_while_writing_leaves_the_old_state(
    kept: journal.Journal, monkeypatch: pytest.MonkeyPatch, path: pathlib.Path
) -> None:
    op = operation_of()
    kept.begin(op)

    def die(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", die)
    with pytest.raises(KeyboardInterrupt):
        kept.end(op, end_of(op))
    monkeypatch.undo()
    assert kept.running() == [op]
    assert kept.end(op, end_of(op))
    assert len(files(path)) == 1


def test_an_end_on_a_full_disk_is_told_once(
    kept: journal.Journal, monkeypatch: pytest.MonkeyPatch, path: pathlib.Path
) -> None:
    op = operation_of()
    kept.begin(op)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    assert kept.end(op, end_of(op))
    assert not kept.end(op, end_of(op))
    monkeypatch.undo()
    assert journal.Journal(path).running() == []


def test_a_file_that_may_not_outlive_a_loss_of_power_is_kept(
    kept: journal.Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the operation would have one end now and one more after a restart."""
    op = operation_of()
    real = os.fsync

    def fail(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EIO, "broken")
        real(handle)

    kept.begin(operation_of())
    monkeypatch.setattr(os, "fsync", fail)
    assert kept.begin(op)
    monkeypatch.undo()
    assert kept.end(op, end_of(op))
    assert not kept.end(op, end_of(op))


def test_what_a_writer_left_that_died_is_removed(
    kept: journal.Journal, path: pathlib.Path
) -> None:
    op = operation_of()
    kept.begin(op)
    before = files(path)
    with pytest.MonkeyPatch.context() as patch:
        # As a process that is gone: nothing is tidied.
        patch.setattr(os, "unlink", lambda path: None)
        patch.setattr(os, "replace", mock.Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            kept.end(op, end_of(op))
    assert len(files(path)) == len(before) + 1
    journal.Journal(path).begin(op)
    assert files(path) == before


@pytest.fixture
def unusable(tmp_path: pathlib.Path) -> journal.Journal:
    """A journal whose directory cannot be made, not even by root."""
    (tmp_path / "file").write_text("")
    return journal.Journal(tmp_path / "file" / "journal")


def test_a_journal_that_cannot_be_written_is_no_failure(
    unusable: journal.Journal,
) -> None:
    op = operation_of()
    assert not unusable.begin(op)
    assert unusable.end(op, end_of(op))
    unusable.touch(op)
    unusable.delivered(end_of(op))
    assert unusable.running() == []
    assert unusable.undelivered() == []
    assert unusable.active_at(op) is None


def test_activity(kept: journal.Journal, path: pathlib.Path) -> None:
    op = operation_of()
    kept.begin(op)
    (file,) = path.glob("*.json")
    os.utime(file, (5.0, 5.0))
    assert kept.active_at(op) == 5.0
    kept.touch(op)
    assert (kept.active_at(op) or 0) > 5.0


def _write_for_ever(path: pathlib.Path, record: dict[str, Any]) -> None:
    op = operation.Operation.from_record(record)
    while True:
        journal.Journal(path).begin(op)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_that_is_killed_leaves_no_broken_file(
    kept: journal.Journal, path: pathlib.Path
) -> None:
    op = operation_of(request_id="x" * 10000)
    for _each in range(20):
        child = FORK.Process(target=_write_for_ever, args=(path, op.record()))
        child.start()
        while not kept.running() and child.is_alive():
            pass
        child.kill()
        child.join(60)
        assert child.exitcode == -signal.SIGKILL
        assert kept.running() == [op]
        assert kept.end(op, end_of(op)), "the lock of the dead is free"
        kept.forget(op)
    assert list(path.glob("*.broken")) == []


def _race(path: pathlib.Path, record: dict[str, Any], start: Any, wins: Any) -> None:
    op = operation.Operation.from_record(record)
    start.wait()
    if journal.Journal(path).end(op, end_of(op)):
        with wins.get_lock():
            wins.value += 1


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_of_many_processes_one_ends_the_operation(
    kept: journal.Journal, path: pathlib.Path
) -> None:
    start, wins = FORK.Barrier(4), FORK.Value("i", 0)
    op = operation_of()
    kept.begin(op)
    racers = [
        FORK.Process(target=_race, args=(path, op.record(), start, wins))
        for _each in range(4)
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
        assert racer.exitcode == 0
    assert wins.value == 1
