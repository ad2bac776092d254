# SPDX-License-Identifier: Apache-2.0
"""How a guest is frozen: what is asked before, recorded ahead and checked after."""

import dataclasses
import pathlib
import threading
from collections.abc import Callable
from typing import Any

import pytest

from nova_ext.guard import guests, host, loop
from nova_ext.guard.guests import AgentError, FileSystem, GuestAbsent, Refused
from nova_ext.guard.records import Phase, Record
from nova_ext.virt.guest_quiescer import FreezeError, Frozen, ThawError
from nova_ext.virt.libvirt.quiesce.quiescer import LibvirtGuestQuiescer
from tests.unit.guard.fake_host import (
    LATER,
    OTHER,
    TIMEOUT,
    UUID,
    WINDOW,
    Disk,
    Host,
    fails,
)

HUNG = AgentError("the guest agent does not answer")
SAVED = GuestAbsent("the guest is not running", memory_lost=False)

ROOT = FileSystem("vda1", "/", "ext4")
DATA = FileSystem("vda2", "/data", "xfs")
EFI = FileSystem("vda15", "/boot/efi", "vfat")
STICK = FileSystem("vdb", "/stick", "exFAT")

#: All that an agent is asked before it freezes file systems that can all be frozen.
ASKED = ["commands", "status", "file_systems"]


@pytest.fixture
def compute(tmp_path: pathlib.Path) -> Host:
    return Host(tmp_path / "guard")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def quiescer(compute: Host) -> LibvirtGuestQuiescer:
    return LibvirtGuestQuiescer(compute.thawer)


def freeze(
    quiescer: LibvirtGuestQuiescer, window_id: str = WINDOW, **changes: Any
) -> Frozen:
    values = {"seconds": 60, "partial": False, **changes}
    return quiescer.freeze(UUID, window_id, **values)


def refused(quiescer: LibvirtGuestQuiescer, maybe_frozen: bool, **changes: Any) -> str:
    """Why a guest could not be frozen."""
    with pytest.raises(FreezeError) as caught:
        freeze(quiescer, **changes)
    assert caught.value.maybe_frozen is maybe_frozen
    return str(caught.value)


def untouched(compute: Host) -> bool:
    """Whether a guest was not frozen, and nothing says that it may be."""
    asked = set(compute.guest.calls) & {"freeze", "thaw"}
    return not asked and compute.records.uuids() == []


# Freeze.


def test_a_freeze(quiescer: LibvirtGuestQuiescer, compute: Host) -> None:
    frozen = freeze(quiescer)
    now = compute.clock()
    assert frozen.left_out == ()
    assert frozen.record == Record(
        uuid=UUID,
        window_id=WINDOW,
        phase=Phase.FROZEN,
        began=now,
        until=now.after(TIMEOUT + guests.LIBVIRT_JOB_WAIT),
        due=now.after(60),
        domain_id=3,
        frozen=2,
        written=1000,
    )
    assert frozen.record == compute.recorded()
    assert compute.guest.frozen == 2
    assert compute.guest.calls == [*ASKED, "freeze"]


def test_a_freeze_leaves_the_places_that_are_kept_for_thaws(
    quiescer: LibvirtGuestQuiescer, compute: Host
) -> None:
    freeze(quiescer)
    assert compute.guests.asked == [(UUID, False)]


def test_a_freeze_is_recorded_ahead(
    quiescer: LibvirtGuestQuiescer, compute: Host
) -> None:
    seen: list[Record] = []
    compute.guest.does["freeze"] = lambda: seen.append(compute.recorded())
    freeze(quiescer)
    (record,) = seen
    assert record.phase is Phase.FREEZING
    assert record.due is None
    assert record.until.left(compute.clock()) == TIMEOUT + guests.LIBVIRT_JOB_WAIT


def test_the_time_is_counted_from_the_freeze(
    quiescer: LibvirtGuestQuiescer, compute: Host
) -> None:
    """A guest may need long to flush its dirty pages."""
    compute.guest.does["freeze"] = lambda: compute.clock.forward(4)
    record = freeze(quiescer, seconds=60).record
    assert record.due is not None
    assert record.due.left(compute.clock()) == 60
    assert record.began.monotonic == compute.clock().monotonic - 4


