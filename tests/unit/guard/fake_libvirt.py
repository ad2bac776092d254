# SPDX-License-Identifier: Apache-2.0
"""Owns a libvirt of plain objects, in the place of its two Python modules."""

import base64
import json
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

UUID = "0d4b1e9c-9f2f-4d2a-8b0c-6b0a3a4f7c11"
OTHER = "5b0f5c3e-1f0a-4c57-9d0b-3a8a6f1b2c3d"

#: From libvirt's virterror.h and libvirt-domain.h.
ERRORS = {
    "VIR_ERR_INTERNAL_ERROR": 1,
    "VIR_ERR_SYSTEM_ERROR": 38,
    "VIR_ERR_NO_DOMAIN": 42,
    "VIR_ERR_OPERATION_INVALID": 55,
    "VIR_ERR_OPERATION_TIMEOUT": 68,
    "VIR_ERR_ARGUMENT_UNSUPPORTED": 74,
    "VIR_ERR_AGENT_UNRESPONSIVE": 86,
}
STATES = {
    "VIR_DOMAIN_RUNNING": 1,
    "VIR_DOMAIN_PAUSED": 3,
    "VIR_DOMAIN_SHUTOFF": 5,
}
RUNNING_RESTORED = 3
REASONS = {
    "VIR_DOMAIN_SHUTOFF_UNKNOWN": 0,
    "VIR_DOMAIN_SHUTOFF_SHUTDOWN": 1,
    "VIR_DOMAIN_SHUTOFF_DESTROYED": 2,
    "VIR_DOMAIN_SHUTOFF_CRASHED": 3,
    "VIR_DOMAIN_SHUTOFF_MIGRATED": 4,
    "VIR_DOMAIN_SHUTOFF_SAVED": 5,
    "VIR_DOMAIN_SHUTOFF_FAILED": 6,
    "VIR_DOMAIN_SHUTOFF_FROM_SNAPSHOT": 7,
    "VIR_DOMAIN_SHUTOFF_DAEMON": 8,
}

CHANNEL = """
<channel type='unix'>
  <target type='virtio' name='org.libvirt.another.0'/>
</channel>
<channel type='unix'>
  <target type='virtio' name='org.qemu.guest_agent.0' {state}/>
</channel>
"""

#: A disk, a volume, two kinds of swap, and what a guest cannot write or no one counts.
DISKS = """
<disk type='file' device='disk'>
  <source file='/instances/x/disk'/><target dev='vda' bus='virtio'/>
</disk>
<disk type='network' device='disk'>
  <source protocol='rbd' name='volumes/volume-1'/><target dev='vdb' bus='virtio'/>
</disk>
<disk type='file' device='disk'>
  <source file='/instances/x/disk.swap'/><target dev='vdc' bus='virtio'/>
</disk>
<disk type='network' device='disk'>
  <source protocol='rbd' name='vms/x_disk.swap'/><target dev='vdd' bus='virtio'/>
</disk>
<disk type='file' device='disk'>
  <source file='/instances/x/disk.config'/><target dev='vde' bus='virtio'/>
  <readonly/>
</disk>
<disk type='file' device='cdrom'>
  <source file='/images/cd'/><target dev='hda' bus='ide'/>
</disk>
<disk type='block' device='lun'>
  <source dev='/dev/sdx'/><target dev='sda' bus='scsi'/>
</disk>
<disk type='file' device='disk'><target dev='vdf' bus='virtio'/></disk>
"""


class LibvirtError(Exception):
    def __init__(self, code: int, text: str = "libvirt says so") -> None:
        super().__init__(text)
        self._code = code

    def get_error_code(self) -> int:
        return self._code


