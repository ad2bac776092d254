# SPDX-License-Identifier: Apache-2.0
"""Owns a libvirt host's persistent memory: nova's devices, and what is done to them.

This is the :class:`nova_ext.virt.pmem.PmemHost` of the libvirt driver; the parts
know nothing of nova.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import nova.conf

from nova_ext.privsep import pmem as privileged
from nova_ext.virt import pmem as contract
from nova_ext.virt.libvirt.pmem import copy, fence, target, tracker

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
        self._tracker = tracker.PmemTracker(
            pathlib.Path(CONF.state_path, "nova_ext", "pmem", CONF.host),
            self._find,
            lambda: float(CONF.nova_ext.pmem_copy_timeout),
        )
        self.sanitize, self.adopt = self._tracker.sanitize, self._tracker.adopt
        self.expect_copy = self._tracker.expect_copy
        self.pending_sanitize = self._tracker.pending_sanitize
        self.reserve, self.release = self._tracker.reserve, self._tracker.release
        self.reserved = self._tracker.reserved
        self.sanitize_reserved = self._tracker.sanitize_reserved
        self.forget = self._tracker.forget

    def has_pmem(self) -> bool:
        """See :meth:`nova_ext.virt.pmem.PmemHost.has_pmem`."""
        return bool(
            self._driver._vpmems_by_name or self.pending_sanitize() or self.reserved()
        )

    def devices(
        self, instance: Any, prefix: str | None = None
    ) -> list[contract.Device]:
        """See :meth:`nova_ext.virt.pmem.PmemHost.devices`."""
        try:
            found = [_device(v) for v in self._driver._get_vpmems(instance, prefix)]
        except KeyError as exc:
            raise contract.CopyError(
                f"namespace {exc} is not in [libvirt] pmem_namespaces any more"
            ) from exc
        for device in found:
            copy.check(device)
        return found

    def copy(
        self,
        targets: Sequence[contract.Device],
        instance: Any,
        address: str,
        progress: Callable[[int], None],
    ) -> copy.Copy:
        """See :meth:`nova_ext.virt.pmem.PmemHost.copy`."""
        options = CONF.nova_ext
        where: copy.Target
        if address == self._driver.get_host_ip_addr():
            where = target.Local(options.pmem_copy_timeout)
        else:
            where = target.Remote(
                _ssh(address),
                options.pmem_remote_command_prefix,
                options.pmem_copy_timeout,
                instance.uuid,
            )
        pairs = copy.pair(self.devices(instance), targets)
        return copy.Copy(pairs, where, options.pmem_copy_streams, progress)

    def kill_stale_processes(self, uuid: str) -> None:
        """See :meth:`nova_ext.virt.pmem.PmemHost.kill_stale_processes`."""
        fence.end_copy(uuid)

    def digest(self, name: str, offset: int, length: int) -> str:
        """See :meth:`nova_ext.virt.pmem.PmemHost.digest`."""
        device = self._find(name)
        if device is None:
            raise contract.CopyError(f"there is no namespace {name} on this host")
        limit = copy.patience(length, CONF.nova_ext.pmem_copy_timeout)
        try:
            return privileged.digest(device.path, offset, length, limit)
        except privileged.DeviceError as exc:
            raise contract.CopyError(str(exc)) from exc

    def _find(self, name: str) -> contract.Device | None:
        vpmem = self._driver._vpmems_by_name.get(name)
        return None if vpmem is None else _device(vpmem)


def _device(vpmem: Any) -> contract.Device:
    return contract.Device(
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
