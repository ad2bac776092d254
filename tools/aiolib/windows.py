# SPDX-License-Identifier: Apache-2.0
"""What is seen of a freeze window from outside: its record, the console, the domain.

It asks neither nova nor the extension, so that it can bear witness against both.
"""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import signal
import subprocess
import threading
import time
import uuid
from typing import Any

from aiolib import processes, waiting
from aiolib.client import AgentError, Cloud
from aiolib.settings import Settings

_LINE = re.compile(rb"^(W|H freeze|H thaw) ")


def record(settings: Settings, host: str, server_id: str) -> dict[str, Any] | None:
    """What the host has recorded of the guest's freeze; None if nothing."""
    path = settings.guard_directory(host) / f"{server_id}.json"
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return None


def due(settings: Settings, host: str, server_id: str) -> float:
    """The deadline of a frozen guest, in seconds of the epoch.

    :raises LookupError: it has none
    """
    found = record(settings, host, server_id)
    if found is None or not found["due"]:
        raise LookupError(f"no deadline of {server_id} on {host}: {found}")
    return float(found["due"]["wall"])


def is_frozen(cloud: Cloud, server_id: str) -> bool:
    """Whether the guest runs and its agent says that it is frozen."""
    try:
        return str(cloud.agent(server_id, "guest-fsfreeze-status")) == "frozen"
    except (AgentError, LookupError):
        return False


def is_thawed(cloud: Cloud, server_id: str) -> bool:
    """Whether the guest runs and its agent says that it is thawed."""
    try:
        return str(cloud.agent(server_id, "guest-fsfreeze-status")) == "thawed"
    except (AgentError, LookupError):
        return False


def domain(cloud: Cloud, host: str, command: str, server_id: str) -> str:
    """Run a command of virsh on a guest; its output.

    :raises RuntimeError: it failed
    """
    words = [*cloud.virsh(host), command, server_id]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RuntimeError(f"virsh {command}: {done.stderr.strip()}")
    return done.stdout.strip()


def _running(cloud: Cloud, host: str, words: str) -> list[processes.Process]:
    """The processes of a host that have these words in their command lines."""
    path = cloud.settings.host_dir(host) / "hosts"
    found = processes.seeing(path, "/etc/hosts")
    return [process for process in found if words in process.command()]


def crash(cloud: Cloud, host: str, server_id: str) -> None:
    """Kill the emulator of a guest and wait until libvirt has noticed."""
    for process in _running(cloud, host, f"-uuid {server_id}"):
        process.send(signal.SIGKILL)
    waiting.until(
        "the end of the guest",
        lambda: domain(cloud, host, "domstate", server_id) == "shut off",
        20,
    )


def reboot_host(cloud: Cloud, host: str) -> None:
    """Let nothing of a compute host survive but its disks, and start it again.

    It has another boot ID afterwards, but its clock goes on.
    """
    directory = cloud.settings.host_dir(host)
    for service in (f"nova-compute-{host}", f"libvirtd-{host}"):
        cloud.kill(service)
    processes.end(_running(cloud, host, "qemu-system"), 0)
    for left in (directory / "run").iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    boot_id = directory / "boot_id"
    boot_id.write_text(f"{uuid.uuid4()}\n")
    bind = ["mount", "--bind", str(boot_id), "/proc/sys/kernel/random/boot_id"]
    subprocess.run([*cloud.in_host(host), *bind], timeout=30, check=True)
    for service in (f"libvirtd-{host}", f"nova-compute-{host}"):
        cloud.start(service)


class Witness:
    """Notes when the guest said on its console that it wrote, froze and thawed.

    :ivar seen: moments in seconds of the epoch, each with ``W``, ``H freeze`` or
        ``H thaw``
    """

    def __init__(self, console: pathlib.Path) -> None:
        self.seen: list[tuple[float, str]] = []
        self._console = console
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        with self._console.open("rb") as console:
            console.seek(0, 2)
            rest = b""
            while not self._ended.wait(0.02):
                *lines, rest = (rest + console.read()).split(b"\n")
                now = time.time()
                for line in lines:
                    if found := _LINE.match(line):
                        self.seen.append((now, found[1].decode()))

    def close(self) -> None:
        """Stop watching."""
        self._ended.set()
        self._thread.join()

    def count(self, what: str, begin: float, end: float) -> int:
        """How often something was seen between two moments."""
        return sum(begin < when < end and kind == what for when, kind in self.seen[:])

    def first(self, what: str, begin: float) -> float | None:
        """When something was first seen after a moment."""
        for when, kind in self.seen[:]:
            if when > begin and kind == what:
                return when
        return None