def test_the_lock_is_held_from_the_first_question_to_the_last_record(
    quiescer: LibvirtGuestQuiescer, compute: Host
) -> None:
    seen: list[bool] = []

    def look() -> None:
        with compute.records.lock(UUID, 0) as got:
            seen.append(got)

    compute.guest.does.update(require_agent=look, freeze=look, written=look)
    freeze(quiescer)
    look()
    assert seen == [False, False, False, True]


# What is asked before.


def test_a_guest_without_an_agent(
    quiescer: LibvirtGuestQuiescer, compute: Host
) -> None:
    compute.guest.does["require_agent"] = fails(Refused("it has no channel"))
    assert refused(quiescer, maybe_frozen=False) == "it has no channel"
    assert untouched(compute)


@pytest.mark.parametrize("command", [guests.FREEZE, guests.THAW, guests.STATUS])
def test_a_command_that_the_agent_does_not_allow(
    quiescer: LibvirtGuestQuiescer, compute: Host, command: str
) -> None:
    compute.guest.allowed.discard(command)
    reason = refused(quiescer, maybe_frozen=False)
    assert reason == f"its guest agent does not allow {command}"
    assert untouched(compute)


def test_commands_that_the_agent_does_not_allow(
    quiescer: LibvirtGuestQuiescer, compute: Host
) -> None:
    compute.guest.allowed -= {guests.FREEZE, guests.THAW}
    reason = refused(quiescer, maybe_frozen=False)
    assert reason.endswith(f" does not allow {guests.FREEZE}, {guests.THAW}")


@pytest.mark.parametrize("word", ["frozen", "None"])
def test_a_guest_that_is_not_thawed(
    quiescer: LibvirtGuestQuiescer, compute: Host, word: str
) -> None:
    """By nova for an image, or by hand: whoever did it thaws it."""
    compute.guest.word = word
    assert "frozen already" in refused(quiescer, maybe_frozen=False)
    assert untouched(compute)


@pytest.mark.parametrize("method", ["commands", "status", "file_systems"])
def test_nothing_is_queued_for_an_agent_that_hangs(
    quiescer: LibvirtGuestQuiescer, compute: Host, method: str
) -> None:
    compute.guest.does[method] = fails(HUNG)
    assert refused(quiescer, maybe_frozen=False) == str(HUNG)
    assert untouched(compute)


@pytest.mark.parametrize("absent", [SAVED, HUNG])
def test_a_guest_that_is_not_there(
    quiescer: LibvirtGuestQuiescer, compute: Host, absent: Exception
) -> None:
    compute.guests.of[UUID] = absent
    assert refused(quiescer, maybe_frozen=False) == str(absent)
    assert compute.records.uuids() == []


# File systems that cannot be frozen.


def test_a_writable_file_system_that_is_not_frozen(
    quiescer: LibvirtGuestQuiescer, compute: Host
) -> None:
    compute.guest.mounted = [ROOT, DATA, EFI]
    reason = refused(quiescer, maybe_frozen=True)
    assert reason.startswith("these file systems could not be frozen: /boot/efi;")
    assert '"partial": true' in reason
    assert compute.recorded().phase is Phase.FREEZING


def test_it_is_left_out_on_request(
    quiescer: LibvirtGuestQuiescer, compute: Host
) -> None:
    compute.guest.mounted = [ROOT, EFI, STICK, DATA]
    frozen = freeze(quiescer, partial=True)
    assert frozen.left_out == ("/boot/efi", "/stick")
    assert frozen.record.phase is Phase.FROZEN
    assert frozen.record.frozen == 2


def test_nothing_is_left_out_that_could_be_frozen(
    quiescer: LibvirtGuestQuiescer,
) -> None:
    assert freeze(quiescer, partial=True).left_out == ()


def test_a_read_only_file_system_need_not_be_frozen(
    quiescer: LibvirtGuestQuiescer, compute: Host
) -> None:
    compute.guest.mounted = [ROOT, EFI, DATA]
    compute.guest.read_only = {"/boot/efi"}
    assert freeze(quiescer).left_out == ()
    assert compute.guest.calls == [*ASKED, "mounted_read_only", "freeze"]


def test_a_read_only_file_system_beside_one_that_can_be_written(
    quiescer: LibvirtGuestQuiescer, compute: Host
) -> None:
    compute.guest.mounted = [ROOT, EFI, STICK, DATA]
    compute.guest.read_only = {"/boot/efi"}
    reason = refused(quiescer, maybe_frozen=True)
    assert "could not be frozen: /stick;" in reason


