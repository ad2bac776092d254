# SPDX-License-Identifier: Apache-2.0
"""One PMEM host: starts and stops it, runs commands in it, puts files there."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import shlex
import subprocess
from collections.abc import Sequence

from aiolib import command, processes, waiting

from pmemhosts import layout, network

#: Seconds until a host that was started answers; it takes ten on a quiet machine.
BOOT = 180.0
_PYTHON = "/opt/python"


class ExecError(layout.Failure):
    """A command in a host ended with an error; the text has the end of its output."""


@dataclasses.dataclass(frozen=True)
class Host:
    name: str
    address: str

    @property
    def console(self) -> pathlib.Path:
        return layout.LOG / f"{self.name}.console"

    @property
    def _pid_file(self) -> pathlib.Path:
        return layout.HOME / f"{self.name}.pid"

    @property
    def _memory(self) -> pathlib.Path:
        return layout.HOME / f"{self.name}.pmem"

    def start(self) -> subprocess.Popen[bytes]:
        """Start its QEMU, with empty persistent memory and the disk as it was built."""
        mib = sum(layout.NAMESPACES.values()) + layout.LABEL_MIB
        self._memory.unlink(missing_ok=True)
        with self._memory.open("wb") as file:
            os.truncate(file.fileno(), mib << 20)
        number = self.address.rpartition(".")[2]
        hosts = ",".join(f"{name}={at}" for name, at in layout.ADDRESSES.items())
        kernel_line = (
            "console=ttyS0 quiet panic=5 mitigations=off "
            f"pmem.name={self.name} pmem.address={self.address}/24 pmem.hosts={hosts}"
        )
        backend = f"memory-backend-file,id=pmem,share=on,mem-path={self._memory}"
        words = [
            *network.INSIDE,
            *("qemu-system-x86_64", "-name", self.name, "-pidfile", self._pid_file),
            *("-machine", "pc,nvdimm=on", "-accel", "tcg", "-cpu", "max"),
            *("-m", "768,slots=2,maxmem=4G", "-nodefaults", "-no-user-config"),
            *("-display", "none", "-no-reboot", "-serial", f"file:{self.console}"),
            *("-kernel", layout.KERNEL, "-initrd", layout.INITRD),
            *("-append", kernel_line),
            # what is written to the disk is gone with the process
            *("-drive", f"file={layout.DISK},format=raw,if=virtio,snapshot=on"),
            "-netdev",
            f"tap,id=net,ifname={network.tap(self.name)},script=no,downscript=no",
            *("-device", f"virtio-net,netdev=net,romfile=,mac=52:54:00:77:00:{number}"),
            *("-object", f"{backend},size={mib}M"),
            *("-device", f"nvdimm,memdev=pmem,label-size={layout.LABEL_MIB}M"),
            *("-device", "virtio-rng-pci"),
        ]
        with (layout.LOG / f"{self.name}.log").open("wb") as log:
            return subprocess.Popen(
                [str(word) for word in words],
                env=command.clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self) -> None:
        """End it at once, as a power failure does."""
        if process := self._process():
            processes.end([process], grace=3)

    def _process(self) -> processes.Process | None:
        """Its QEMU; a pid of another process is never taken for it."""
        try:
            pid = int(self._pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return next((each for each in network.inside() if each.pid == pid), None)

    def running(self) -> bool:
        return self._process() is not None

    def prepare(self, qemu: subprocess.Popen[bytes]) -> None:
        """Wait until it answers, make its namespaces, put this project there.

        :raises layout.Failure: it did not come up
        """
        said = ""

        def answers_or_ended() -> bool:
            nonlocal said
            try:
                self.exec(["true"], timeout=10)
            except (ExecError, subprocess.TimeoutExpired) as error:
                said = str(error)
                return qemu.poll() is not None
            said = ""
            return True

        with contextlib.suppress(TimeoutError):
            waiting.until(self.name, answers_or_ended, BOOT, 0.3)
        if said:
            logs = (self.console, layout.LOG / f"{self.name}.log")
            end = "\n".join(command.tail(log) for log in logs)
            raise layout.Failure(f"{self.name}: {said}\n{end}")
        pairs = [f"{name}={mib}" for name, mib in layout.NAMESPACES.items()]
        self.exec(["host-namespaces", *pairs], timeout=180)
        self.put(layout.REPO / "nova_ext", _PYTHON)

    def exec(
        self, argv: Sequence[str], timeout: float, input: bytes = b""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root.

        :param timeout: seconds after which it is killed in the host
        :raises ExecError: it ended with another status than 0
        """
        done = self.run(argv, timeout, input)
        if done.returncode != 0:
            text = (done.stdout + done.stderr).strip()[-2000:]
            raise ExecError(f"{shlex.join(argv)}: status {done.returncode}: {text}")
        return done

    def run(
        self, argv: Sequence[str], timeout: float, input: bytes = b""
    ) -> subprocess.CompletedProcess[str]:
        """As :meth:`exec`, with any exit status; 124 or 137 if it took too long."""
        remote = shlex.join(["timeout", "-k", "2", f"{timeout:g}", *argv])
        done = subprocess.run(
            [*self.ssh(), remote],
            env=command.clean_environment(),
            input=input,
            capture_output=True,
            timeout=timeout + 10,
            check=False,
        )
        out, err = (
            part.decode(errors="replace") for part in (done.stdout, done.stderr)
        )
        return subprocess.CompletedProcess(list(argv), done.returncode, out, err)

    def ssh(self) -> list[str]:
        """The words before a remote command; all share one connection."""
        options = (
            "BatchMode=yes",
            "ConnectTimeout=5",
            "ControlMaster=auto",
            f"ControlPath={layout.HOME}/{self.name}.ssh",
            "ControlPersist=yes",
            "LogLevel=ERROR",
            "ServerAliveInterval=5",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
        )
        words = [*network.INSIDE, "ssh", "-F", "none", "-i", str(layout.KEY)]
        for option in options:
            words += ["-o", option]
        return [*words, f"root@{self.address}"]

    def put(self, source: pathlib.Path, folder: str) -> None:
        """Copy a file or a tree into a folder of the host, which is made if missing."""
        archive = subprocess.run(
            [
                *("tar", "-C", str(source.parent), "--exclude=__pycache__"),
                *("-cf", "-", source.name),
            ],
            capture_output=True,
            timeout=60,
            check=True,
        ).stdout
        self.exec(["mkdir", "-p", folder], timeout=30)
        self.exec(["tar", "-C", folder, "-xf", "-"], timeout=60, input=archive)

    def devices(self) -> dict[str, str]:
        """The path of the device of each namespace, by name."""
        found = json.loads(self.exec(["ndctl", "list", "-X"], timeout=60).stdout)
        return {
            entry["name"]: f"/dev/{entry['daxregion']['devices'][0]['chardev']}"
            for entry in found
        }
