# SPDX-License-Identifier: Apache-2.0
"""A chain of guests whose records tell whether a cut of their disks is consistent.

Each guest writes, with every record, the newest number that the next guest of the chain
has synced to its own disk. A cut of all disks that has a number in the one and not yet
in the other one never was: it would make a guest know the future.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import pathlib
import re
import subprocess
import tempfile
import threading
import tty
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from aiolib import ceph, evidence, hosts, records
from aiolib.client import Cloud
from aiolib.settings import STORAGE_HOST, Failure

_PAUSE = 0.005  # s
_TIMEOUT = 60  # s
_RECORD = re.compile(rb"(\d+) (\d+\.\d+) (\d+)\n")
_SYNCED = re.compile(rb"^W (\d+) [\d.]+\r?\n", re.MULTILINE)

# Debian's Python has the modules for Ceph. The last partition goes to a file.
_CEPH = """
import struct, sys, rados, rbd
conf, user, name, snapshot, path = sys.argv[1:]
with rados.Rados(conffile=conf, rados_id=user) as cluster:
    with cluster.open_ioctx("volumes") as pool:
        with rbd.Image(pool, name, snapshot, read_only=True) as disk:
            table = disk.read(446, 64)
            parts = [struct.unpack_from("<8xII", table, 16 * n) for n in range(4)]
            start, size = max(parts)
            with open(path, "wb") as file:
                for at in range(start * 512, (start + size) * 512, 1 << 20):
                    file.write(disk.read(at, 1 << 20))
"""


@dataclasses.dataclass(frozen=True)
class Record:
    """One line of a guest's writer.

    :param heard: the number of the next guest's newest record, as far as is known
    """

    number: int
    uptime: float
    heard: int


@dataclasses.dataclass(frozen=True)
class Disk:
    """What a cut has of a guest's disk.

    :param unclean: whether its file system has to be recovered first
    """

    records: list[Record]
    unclean: bool


def parse(text: bytes) -> list[Record]:
    """The records that have their end."""
    found = [_RECORD.fullmatch(line) for line in text.splitlines(keepends=True)]
    return [Record(int(m[1]), float(m[2]), int(m[3])) for m in found if m]


def newest(console: bytes) -> tuple[bytes | None, bytes]:
    """The last number that the console tells as synced, and what has no end yet."""
    told = _SYNCED.findall(console)
    return (told[-1] if told else None), console.rpartition(b"\n")[2]


def order_kept(disks: Sequence[Sequence[Record]]) -> list[str]:
    """What is wrong with a cut of a chain; one text for each pair of neighbours.

    :param disks: the records of the guests in the order of the chain
    """
    wrong = []
    for place, (disk, following) in enumerate(itertools.pairwise(disks), 1):
        heard = max((record.heard for record in disk), default=0)
        last = max((record.number for record in following), default=0)
        if heard > last:
            wrong.append(
                f"guest {place} has heard {heard}, guest {place + 1} has {last}"
            )
    return wrong


class _Wire:
    """From the console of one guest to that of the guest before it."""

    def __init__(self, cloud: Cloud, speaker: str, hearer: str) -> None:
        self._speaker = cloud.console_log(speaker).open("rb", buffering=0)
        self._speaker.seek(0, os.SEEK_END)
        self._rest = b""
        # an end that is not read stops the guest when it prints
        flags = os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK
        self._hearer = os.open(_terminal(cloud, hearer), flags)
        tty.setraw(self._hearer)

    def carry(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._hearer, 1 << 16):
                pass
        if console := self._speaker.read():
            number, self._rest = newest(self._rest + console)
            if number:
                # a line that is cut off is followed by a full one: both are no number
                with contextlib.suppress(BlockingIOError):
                    os.write(self._hearer, b"N %s\n" % number)

    def close(self) -> None:
        os.close(self._hearer)
        self._speaker.close()


def _terminal(cloud: Cloud, server_id: str) -> pathlib.Path:
    """The other end of the guest's serial console, as the machine sees it."""
    host = cloud.find_host(server_id)
    words = [*cloud.virsh(host), "ttyconsole", server_id]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
    holder = records.read(cloud.settings, hosts.record_name(host))
    if holder is None:
        raise LookupError(f"host {host} is not up")
    return pathlib.Path(f"/proc/{holder.pid}/root{done.stdout.strip()}")