@pytest.mark.parametrize("error", [HUNG, Refused("it is blocked")])
def test_all_counts_as_writable_when_the_mounts_cannot_be_read(
    quiescer: LibvirtGuestQuiescer, compute: Host, error: Exception
) -> None:
    compute.guest.mounted = [ROOT, EFI, DATA]
    compute.guest.read_only = {"/boot/efi"}
    compute.guest.does["mounted_read_only"] = fails(error)
    assert "/boot/efi" in refused(quiescer, maybe_frozen=True)


def test_a_type_that_was_frozen_although_it_is_not_known(
    quiescer: LibvirtGuestQuiescer, compute: Host
) -> None:
    compute.guest.mounted = [ROOT, FileSystem("vdb", "/new", "newfs")]
    assert freeze(quiescer).left_out == ()


@pytest.mark.parametrize("kind", ["ext4", "XFS", "NTFS", "btrfs"])
def test_a_file_system_that_could_be_frozen_and_was_not(
    quiescer: LibvirtGuestQuiescer, compute: Host, kind: str
) -> None:
    """Nobody can tell which: it may be any of them."""
    compute.guest.mounted = [ROOT, FileSystem("vdb", "/new", kind), DATA]
    reason = refused(quiescer, maybe_frozen=True)
    assert "could not be frozen: /, /new, /data;" in reason
    assert "mounted_read_only" not in compute.guest.calls


def test_a_file_system_that_was_not_frozen_beside_one_that_could_not_be(
    quiescer: LibvirtGuestQuiescer, compute: Host
) -> None:
    compute.guest.mounted = [ROOT, EFI, DATA]
    compute.guest.freezable = 1
    frozen = freeze(quiescer, partial=True)
    assert frozen.left_out == ("/boot/efi", "/", "/data")


def test_a_file_system_that_was_not_frozen_beside_one_that_is_read_only(
    quiescer: LibvirtGuestQuiescer, compute: Host
) -> None:
    compute.guest.mounted = [ROOT, EFI, DATA]
    compute.guest.read_only = {"/boot/efi"}
    compute.guest.freezable = 1
    assert "could not be frozen: /, /data;" in refused(quiescer, maybe_frozen=True)


@pytest.mark.parametrize("order", [1, -1])
def test_a_device_that_is_mounted_twice(
    quiescer: LibvirtGuestQuiescer, compute: Host, order: int
) -> None:
    """It is written through one of its mounts, and cannot be through the other."""
    again = dataclasses.replace(EFI, mountpoint="/jail/efi")
    compute.guest.mounted = [ROOT, DATA, *[EFI, again][::order]]
    compute.guest.read_only = {"/jail/efi"}
    reason = refused(quiescer, maybe_frozen=True)
    assert "could not be frozen: /boot/efi;" in reason


def test_a_device_that_is_mounted_twice_is_frozen_once(
    quiescer: LibvirtGuestQuiescer, compute: Host
) -> None:
    again = dataclasses.replace(DATA, mountpoint="/jail/data")
    compute.guest.mounted = [ROOT, DATA, again]
    assert freeze(quiescer).left_out == ()


LOOP = FileSystem("loop0", "/loop", "ext4", writable=False)
SNAP = FileSystem("loop1", "/snap/core", "squashfs", writable=False)


def test_what_lies_on_no_disk_does_not_stand_for_what_does(
    quiescer: LibvirtGuestQuiescer, compute: Host
) -> None:
    """It is frozen and counted with the others."""
    compute.guest.mounted = [ROOT, EFI, LOOP]
    reason = refused(quiescer, maybe_frozen=True)
    assert "could not be frozen: /boot/efi;" in reason


def test_what_lies_on_no_disk_need_not_be_frozen(
    quiescer: LibvirtGuestQuiescer, compute: Host
) -> None:
    compute.guest.mounted = [ROOT, SNAP, DATA]
    assert freeze(quiescer).left_out == ()
    assert "mounted_read_only" not in compute.guest.calls


def test_an_agent_that_does_not_list_file_systems(
    quiescer: LibvirtGuestQuiescer, compute: Host
) -> None:
    compute.guest.mounted = [ROOT, DATA, EFI]
    compute.guest.allowed.discard(guests.FSINFO)
    assert freeze(quiescer).left_out == ()
    assert "file_systems" not in compute.guest.calls


