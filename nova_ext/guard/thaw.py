# SPDX-License-Identifier: Apache-2.0
"""Owns one try to thaw a guest: what is looked at and written before, and what after.

Whoever thaws does it here: nova-compute for a request, the guard at the deadline, in
either process. The first who begins writes who it is and what it has found, before it
touches the guest; that decides what became of the window, whatever happens later.
"""

import contextlib
import dataclasses
import datetime
from collections.abc import Callable, Iterator
from typing import Any

from oslo_log import log as logging

from nova_ext.guard import clock as real_clock
from nova_ext.guard.clock import Moment
from nova_ext.guard.guests import AgentError, Guest, GuestAbsent, Guests
from nova_ext.guard.records import Damaged, Phase, Record, Records

LOG = logging.getLogger(__name__)


_RIVAL = "its lock was held for too long by somebody else"


class NotThawed(Exception):
    """The guest may still be frozen, and has to be thawed again; the text says why."""


@dataclasses.dataclass(frozen=True)
class Thawer:
    """What thaws the guests of a host.

    :ivar timeout: gives the seconds that an agent has for each answer
    :ivar clock: tells what time it is
    """

    records: Records
    guests: Guests
    timeout: Callable[[], int]
    clock: Callable[[], Moment] = real_clock.now

    def thaw(self, uuid: str, window_id: str, by: str, request_id: str = "") -> Record:
        """Try to thaw a guest, unless it is thawed already.

        :param by: who wants it, and why; for a person
        :param request_id: of the request that asked for it
        :returns: the record, whose phase is then ``THAWED``
        :raises: NotThawed; nova_ext.guard.records.UnknownVersion or Damaged
        """
        with self._locked(uuid) as (record, held):
            if record is None or record.window_id != window_id:
                if record is not None and record.phase is not Phase.THAWED:
                    raise NotThawed("a later freeze of it is under way")
                if not held:  # whoever has it may write a record the next moment
                    raise NotThawed(_RIVAL)
                record = self._adopted(uuid, window_id)
            return self._try(record, held, by, request_id)

    def thaw_due(self, uuid: str) -> None:
        """Try to thaw a guest if it is time.

        :raises: as :meth:`thaw`
        """
        with self._locked(uuid) as (record, held):
            if record is not None and not record.left(self.clock()):
                self._try(record, held, deadline_passed(record), "")

    def thaw_unknown(self, uuid: str) -> None:
        """Try to thaw a guest whose record says nothing, and remove that.

        :raises: NotThawed
        """
        try:
            with self.records.lock(uuid, self.timeout()) as held:
                try:
                    self.records.read(uuid)  # somebody may have written a good one
                except Damaged as exc:
                    self._thaw_anyway(uuid)
                    if held:
                        self.records.forget(uuid)
                        LOG.error("Thawed a guest unasked: %s", exc)
        except OSError as exc:
            raise NotThawed(f"its record cannot be used: {exc}") from exc

    def lost(self, uuid: str, window_id: str, reason: str) -> None:
        """End the record of a guest whose memory is lost.

        :raises: as :meth:`thaw`
        """
        with self._locked(uuid) as (record, _held):
            if record is None or record.window_id != window_id:
                return
            if record.phase is not Phase.THAWED:
                first = {"by": record.by or reason, "breach": record.breach or reason}
                self._ended(record, **first)

    @contextlib.contextmanager
    def _locked(self, uuid: str) -> Iterator[tuple[Record | None, bool]]:
        """The record of a guest, and whether its lock is held.

        Whoever freezes it holds the lock for as long as that may last.
        """
        try:
            record = self.records.read(uuid)
            patience = float(self.timeout())
            if record is not None and record.phase is Phase.FREEZING:
                patience = max(patience, record.until.left(self.clock()))
            with self.records.lock(uuid, patience) as held:
                yield self.records.read(uuid), held
        except OSError as exc:
            raise NotThawed(f"its record cannot be used: {exc}") from exc

    def _adopted(self, uuid: str, window_id: str) -> Record:
        """A record for a freeze of which nothing is known but that it was."""
        now = self.clock()
        record = Record(
            uuid=uuid, window_id=window_id, phase=Phase.FREEZING, began=now, until=now
        )
        self._note(record, "Could not record that %s may be frozen: %s")
        return record

    def _try(self, record: Record, held: bool, by: str, request_id: str) -> Record:
        begun = record.phase in (Phase.THAWING, Phase.THAWED)
        late = bool(request_id) and begun and not record.request_id
        if late:
            # It is to be told all the same: by whoever takes up the record.
            record = record.replace(request_id=request_id)
        if record.phase is Phase.THAWED:
            if late:
                self._note(record, "Could not record who asked for %s: %s")
            return record
        warning = ""
        try:
            with self.guests.guest(record.uuid, urgent=True) as guest:
                status = guest.status()
                if record.phase is not Phase.THAWING:
                    breach = self._breach(record, guest, status) if held else _RIVAL
                    record = self._begun(record, by, request_id, breach)
                if status != "thawed":
                    record, warning = _make_thawed(record, guest)
        except GuestAbsent as exc:
            if not exc.memory_lost:
                raise NotThawed(str(exc)) from exc
            if record.phase is not Phase.THAWING:
                record = record.replace(by=by, request_id=request_id)
            reason = "the guest was powered off"
            return self._ended(record, breach=record.breach or reason)
        except AgentError as exc:
            raise NotThawed(str(exc)) from exc
        may_run = record.frozen is None and status == "thawed"
        if may_run and record.until.left(self.clock()):
            raise NotThawed("its freeze may still be carried out")
        if warning:
            LOG.warning("While instance %s was thawed: %s", record.uuid, warning)
        return self._ended(record, warning=warning)

    def _breach(self, record: Record, guest: Guest, status: str) -> str:
        """What is wrong with a window whose end is about to begin; empty: nothing."""
        if record.frozen is None or record.written is None:
            return "it is not known when the guest was frozen"
        if record.began.boot_id != self.clock().boot_id:
            return "its host was rebooted"
        try:
            if guest.domain_id() != record.domain_id:
                return "the guest was powered off and on"
            more = guest.written() - record.written
        except AgentError as exc:
            return f"what the guest wrote could not be read: {exc}"
        if status != "frozen":
            return "the guest was thawed in between"
        if more < 0:
            return "a disk was taken from the guest"
        if more:
            return (
                f"the guest's disks changed ({more} bytes written): it was thawed in "
                "between, or writes below its file systems"
            )
        return ""

    def _begun(self, record: Record, by: str, request_id: str, breach: str) -> Record:
        """Write who thaws, and what was found before."""
        if not request_id:
            breach = breach or by
        found = record.replace(
            phase=Phase.THAWING, by=by, request_id=request_id, breach=breach
        )
        try:
            self.records.write(found)
        except OSError as exc:
            # A guest is thawed for sure rather than proved to have been frozen.
            LOG.warning("Could not record the thaw of %s: %s", record.uuid, exc)
            return found.replace(breach=breach or f"it could not be recorded: {exc}")
        return found

    def _note(self, record: Record, failure: str) -> None:
        """Write a record of which nothing here depends.

        :param failure: what is logged of an instance, and the reason, if it fails
        """
        try:
            self.records.write(record)
        except OSError as exc:
            LOG.warning(failure, record.uuid, exc)

    def _ended(self, record: Record, **changes: Any) -> Record:
        ended = record.replace(phase=Phase.THAWED, ended=self.clock(), **changes)
        # It is thawed: who asked for that does not wait for the disk.
        self._note(ended, "Could not record the end of %s: %s")
        return ended

    def _thaw_anyway(self, uuid: str) -> None:
        try:
            with self.guests.guest(uuid, urgent=True) as guest:
                if guest.status() != "thawed":
                    _thaw(guest)
        except GuestAbsent as exc:
            if not exc.memory_lost:
                raise NotThawed(str(exc)) from exc
        except AgentError as exc:
            raise NotThawed(str(exc)) from exc


