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

"""Owns which devices of this host hold data that belongs to nobody.

Each such device has an entry on the host's disk, written before the data. Whoever gets
the device next has it zeroed first; until then an entry survives whatever happens to
nova-compute, the message bus and the database. Without an entry, a device is as nova
left it.
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

    def names(self) -> list[str]:
        """The namespaces with an entry."""
        try:
            return sorted(urllib.parse.unquote(n) for n in os.listdir(self._directory))
        except FileNotFoundError:
            return []

    def add(self, names: Iterable[str], owner: str = "") -> None:
        """Enter devices; what they held before is zeroed when ``owner`` takes them.

        :param owner: whose data they are to receive, for :meth:`accept`
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        for name in names:
            with self._locked(name) as entry, entry.open("w") as file:
                file.write(owner)
                file.flush()
                os.fsync(file.fileno())
        self._sync()

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
                if not entry.exists() or entry.read_text() != owner:
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
                if not entry.exists() or owner not in (None, entry.read_text()):
                    continue
                device = self._lookup(name)
                if device is None:
                    raise pmem_host.CopyError(
                        f"namespace {name} holds data that has to be zeroed, but this "
                        "host does not have it any more"
                    )
                self._zero(device)
                entry.unlink()

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
