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

"""Owns a libvirt host's persistent memory: nova's devices, and what is done to them.

This is the :class:`nova_ext.virt.pmem_host.PmemHost` of the libvirt driver; the parts
know nothing of nova.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import nova.conf

from nova_ext.privsep import pmem as privileged
from nova_ext.virt import pmem_host
from nova_ext.virt.libvirt import pmem, pmem_fence, pmem_ledger, pmem_target

CONF = nova.conf.CONF

#: Seconds until ssh gives up: to connect, and when the destination is silent.
_SSH_OPTIONS = {
    "BatchMode": "yes",
    "Compression": "no",
    "ConnectTimeout": "10",
    "ControlPath": "none",
    "ServerAliveCountMax": "3",
    "ServerAliveInterval": "5",
}


class LibvirtPmemHost:
    """Persistent memory of this host.

    :param driver: nova's libvirt driver
    """

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._ledger = pmem_ledger.Ledger(
            pathlib.Path(CONF.state_path, "nova_ext", "pmem", CONF.host),
            self._find,
            lambda: float(CONF.nova_ext.pmem_copy_timeout),
        )
        self.clean, self.accept = self._ledger.clean, self._ledger.accept
        self.expect, self.dirty = self._ledger.add, self._ledger.dirty
        self.hold, self.unhold = self._ledger.hold, self._ledger.unhold
        self.held, self.clean_held = self._ledger.held, self._ledger.clean_held
        self.forget = self._ledger.remove

    def concerned(self) -> bool:
        """See :meth:`nova_ext.virt.pmem_host.PmemHost.concerned`."""
        return bool(self._driver._vpmems_by_name or self.dirty() or self.held())

    def devices(
        self, instance: Any, prefix: str | None = None
    ) -> list[pmem_host.Device]:
        """See :meth:`nova_ext.virt.pmem_host.PmemHost.devices`."""
        try:
            found = [_device(v) for v in self._driver._get_vpmems(instance, prefix)]
        except KeyError as exc:
            raise pmem_host.CopyError(
                f"namespace {exc} is not in [libvirt] pmem_namespaces any more"
            ) from exc
        for device in found:
            pmem.check(device)
        return found

    def copy(
        self,
        targets: Sequence[pmem_host.Device],
        instance: Any,
        address: str,
        progress: Callable[[int], None],
    ) -> pmem.Copy:
        """See :meth:`nova_ext.virt.pmem_host.PmemHost.copy`."""
        options = CONF.nova_ext
        target: pmem.Target
        if address == self._driver.get_host_ip_addr():
            target = pmem_target.Local(options.pmem_copy_timeout)
        else:
            target = pmem_target.Remote(
                _ssh(address),
                options.pmem_remote_command_prefix,
                options.pmem_copy_timeout,
                instance.uuid,
            )
        pairs = pmem.pair(self.devices(instance), targets)
        return pmem.Copy(pairs, target, options.pmem_copy_streams, progress)

    def end_copies(self, uuid: str) -> None:
        """See :meth:`nova_ext.virt.pmem_host.PmemHost.end_copies`."""
        pmem_fence.end_copy(uuid)

    def digest(self, name: str, offset: int, length: int) -> str:
        """See :meth:`nova_ext.virt.pmem_host.PmemHost.digest`."""
        device = self._find(name)
        if device is None:
            raise pmem_host.CopyError(f"there is no namespace {name} on this host")
        limit = pmem.patience(length, CONF.nova_ext.pmem_copy_timeout)
        try:
            return privileged.digest(device.path, offset, length, limit)
        except privileged.DeviceError as exc:
            raise pmem_host.CopyError(str(exc)) from exc

    def _find(self, name: str) -> pmem_host.Device | None:
        vpmem = self._driver._vpmems_by_name.get(name)
        return None if vpmem is None else _device(vpmem)


def _device(vpmem: Any) -> pmem_host.Device:
    return pmem_host.Device(
        vpmem.name, vpmem.label, vpmem.devpath, vpmem.size, vpmem.align
    )


def _ssh(address: str) -> list[str]:
    options = CONF.nova_ext
    words = ["ssh", "-T", "-x", "-c", ",".join(options.pmem_ssh_ciphers)]
    if options.pmem_ssh_user:
        words += ["-l", options.pmem_ssh_user]
    if options.pmem_ssh_identity_file:
        words += ["-i", options.pmem_ssh_identity_file]
    # Of an option that comes twice, ssh takes the first.
    for option in options.pmem_ssh_options:
        words += ["-o", option]
    for name, value in _SSH_OPTIONS.items():
        words += ["-o", f"{name}={value}"]
    return [*words, address]
