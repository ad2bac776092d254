#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

"""Owns the contract between the quiesce engine and a virt driver.

A virt driver that can freeze guests has an attribute ``guest_freezer`` with the methods
of :class:`GuestFreezer`. Nothing here knows of libvirt, RPC or HTTP.
"""

import dataclasses
from typing import Protocol


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What the hypervisor knew of a guest right after its file systems were frozen.

    :ivar domain_id: the hypervisor's id of the running guest, new at each start
    :ivar frozen: file systems that the agent froze
    :ivar written: bytes that the guest had written to its disks by then
    """

    domain_id: int
    frozen: int
    written: int


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


class GuestGone(Exception):
    """The guest that was frozen does not run any more, so that nothing is frozen."""


class GuestFreezer(Protocol):
    """Freezes and thaws the file systems of guests on this host."""

    def freeze(self, uuid: str) -> Evidence:
        """Freeze all file systems of the guest of instance ``uuid``.

        :raises: FreezeError
        """

    def thaw(self, uuid: str, evidence: Evidence | None) -> str | None:
        """Thaw the guest and return once its agent says that it is thawed.

        :param evidence: what :meth:`freeze` returned, if it did
        :returns: None if the guest was frozen without a gap since ``evidence``, else
            why that is not so or cannot be told
        :raises: ThawError, GuestGone
        """
