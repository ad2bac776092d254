# SPDX-License-Identifier: Apache-2.0
"""Owns a compute host of plain objects: its clock, its guests and their agents."""

import contextlib
import errno
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest

from nova_ext import atomic_file
from nova_ext.guard import guests
from nova_ext.guard.clock import Moment
from nova_ext.guard.records import Phase, Record, Records
from nova_ext.guard.thaw import Thawer

UUID = "0d4b1e9c-9f2f-4d2a-8b0c-6b0a3a4f7c11"
OTHER = "5b0f5c3e-1f0a-4c57-9d0b-3a8a6f1b2c3d"
WINDOW = "a3c1f0de-0000-4000-8000-000000000001"
LATER = "a3c1f0de-0000-4000-8000-000000000002"

TIMEOUT = 5


class Clock:
    """A clock that only a test moves.

    :ivar now: 2026-11-27T12:00:00Z
    """

    def __init__(self) -> None:
        self.now = Moment("boot", 1000.0, 1795780800.0)

    def __call__(self) -> Moment:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now = self.now.after(seconds)

    def reboot(self) -> None:
        self.now = Moment("another boot", 20.0, self.now.wall + 60)


def fails(error: Exception) -> Callable[[], NoReturn]:
    """Something that a guest does instead of what it is told."""

    def fail() -> NoReturn:
        raise error

    return fail


class Guest:
    """A running guest with two file systems; see :class:`nova_ext.guard.guests.Guest`.

    :ivar mounted: the file systems that its agent lists
    :ivar freezable: how many file systems a freeze freezes
    :ivar frozen: how many are frozen
    :ivar word: what the agent says of them; None: the truth
    :ivar does: what is done first when the method of that name is called
    :ivar calls: the commands that reached the agent
    """

    def __init__(self) -> None:
        self.domain = 3
        self.mounted = [
            guests.FileSystem("vda1", "/", "ext4"),
            guests.FileSystem("vda2", "/data", "xfs"),
        ]
        self.read_only: set[str] = set()
        self.allowed = {guests.FREEZE, guests.THAW, guests.STATUS, guests.FSINFO}
        self.freezable = 2
        self.frozen = 0
        self.word: str | None = None
        self.bytes = 1000
        self.does: dict[str, Callable[[], Any]] = {}
        self.calls: list[str] = []

    def _do(self, name: str) -> None:
        if name in self.does:
            self.does[name]()

    def _call(self, name: str) -> None:
        self.calls.append(name)
        self._do(name)

    def domain_id(self) -> int:
        self._do("domain_id")
        return self.domain

    def require_agent(self) -> None:
        self._do("require_agent")

    def commands(self) -> set[str]:
        self._call("commands")
        return self.allowed

    def status(self) -> str:
        self._call("status")
        if self.word is not None:
            return self.word
        return "frozen" if self.frozen else "thawed"

    def freeze(self) -> int:
        self._call("freeze")
        self.frozen = self.freezable
        return self.frozen

    def thaw(self) -> int:
        self._call("thaw")
        thawed, self.frozen = self.frozen, 0
        return thawed

    def file_systems(self) -> list[guests.FileSystem]:
        self._call("file_systems")
        return self.mounted

    def mounted_read_only(self) -> set[str]:
        self._call("mounted_read_only")
        return self.read_only

    def written(self) -> int:
        self._do("written")
        return self.bytes


class Guests:
    """The guests of this host; see :class:`nova_ext.guard.guests.Guests`.

    :ivar of: each guest, by its instance; or what is raised in its place
    :ivar asked: instance and urgency of each guest that was asked for
    """

    def __init__(self) -> None:
        self.of: dict[str, Guest | Exception] = {UUID: Guest(), OTHER: Guest()}
        self.asked: list[tuple[str, bool]] = []

    @contextlib.contextmanager
    def guest(self, uuid: str, urgent: bool) -> Iterator[Guest]:
        self.asked.append((uuid, urgent))
        found = self.of[uuid]
        if isinstance(found, Exception):
            raise found
        yield found


class Disk:
    """The disk of the records, which may be full.

    :ivar full: says of the writes from now on, the first is 1, which of them fail
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full: Callable[[int], bool] = lambda number: False
        self._writes = 0
        self._write = atomic_file.write
        monkeypatch.setattr(atomic_file, "write", self.write)

    def write(self, path: pathlib.Path, text: str, **more: Any) -> None:
        self._writes += 1
        if self.full(self._writes):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._write(path, text, **more)

    def fill(self, full: Callable[[int], bool] = lambda number: True) -> None:
        self._writes = 0
        self.full = full


class Host:
    """A compute host, with what thaws its guests.

    :ivar timeout: seconds that an agent has; a lock is waited for as long, really
    """

    def __init__(self, directory: pathlib.Path) -> None:
        self.timeout = TIMEOUT
        self.clock = Clock()
        self.guests = Guests()
        self.records = Records(directory)
        self.thawer = Thawer(
            self.records, self.guests, lambda: self.timeout, self.clock
        )

    @property
    def guest(self) -> Guest:
        """The guest of :data:`UUID`."""
        found = self.guests.of[UUID]
        assert isinstance(found, Guest)
        return found

    def freezing(self, uuid: str = UUID, **changes: Any) -> Record:
        """Record a freeze that is about to be sent, or was."""
        values: dict[str, Any] = {
            "uuid": uuid,
            "window_id": WINDOW,
            "phase": Phase.FREEZING,
            "began": self.clock(),
            "until": self.clock().after(35),
        }
        record = Record(**(values | changes))
        self.records.write(record)
        return record

    def frozen(self, uuid: str = UUID, seconds: float = 60, **changes: Any) -> Record:
        """Freeze a guest for some seconds, and record it."""
        guest = self.guests.of[uuid]
        assert isinstance(guest, Guest)
        guest.freeze()
        guest.calls.clear()
        values: dict[str, Any] = {
            "phase": Phase.FROZEN,
            "due": self.clock().after(seconds),
            "domain_id": guest.domain,
            "frozen": guest.frozen,
            "written": guest.bytes,
        }
        return self.freezing(uuid, **(values | changes))

    def recorded(self, uuid: str = UUID) -> Record:
        """What is on the disk."""
        record = self.records.read(uuid)
        assert record is not None
        return record

    def damage(self, uuid: str = UUID, text: str = "{") -> None:
        """Leave something in the place of a record."""
        self.records.directory.mkdir(exist_ok=True)
        self.path(uuid).write_text(text)

    def path(self, uuid: str = UUID) -> pathlib.Path:
        """Where the record of a guest is."""
        return self.records.directory / f"{uuid}.json"