# A freeze that fails.


def test_a_refusal_is_no_freeze(quiescer: LibvirtGuestQuiescer, compute: Host) -> None:
    compute.guest.does["freeze"] = fails(Refused("the command is disabled"))
    assert refused(quiescer, maybe_frozen=False) == "the command is disabled"
    assert compute.guest.calls == [*ASKED, "freeze", "status"]
    assert list(compute.records.directory.iterdir()) == []


def test_a_refusal_is_not_believed_of_a_guest_that_is_frozen(
    quiescer: LibvirtGuestQuiescer, compute: Host
) -> None:
    def half() -> None:
        compute.guest.frozen = 1
        raise Refused("failed to freeze /data")

    compute.guest.does["freeze"] = half
    assert refused(quiescer, maybe_frozen=True) == "failed to freeze /data"
    assert compute.recorded().phase is Phase.FREEZING


@pytest.mark.parametrize("error", [Refused("received hangup"), HUNG])
def test_a_refusal_is_not_believed_when_nobody_can_be_asked(
    quiescer: LibvirtGuestQuiescer, compute: Host, error: Exception
) -> None:
    """libvirt says the same when the connection is lost, with the answer."""

    def cut() -> None:
        compute.guest.frozen = 2
        compute.guest.does["status"] = fails(error)
        raise Refused("received hangup")

    compute.guest.does["freeze"] = cut
    assert refused(quiescer, maybe_frozen=True) == "received hangup"
    assert compute.recorded().phase is Phase.FREEZING


@pytest.mark.parametrize("error", [HUNG, SAVED])
def test_an_unknown_outcome(
    quiescer: LibvirtGuestQuiescer, compute: Host, error: Exception
) -> None:
    compute.guest.does["freeze"] = fails(error)
    assert refused(quiescer, maybe_frozen=True) == str(error)
    assert compute.recorded().phase is Phase.FREEZING


def test_a_freeze_of_nothing(quiescer: LibvirtGuestQuiescer, compute: Host) -> None:
    compute.guest.freezable = 0
    assert "found no file system" in refused(quiescer, maybe_frozen=True)
    assert compute.recorded().phase is Phase.FREEZING


@pytest.mark.parametrize("method", ["domain_id", "written"])
@pytest.mark.parametrize("error", [HUNG, SAVED])
def test_a_freeze_without_what_proves_it(
    quiescer: LibvirtGuestQuiescer, compute: Host, method: str, error: Exception
) -> None:
    compute.guest.does[method] = fails(error)
    assert refused(quiescer, maybe_frozen=True) == str(error)
    assert compute.recorded().phase is Phase.FREEZING


def test_a_disk_that_is_full_before(
    quiescer: LibvirtGuestQuiescer, compute: Host, disk: Disk
) -> None:
    disk.fill()
    reason = refused(quiescer, maybe_frozen=False)
    assert reason.startswith("its record cannot be used: ")
    assert "No space left" in reason
    assert untouched(compute)


def test_a_disk_that_is_full_after(
    quiescer: LibvirtGuestQuiescer, compute: Host, disk: Disk
) -> None:
    disk.fill(lambda number: number == 2)
    assert "No space left" in refused(quiescer, maybe_frozen=True)
    assert compute.guest.frozen
    assert compute.recorded().phase is Phase.FREEZING


def test_a_failed_freeze_is_undone_by_the_guard_too(
    quiescer: LibvirtGuestQuiescer, compute: Host, disk: Disk
) -> None:
    disk.fill(lambda number: number == 2)
    refused(quiescer, maybe_frozen=True)
    compute.thawer.thaw_due(UUID)
    assert not compute.guest.frozen
    assert compute.recorded().phase is Phase.THAWED


# An earlier freeze.


@pytest.mark.parametrize("phase", [Phase.FREEZING, Phase.FROZEN, Phase.THAWING])
def test_an_earlier_freeze_that_is_not_over(
    quiescer: LibvirtGuestQuiescer, compute: Host, phase: Phase
) -> None:
    before = compute.frozen(phase=phase)
    reason = refused(quiescer, maybe_frozen=False, window_id=LATER)
    assert reason == "an earlier freeze of it is still being undone"
    assert compute.recorded() == before
    assert compute.guest.calls == []