class Chain:
    """Tells each server what the next one of them has written, until it is left.

    Servers that end meanwhile are no longer told.

    :param servers: IDs, in the order of the chain
    """

    def __init__(self, cloud: Cloud, servers: Sequence[str]) -> None:
        self._pairs = [(after, one) for one, after in itertools.pairwise(servers)]
        self._cloud = cloud
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chain", daemon=True)
        self._wires: list[_Wire] = []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            for speaker, hearer in self._pairs:
                wire = _Wire(self._cloud, speaker, hearer)
                undo.callback(wire.close)
                self._wires.append(wire)
            undo.pop_all()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()
        for wire in self._wires:
            wire.close()

    def _run(self) -> None:
        working = list(self._wires)
        while working and not self._end.wait(_PAUSE):
            for wire in list(working):
                try:
                    wire.carry()
                except OSError:
                    working.remove(wire)


def found(cloud: Cloud, server_id: str) -> Record | None:
    """The last record that the server found on its disk when it booted."""
    text = cloud.guest_output(server_id, "/bin/cat", "/run/found")
    return next(iter(parse(text.encode())), None)


def journal_was_clean(cloud: Cloud, server_id: str) -> bool:
    """Whether the server mounted its disk without a recovery, by its kernel's word."""
    said = cloud.guest_output(server_id, "/bin/dmesg")
    if "EXT4-fs (vda2): mounted filesystem" not in said:
        raise Failure(f"the kernel of {server_id} does not tell of its file system")
    return "recovery" not in said and "recovering" not in said


def heard(cloud: Cloud, server_id: str) -> int:
    """The number that the server's listener has now; 0: none."""
    script = "cat /run/heard 2>/dev/null || :"
    said = cloud.guest_output(server_id, "/bin/sh", "-c", script).split()
    return int(said[0]) if said else 0


def hush(cloud: Cloud, server_id: str) -> None:
    """Stop the server's writer, which needs a tenth of a core where QEMU emulates."""
    cloud.guest_output(server_id, "/usr/bin/killall", "-STOP", "writer")


def records_of_snapshot(cloud: Cloud, volume_id: str, snapshot_id: str) -> Disk:
    """What a Cinder snapshot of a guest's first disk on Ceph holds."""
    with _root(cloud, f"volume-{volume_id}", f"snapshot-{snapshot_id}") as path:
        unclean = evidence.has_feature(path, "needs_recovery")
        # 1: errors are corrected, as is a journal that is replayed
        _tool("e2fsck", "-fy", str(path), good=(0, 1))
        text = _tool("debugfs", "-R", "cat /data/counter", str(path))
    return Disk(parse(text), unclean)


@contextlib.contextmanager
def _root(cloud: Cloud, volume: str, snapshot: str) -> Iterator[pathlib.Path]:
    """A copy of the root file system that a snapshot holds."""
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "root.ext4"
        words = [*cloud.in_host(STORAGE_HOST), "/usr/bin/python3", "-c", _CEPH]
        words += [str(ceph.config_path(cloud.settings)), ceph.USER, volume, snapshot]
        _tool(*words, str(path))
        yield path


def _tool(*words: str, good: Sequence[int] = (0,)) -> bytes:
    done = subprocess.run(words, capture_output=True, timeout=_TIMEOUT)
    if done.returncode not in good:
        text = done.stderr.decode(errors="replace").strip()[-300:]
        raise Failure(f"{words[0]} {words[-1]}: {text}")
    return done.stdout
