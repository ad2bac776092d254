# SPDX-License-Identifier: Apache-2.0
"""Owns which devices of this host must not go to the next server as they are.

Each such device has an entry on the host's disk. One kind is written before data of
another host arrives: whoever gets the device next has it sanitized first, which is to
write zeros. The other kind is written before a server leaves its data behind: nobody
else gets the device at all. An entry survives whatever happens to nova-compute, the
message bus and the database. Without an entry, a device is as nova left it; with one
that cannot be read, nobody gets it.
"""

import contextlib
import os
import pathlib
import urllib.parse
from collections.abc import Callable, Iterable, Iterator

from oslo_concurrency import lockutils

from nova_ext import atomic_file
from nova_ext.privsep import pmem as privileged
from nova_ext.virt.libvirt.pmem import copy, fence
from nova_ext.virt.pmem import CopyError, Device

#: How the entry of a device begins that is to be sanitized; the owner of what it is to
#: receive follows, if there is one.
_SANITIZE = "sanitize "

#: How the entry of a device begins that holds the data of the server that follows.
_RESERVED = "reserved "


class PmemTracker:
    """The entries of one host.

    :param directory: where they are kept; made when the first one is written
    :param lookup: finds a device of this host by the name of its namespace, or None
    :param timeout: gives the seconds in which a piece has to be zeroed
    """

    def __init__(
        self,
        directory: pathlib.Path,
        lookup: Callable[[str], Device | None],
        timeout: Callable[[], float],
    ) -> None:
        self._directory = directory
        self._lookup = lookup
        self._timeout = timeout

    def pending_sanitize(self) -> list[str]:
        """The namespaces that are to be sanitized."""
        return [name for name, text in self._entries() if _is_to_sanitize(text)]

    def reserved(self) -> dict[str, str]:
        """The namespaces that hold the data of a server that has left: whose it is."""
        return {
            name: text.removeprefix(_RESERVED)
            for name, text in self._entries()
            if text.startswith(_RESERVED)
        }

    def expect_copy(self, names: Iterable[str], owner: str = "") -> None:
        """Enter devices that receive data, which is nobody's until it is adopted.

        :param owner: whose data it is, for :meth:`adopt`
        """
        self._write(names, _to_sanitize(owner))

    def reserve(self, names: Iterable[str], uuid: str) -> None:
        """Let nobody but the server ``uuid`` have devices, nor sanitize them."""
        self._write(names, _RESERVED + uuid)

    def release(self, uuid: str) -> None:
        """Forget what is reserved for a server: it has its devices again."""
        for name in [name for name, owner in self.reserved().items() if owner == uuid]:
            with self._locked(name) as entry:
                if _text(entry) == _RESERVED + uuid:
                    atomic_file.remove(entry)

    def forget(self, names: Iterable[str]) -> None:
        """Remove the entries of devices that are clean, or a server's own."""
        for name in names:
            with self._locked(name) as entry:
                atomic_file.remove(entry)

    def adopt(self, names: Iterable[str], owner: str) -> None:
        """Hand devices over to the server whose data they have received.

        :raises: nova_ext.virt.pmem.CopyError when one is not ``owner``'s
        """
        for name in names:
            with self._locked(name) as entry:
                if _text(entry) != _to_sanitize(owner):
                    raise CopyError(
                        f"namespace {name} does not hold the data that was copied"
                    )
        self.forget(names)

    def sanitize(self, names: Iterable[str], owner: str | None = None) -> None:
        """Write zeros to devices that have an entry, and forget them.

        :param owner: leave the entries of others alone
        :raises: nova_ext.virt.pmem.CopyError; the entry stays then
        """
        wanted = None if owner is None else _to_sanitize(owner)
        for name in names:
            self._sanitize(name, wanted)

    def sanitize_reserved(self, names: Iterable[str], uuid: str) -> None:
        """Sanitize devices that are reserved for a server, which needs them no more.

        :raises: nova_ext.virt.pmem.CopyError; the entry stays then
        """
        for name in names:
            self._sanitize(name, _RESERVED + uuid)

    def _sanitize(self, name: str, wanted: str | None) -> None:
        with self._locked(name) as entry:
            text = _text(entry)
            if text is None or wanted not in (None, text):
                return
            if wanted is None and text.startswith(_RESERVED):
                raise CopyError(
                    f"namespace {name} still holds the data of server "
                    f"{text.removeprefix(_RESERVED)}, whose resize is neither "
                    "confirmed nor reverted"
                )
            if wanted is None and not _is_to_sanitize(text):
                raise CopyError(
                    f"the entry of namespace {name} cannot be read: find out whose "
                    f"data it holds, then remove {entry}"
                )
            device = self._lookup(name)
            if device is None:
                raise CopyError(
                    f"namespace {name} holds data that has to be zeroed, but this "
                    "host does not have it any more"
                )
            self._zero(device)
            atomic_file.remove(entry)

    def _zero(self, device: Device) -> None:
        copy.check(device)
        fence.release(device.path)
        disturbed = True
        while disturbed:
            try:
                for at in range(0, device.size, copy.PIECE):
                    length = min(copy.PIECE, device.size - at)
                    privileged.zero(device.path, at, length, self._timeout())
            except (privileged.DeviceError, privileged.DaxioError) as exc:
                raise CopyError(str(exc)) from exc
            disturbed = fence.release(device.path)

    def _write(self, names: Iterable[str], text: str) -> None:
        atomic_file.make_directory(self._directory)
        for name in names:
            with self._locked(name) as entry:
                atomic_file.write(entry, text)

    def _entries(self) -> Iterator[tuple[str, str]]:
        with contextlib.suppress(FileNotFoundError):
            for file in sorted(os.listdir(self._directory)):
                if atomic_file.is_temporary(file):
                    continue
                text = _text(self._directory / file)
                if text is not None:
                    yield urllib.parse.unquote(file), text

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[pathlib.Path]:
        with lockutils.lock(name, "nova-ext-pmem-"):
            yield self._directory / urllib.parse.quote(name, safe="")


def _to_sanitize(owner: str) -> str:
    return f"{_SANITIZE}{owner}".strip()


def _is_to_sanitize(text: str) -> bool:
    return f"{text} ".startswith(_SANITIZE)


def _text(entry: pathlib.Path) -> str | None:
    try:
        # An administrator may have written it, who ends it with a line break.
        return entry.read_text(errors="replace").strip()
    except FileNotFoundError:
        return None