def _make_thawed(record: Record, guest: Guest) -> tuple[Record, str]:
    """Thaw a guest; the record with what came out, and what else went wrong."""
    thawed, warning = _thaw(guest)
    if record.frozen is not None and thawed is not None and thawed < record.frozen:
        breach = (
            f"of {record.frozen} frozen file systems only {thawed} still were so: the "
            "guest rebooted or thawed them"
        )
        record = record.replace(breach=record.breach or breach)
    return record, warning


def _thaw(guest: Guest) -> tuple[int | None, str]:
    """How many file systems were thawed, and why that is not known.

    A hook in the guest that is slow or fails makes the command fail after the thaw:
    what the agent says of the file systems counts, not what became of the command.

    :raises: AgentError when the guest may still be frozen
    """
    thawed, warning = None, ""
    try:
        thawed = guest.thaw()
    except AgentError as exc:
        warning = str(exc)
    status = guest.status()
    if status != "thawed":
        raise AgentError(warning or f"the guest agent says {status}")
    return thawed, warning


def deadline_passed(record: Record) -> str:
    """What is said of a guest that was thawed because nobody had asked for it."""
    if record.due is None:
        return "its freeze did not end well"
    due = datetime.datetime.fromtimestamp(record.due.wall, datetime.UTC)
    return (
        f"it was not unquiesced by {due:%Y-%m-%dT%H:%M:%SZ}, so the compute host "
        "thawed it"
    )
