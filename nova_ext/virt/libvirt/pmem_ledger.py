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

"""Owns which devices of this host must not go to the next server as they are.

Each such device has an entry on the host's disk. One kind is written before data of
another host arrives: whoever gets the device next has it zeroed first. The other kind
is written before a server leaves its data behind: nobody else gets the device at all.
An entry survives whatever happens to nova-compute, the message bus and the database.
Without an entry, a device is as nova left it.
"""

import contextlib
import os
import pathlib
import urllib.parse
from collections.abc import Callable, Iterable, Iterator

from oslo_concurrency import lockutils

from nova_ext.privsep import pmem as privileged
from nova_ext.virt import pmem_host
from nova_ext.virt.libvirt import pmem, pmem_fence

#: How the entry of a device begins that holds the data of the server that follows.
_HELD = "held "


class Ledger:
    """The entries of one host.

    :param directory: where they are kept; made when the first one is written
    :param lookup: finds a device of this host by the name of its namespace, or None
    :param timeout: gives the seconds in which a piece has to be zeroed
    """

    def __init__(
        self,
        directory: pathlib.Path,
        lookup: Callable[[str], pmem_host.Device | None],
        timeout: Callable[[], float],
    ) -> None:
        self._directory = directory
        self._lookup = lookup
        self._timeout = timeout

    def dirty(self) -> list[str]:
        """The namespaces that are to be zeroed."""
        return [name for name, text in self._entries() if not text.startswith(_HELD)]

    def held(self) -> dict[str, str]:
        """The namespaces that hold the data of a server that has left: whose it is."""
        return {
            name: text.removeprefix(_HELD)
            for name, text in self._entries()
            if text.startswith(_HELD)
        }

    def add(self, names: Iterable[str], owner: str = "") -> None:
        """Enter devices; what they held before is zeroed when ``owner`` takes them.

        :param owner: whose data they are to receive, for :meth:`accept`
        """
        self._write(names, owner)

    def hold(self, names: Iterable[str], uuid: str) -> None:
        """Let nobody but the server ``uuid`` have devices, nor zero them."""
        self._write(names, _HELD + uuid)

    def unhold(self, uuid: str) -> None:
        """Forget what is held of a server: it has its devices again."""
        for name in [name for name, owner in self.held().items() if owner == uuid]:
            with self._locked(name) as entry:
                if _text(entry) == _HELD + uuid:
                    entry.unlink()

    def remove(self, names: Iterable[str]) -> None:
        """Forget devices: they are clean, or a server's own."""
        for name in names:
            with self._locked(name) as entry:
                entry.unlink(missing_ok=True)

    def accept(self, names: Iterable[str], owner: str) -> None:
        """Hand devices over to the server whose data they have received.

        :raises: nova_ext.virt.pmem_host.CopyError when one is not ``owner``'s
        """
        for name in names:
            with self._locked(name) as entry:
                if _text(entry) != owner:
                    raise pmem_host.CopyError(
                        f"namespace {name} does not hold the data that was copied"
                    )
        self.remove(names)

    def clean(self, names: Iterable[str], owner: str | None = None) -> None:
        """Zero devices that have an entry, and forget them.

        :param owner: leave the entries of others alone
        :raises: nova_ext.virt.pmem_host.CopyError; the entry stays then
        """
        for name in names:
            with self._locked(name) as entry:
                text = _text(entry)
                if text is None or owner not in (None, text):
                    continue
                if owner is None and text.startswith(_HELD):
                    raise pmem_host.CopyError(
                        f"namespace {name} still holds the data of server "
                        f"{text.removeprefix(_HELD)}, whose resize is neither "
                        "confirmed nor reverted"
                    )
                device = self._lookup(name)
                if device is None:
                    raise pmem_host.CopyError(
                        f"namespace {name} holds data that has to be zeroed, but this "
                        "host does not have it any more"
                    )
                self._zero(device)
                entry.unlink()

    def clean_held(self, names: Iterable[str], uuid: str) -> None:
        """Zero devices that are held for a server, which needs them no more.

        :raises: nova_ext.virt.pmem_host.CopyError; the entry stays then
        """
        self.clean(names, _HELD + uuid)

    def _zero(self, device: pmem_host.Device) -> None:
        pmem.check(device)
        pmem_fence.release(device.path)
        disturbed = True
        while disturbed:
            try:
                for at in range(0, device.size, pmem.PIECE):
                    length = min(pmem.PIECE, device.size - at)
                    privileged.zero(device.path, at, length, self._timeout())
            except (privileged.DeviceError, privileged.DaxioError) as exc:
                raise pmem_host.CopyError(str(exc)) from exc
            disturbed = pmem_fence.release(device.path)

    def _write(self, names: Iterable[str], text: str) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        for name in names:
            with self._locked(name) as entry, entry.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        self._sync()

    def _entries(self) -> Iterator[tuple[str, str]]:
        with contextlib.suppress(FileNotFoundError):
            for file in sorted(os.listdir(self._directory)):
                text = _text(self._directory / file)
                if text is not None:
                    yield urllib.parse.unquote(file), text

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[pathlib.Path]:
        with lockutils.lock(name, "nova-ext-pmem-"):
            yield self._directory / urllib.parse.quote(name, safe="")

    def _sync(self) -> None:
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _text(entry: pathlib.Path) -> str | None:
    try:
        return entry.read_text()
    except FileNotFoundError:
        return None