class Domain:
    """A domain whose guest has an agent.

    :ivar answers: of the agent to each command
    :ivar errors: what is raised by the method of that name, or for that command
    :ivar asked: command, arguments, timeout and flags of each call
    """

    def __init__(self) -> None:
        self.id = 3
        self.active = True
        self.running: tuple[int, int] = (STATES["VIR_DOMAIN_RUNNING"], 1)
        self.saved = False
        self.channel = CHANNEL.format(state="state='connected'")
        self.written = {"vda": 1000, "vdb": 200, "vdf": 30}
        self.answers: dict[str, Any] = {"guest-fsfreeze-status": "thawed"}
        self.errors: dict[str, Exception] = {}
        self.asked: list[tuple[str, dict[str, Any], int, int]] = []

    def _raise(self, name: str) -> None:
        if name in self.errors:
            raise self.errors[name]

    def shut_off(self, reason: str, saved: bool = False) -> None:
        self.active, self.saved = False, saved
        self.running = (STATES["VIR_DOMAIN_SHUTOFF"], REASONS[reason])

    def ID(self) -> int:
        self._raise("ID")
        return self.id

    def isActive(self) -> int:
        self._raise("isActive")
        return int(self.active)

    def state(self) -> list[int]:
        self._raise("state")
        return list(self.running)

    def hasManagedSaveImage(self) -> int:
        return int(self.saved)

    def XMLDesc(self, flags: int) -> str:
        self._raise("XMLDesc")
        return f"<domain><devices>{DISKS}{self.channel}</devices></domain>"

    def blockStats(self, dev: str) -> tuple[int, ...]:
        self._raise("blockStats")
        return (1, 2, 3, self.written[dev], 0)

    def agent(self, command: str, timeout: int, flags: int) -> str:
        words = json.loads(command)
        name = words.pop("execute")
        self.asked.append((name, words.pop("arguments", {}), timeout, flags))
        assert not words
        self._raise(name)
        answer = self.answers[name]
        return answer if isinstance(answer, Raw) else json.dumps({"return": answer})

    def mount(self, table: str) -> None:
        """Let the agent read this as /proc/self/mounts."""
        encoded = base64.b64encode(table.encode()).decode()
        self.answers["guest-file-open"] = 1000
        self.answers["guest-file-read"] = {"count": len(table), "buf-b64": encoded}
        self.answers["guest-file-close"] = {}


class Raw(str):
    """An answer of an agent as it is."""


class Connection:
    """A connection to libvirt.

    :ivar used: how many guests were looked up
    """

    def __init__(self, domains: dict[str, Domain]) -> None:
        self._domains = domains
        self.alive: Callable[[], int] = lambda: 1
        self.keep_alive: tuple[int, int] | None = None
        self.used = 0

    def setKeepAlive(self, interval: int, count: int) -> int:
        self.keep_alive = (interval, count)
        return 0

    def isAlive(self) -> int:
        return self.alive()

    def lookupByUUIDString(self, uuid: str) -> Domain:
        self.used += 1
        if uuid not in self._domains:
            raise LibvirtError(ERRORS["VIR_ERR_NO_DOMAIN"], "no domain")
        return self._domains[uuid]


class Libvirt:
    """libvirt and its domains, for as long as a test.

    :ivar opened: the connections that were opened
    :ivar error: raised instead of opening one
    """

    uri = "test:///fake"

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.domains = {UUID: Domain(), OTHER: Domain()}
        self.opened: list[Connection] = []
        self.error: Exception | None = None
        module = types.ModuleType("libvirt")
        vars(module).update(
            ERRORS, **STATES, **REASONS, libvirtError=LibvirtError, open=self.open
        )
        qemu = types.ModuleType("libvirt_qemu")
        vars(qemu)["qemuAgentCommand"] = Domain.agent
        monkeypatch.setitem(sys.modules, "libvirt", module)
        monkeypatch.setitem(sys.modules, "libvirt_qemu", qemu)

    @property
    def domain(self) -> Domain:
        """The domain of :data:`UUID`."""
        return self.domains[UUID]

    def open(self, uri: str) -> Connection:
        assert uri == self.uri
        if self.error:
            raise self.error
        self.opened.append(Connection(self.domains))
        return self.opened[-1]
