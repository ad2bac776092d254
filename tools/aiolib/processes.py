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

"""Knows processes by pid and start time, and ends them; knows nothing of services."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import signal
import time
from collections.abc import Callable, Iterable

MARK = "AIO_CLOUD"


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


def marked(home: pathlib.Path) -> list[Process]:
    """Processes that carry the mark of the cloud under `home` in their environment."""
    mark = f"{MARK}={home}".encode()

    def carries(process: Process) -> bool:
        raw = pathlib.Path(f"/proc/{process.pid}/environ").read_bytes()
        return mark in raw.split(b"\0")

    return _matching(carries)


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
        deadline = time.monotonic() + seconds
        while left and time.monotonic() < deadline:
            time.sleep(0.05)
            left = [process for process in left if process.alive()]
