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

"""Owns what must not be forgotten if the service dies: operations and their ends.

Each running operation of a host has a small file, written before its start is
announced. Its end is written into the file before it is announced, and the file goes
when the message bus has taken it. So an end outlives a restart and a dead bus, and an
operation has exactly one: who comes second finds the file ended, or none.

The workers of a host share the directory. Nothing here may fail a backup: what goes
wrong is logged, and the operation goes on with less memory.
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

from cinder_ext.backup import operation
from cinder_ext.notifications import emitter

LOG = logging.getLogger(__name__)

_SUFFIX = ".json"
_BROKEN = ".broken"

#: What reading a broken file raises.
_NO_RECORD = (ValueError, TypeError, KeyError, AttributeError)


def directory(state_path: str, host: str) -> pathlib.Path:
    """Where the journal of a host lies."""
    name = urllib.parse.quote(host, safe="@#")
    return pathlib.Path(state_path, "cinder_ext/backup_notifications", name)


class Journal:
    """The operations of one host.

    :param path: the directory, which is made when it is needed
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path

    def begin(self, op: operation.Operation) -> bool:
        """Keep a new operation; returns whether that worked."""
        try:
            with self._locked():
                self._write(op, {"operation": op.record()})
        except OSError as error:
            LOG.warning(
                "An end of the service will leave backup operation %(id)s without an "
                "end, because the journal cannot be written: %(error)s",
                {"id": op.id, "error": error},
            )
            return False
        return True

    def end(self, op: operation.Operation, event: emitter.Event) -> bool:
        """Keep the end of an operation; returns False if it has one already.

        Of all who call this, in whatever process, one gets True. An end that cannot be
        written gets it as well: to tell it twice is better than never.
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
            # On a full disk this works, and the next start tells no second end.
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
        """When the operation last showed activity; None if it is gone."""
        try:
            return self._file(op).stat().st_mtime
        except OSError:
            return None

    def delivered(self, event: emitter.Event) -> None:
        """The message bus has taken an end: forget the operation."""
        for file in self._files(f"*.{event.operation_id}"):
            kept = self._read(file)
            if kept and "end" in kept:
                with contextlib.suppress(FileNotFoundError):
                    file.unlink()

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
        """The ends that the message bus has not taken.

        :param worker: those of one process only
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
        """Nobody can say how this operation ended."""
        self._file(op).unlink(missing_ok=True)

    def _file(self, op: operation.Operation) -> pathlib.Path:
        return self._path / f"{op.backup_id}.{op.action}.{op.id}{_SUFFIX}"

    def _files(self, pattern: str) -> list[pathlib.Path]:
        return list(self._path.glob(f"{pattern}{_SUFFIX}"))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone among all threads and processes of the host.

        Nothing in the body may yield to another green thread: no logging, no waiting.
        """
        self._path.mkdir(mode=0o750, parents=True, exist_ok=True)
        with (self._path / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write(self, op: operation.Operation, kept: dict[str, Any]) -> None:
        """Write a file in one step: a reader, or a crash, sees the old or the new.

        Only for who holds the lock.
        """
        new = self._path / ".new"
        with new.open("w") as file:
            json.dump(kept, file, default=str)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._file(op))

    @staticmethod
    def _load(file: pathlib.Path) -> dict[str, Any] | None:
        """What a file keeps; None if it is gone."""
        try:
            kept = json.loads(file.read_text())
        except FileNotFoundError:
            return None
        operation.Operation.from_record(kept["operation"])
        if "end" in kept:
            emitter.Event(**kept["end"])
        return dict(kept)

    def _read(self, file: pathlib.Path) -> dict[str, Any] | None:
        """What a file keeps; None if it is gone or cannot be read."""
        try:
            return self._load(file)
        except OSError as error:
            LOG.warning("Could not read %s: %s", file, error)
        except _NO_RECORD:
            with contextlib.suppress(OSError):
                file.rename(file.with_suffix(_BROKEN))
            LOG.warning("Put aside the broken journal file %s.", file)
        return None