def test_an_earlier_freeze_that_is_over(
    quiescer: LibvirtGuestQuiescer, compute: Host
) -> None:
    compute.freezing(phase=Phase.THAWED, breach="")
    freeze(quiescer, window_id=LATER)
    assert compute.recorded().window_id == LATER


def test_an_earlier_freeze_whose_lock_is_held(
    quiescer: LibvirtGuestQuiescer, compute: Host
) -> None:
    compute.timeout = 0
    with compute.records.lock(UUID, 0):
        reason = refused(quiescer, maybe_frozen=False)
    assert reason == "an earlier freeze of it is still being undone"
    assert untouched(compute)


@pytest.mark.parametrize("text", ["{", '{"version": 2}'])
def test_a_record_that_cannot_be_read(
    quiescer: LibvirtGuestQuiescer, compute: Host, text: str
) -> None:
    compute.damage(text=text)
    reason = refused(quiescer, maybe_frozen=False)
    assert reason.startswith("its record cannot be used: the record of ")
    assert compute.path().read_text() == text
    assert compute.guest.calls == []


# Nova's own freeze.


def test_nova_freezes_under_the_lock(
    quiescer: LibvirtGuestQuiescer, compute: Host
) -> None:
    compute.records.directory.mkdir(exist_ok=True)  # else nothing was ever frozen
    with (
        quiescer.not_while_frozen(UUID),
        compute.records.lock(UUID, 0) as got,
    ):
        assert not got
    assert compute.guest.calls == []
    assert compute.records.uuids() == []


def test_nova_does_not_freeze_a_guest_that_is_frozen(
    quiescer: LibvirtGuestQuiescer,
) -> None:
    freeze(quiescer)
    with pytest.raises(FreezeError) as caught, quiescer.not_while_frozen(UUID):
        pytest.fail("it went on")
    assert not caught.value.maybe_frozen


def test_what_nova_raises_passes(quiescer: LibvirtGuestQuiescer) -> None:
    with pytest.raises(KeyError), quiescer.not_while_frozen(UUID):
        raise KeyError


# Thaw.


def test_a_whole_window(quiescer: LibvirtGuestQuiescer, compute: Host) -> None:
    freeze(quiescer)
    compute.clock.forward(59)
    record = quiescer.thaw(UUID, WINDOW, "request req-1", "req-1")
    assert record == compute.recorded()
    assert record.phase is Phase.THAWED
    assert record.breach == ""
    assert not compute.guest.frozen


def test_a_freeze_without_a_record_is_adopted(
    quiescer: LibvirtGuestQuiescer, compute: Host
) -> None:
    compute.guest.frozen = 2
    record = quiescer.thaw(UUID, WINDOW, "request req-1", "req-1")
    assert record == compute.recorded()
    assert record.phase is Phase.THAWED
    assert record.breach == "it is not known when the guest was frozen"
    assert not compute.guest.frozen


def test_a_guest_that_is_not_thawed_yet(
    quiescer: LibvirtGuestQuiescer, compute: Host
) -> None:
    freeze(quiescer)
    compute.guest.does["thaw"] = fails(HUNG)
    with pytest.raises(ThawError, match=str(HUNG)):
        quiescer.thaw(UUID, WINDOW, "request req-1", "req-1")


Act = Callable[[LibvirtGuestQuiescer], Any]


@pytest.mark.parametrize(
    "act",
    [
        lambda quiescer: quiescer.thaw(UUID, WINDOW, "request req-1"),
        lambda quiescer: quiescer.lost(UUID, WINDOW, "the server was rebooted"),
        lambda quiescer: quiescer.record(UUID, WINDOW),
    ],
    ids=["thaw", "lost", "record"],
)
@pytest.mark.parametrize("text", ["{", '{"version": 2}', None])
def test_a_record_that_nobody_can_use(
    quiescer: LibvirtGuestQuiescer, compute: Host, act: Act, text: str | None
) -> None:
    if text is None:
        compute.path().mkdir(parents=True)
    else:
        compute.damage(text=text)
    with pytest.raises(ThawError):
        act(quiescer)


