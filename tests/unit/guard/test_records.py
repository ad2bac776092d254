# SPDX-License-Identifier: Apache-2.0
"""The records of frozen guests and their locks."""

import fcntl
import json
import os
import pathlib
import signal
import stat
import threading
from collections.abc import Callable
from typing import Any

import pytest

from nova_ext.guard.records import Damaged, Phase, Record, Records, UnknownVersion
from tests.unit.guard.fake_host import LATER, OTHER, UUID, WINDOW, Disk, Host

#: Longer than any lock is held here.
PATIENCE = 20


@pytest.fixture
def records(host: Host) -> Records:
    return host.records


# What is written is read again.


@pytest.mark.parametrize("phase", list(Phase))
def test_what_is_written_is_read(host: Host, phase: Phase) -> None:
    written = host.frozen(phase=phase)
    assert host.recorded() == written
    assert host.recorded().phase is phase


def test_all_values_are_kept(host: Host) -> None:
    now = host.clock()
    record = Record(
        uuid=UUID,
        window_id=WINDOW,
        phase=Phase.THAWED,
        began=now,
        until=now.after(1),
        due=now.after(2),
        domain_id=3,
        frozen=4,
        written=1 << 62,
        by="request ä",
        request_id="req-1",
        breach="",
        warning="its hook",
        ended=now.after(5),
    )
    host.records.write(record)
    assert host.recorded() == record


def test_a_record_begins_with_its_version(host: Host) -> None:
    host.frozen()
    assert host.path().read_text().lstrip("{\n ").startswith('"version": 1,')


def test_there_is_no_record(records: Records) -> None:
    assert records.read(UUID) is None
    assert records.uuids() == []
    records.remove(UUID)
    assert not records.directory.exists()


def test_who_has_a_record(host: Host) -> None:
    host.frozen(OTHER)
    host.damage()
    for name in ("heartbeat-x", "a.json", ".tmp=x.json", f"{LATER}.lock"):
        (host.records.directory / name).write_text("x")
    assert host.records.uuids() == sorted([UUID, OTHER])


def test_a_record_is_replaced_and_removed(host: Host) -> None:
    host.frozen()
    again = host.freezing(window_id=LATER)
    assert host.recorded() == again
    host.records.remove(UUID)
    assert host.records.read(UUID) is None


def test_who_is_no_friend_of_nova_may_not_read_it(host: Host) -> None:
    host.frozen()
    assert stat.S_IMODE(host.path().stat().st_mode) == 0o640
    assert stat.S_IMODE(host.records.directory.stat().st_mode) & 0o007 == 0


def test_a_write_that_fails_leaves_the_record(host: Host, disk: Disk) -> None:
    before = host.frozen()
    disk.fill()
    with pytest.raises(OSError, match="No space left"):
        host.freezing(window_id=LATER)
    assert host.recorded() == before


