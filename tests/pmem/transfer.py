# SPDX-License-Identifier: Apache-2.0
"""A copy from one PMEM host to another, and what has to be true after it."""

import dataclasses
import pathlib
import re
import uuid
from typing import Any

import pytest
from pmemhosts.host import Host
from pmemhosts.worker import CallError, Worker

MIB = 1 << 20
ALIGN = 2 * MIB
_DOC = pathlib.Path(__file__).parents[2] / "doc/source/admin/pmem.rst"

#: Root, which is faster here, or nova with sudo as the administrator's guide says.
SUDO = {"pmem_ssh_user": None, "pmem_remote_command_prefix": ["sudo", "-n"]}
ROOT = {"pmem_ssh_user": "root", "pmem_remote_command_prefix": []}


def sudoers() -> str:
    """The file for /etc/sudoers.d in the administrator's guide."""
    lines = re.findall(r"^    ((?:Defaults!|nova ALL).*)$", _DOC.read_text(), re.M)
    assert len(lines) == 2
    return "\n".join(lines) + "\n"


@dataclasses.dataclass
class PmemHost:
    """A host, its devices by name of namespace, and a Python in it."""

    host: Host
    devices: dict[str, str]
    worker: Worker

    def inside(self, function: str, device: str, **arguments: Any) -> Any:
        """Call a function of ``inside.py`` on the device of a namespace."""
        return self.python(function, path=self.devices[device], **arguments)

    def python(self, function: str, **arguments: Any) -> Any:
        """Call a function of ``inside.py``."""
        return self.worker.call(f"inside:{function}", 120, **arguments)

    def vpmem(self, name: str) -> dict[str, Any]:
        """The fields of nova's own object for a device."""
        label = name.split("_")[1]
        size = int(label.removesuffix("MB")) * MIB
        path = self.devices[name]
        return {
            "name": name,
            "label": label,
            "devpath": path,
            "size": size,
            "align": ALIGN,
        }


@dataclasses.dataclass
class Compute:
    """A nova-compute; see ``compute.py`` for its settings and methods."""

    on: PmemHost
    lives: bool = False

    def begin(
        self,
        *,
        new: bool,
        overrides: dict[str, Any] | None = None,
        constants: dict[str, int] | None = None,
        threads: int | None = 5,
    ) -> "Compute":
        """Start it."""
        self.on.worker.call(
            "compute:begin",
            90,
            new=new,
            address=self.on.host.address,
            vpmems=[self.on.vpmem(name) for name in self.on.devices],
            overrides=overrides or {},
            constants=constants or {},
            threads=threads,
        )
        self.lives = True
        return self

    def call(self, method: str, seconds: float = 120, /, **arguments: Any) -> Any:
        """Call a method, see ``compute.py``."""
        return self.on.worker.call(
            "compute:call",
            seconds + 20,
            method=method,
            seconds=seconds + 10,
            arguments=arguments,
        )

    def kill(self) -> None:
        """Kill it, and nothing that it has started."""
        self.lives = False
        self.on.worker.call("compute:end", 30)


class Transfer:
    """The copy of a server's devices.

    :param digests: of the source's devices, which nothing changes
    """

    def __init__(
        self, source: Compute, destination: Compute, digests: dict[str, str]
    ) -> None:
        self.source, self.destination = source, destination
        self.uuid = str(uuid.uuid4())
        self.digests = digests
        self.names: list[str] = []
        self.targets: list[str] = []

    def prepare(
        self,
        names: dict[str, str],
        *,
        hold: int = 0,
        address: str = "",
        **wrong: Any,
    ) -> int:
        """Make it; returns its bytes.

        :param names: of the source's devices, and the destination's for each
        :param hold: so many bytes are on their way, and it waits
        :param wrong: what nova is mistaken about in the destination's devices
        """
        self.names, self.targets = list(names), list(names.values())
        peer = self.destination.on
        targets = []
        for target in self.targets:
            fields = peer.vpmem(target)
            fields["path"] = fields.pop("devpath")
            targets.append({**fields, **wrong})
        # labels are not what these tests are about: each goes to its own
        for name, target in zip(self.names, targets, strict=True):
            target["label"] = self.source.on.vpmem(name)["label"]
        self.destination.call("expect_copy", names=self.targets, owner=self.uuid)
        total = self.source.call(
            "prepare",
            names=self.names,
            targets=targets,
            uuid=self.uuid,
            address=address or peer.host.address,
            hold=hold,
        )
        assert isinstance(total, int)
        return total

    def run(self, timeout: float = 300) -> None:
        """Copy everything; raises CallError of the kind of what it raises."""
        self.source.call("start")
        self.source.call("outcome", timeout, timeout=timeout)

    def fails(self, reason: str, timeout: float = 180) -> None:
        """Wait for its failure, which leaves nothing on the source but the data."""
        with pytest.raises(CallError, match=reason) as caught:
            self.source.call("outcome", timeout, timeout=timeout)
        assert caught.value.kind == "CopyError"
        self.source_is_whole()

    def source_is_whole(self) -> None:
        """Nothing runs on the source, and its data is what it was."""
        source = self.source.on
        assert (
            source.python("processes", pattern=r"/dev/dax|nova-ext-pmem|\[mux\]") == {}
        )
        assert source.python("leftovers") == []
        for name in self.names:
            assert source.inside("digest", name) == self.digests[name]

    def destination_is_dirty(self) -> None:
        """Something has arrived, so that a clean destination means something."""
        peer = self.destination.on
        for name in self.targets:
            assert peer.inside("zeros", name) < peer.vpmem(name)["size"] - MIB

    def clean(self) -> None:
        """Zero what the destination has of it, and make sure of it."""
        self.destination.call("sanitize", names=self.targets, owner=self.uuid)
        peer = self.destination.on
        for name in self.targets:
            assert peer.inside("users", name) == []
            assert peer.inside("zeros", name) == peer.vpmem(name)["size"]
        assert self.destination.call("pending_sanitize") == []
