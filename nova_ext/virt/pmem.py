# SPDX-License-Identifier: Apache-2.0
"""Owns the contract between the PMEM copy of nova-compute and a virt driver.

A virt driver whose host has persistent memory that can be copied has an attribute
``pmem_host`` with the methods of :class:`PmemHost`. Nothing here knows of libvirt, RPC
or HTTP.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol


class CopyError(Exception):
    """The data did not arrive whole, or would not; the text is the reason."""


@dataclasses.dataclass(frozen=True)
class Device:
    """A persistent memory device that a server has on its host.

    :ivar name: name of the namespace on its host
    :ivar label: label under which flavors ask for it
    :ivar path: path of the device node on its host
    :ivar size: bytes
    :ivar align: bytes
    """

    name: str
    label: str
    path: str
    size: int
    align: int


class Copy(Protocol):
    """The copy of all devices of one server.

    :ivar total: bytes to copy
    """

    total: int

    def probe(self) -> None:
        """Write a little to each destination, while nothing is lost yet.

        :raises: CopyError
        """

    def run(self) -> None:
        """Copy everything; returns when it has arrived whole.

        :raises: CopyError, when nothing of the copy runs any more
        """

    def verify(self, digest: Callable[[Device, int, int], str]) -> None:
        """Compare the digests of both ends.

        :param digest: asks the destination for the digest of a device's bytes, from an
            offset on, of a length
        :raises: CopyError; and what ``digest`` raises
        """

    def stop(self, reason: str) -> None:
        """Make the copy fail soon."""


class PmemHost(Protocol):
    """Persistent memory of this host, as a source and as a destination."""

    def has_pmem(self) -> bool:
        """Whether this host has persistent memory, or remembers some."""

    def devices(self, instance: Any, prefix: str | None = None) -> list[Device]:
        """The devices of a server, checked against what the host has.

        :param prefix: ``new`` for those of its migration context
        :raises: CopyError
        """

    def copy(
        self,
        targets: Sequence[Device],
        instance: Any,
        address: str,
        progress: Callable[[int], None],
    ) -> Copy:
        """A copy of the server's devices to those of the host at ``address``.

        :param progress: is told the bytes done; from several threads, one by one
        :raises: CopyError when they do not fit
        """

    def kill_stale_processes(self, uuid: str) -> None:
        """End what an earlier life of nova-compute left of a server's copy."""

    def expect_copy(self, names: Iterable[str], owner: str = "") -> None:
        """Remember durably that devices will hold ``owner``'s data.

        Until :meth:`adopt`, whoever else gets one of them finds it zeroed.
        """

    def adopt(self, names: Iterable[str], owner: str) -> None:
        """Hand devices over to the server whose data they have received.

        :raises: CopyError when one of them does not hold ``owner``'s data
        """

    def sanitize(self, names: Iterable[str], owner: str | None = None) -> None:
        """Zero devices that hold data of nobody; of ``owner`` alone, if it is given.

        :raises: CopyError; they are remembered then. Without ``owner``, also when one
            is reserved
        """

    def reserve(self, names: Iterable[str], uuid: str) -> None:
        """Remember durably that devices hold the data of a server that leaves.

        Until :meth:`release` nobody else gets them, and they are not zeroed.
        """

    def release(self, uuid: str) -> None:
        """Let a server have its devices again as they are."""

    def reserved(self) -> dict[str, str]:
        """The names of the reserved devices, and the uuid of whose data it is."""

    def sanitize_reserved(self, names: Iterable[str], uuid: str) -> None:
        """Zero devices that are reserved for a server, which needs them no more.

        :raises: CopyError; they stay reserved then
        """

    def pending_sanitize(self) -> list[str]:
        """The names of the devices that hold data of nobody."""

    def digest(self, name: str, offset: int, length: int) -> str:
        """The digest of a range of a device.

        :raises: CopyError
        """