def test_a_record_is_on_the_disk_when_it_is_written(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is whole before it has its name: no reader finds half of one."""
    host.frozen()
    names: list[str] = []
    seen: list[Record] = []
    replace, fsync = os.replace, os.fsync

    def meet(old: str, new: pathlib.Path) -> None:
        seen.append(host.recorded())
        names.append(new.name)
        replace(old, new)

    def sync(handle: int) -> None:
        names.append("directory" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    monkeypatch.setattr(os, "replace", meet)
    monkeypatch.setattr(os, "fsync", sync)
    host.freezing(window_id=LATER)
    assert names == ["file", f"{UUID}.json", "directory"]
    assert [each.window_id for each in seen] == [WINDOW]


# What says nothing is told apart.


def changed(host: Host, **changes: Any) -> None:
    """Change what is written in the record of a frozen guest."""
    host.frozen()
    values = json.loads(host.path().read_text())
    host.path().write_text(json.dumps({**values, **changes}))


def moment(monotonic: Any, wall: Any = 1e9) -> dict[str, Any]:
    return {"boot_id": "boot", "monotonic": monotonic, "wall": wall}


@pytest.mark.parametrize("version", [0, 2, "1", "2.0", None])
def test_an_unknown_version(host: Host, version: Any) -> None:
    changed(host, version=version, what="this release does not know")
    with pytest.raises(UnknownVersion, match=f"{UUID} has version {version}"):
        host.records.read(UUID)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", "1", '"x"', "{}", '{"version": 1}'),
        *("\0\0\0", "\udcff\xff", "9" * 5000),
        pytest.param("[" * 100_000, id="very deep"),
    ],
)
def test_a_damaged_record(host: Host, text: str) -> None:
    host.damage()
    host.path().write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(Damaged, match=f"the record of {UUID} cannot be read"):
        host.records.read(UUID)


def test_half_a_record_is_damaged(host: Host) -> None:
    host.frozen()
    text = host.path().read_text()
    host.path().write_text(text[: len(text) // 2])
    with pytest.raises(Damaged):
        host.records.read(UUID)


@pytest.mark.parametrize(
    "changes",
    [
        {"uuid": OTHER},
        {"phase": "boiled"},
        {"phase": None},
        {"phase": []},
        {"due": None},
        {"due": moment(float("nan"))},
        {"due": moment(float("inf"))},
        {"due": moment(1060.0, float("inf"))},
        {"due": moment("soon")},
        {"due": moment(None)},
        {"due": "soon"},
        {"due": {"boot_id": "boot"}},
        {"began": None},
        {"until": None},
        {"until": moment(float("-inf"))},
        {"until": moment(1000.0 + 400 * 86400)},
        {"due": moment(1e300)},
        {"due": moment(10**400)},
        {"due": moment(1060.0, 10**400)},
        {"due": moment(1060.0, 1e12)},
        {"due": moment(1060.0, -1e300)},
        {"window_id": None},
        {"by": 1},
        {"request_id": None},
        {"breach": []},
        {"warning": {}},
        {"domain_id": "3"},
        {"frozen": "2"},
        {"written": "1000"},
        {"written": float("inf")},
        {"of_another_world": 1},
    ],
    ids=lambda changes: str(changes)[:60],
)
def test_impossible_values(host: Host, changes: dict[str, Any]) -> None:
    changed(host, **changes)
    with pytest.raises(Damaged):
        host.records.read(UUID)


def test_infinity_as_others_write_it(host: Host) -> None:
    host.frozen()
    text = host.path().read_text()
    assert "1060.0" in text
    host.path().write_text(text.replace("1060.0", "1e999"))
    with pytest.raises(Damaged):
        host.records.read(UUID)


# How long it is until somebody has to act.


def test_a_frozen_guest_is_due_at_its_deadline(host: Host) -> None:
    record = host.frozen(seconds=60)
    assert record.left(host.clock()) == 60
    host.clock.forward(60)
    assert record.left(host.clock()) == 0


@pytest.mark.parametrize("phase", [Phase.FREEZING, Phase.THAWING])
def test_what_is_not_settled_is_due_at_once(host: Host, phase: Phase) -> None:
    assert host.frozen(phase=phase).left(host.clock()) == 0


# The lock.


def held(records: Records, uuid: str = UUID, seconds: float = 0) -> bool:
    """Whether the lock of a guest can be had."""
    with records.lock(uuid, seconds) as got:
        return got


#: Makes somebody else let go of the lock of a guest, and end.
LetGo = Callable[[], None]


def hold_in_thread(records: Records) -> LetGo:
    has, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with records.lock(UUID, 0):
            has.set()
            assert may_end.wait(PATIENCE)

    thread = threading.Thread(target=hold)
    thread.start()
    assert has.wait(PATIENCE)

    def let_go() -> None:
        may_end.set()
        thread.join()

    return let_go


def hold_in_process(records: Records) -> LetGo:
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        with records.lock(UUID, 0):
            os.write(writer, b"x")
            signal.pause()
        os._exit(0)
    os.close(writer)
    assert os.read(reader, 1) == b"x"
    os.close(reader)

    def kill() -> None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    return kill


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("hold", [hold_in_thread, hold_in_process])
def test_a_lock_is_held_by_one_and_gone_with_it(
    records: Records, hold: Callable[[Records], LetGo]
) -> None:
    let_go = hold(records)
    try:
        assert not held(records)
        assert not held(records, seconds=0.05)
        assert held(records, OTHER)
    finally:
        let_go()
    assert held(records)


def test_a_lock_is_given_back_after_an_error(records: Records) -> None:
    def fail() -> None:
        with records.lock(UUID, 0):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert held(records)


def test_a_lock_that_was_not_had_is_not_given_back(records: Records) -> None:
    with records.lock(UUID, 0):
        assert not held(records)
        assert not held(records)


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set once somebody has found a lock taken."""
    event = threading.Event()
    flock = fcntl.flock

    def tell(handle: int, operation: int) -> None:
        try:
            flock(handle, operation)
        except BlockingIOError:
            event.set()
            raise

    monkeypatch.setattr(fcntl, "flock", tell)
    return event


class Waiter:
    """A thread that waits for the lock, and then holds it until it may end."""

    def __init__(self, records: Records) -> None:
        self.has = threading.Event()
        self.may_end = threading.Event()
        self.got = False
        self._records = records
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with self._records.lock(UUID, PATIENCE) as self.got:
            self.has.set()
            assert self.may_end.wait(PATIENCE)

    def end(self) -> None:
        self.may_end.set()
        self._thread.join()


def test_a_lock_is_waited_for(records: Records, waiting: threading.Event) -> None:
    with records.lock(UUID, 0):
        waiter = Waiter(records)
        assert waiting.wait(PATIENCE)
        assert not waiter.has.is_set()
    assert waiter.has.wait(PATIENCE)
    waiter.end()
    assert waiter.got


def test_a_guest_is_forgotten_while_another_waits(
    host: Host, records: Records, waiting: threading.Event
) -> None:
    """Who waited has the lock that all others see, not the one that is gone."""
    host.frozen()
    with records.lock(UUID, 0):
        waiter = Waiter(records)
        assert waiting.wait(PATIENCE)
        records.forget(UUID)
    assert waiter.has.wait(PATIENCE)
    try:
        assert waiter.got
        assert not held(records)
        assert records.read(UUID) is None
    finally:
        waiter.end()
    assert held(records)


def test_a_lock_that_was_replaced_is_not_taken_for_the_present_one(
    records: Records, waiting: threading.Event
) -> None:
    old, new = records.lock(UUID, 0), records.lock(UUID, 0)
    with old:
        waiter = Waiter(records)
        assert waiting.wait(PATIENCE)
        records.forget(UUID)
        assert new.__enter__()
    # Who waits gets the old one now, and goes on waiting for the new one.
    waiting.clear()
    assert waiting.wait(PATIENCE)
    assert not waiter.has.is_set()
    new.__exit__(None, None, None)
    assert waiter.has.wait(PATIENCE)
    waiter.end()
    assert waiter.got


def test_nothing_of_a_forgotten_guest_stays(host: Host, records: Records) -> None:
    host.frozen()
    with records.lock(UUID, 0):
        records.forget(UUID)
        records.forget(UUID)
    assert os.listdir(records.directory) == []


def test_a_lock_that_cannot_be(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="file"):
        held(Records(tmp_path / "file" / "guard"))
