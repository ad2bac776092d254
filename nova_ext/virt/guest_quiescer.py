# SPDX-License-Identifier: Apache-2.0
"""Owns the contract between the quiesce engine and a virt driver.

A virt driver that can freeze guests has an attribute ``guest_quiescer`` with the
methods of :class:`GuestQuiescer`. Nothing here knows of libvirt, RPC or HTTP.
"""

import dataclasses
from contextlib import AbstractContextManager
from typing import Protocol

from nova_ext.guard.records import Record


class FreezeError(Exception):
    """The guest could not be frozen; the text is the reason, for a person.

    :ivar maybe_frozen: the freeze may have happened, or may still happen when the agent
        wakes up, so that the guest has to be thawed
    """

    def __init__(self, reason: str, maybe_frozen: bool) -> None:
        super().__init__(reason)
        self.maybe_frozen = maybe_frozen


class ThawError(Exception):
    """The guest may still be frozen and has to be thawed again later."""


@dataclasses.dataclass(frozen=True)
class Frozen:
    """A guest that has been frozen.

    :ivar record: what undoes it
    :ivar left_out: mount points of writable file systems that could not be frozen
    """

    record: Record
    left_out: tuple[str, ...] = ()


class GuestQuiescer(Protocol):
    """Freezes and thaws the file systems of guests on this host.

    A guest that it has frozen is thawed at its deadline, whatever becomes of this
    process; then its record says so.
    """

    def freeze(self, uuid: str, window_id: str, seconds: int, partial: bool) -> Frozen:
        """Freeze all file systems of the guest of instance ``uuid``.

        :param window_id: of this freeze
        :param seconds: after which the guest is thawed unasked
        :param partial: also if some writable file system cannot be frozen
        :raises: FreezeError
        """

    def thaw(self, uuid: str, window_id: str, by: str, request_id: str = "") -> Record:
        """Thaw the guest and return once its agent says that it is thawed.

        :param by: who wants it, and why; for a person
        :param request_id: of the request that asked for it
        :returns: the record of how it ended, by whomever
        :raises: ThawError
        """

    def record(self, uuid: str, window_id: str = "") -> Record | None:
        """The record of a freeze, if there is one.

        :param window_id: of that freeze; without it, of the last one
        :raises: ThawError when it cannot be read
        """

    def in_time(self, record: Record) -> bool:
        """Whether the deadline of a frozen guest has not come yet."""

    def lost(self, uuid: str, window_id: str, reason: str) -> None:
        """The memory of the guest is lost, and its freeze with it.

        :raises: ThawError when that cannot be recorded
        """

    def forget(self, uuid: str, window_id: str) -> None:
        """Remove the record of a freeze that has ended and been told.

        :raises: OSError
        """

    def recorded(self) -> dict[str, str]:
        """The window ID of each record, by instance.

        :raises: OSError
        """

    def guarded(self) -> bool:
        """Whether deadlines are kept also while this process is dead."""

    def not_while_frozen(self, uuid: str) -> AbstractContextManager[None]:
        """Keep the guest from being frozen or thawed here, while nova freezes it.

        Waits for the end of a freeze that is being undone.

        :raises: FreezeError when the guest stays frozen, or may be
        """
