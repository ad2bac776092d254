# SPDX-License-Identifier: Apache-2.0
"""Knows processes by pid and start time, and ends them; knows nothing of services."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import signal
from collections.abc import Callable, Iterable

from aiolib import waiting

#: The variable in the environment of each process of a cloud: the cloud's home.
HOME_VARIABLE = "AIO_CLOUD"


@dataclasses.dataclass(frozen=True)
class Process:
    """One process; the start time tells it from a later one with the same pid."""

    pid: int
    start: int

    def alive(self) -> bool:
        with contextlib.suppress(OSError):
            os.waitpid(self.pid, os.WNOHANG)  # ours to reap, if it is our child
        return find(self.pid) == self

    def send(self, number: int) -> None:
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def command(self) -> str:
        with contextlib.suppress(OSError):
            raw = pathlib.Path(f"/proc/{self.pid}/cmdline").read_bytes()
            return raw.replace(b"\0", b" ").decode(errors="replace").strip()
        return ""


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the state on (proc(5)); None if there is none."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text.rpartition(") ")[2].split()


def find(pid: int) -> Process | None:
    """The running process with this pid; a zombie counts as ended."""
    fields = _stat(pid)
    if fields is None or fields[0] in "ZX":
        return None
    return Process(pid, int(fields[19]))


def _every() -> Iterable[Process]:
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (process := find(int(entry))):
            yield process


def tree(root: Process) -> list[Process]:
    """The process and its descendants."""
    children: dict[int, list[Process]] = {}
    for process in _every():
        if fields := _stat(process.pid):
            children.setdefault(int(fields[1]), []).append(process)
    found, todo = [], [root]
    while todo:
        process = todo.pop()
        found.append(process)
        todo += children.get(process.pid, [])
    return found


def belonging_to(home: pathlib.Path) -> list[Process]:
    """Processes whose environment says that they are of the cloud under `home`."""
    entry = f"{HOME_VARIABLE}={home}".encode()

    def has_it(process: Process) -> bool:
        raw = pathlib.Path(f"/proc/{process.pid}/environ").read_bytes()
        return entry in raw.split(b"\0")

    return _matching(has_it)


def seeing(file: pathlib.Path, target: str) -> list[Process]:
    """Processes that see `file` at `target`: the ones in a host that mounted it."""
    return _matching(lambda p: os.path.samefile(f"/proc/{p.pid}/root{target}", file))


def in_network(namespace: pathlib.Path) -> list[Process]:
    """Processes in the network namespace at `namespace`, such as /run/netns/NAME."""
    return _matching(lambda p: os.path.samefile(f"/proc/{p.pid}/ns/net", namespace))


def _matching(test: Callable[[Process], bool]) -> list[Process]:
    found = []
    for process in _every():
        with contextlib.suppress(OSError):
            if test(process):
                found.append(process)
    return found


def end(processes: Iterable[Process], grace: float) -> None:
    """Ask all to end, wait `grace` seconds for the last one, then kill the rest."""
    left = [process for process in processes if process.alive()]
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        for process in left:
            process.send(number)
            if number == signal.SIGTERM:
                process.send(signal.SIGCONT)  # a stopped one would not hear it

        def ended() -> bool:
            left[:] = [process for process in left if process.alive()]
            return not left

        with contextlib.suppress(TimeoutError):
            waiting.until("their end", ended, seconds, 0.05)