def test_lost(quiescer: LibvirtGuestQuiescer, compute: Host) -> None:
    freeze(quiescer)
    quiescer.lost(UUID, WINDOW, "the server was rebooted")
    assert compute.recorded().phase is Phase.THAWED
    assert compute.recorded().breach == "the server was rebooted"


# The records.


def test_the_record_of_a_window(quiescer: LibvirtGuestQuiescer) -> None:
    assert quiescer.record(UUID, WINDOW) is None
    frozen = freeze(quiescer)
    assert quiescer.record(UUID, WINDOW) == frozen.record
    assert quiescer.record(UUID, LATER) is None
    assert quiescer.record(OTHER, WINDOW) is None


def test_in_time(quiescer: LibvirtGuestQuiescer, compute: Host) -> None:
    record = freeze(quiescer).record
    compute.clock.forward(59.9)
    assert quiescer.in_time(record)
    compute.clock.forward(0.1)
    assert not quiescer.in_time(record)
    assert not quiescer.in_time(record.replace(phase=Phase.THAWING))


def test_all_records(quiescer: LibvirtGuestQuiescer, compute: Host) -> None:
    assert quiescer.recorded() == {}
    freeze(quiescer)
    compute.frozen(OTHER, window_id=LATER, phase=Phase.THAWED)
    assert quiescer.recorded() == {UUID: WINDOW, OTHER: LATER}
    compute.damage()
    assert quiescer.recorded() == {OTHER: LATER}
    compute.damage(OTHER, '{"version": 2}')
    assert quiescer.recorded() == {}


def test_a_window_is_forgotten(quiescer: LibvirtGuestQuiescer, compute: Host) -> None:
    freeze(quiescer)
    quiescer.forget(UUID, WINDOW)
    assert list(compute.records.directory.iterdir()) == []
    quiescer.forget(UUID, WINDOW)
    assert list(compute.records.directory.iterdir()) == []


def test_another_window_is_not_forgotten(
    quiescer: LibvirtGuestQuiescer, compute: Host
) -> None:
    frozen = freeze(quiescer)
    quiescer.forget(UUID, LATER)
    assert compute.recorded() == frozen.record


@pytest.mark.parametrize("recorded", [True, False])
def test_nothing_is_forgotten_while_another_holds_the_lock(
    quiescer: LibvirtGuestQuiescer, compute: Host, recorded: bool
) -> None:
    """Whoever freezes may have looked already, and record it the next moment."""
    if recorded:
        freeze(quiescer)
    compute.timeout = 0
    with compute.records.lock(UUID, 0):
        with pytest.raises(OSError, match=f"somebody holds the lock of {UUID}"):
            quiescer.forget(UUID, WINDOW)
        with compute.records.lock(UUID, 0) as got:
            assert not got
    assert compute.records.uuids() == [UUID] * recorded


@pytest.mark.parametrize("text", ["{", '{"version": 2}'])
def test_what_cannot_be_read_is_not_forgotten(
    quiescer: LibvirtGuestQuiescer, compute: Host, text: str
) -> None:
    compute.damage(text=text)
    quiescer.forget(UUID, WINDOW)
    assert compute.path().read_text() == text


def test_a_disk_that_is_full_forgets_all_the_same(
    quiescer: LibvirtGuestQuiescer, compute: Host, disk: Disk
) -> None:
    freeze(quiescer)
    disk.fill()
    quiescer.forget(UUID, WINDOW)
    assert compute.records.uuids() == []


# The guard.


def test_deadlines_are_kept_while_another_guard_beats(
    quiescer: LibvirtGuestQuiescer, compute: Host
) -> None:
    assert not quiescer.guarded()
    loop.Loop(host.NOVA_COMPUTE, compute.thawer).look()
    assert not quiescer.guarded()  # that one dies with this process
    loop.Loop(host.PROCESS, compute.thawer).look()
    assert quiescer.guarded()
    compute.clock.forward(loop.STALE)
    assert not quiescer.guarded()


def test_nova_compute_keeps_the_deadlines_itself(
    quiescer: LibvirtGuestQuiescer, compute: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = threading.Event()
    guards: list[str] = []

    def run(guard: loop.Loop) -> None:
        guards.append(guard._name)
        looked.set()

    monkeypatch.setattr(loop.Loop, "run", run)
    assert not looked.is_set()
    quiescer.start_guard()
    assert looked.wait(20)
    assert guards == [host.NOVA_COMPUTE]
