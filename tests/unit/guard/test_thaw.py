# SPDX-License-Identifier: Apache-2.0
"""One try to thaw a guest: what is proved and recorded, and what the guest is told."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nova_ext.guard.guests import AgentError, GuestAbsent
from nova_ext.guard.records import Damaged, Phase, Record, UnknownVersion
from nova_ext.guard.thaw import NotThawed
from tests.unit.guard.fake_host import LATER, UUID, WINDOW, Disk, Host, fails

HUNG = AgentError("the guest agent does not answer")
SAVED = GuestAbsent("the guest is not running", memory_lost=False)
DESTROYED = GuestAbsent("the guest is not running", memory_lost=True)

THAWED_AT_DEADLINE = (
    "it was not unquiesced by 2026-11-27T12:01:00Z, so the compute host thawed it"
)

#: All that an agent is asked to thaw a guest that is frozen.
ASKED = ["status", "thaw", "status"]


def unquiesce(host: Host) -> Record:
    """Thaw for a request that came in time."""
    return host.thawer.thaw(UUID, WINDOW, "request req-1", "req-1")


def refused(thaw: Callable[..., Any], *args: Any) -> str:
    """Why a guest may still be frozen."""
    with pytest.raises(NotThawed) as caught:
        thaw(*args)
    return str(caught.value)


def come_too_late(host: Host) -> None:
    host.clock.forward(61)


# A window that is whole.


def test_a_request_in_time_proves_the_window(host: Host) -> None:
    host.frozen()
    host.clock.forward(30)
    record = unquiesce(host)
    assert record == host.recorded()
    assert record.phase is Phase.THAWED
    assert record.breach == ""
    assert record.warning == ""
    assert (record.by, record.request_id) == ("request req-1", "req-1")
    assert record.ended == host.clock()
    assert host.guest.calls == ASKED
    assert not host.guest.frozen


def test_a_thaw_takes_a_place_that_is_kept_for_thaws(host: Host) -> None:
    host.frozen()
    unquiesce(host)
    assert host.guests.asked == [(UUID, True)]


def test_the_proof_is_on_the_disk_before_the_thaw(host: Host) -> None:
    host.frozen()
    seen: list[Record] = []
    host.guest.does["thaw"] = lambda: seen.append(host.recorded())
    unquiesce(host)
    (record,) = seen
    assert record.phase is Phase.THAWING
    assert record.breach == ""
    assert (record.by, record.request_id) == ("request req-1", "req-1")
    assert record.ended is None


def test_the_lock_is_held_meanwhile(host: Host) -> None:
    host.frozen()

    def look() -> None:
        with host.records.lock(UUID, 0) as got:
            assert not got

    host.guest.does.update(written=look, thaw=look)
    assert unquiesce(host).breach == ""
    with host.records.lock(UUID, 0) as got:
        assert got


def test_writes_of_the_thaw_itself_do_not_count(host: Host) -> None:
    host.frozen()

    def write() -> None:
        host.guest.bytes += 4096

    host.guest.does["thaw"] = write
    assert unquiesce(host).breach == ""


def test_more_file_systems_than_were_frozen(host: Host) -> None:
    """One was mounted in between: it was not frozen, and is not part of it."""
    host.frozen()
    host.guest.frozen += 1
    assert unquiesce(host).breach == ""


# A window that is not.


def test_the_deadline(host: Host) -> None:
    host.frozen(seconds=60)
    host.clock.forward(59.9)
    host.thawer.thaw_due(UUID)
    assert host.guests.asked == []
    host.clock.forward(0.1)
    host.thawer.thaw_due(UUID)
    record = host.recorded()
    assert record.phase is Phase.THAWED
    assert record.by == record.breach == THAWED_AT_DEADLINE
    assert record.request_id == ""
    assert host.guest.calls == ASKED


def reboots(host: Host) -> None:
    host.clock.reboot()


def starts_anew(host: Host) -> None:
    host.guest.domain += 1


def writes(host: Host) -> None:
    host.guest.bytes += 512


def loses_a_disk(host: Host) -> None:
    host.guest.bytes -= 512


def was_thawed(host: Host) -> None:
    host.guest.frozen = 0


def was_thawed_in_part(host: Host) -> None:
    host.guest.frozen = 1


def hides_its_counters(host: Host) -> None:
    host.guest.does["written"] = fails(AgentError("no stats"))


def hides_its_domain(host: Host) -> None:
    host.guest.does["domain_id"] = fails(AgentError("no domain"))


BREACHES = [
    (reboots, "its host was rebooted"),
    (starts_anew, "the guest was powered off and on"),
    (writes, "the guest's disks changed (512 bytes written)"),
    (loses_a_disk, "a disk was taken from the guest"),
    (was_thawed, "the guest was thawed in between"),
    (was_thawed_in_part, "of 2 frozen file systems only 1 still were so"),
    (hides_its_counters, "what the guest wrote could not be read: no stats"),
    (hides_its_domain, "what the guest wrote could not be read: no domain"),
]


@pytest.mark.parametrize(("happens", "reason"), BREACHES)
def test_a_breach(host: Host, happens: Callable[[Host], None], reason: str) -> None:
    host.frozen()
    host.clock.forward(30)
    happens(host)
    record = unquiesce(host)
    assert record.phase is Phase.THAWED
    assert reason in (record.breach or "")
    assert record.request_id == "req-1"
    assert record == host.recorded()
    assert not host.guest.frozen


@pytest.mark.parametrize(("happens", "reason"), BREACHES[:4])
def test_a_breach_is_on_the_disk_before_the_thaw(
    host: Host, happens: Callable[[Host], None], reason: str
) -> None:
    host.frozen()
    happens(host)
    seen: list[str | None] = []
    host.guest.does["thaw"] = lambda: seen.append(host.recorded().breach)
    unquiesce(host)
    (breach,) = seen
    assert reason in (breach or "")


def test_a_breach_before_the_deadline_is_told_rather_than_the_deadline(
    host: Host,
) -> None:
    host.frozen()
    writes(host)
    come_too_late(host)
    host.thawer.thaw_due(UUID)
    assert "512 bytes written" in (host.recorded().breach or "")
    assert host.recorded().by == THAWED_AT_DEADLINE


def test_the_first_breach_is_told(host: Host) -> None:
    host.frozen()
    writes(host)
    was_thawed_in_part(host)
    assert "512 bytes written" in (unquiesce(host).breach or "")


@pytest.mark.parametrize("missing", ["frozen", "written"])
def test_a_record_that_does_not_know_enough(host: Host, missing: str) -> None:
    host.frozen(**{missing: None})
    assert unquiesce(host).breach == "it is not known when the guest was frozen"
    assert not host.guest.frozen


# Who begins first decides.


def test_a_request_that_comes_after_the_switch_began(host: Host) -> None:
    host.frozen()
    come_too_late(host)
    host.guest.does["thaw"] = fails(HUNG)
    refused(host.thawer.thaw_due, UUID)
    host.guest.does.clear()
    record = unquiesce(host)
    assert record.phase is Phase.THAWED
    assert record.by == record.breach == THAWED_AT_DEADLINE
    assert host.recorded().request_id == "req-1"  # it is to be told


def test_the_switch_that_comes_after_a_request_began(host: Host) -> None:
    host.frozen()
    host.guest.does["thaw"] = fails(HUNG)
    assert refused(unquiesce, host) == "the guest agent does not answer"
    host.guest.does.clear()
    come_too_late(host)
    host.guest.bytes += 4096  # the command that hung has thawed for a moment
    host.thawer.thaw_due(UUID)
    record = host.recorded()
    assert record.phase is Phase.THAWED
    assert (record.by, record.request_id) == ("request req-1", "req-1")
    assert record.breach == ""


def test_what_has_ended_is_only_told(host: Host) -> None:
    host.frozen()
    come_too_late(host)
    host.thawer.thaw_due(UUID)
    before = host.recorded()
    host.guest.calls.clear()
    host.guest.freeze()  # somebody else's
    host.guest.calls.clear()
    host.clock.forward(5)
    told = before.replace(request_id="req-1")
    assert unquiesce(host) == told
    host.thawer.thaw_due(UUID)
    assert host.recorded() == told
    assert host.thawer.thaw(UUID, WINDOW, "request req-2", "req-2") == told
    assert host.guest.calls == []
    assert host.guest.frozen


class Meeting:
    """Lets something happen while somebody waits for the lock of a guest.

    :ivar waited: the seconds that were to be waited
    """

    def __init__(
        self,
        host: Host,
        monkeypatch: pytest.MonkeyPatch,
        meanwhile: Callable[[], Any] = lambda: None,
    ) -> None:
        self.waited: list[float] = []
        self._lock = host.records.lock
        self._meanwhile = meanwhile
        monkeypatch.setattr(host.records, "lock", self.lock)

    @contextlib.contextmanager
    def lock(self, uuid: str, seconds: float) -> Iterator[bool]:
        self.waited.append(seconds)
        self._meanwhile()
        with self._lock(uuid, seconds) as held:
            yield held


def test_the_record_is_read_again_under_the_lock(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = host.frozen()
    come_too_late(host)
    theirs = record.replace(phase=Phase.THAWED, breach="", by="another")
    Meeting(host, monkeypatch, lambda: host.records.write(theirs))
    assert unquiesce(host) == theirs.replace(request_id="req-1")
    host.thawer.thaw_due(UUID)
    assert host.guest.calls == []


def test_a_freeze_that_ended_meanwhile_is_not_due(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.freezing()
    Meeting(host, monkeypatch, host.frozen)
    host.thawer.thaw_due(UUID)
    assert host.guest.calls == []
    assert host.recorded().phase is Phase.FROZEN


@pytest.mark.parametrize(
    ("phase", "left", "seconds"),
    [
        (Phase.FREEZING, 35, 35),
        (Phase.FREEZING, 1, 5),
        (Phase.FROZEN, 35, 5),
        (Phase.THAWING, 35, 5),
    ],
)
def test_a_freeze_may_hold_the_lock_for_as_long_as_it_can_run(
    host: Host,
    monkeypatch: pytest.MonkeyPatch,
    phase: Phase,
    left: float,
    seconds: float,
) -> None:
    host.frozen(phase=phase, until=host.clock().after(left))
    met = Meeting(host, monkeypatch)
    unquiesce(host)
    assert met.waited == [seconds]


def test_a_lock_that_another_holds_for_too_long(host: Host) -> None:
    host.frozen()
    host.timeout = 0
    with host.records.lock(UUID, 0):
        record = unquiesce(host)
    assert not host.guest.frozen
    assert record == host.recorded()
    assert record.phase is Phase.THAWED
    assert record.breach == "its lock was held for too long by somebody else"


def test_a_proof_stands_when_the_lock_is_missed_afterwards(host: Host) -> None:
    host.frozen()
    host.guest.does["thaw"] = fails(HUNG)
    refused(unquiesce, host)
    host.guest.does.clear()
    host.timeout = 0
    with host.records.lock(UUID, 0):
        assert unquiesce(host).breach == ""


# What the guest is told.


def test_a_guest_that_is_thawed_is_not_thawed_again(host: Host) -> None:
    """Its hook would run on every thaw."""
    host.frozen()
    host.guest.frozen = 0
    unquiesce(host)
    assert host.guest.calls == ["status"]


def test_an_agent_that_does_not_answer(host: Host) -> None:
    before = host.frozen()
    host.guest.does["status"] = fails(HUNG)
    assert refused(unquiesce, host) == "the guest agent does not answer"
    assert host.guest.calls == ["status"]
    assert host.recorded() == before


def test_a_thaw_hook_that_fails(host: Host) -> None:
    """The command fails, and the file systems are thawed nevertheless."""
    host.frozen()

    def hook() -> None:
        host.guest.frozen = 0
        raise AgentError("the hook has exit status 1")

    host.guest.does["thaw"] = hook
    record = unquiesce(host)
    assert record == host.recorded()
    assert record.phase is Phase.THAWED
    assert record.breach == ""
    assert record.warning == "the hook has exit status 1"
    assert host.guest.calls == ASKED


def test_a_thaw_hook_that_keeps_the_agent_busy(host: Host) -> None:
    host.frozen()

    def hook() -> None:
        host.guest.frozen = 0
        host.guest.does["status"] = fails(HUNG)
        raise HUNG

    host.guest.does["thaw"] = hook
    refused(unquiesce, host)
    assert host.recorded().phase is Phase.THAWING
    host.guest.does.clear()
    host.guest.calls.clear()
    assert unquiesce(host).breach == ""
    assert host.guest.calls == ["status"]


def test_a_guest_that_stays_frozen(host: Host) -> None:
    host.frozen()
    host.guest.does["thaw"] = fails(AgentError("it is not allowed"))
    assert refused(unquiesce, host) == "it is not allowed"
    assert host.recorded().phase is Phase.THAWING
    host.guest.does.clear()
    host.guest.word = "frozen"
    assert refused(unquiesce, host) == "the guest agent says frozen"
    assert host.recorded().phase is Phase.THAWING
    host.guest.word = None
    assert unquiesce(host).phase is Phase.THAWED


@pytest.mark.parametrize("word", ["None", "", "asleep"])
def test_an_unknown_word_is_never_taken_for_thawed(host: Host, word: str) -> None:
    host.frozen()
    host.guest.word = word
    assert refused(unquiesce, host) == f"the guest agent says {word}"
    assert host.guest.calls == ASKED
    assert host.recorded().phase is Phase.THAWING


# A freeze of which nobody knows how it went.


def test_a_freeze_that_may_still_be_carried_out(host: Host) -> None:
    host.freezing()
    reason = "its freeze may still be carried out"
    assert refused(host.thawer.thaw_due, UUID) == reason
    assert host.recorded().phase is Phase.THAWING
    host.clock.forward(34.9)
    assert refused(host.thawer.thaw_due, UUID) == reason
    host.guest.frozen = 2  # there it comes
    host.guest.calls.clear()
    host.thawer.thaw_due(UUID)
    assert host.guest.calls == ASKED
    assert not host.guest.frozen
    assert host.recorded().phase is Phase.THAWED


@pytest.mark.parametrize("passes", [lambda host: host.clock.forward(35), reboots])
def test_a_freeze_that_never_came(host: Host, passes: Callable[[Host], None]) -> None:
    host.freezing()
    passes(host)
    host.thawer.thaw_due(UUID)
    record = host.recorded()
    assert record.phase is Phase.THAWED
    assert record.breach == "it is not known when the guest was frozen"
    assert record.by == "its freeze did not end well"
    assert host.guest.calls == ["status"]


def test_a_freeze_that_was_carried_out_will_not_be_again(host: Host) -> None:
    host.freezing()
    host.guest.frozen = 2
    assert unquiesce(host).breach == "it is not known when the guest was frozen"
    assert host.recorded().phase is Phase.THAWED
    assert host.guest.calls == ASKED


# A freeze of which there is no record.


def test_a_guest_without_a_record_is_thawed(host: Host) -> None:
    host.guest.frozen = 2
    record = unquiesce(host)
    assert record == host.recorded()
    assert record.phase is Phase.THAWED
    assert record.breach == "it is not known when the guest was frozen"
    assert (record.by, record.request_id) == ("request req-1", "req-1")
    assert not host.guest.frozen


def test_a_thawed_guest_without_a_record(host: Host) -> None:
    assert unquiesce(host).phase is Phase.THAWED
    assert host.guest.calls == ["status"]


def test_a_guest_without_a_record_that_does_not_answer(host: Host) -> None:
    """From now on the guard thaws it too."""
    host.guest.does["status"] = fails(HUNG)
    refused(unquiesce, host)
    record = host.recorded()
    assert record.phase is Phase.FREEZING
    assert record.until == host.clock()


def test_a_guest_without_a_record_whose_lock_is_held(host: Host) -> None:
    """Its record would take the place of that of a freeze that begins."""
    host.timeout = 0
    with host.records.lock(UUID, 0):
        reason = refused(unquiesce, host)
    assert reason == "its lock was held for too long by somebody else"
    assert host.records.uuids() == []
    assert host.guests.asked == []


@pytest.mark.parametrize("phase", [Phase.FREEZING, Phase.FROZEN, Phase.THAWING])
def test_the_window_of_another_freeze_is_left_alone(host: Host, phase: Phase) -> None:
    before = host.frozen(window_id=LATER, phase=phase)
    assert refused(unquiesce, host) == "a later freeze of it is under way"
    assert host.recorded() == before
    assert host.guests.asked == []


def test_another_freeze_that_has_ended_is_not_this_one(host: Host) -> None:
    host.frozen(window_id=LATER, phase=Phase.THAWED, breach="")
    record = unquiesce(host)
    assert record.window_id == WINDOW
    assert record.breach == "it is not known when the guest was frozen"
    assert not host.guest.frozen


# A guest that is not there.


@pytest.mark.parametrize("phase", [Phase.FREEZING, Phase.FROZEN, Phase.THAWING])
def test_a_guest_that_may_come_back_keeps_its_record(host: Host, phase: Phase) -> None:
    before = host.frozen(phase=phase)
    guest, host.guests.of[UUID] = host.guest, SAVED
    come_too_late(host)
    assert refused(unquiesce, host) == "the guest is not running"
    assert refused(host.thawer.thaw_due, UUID) == "the guest is not running"
    assert host.recorded() == before
    host.guests.of[UUID] = guest
    guest.domain += 1
    host.thawer.thaw_due(UUID)
    assert host.recorded().phase is Phase.THAWED
    assert not guest.frozen


def test_a_guest_whose_memory_is_lost(host: Host) -> None:
    host.frozen()
    host.guests.of[UUID] = DESTROYED
    record = unquiesce(host)
    assert record == host.recorded()
    assert record.phase is Phase.THAWED
    assert record.breach == "the guest was powered off"
    assert (record.by, record.request_id) == ("request req-1", "req-1")


def test_who_began_decides_also_when_the_memory_is_lost(host: Host) -> None:
    host.frozen()
    host.guest.does["thaw"] = fails(HUNG)
    refused(unquiesce, host)
    host.guests.of[UUID] = DESTROYED
    come_too_late(host)
    host.thawer.thaw_due(UUID)
    record = host.recorded()
    assert record.breach == "the guest was powered off"
    assert (record.by, record.request_id) == ("request req-1", "req-1")


def test_a_request_for_a_lost_guest_that_the_switch_began_to_thaw(host: Host) -> None:
    host.frozen()
    come_too_late(host)
    host.guest.does["thaw"] = fails(HUNG)
    refused(host.thawer.thaw_due, UUID)
    host.guests.of[UUID] = DESTROYED
    record = unquiesce(host)
    assert record.by == record.breach == THAWED_AT_DEADLINE
    assert record.request_id == "req-1"


@pytest.mark.parametrize("method", ["status", "domain_id", "written", "thaw"])
@pytest.mark.parametrize(("absent", "ends"), [(SAVED, False), (DESTROYED, True)])
def test_a_guest_that_leaves_meanwhile(
    host: Host, method: str, absent: GuestAbsent, ends: bool
) -> None:
    host.frozen()
    host.guest.does[method] = fails(absent)
    if ends:
        assert unquiesce(host).breach == "the guest was powered off"
    else:
        refused(unquiesce, host)
        assert host.recorded().phase is not Phase.THAWED


# Nova says that the memory is lost.


@pytest.mark.parametrize("phase", [Phase.FREEZING, Phase.FROZEN, Phase.THAWING])
def test_lost(host: Host, phase: Phase) -> None:
    host.frozen(phase=phase)
    host.thawer.lost(UUID, WINDOW, "the server was rebooted")
    record = host.recorded()
    assert record.phase is Phase.THAWED
    assert record.by == record.breach == "the server was rebooted"
    assert record.ended == host.clock()
    assert host.guests.asked == []


def test_lost_after_a_breach(host: Host) -> None:
    host.frozen(phase=Phase.THAWING, breach="something else", by="request req-1")
    host.thawer.lost(UUID, WINDOW, "the server was rebooted")
    assert host.recorded().breach == "something else"
    assert host.recorded().by == "request req-1"


def test_lost_is_not_another_window(host: Host) -> None:
    before = host.frozen(window_id=LATER)
    host.thawer.lost(UUID, WINDOW, "the server was rebooted")
    assert host.recorded() == before


def test_lost_is_not_what_has_ended(host: Host) -> None:
    before = host.frozen(phase=Phase.THAWED, breach="")
    host.thawer.lost(UUID, WINDOW, "the server was rebooted")
    assert host.recorded() == before


def test_lost_without_a_record(host: Host) -> None:
    host.thawer.lost(UUID, WINDOW, "the server was rebooted")
    assert host.records.uuids() == []


# A record that cannot be used.


@pytest.mark.parametrize(
    ("text", "error"), [("{", Damaged), ('{"version": 2}', UnknownVersion)]
)
def test_a_record_that_cannot_be_read(
    host: Host, text: str, error: type[Exception]
) -> None:
    host.damage(text=text)
    for act in (lambda: unquiesce(host), lambda: host.thawer.thaw_due(UUID)):
        with pytest.raises(error):
            act()
    assert host.guests.asked == []


def test_a_lock_that_cannot_be(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.frozen()

    def fail() -> None:
        raise OSError("broken")

    Meeting(host, monkeypatch, fail)
    for act in (host.thawer.thaw_due, host.thawer.thaw_unknown):
        assert refused(act, UUID) == "its record cannot be used: broken"


def test_a_guest_whose_record_is_damaged(host: Host) -> None:
    host.damage()
    host.guest.frozen = 2
    host.thawer.thaw_unknown(UUID)
    assert not host.guest.frozen
    assert host.guest.calls == ASKED
    assert host.guests.asked == [(UUID, True)]
    assert list(host.records.directory.iterdir()) == []


def test_a_thawed_guest_whose_record_is_damaged(host: Host) -> None:
    host.damage()
    host.thawer.thaw_unknown(UUID)
    assert host.guest.calls == ["status"]
    assert host.records.uuids() == []


@pytest.mark.parametrize("method", ["status", "thaw"])
def test_a_damaged_record_stays_until_its_guest_is_thawed(
    host: Host, method: str
) -> None:
    host.damage()
    host.guest.frozen = 2
    host.guest.does[method] = fails(HUNG)
    assert refused(host.thawer.thaw_unknown, UUID) == str(HUNG)
    assert host.records.uuids() == [UUID]


def test_a_damaged_record_of_a_guest_that_may_come_back(host: Host) -> None:
    host.damage()
    host.guests.of[UUID] = SAVED
    assert refused(host.thawer.thaw_unknown, UUID) == str(SAVED)
    assert host.records.uuids() == [UUID]


def test_a_damaged_record_of_a_guest_whose_memory_is_lost(host: Host) -> None:
    host.damage()
    host.guests.of[UUID] = DESTROYED
    host.thawer.thaw_unknown(UUID)
    assert host.records.uuids() == []


@pytest.mark.parametrize(("absent", "ends"), [(SAVED, False), (DESTROYED, True)])
def test_a_guest_that_leaves_while_its_damaged_record_is_used(
    host: Host, absent: GuestAbsent, ends: bool
) -> None:
    host.damage()
    host.guest.does["status"] = fails(absent)
    if ends:
        host.thawer.thaw_unknown(UUID)
    else:
        assert refused(host.thawer.thaw_unknown, UUID) == str(absent)
    assert host.records.uuids() == ([] if ends else [UUID])


def test_a_damaged_record_is_removed_by_who_has_the_lock(host: Host) -> None:
    """Who comes late would remove that of the next freeze."""
    host.damage()
    host.guest.frozen = 2
    host.timeout = 0
    with host.records.lock(UUID, 0):
        host.thawer.thaw_unknown(UUID)
    assert not host.guest.frozen
    assert host.records.uuids() == [UUID]


def test_a_damaged_record_is_told_when_its_guest_is_thawed(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    """Not each second: the loop tells once why it is not thawed yet."""
    host.damage()
    host.guest.does["status"] = fails(HUNG)
    refused(host.thawer.thaw_unknown, UUID)
    assert caplog.messages == []
    host.guest.does.clear()
    host.thawer.thaw_unknown(UUID)
    (message,) = caplog.messages
    assert f"the record of {UUID} cannot be read" in message


def test_a_record_that_is_good_by_now(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.damage()
    Meeting(host, monkeypatch, host.frozen)
    host.thawer.thaw_unknown(UUID)
    assert host.recorded().phase is Phase.FROZEN
    assert host.guest.frozen
    assert host.guests.asked == []


# A disk that is full.


def test_a_proof_that_cannot_be_written(host: Host, disk: Disk) -> None:
    host.frozen()
    disk.fill(lambda number: number == 1)
    record = unquiesce(host)
    assert record == host.recorded()
    assert record.phase is Phase.THAWED
    assert "it could not be recorded: " in (record.breach or "")
    assert "No space left" in (record.breach or "")
    assert not host.guest.frozen


def test_an_end_that_cannot_be_written(host: Host, disk: Disk) -> None:
    """The proof is on the disk already; who asked does not wait for more."""
    host.frozen()
    disk.fill(lambda number: number == 2)
    record = unquiesce(host)
    assert record.phase is Phase.THAWED
    assert record.breach == ""
    assert not host.guest.frozen
    assert host.recorded().phase is Phase.THAWING
    host.thawer.thaw_due(UUID)
    assert host.recorded() == record
    assert host.guest.calls == [*ASKED, "status"]


def test_a_disk_that_stays_full(host: Host, disk: Disk) -> None:
    before = host.frozen()
    disk.fill()
    record = unquiesce(host)
    assert record.phase is Phase.THAWED
    assert "No space left" in (record.breach or "")
    assert not host.guest.frozen
    assert host.recorded() == before
    come_too_late(host)
    host.thawer.thaw_due(UUID)
    assert host.guest.calls == [*ASKED, "status"]
    disk.fill(lambda number: False)
    assert unquiesce(host).breach == "the guest was thawed in between"


def test_a_loss_that_cannot_be_written(host: Host, disk: Disk) -> None:
    """The guard looks at it again; nova goes on."""
    before = host.frozen()
    disk.fill()
    host.thawer.lost(UUID, WINDOW, "the server was rebooted")
    assert host.recorded() == before


def test_a_guest_without_a_record_while_the_disk_is_full(
    host: Host, disk: Disk
) -> None:
    host.guest.frozen = 2
    disk.fill()
    assert unquiesce(host).phase is Phase.THAWED
    assert not host.guest.frozen
