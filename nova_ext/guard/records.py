# SPDX-License-Identifier: Apache-2.0
"""Owns the directory of records: what was done to a guest and undoes itself, and when.

A record is on the disk before the guest is touched, so that whoever comes next can undo
it: nova-compute, or ``nova-ext-guard`` while nova-compute is dead. Both take the
guest's lock, read the record again, write who acts, and only then act.

A record is one JSON file, named after the instance. It begins with the version of its
format: a program that does not know it leaves the guest alone.
"""

import contextlib
import dataclasses
import datetime
import enum
import fcntl
import json
import math
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

from oslo_utils import uuidutils

from nova_ext import atomic_file
from nova_ext.guard.clock import Moment

VERSION = 1

_RECORD = ".json"
_LOCK = ".lock"
_LOCK_POLL = 0.02  # s

#: Seconds from the begin; nobody means a deadline that is further away.
_LONGEST = 366 * 86400

_KINDS: dict[str, Any] = {
    **dict.fromkeys(("window_id", "by", "request_id", "warning"), str),
    **dict.fromkeys(("domain_id", "frozen", "written"), int | None),
    "breach": str | None,
}


class Phase(enum.StrEnum):
    """How far a freeze has come."""

    #: Written ahead: the guest may be frozen, now or until the freeze has run out.
    FREEZING = "freezing"
    FROZEN = "frozen"
    #: Somebody began to thaw it; what proves the window was written before.
    THAWING = "thawing"
    #: The agent has said so, or the memory of the guest is lost.
    THAWED = "thawed"


class UnknownVersion(Exception):
    """A record of a later release."""


class Damaged(Exception):
    """A record that says nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """What this host knows of one freeze.

    :ivar uuid: of the instance
    :ivar window_id: of the freeze; a later one of the same guest has another
    :ivar began: when the freeze was about to be sent
    :ivar until: the last moment at which that freeze may still run
    :ivar due: when the guest is thawed unasked; None until it is frozen
    :ivar domain_id: the hypervisor's ID of the running guest, new at each start
    :ivar frozen: file systems that the agent froze
    :ivar written: bytes that the guest had written to its disks by then
    :ivar by: who thawed it, or began to, and why; for a person
    :ivar request_id: of the request to thaw it, even if that came too late; empty if
        there was none
    :ivar breach: what is wrong with the window; empty: the guest was frozen without a
        gap until somebody began to thaw it; None before that
    :ivar warning: what else went wrong
    :ivar ended: when it was thawed for certain
    """

    uuid: str
    window_id: str
    phase: Phase
    began: Moment
    until: Moment
    due: Moment | None = None
    domain_id: int | None = None
    frozen: int | None = None
    written: int | None = None
    by: str = ""
    request_id: str = ""
    breach: str | None = None
    warning: str = ""
    ended: Moment | None = None

    def replace(self, **changes: Any) -> "Record":
        """A copy with other values."""
        return dataclasses.replace(self, **changes)

    def left(self, now: Moment) -> float:
        """Seconds until somebody has to act; 0 when it is time."""
        if self.phase is not Phase.FROZEN or self.due is None:
            return 0.0
        return self.due.left(now)


def _dump(record: Record) -> str:
    return json.dumps({"version": VERSION, **dataclasses.asdict(record)}, indent=1)


def _load(uuid: str, text: str) -> Record:
    try:
        values = json.loads(text)
        version = values.pop("version")
        if version != VERSION:
            raise UnknownVersion(f"the record of {uuid} has version {version}")
        for name in ("began", "until", "due", "ended"):
            if values.get(name) is not None:
                values[name] = _moment(values[name])
        record = Record(**{**values, "phase": Phase(values["phase"])})
        _check(uuid, record)
        return record
    except UnknownVersion:
        raise
    except Exception as exc:
        # Whatever is wrong with it: it must not keep any guest from being thawed.
        raise Damaged(f"the record of {uuid} cannot be read: {exc!r}") from exc


def _check(uuid: str, record: Record) -> None:
    """Raise ValueError, or something else, for what nobody has written."""
    kinds = (isinstance(getattr(record, name), kind) for name, kind in _KINDS.items())
    if record.uuid != uuid or not all(kinds):
        raise ValueError(uuid)
    if record.phase is Phase.FROZEN and record.due is None:
        raise ValueError("no deadline")
    for moment in (record.until, record.due or record.until):
        if moment.monotonic - record.began.monotonic > _LONGEST:
            raise ValueError("a time that never comes")


def _moment(values: dict[str, Any]) -> Moment:
    moment = Moment(**values)
    if not math.isfinite(moment.monotonic):
        raise ValueError("a time that is none")
    datetime.datetime.fromtimestamp(moment.wall, datetime.UTC)  # it is told to people
    return moment


class Records:
    """The records of one compute host.

    :param directory: local, kept over a boot, and no part of ``instances_path``
    """

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory

    def uuids(self) -> list[str]:
        """The instances that have a record, a damaged one too.

        :raises: OSError
        """
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:
            return []
        stems = (name.removesuffix(_RECORD) for name in names if name.endswith(_RECORD))
        return sorted(stem for stem in stems if uuidutils.is_uuid_like(stem))

    def read(self, uuid: str) -> Record | None:
        """The record of an instance, or None.

        :raises: UnknownVersion, Damaged or OSError
        """
        try:
            text = self._path(uuid).read_text(errors="replace")
        except FileNotFoundError:
            return None
        return _load(uuid, text)

    def write(self, record: Record) -> None:
        """Write a record; it is on the disk afterwards.

        :raises: OSError
        """
        atomic_file.make_directory(self.directory)
        atomic_file.write(self._path(record.uuid), _dump(record))

    def remove(self, uuid: str) -> None:
        """Remove the record of an instance, if there is one.

        :raises: OSError
        """
        atomic_file.remove(self._path(uuid))

    @contextlib.contextmanager
    def lock(self, uuid: str, seconds: float) -> Iterator[bool]:
        """Hold the lock of a guest; yields whether it was had within ``seconds``.

        It is gone with the process. Threads of one process exclude each other too.

        :raises: OSError when there cannot be a lock
        """
        atomic_file.make_directory(self.directory)
        path = self.directory / f"{uuid}{_LOCK}"
        patience = time.monotonic() + seconds
        while True:
            handle = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                held = _flock(handle, patience)
                if held and not _is_at(handle, path):
                    continue  # whoever had it has removed it
                yield held
                return
            finally:
                os.close(handle)

    def forget(self, uuid: str) -> None:
        """Remove the record and the lock of a guest; the caller holds the lock.

        :raises: OSError
        """
        self.remove(uuid)
        (self.directory / f"{uuid}{_LOCK}").unlink(missing_ok=True)

    def _path(self, uuid: str) -> pathlib.Path:
        return self.directory / f"{uuid}{_RECORD}"


def _flock(handle: int, patience: float) -> bool:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= patience:
                return False
            time.sleep(_LOCK_POLL)


def _is_at(handle: int, path: pathlib.Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
