# SPDX-License-Identifier: Apache-2.0
"""Owns how a guest is frozen: what is asked before, recorded ahead and checked after.

How it is thawed is the guard's, which does it also while nova-compute is dead.
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterator

from oslo_log import log as logging

from nova_ext.guard import guests, host, loop
from nova_ext.guard.guests import AgentError, Guest, GuestAbsent, Refused
from nova_ext.guard.records import Damaged, Phase, Record, UnknownVersion
from nova_ext.guard.thaw import NotThawed, Thawer
from nova_ext.virt.guest_quiescer import FreezeError, Frozen, ThawError

LOG = logging.getLogger(__name__)

#: Types of file systems that Linux freezes.
_FREEZABLE = frozenset(
    {"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "gfs2", "jfs", "nilfs2"}
    | {"ntfs", "reiserfs", "xfs", "zfs"}
)

_SETTLE_POLL = 0.1  # s

_UNREADABLE = (Damaged, UnknownVersion, OSError)


class LibvirtGuestQuiescer:
    """The :class:`nova_ext.virt.guest_quiescer.GuestQuiescer` of libvirt's QEMU guests.

    :param thawer: the guard's
    """

    def __init__(self, thawer: Thawer) -> None:
        self._thawer = thawer
        self._records = thawer.records
        self._clock = thawer.clock
        self._guard = loop.Loop(host.NOVA_COMPUTE, thawer)

    def start_guard(self) -> None:
        """Keep the deadlines from now on."""
        self._guard.start()

    def guarded(self) -> bool:
        """See :meth:`nova_ext.virt.guest_quiescer.GuestQuiescer.guarded`."""
        return loop.is_beating(self._records.directory, host.PROCESS, self._clock())

    def freeze(self, uuid: str, window_id: str, seconds: int, partial: bool) -> Frozen:
        """See :meth:`nova_ext.virt.guest_quiescer.GuestQuiescer.freeze`."""
        try:
            with (
                self._settled(uuid, self._thawer.timeout()),
                self._thawer.guests.guest(uuid, False) as guest,
            ):
                listed = _check(guest)
                return self._freeze(guest, uuid, window_id, seconds, partial, listed)
        except (AgentError, GuestAbsent) as exc:
            raise FreezeError(str(exc), maybe_frozen=False) from exc

    def thaw(self, uuid: str, window_id: str, by: str, request_id: str = "") -> Record:
        """See :meth:`nova_ext.virt.guest_quiescer.GuestQuiescer.thaw`."""
        try:
            return self._thawer.thaw(uuid, window_id, by, request_id)
        except (NotThawed, *_UNREADABLE) as exc:
            raise ThawError(str(exc)) from exc

    def record(self, uuid: str, window_id: str = "") -> Record | None:
        """See :meth:`nova_ext.virt.guest_quiescer.GuestQuiescer.record`."""
        try:
            record = self._records.read(uuid)
        except _UNREADABLE as exc:
            raise ThawError(str(exc)) from exc
        if record is None or window_id not in ("", record.window_id):
            return None
        return record

    def in_time(self, record: Record) -> bool:
        """See :meth:`nova_ext.virt.guest_quiescer.GuestQuiescer.in_time`."""
        return record.left(self._clock()) > 0

    def lost(self, uuid: str, window_id: str, reason: str) -> None:
        """See :meth:`nova_ext.virt.guest_quiescer.GuestQuiescer.lost`."""
        try:
            self._thawer.lost(uuid, window_id, reason)
        except (NotThawed, *_UNREADABLE) as exc:
            raise ThawError(str(exc)) from exc

    def forget(self, uuid: str, window_id: str) -> None:
        """See :meth:`nova_ext.virt.guest_quiescer.GuestQuiescer.forget`."""
        with (
            self._records.lock(uuid, self._thawer.timeout()) as held,
            contextlib.suppress(Damaged, UnknownVersion),
        ):
            if not held:
                raise TimeoutError(f"somebody holds the lock of {uuid}")
            record = self._records.read(uuid)
            if record is None or record.window_id == window_id:
                self._records.forget(uuid)

    def recorded(self) -> dict[str, str]:
        """See :meth:`nova_ext.virt.guest_quiescer.GuestQuiescer.recorded`."""
        found = {}
        for uuid in self._records.uuids():
            with contextlib.suppress(Damaged, UnknownVersion):
                record = self._records.read(uuid)
                if record is not None:
                    found[uuid] = record.window_id
        return found

    @contextlib.contextmanager
    def not_while_frozen(self, uuid: str) -> Iterator[None]:
        """See :meth:`nova_ext.virt.guest_quiescer.GuestQuiescer.not_while_frozen`."""
        patience = time.monotonic() + self._thawer.timeout()
        with contextlib.ExitStack() as stack:
            # Without the directory nothing was ever frozen here.
            while self._records.directory.is_dir():
                left = max(0.0, patience - time.monotonic())
                try:
                    stack.enter_context(self._settled(uuid, left))
                    break
                except FreezeError:
                    if not left:
                        raise
                time.sleep(_SETTLE_POLL)
            yield

    @contextlib.contextmanager
    def _settled(self, uuid: str, patience: float) -> Iterator[None]:
        """Hold the lock of a guest of which no freeze is under way.

        :param patience: seconds to wait for the lock
        :raises: FreezeError
        """
        try:
            with self._records.lock(uuid, patience) as held:
                record = self._records.read(uuid) if held else None
                if not held or (record and record.phase is not Phase.THAWED):
                    raise FreezeError(
                        "an earlier freeze of it is still being undone",
                        maybe_frozen=False,
                    )
                yield
        except _UNREADABLE as exc:
            raise FreezeError(
                f"its record cannot be used: {exc}", maybe_frozen=False
            ) from exc

    def _freeze(
        self,
        guest: Guest,
        uuid: str,
        window_id: str,
        seconds: int,
        partial: bool,
        listed: list[guests.FileSystem],
    ) -> Frozen:
        began = self._clock()
        longest = self._thawer.timeout() + guests.LIBVIRT_JOB_WAIT
        record = Record(
            uuid=uuid,
            window_id=window_id,
            phase=Phase.FREEZING,
            began=began,
            until=began.after(longest),
        )
        self._records.write(record)
        try:
            frozen = _frozen(guest)
        except Refused as exc:
            self._records.forget(uuid)
            raise FreezeError(str(exc), maybe_frozen=False) from exc
        except (AgentError, GuestAbsent) as exc:
            raise FreezeError(str(exc), maybe_frozen=True) from exc
        now = self._clock()
        try:
            left_out = _left_out(listed, frozen)
            if left_out and not partial:
                raise FreezeError(
                    f"these file systems could not be frozen: {', '.join(left_out)}; "
                    'unmount them, or ask for "partial": true',
                    maybe_frozen=True,
                )
            record = record.replace(
                phase=Phase.FROZEN,
                due=now.after(seconds),
                domain_id=guest.domain_id(),
                frozen=frozen,
                written=guest.written(),
            )
            self._records.write(record)
        except (AgentError, GuestAbsent, OSError) as exc:
            raise FreezeError(str(exc), maybe_frozen=True) from exc
        return Frozen(record, tuple(left_out))


def _check(guest: Guest) -> list[guests.FileSystem]:
    """What the agent says is mounted in a guest that can be frozen.

    :raises: FreezeError, AgentError or GuestAbsent
    """
    guest.require_agent()
    commands = guest.commands()
    missing = {guests.FREEZE, guests.THAW, guests.STATUS} - commands
    if missing:
        raise FreezeError(
            f"its guest agent does not allow {', '.join(sorted(missing))}",
            maybe_frozen=False,
        )
    # A hung agent is found out here, before a freeze is queued for it.
    if guest.status() != "thawed":
        raise FreezeError(
            "its file systems are frozen already, by an image that is being created or "
            "by someone on the host",
            maybe_frozen=False,
        )
    if guests.FSINFO not in commands:
        return []
    return _mounted(guest)


def _mounted(guest: Guest) -> list[guests.FileSystem]:
    """The file systems of a guest, each once, and whether they can be written."""
    listed = guest.file_systems()
    read_only: set[str] = set()
    if not all(_freezable(each) for each in listed if each.writable):
        try:
            read_only = guest.mounted_read_only()
        except AgentError as exc:
            LOG.debug("Taking all file systems for writable: %s", exc)
    found: dict[str, guests.FileSystem] = {}
    for each in listed:
        writable = each.writable and each.mountpoint not in read_only
        # One mount of a device that can be written is enough.
        if writable or each.device not in found:
            found[each.device] = dataclasses.replace(each, writable=writable)
    return list(found.values())


def _freezable(file_system: guests.FileSystem) -> bool:
    return file_system.type.lower() in _FREEZABLE


def _frozen(guest: Guest) -> int:
    """Freeze; how many file systems.

    :raises: Refused only when the guest is thawed for certain; AgentError, GuestAbsent
    """
    try:
        frozen = guest.freeze()
    except Refused as exc:
        # Also an answer that got lost with its connection looks like a refusal.
        if not _is_thawed(guest):
            raise AgentError(str(exc)) from exc
        raise
    if frozen < 1:
        raise AgentError("the guest agent found no file system to freeze")
    return frozen


def _is_thawed(guest: Guest) -> bool:
    """Whether the agent says so; not when it says nothing."""
    try:
        return guest.status() == "thawed"
    except AgentError:
        return False


def _left_out(listed: list[guests.FileSystem], frozen: int) -> list[str]:
    """The mount points that can be written and were not frozen.

    The agent tells only how many were: of what Linux cannot freeze, everything that can
    be written is suspect, and if that is not all, it may be any of the others too.
    """
    missing = len(listed) - frozen
    if missing <= 0:
        return []
    others = [each for each in listed if not _freezable(each)]
    suspects = [each for each in others if each.writable]
    if missing > len(others):
        suspects += [each for each in listed if _freezable(each)]
    return [each.mountpoint for each in suspects]
