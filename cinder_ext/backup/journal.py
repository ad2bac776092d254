# SPDX-License-Identifier: Apache-2.0
"""Owns what must survive the service: running operations and their ends.

Each running operation of a host has a small file, written before its start is
announced. Its end is written to the file before it is announced, and the file is
removed when the message bus has accepted it. So an end survives a restart and an outage
of the bus, and an operation has exactly one: a process that comes second finds an end
in the file, or no file.

The workers of a host share the directory. Nothing here may fail a backup: errors are
logged, and the operation continues without the journal.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import urllib.parse
from collections.abc import Iterator
from typing import Any

from oslo_log import log as logging

from cinder_ext.notifications import emitter
from cinder_ext.objects import operation
from nova_ext import atomic_file

LOG = logging.getLogger(__name__)

_SUFFIX = ".json"
_BROKEN = ".broken"

#: What reading a broken file raises.
_NO_RECORD = (ValueError, TypeError, KeyError, AttributeError)


def directory(state_path: str, host: str) -> pathlib.Path:
    """The directory with the journal of a host.

    :param state_path: Cinder's ``[DEFAULT] state_path``
    """
    name = urllib.parse.quote(host, safe="@#")
    return pathlib.Path(state_path, "cinder_ext/backup_notifications", name)


class Journal:
    """The operations of one host.

    :param path: the directory, created when it is needed
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._tidied = False

    def begin(self, op: operation.Operation) -> bool:
        """Keep an operation; returns whether its file is there."""
        try:
            with self._locked():
                self._write(op, {"operation": op.record()})
        except OSError as error:
            LOG.warning(
                "An end of the service will leave backup operation %(id)s without an "
                "end, because the journal cannot be written: %(error)s",
                {"id": op.id, "error": error},
            )
            # The file is there if only the last step failed; a power failure may
            # undo that.
            return self.active_at(op) is not None
        return True

    def end(self, op: operation.Operation, event: emitter.Event) -> bool:
        """Keep the end of an operation; returns False if it has one already.

        Of all callers, in any process, one gets True. So does the caller whose end
        cannot be written: announcing it twice is better than never.
        """
        try:
            with self._locked():
                try:
                    kept = self._load(self._file(op))
                except _NO_RECORD:
                    kept = {"operation": op.record()}
                if kept is None or "end" in kept:
                    return False
                self._write(op, {**kept, "end": dataclasses.asdict(event)})
        except OSError as error:
            LOG.warning(
                "Could not keep the end of backup operation %(id)s: %(error)s",
                {"id": op.id, "error": error},
            )
            # Works on a full disk; the next start then announces no second end.
            with contextlib.suppress(OSError):
                self.forget(op)
        return True

    def is_running(self, op: operation.Operation) -> bool:
        """Whether the operation has no end yet."""
        kept = self._read(self._file(op))
        return kept is not None and "end" not in kept

    def touch(self, op: operation.Operation) -> None:
        """The operation shows activity."""
        with contextlib.suppress(OSError):
            os.utime(self._file(op))

    def active_at(self, op: operation.Operation) -> float | None:
        """When the operation last showed activity, in seconds since the epoch.

        :returns: None if the journal does not have it
        """
        try:
            return self._file(op).stat().st_mtime
        except OSError:
            return None

    def delivered(self, event: emitter.Event) -> None:
        """The message bus has accepted an event: after an end, forget the operation."""
        if not event.kept:
            return
        for file in self._files(f"*.{event.operation_id}"):
            kept = self._read(file)
            if kept and "end" in kept:
                atomic_file.remove(file)

    def running(
        self, backup_id: str = "*", action: str = "*"
    ) -> list[operation.Operation]:
        """The operations that have no end, oldest first."""
        found = [
            operation.Operation.from_record(kept["operation"])
            for file in self._files(f"{backup_id}.{action}.*")
            if (kept := self._read(file)) and "end" not in kept
        ]
        return sorted(found, key=lambda op: op.started_at)

    def undelivered(self, worker: str | None = None) -> list[emitter.Event]:
        """The ends that the message bus has not accepted.

        :param worker: only those of this process
        """
        found = [
            emitter.Event(**kept["end"])
            for file in self._files("*")
            if (kept := self._read(file)) and "end" in kept
        ]
        found.sort(key=lambda event: str(event.payload.get("occurred_at")))
        return [
            event
            for event in found
            if worker is None or event.payload.get("worker") == worker
        ]

    def forget(self, op: operation.Operation) -> None:
        """Remove an operation without an end: it is not known how it ended."""
        atomic_file.remove(self._file(op))

    def _file(self, op: operation.Operation) -> pathlib.Path:
        return self._path / f"{op.backup_id}.{op.action}.{op.id}{_SUFFIX}"

    def _files(self, pattern: str) -> list[pathlib.Path]:
        return list(self._path.glob(f"{pattern}{_SUFFIX}"))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Exclude all other threads and processes of the host.

        Nothing in the body may yield to another green thread: no logging, no waiting.
        """
        atomic_file.make_directory(self._path)
        with (self._path / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write(self, op: operation.Operation, kept: dict[str, Any]) -> None:
        """Write a file; the caller holds the lock."""
        if not self._tidied:
            self._tidied = True
            atomic_file.remove_leftovers(self._path)
        atomic_file.write(self._file(op), json.dumps(kept, default=str))

    @staticmethod
    def _load(file: pathlib.Path) -> dict[str, Any] | None:
        """The content of a file; None if it is gone."""
        try:
            kept = json.loads(file.read_text())
        except FileNotFoundError:
            return None
        operation.Operation.from_record(kept["operation"])
        if "end" in kept:
            emitter.Event(**kept["end"])
        return dict(kept)

    def _read(self, file: pathlib.Path) -> dict[str, Any] | None:
        """The content of a file; None if it is gone or cannot be read."""
        try:
            return self._load(file)
        except OSError as error:
            LOG.warning("Could not read %s: %s", file, error)
        except _NO_RECORD:
            with contextlib.suppress(OSError):
                file.rename(file.with_suffix(_BROKEN))
            LOG.warning("Put aside the broken journal file %s.", file)
        return None
