# SPDX-License-Identifier: Apache-2.0
"""Runs in a PMEM host: content of devices, without daxio, and processes."""

import contextlib
import hashlib
import mmap
import os
import pathlib
import re
import shutil
import signal
import time

_BLOCK = 1 << 20
_KINDS = {
    "random": os.urandom,
    "zero": bytes,
    "ones": lambda count: b"\1" * count,
}


def size(path: str) -> int:
    """The bytes of a device, as the kernel tells."""
    name = os.path.basename(path)
    return int(pathlib.Path(f"/sys/bus/dax/devices/{name}/size").read_text())


def _view(path: str, access: int, mode: int) -> mmap.mmap:
    device = os.open(path, mode)
    try:
        return mmap.mmap(device, size(path), mmap.MAP_SHARED, access)
    finally:
        os.close(device)


def fill(path: str, kind: str, offset: int = 0, length: int | None = None) -> None:
    """Write ``random`` bytes, zeros (``zero``) or no zero (``ones``) into a device."""
    with _view(path, mmap.PROT_READ | mmap.PROT_WRITE, os.O_RDWR) as view:
        end = len(view) if length is None else offset + length
        for at in range(offset, end, _BLOCK):
            count = min(_BLOCK, end - at)
            view[at : at + count] = _KINDS[kind](count)


def digest(path: str, offset: int = 0, length: int | None = None) -> str:
    """SHA-256 of a device or a range of it."""
    with _view(path, mmap.PROT_READ, os.O_RDONLY) as view:
        end = len(view) if length is None else offset + length
        total = hashlib.sha256()
        for at in range(offset, end, _BLOCK):
            total.update(view[at : min(at + _BLOCK, end)])
        return total.hexdigest()


def zeros(path: str, offset: int = 0, length: int | None = None) -> int:
    """How many bytes of a device or a range of it are zero."""
    with _view(path, mmap.PROT_READ, os.O_RDONLY) as view:
        end = len(view) if length is None else offset + length
        return sum(
            view[at : min(at + _BLOCK, end)].count(0)
            for at in range(offset, end, _BLOCK)
        )


def processes(pattern: str, sleeps_in: str = "") -> dict[int, str]:
    """The command lines that a pattern matches, by pid.

    :param sleeps_in: part of the name of the kernel's function that it waits in
    """
    found = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            where = (entry / "wchan").read_text()
        except OSError:
            continue  # it has ended
        line = b" ".join(words).decode().strip()
        if re.search(pattern, line) and sleeps_in in where:
            found[int(entry.name)] = line
    return found


def wait_for(pattern: str, count: int, sleeps_in: str = "") -> list[int]:
    """Wait until so many processes match; returns their pids."""
    end = time.monotonic() + 100
    while len(found := processes(pattern, sleeps_in)) != count:
        if time.monotonic() > end:
            raise TimeoutError(f"not {count} of {pattern}: {found}; {processes('.')}")
        time.sleep(0.05)
    return list(found)


def send(pids: list[int], number: int) -> None:
    """Send a signal."""
    for pid in pids:
        os.kill(pid, number)


def parents(pids: list[int]) -> list[int]:
    """The parents of processes."""
    lines = [pathlib.Path(f"/proc/{pid}/stat").read_text() for pid in pids]
    return [int(line.rpartition(") ")[2].split()[1]) for line in lines]


def users(path: str) -> list[str]:
    """Who has a device open, mapped or on the command line."""
    found = processes(re.escape(path) + "(?![0-9])")
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            links = [os.readlink(link) for link in (entry / "fd").iterdir()]
            mapped = f" {path}\n" in (entry / "maps").read_text()
        except OSError:
            continue
        if mapped or path in links:
            found[int(entry.name)] = (entry / "comm").read_text()
    return list(found.values())


def leftovers() -> list[str]:
    """The folders of copies that nobody has removed."""
    return [str(path) for path in pathlib.Path("/tmp").glob("nova-ext-pmem-*")]


def sweep() -> None:
    """End and remove what a test has left of its copy."""
    for pid in processes("/dev/dax"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for path in leftovers():
        shutil.rmtree(path)
