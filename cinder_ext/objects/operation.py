# SPDX-License-Identifier: Apache-2.0
"""Owns what one operation on a backup is: identity, order, progress, phase.

Knows nothing of Cinder or the message bus. An operation is one create, restore,
delete, import or export of one backup, from its start to exactly one end. A create
takes two RPCs, which two processes may serve, so that nothing here relies on memory:
the id can be computed again, and sequence numbers grow with the time.
"""

import contextlib
import dataclasses
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

ACTIONS = ("create", "restore", "delete", "import", "export")

#: The phases that end an operation. Each operation has exactly one of them.
TERMINAL = ("end", "error", "cancelled")

#: The highest percentage of an operation that has not succeeded yet.
NEARLY = 99.9

Clock = Callable[[], float]


def operation_id(backup_id: str, action: str, discriminator: str) -> str:
    """The id of an operation, the same in every process that computes it.

    :param discriminator: distinguishes it from others of this action on the backup
    """
    name = f"{backup_id}/{action}/{discriminator}"
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


def worker() -> str:
    """This process, as ``host:pid``."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Progress:
    """High-water marks of one transfer.

    :param bytes_total: number of bytes to read or write, None if unknown
    :param objects_total: number of objects that a restore reads, None if unknown
    :ivar bytes_written: number of bytes written to the volume; what is written twice
        counts twice
    :ivar bytes_stored: number of bytes written to the backup store
    """

    def __init__(
        self,
        bytes_total: int | None = None,
        objects_total: int | None = None,
        clock: Clock = time.time,
    ) -> None:
        self.bytes_total = bytes_total
        self.objects_total = objects_total
        self.bytes_done: int | None = None
        self.bytes_written: int | None = None
        self.bytes_stored: int | None = None
        self.objects_done: int | None = None
        self.objects_opened = 0
        self._clock = clock
        self._started = clock()

    def reached_byte(self, position: int) -> None:
        """The transfer is at this position in the volume; it may go back later."""
        self.bytes_done = max(self.bytes_done or 0, position)

    def reached_object(self, number: int) -> None:
        """This number of objects is done."""
        self.objects_done = max(self.objects_done or 0, number)

    @property
    def percent(self) -> float | None:
        """The percentage that is done, rounded down; None if unknown.

        Objects take precedence over bytes, because a restore to a new volume skips
        blocks of zeros.
        """
        for done, total in (
            (self.objects_done, self.objects_total),
            (self.bytes_done, self.bytes_total),
        ):
            if done is not None and total:
                return min(NEARLY, math.floor(10000 * done / total) / 100)
        return None

    def to_payload(self, *, succeeded: bool = False) -> dict[str, Any]:
        """The keys of the payload that describe the progress.

        :param succeeded: the operation has ended, so that all is done
        """
        elapsed = max(self._clock() - self._started, 0.001)
        percent = 100.0 if succeeded else self.percent
        return {
            "backup_percent": percent,
            "bytes_done": self.bytes_done,
            "bytes_total": self.bytes_total,
            "objects_done": self.objects_total if succeeded else self.objects_done,
            "objects_total": self.objects_total,
            "rate_bps": self.bytes_done and round(self.bytes_done / elapsed, 1),
            "eta_seconds": round(elapsed * (100 - percent) / percent, 1)
            if percent
            else None,
        }


class ProgressThrottle:
    """Decides when progress is reported.

    :param min_interval: minimum number of seconds between two reports
    :param max_interval: seconds after which there is a report if there is any news
    :param min_step: growth of the percentage that is reported before that
    """

    def __init__(
        self,
        min_interval: float,
        max_interval: float,
        min_step: float,
        clock: Clock = time.time,
    ) -> None:
        self._min_interval = min_interval
        self._max_interval = max_interval
        self._min_step = min_step
        self._clock = clock
        self._last = clock()
        self._percent = 0.0

    def due(self, percent: float | None) -> bool:
        """Whether to report ``percent`` now; if so, it is taken as reported."""
        now = self._clock()
        # A wall clock that was set back must not silence a transfer for hours.
        since = now - self._last if now >= self._last else self._max_interval
        if percent is None:
            due = since >= self._max_interval
        elif percent <= self._percent:
            due = False
        elif since >= self._max_interval:
            due = True
        else:
            step = percent - self._percent >= self._min_step
            due = step and since >= self._min_interval
        if due:
            self._last = now
            self._percent = percent or self._percent
        return due


@dataclasses.dataclass
class Operation:
    """One operation. The journal keeps its fields.

    :ivar started_at: seconds since the epoch
    :ivar sequence: number of the last notification
    :ivar chain_length: number of backups that a restore reads
    :ivar objects_total: number of objects of all these
    :ivar volume_bytes: size of the volume that is restored to
    :ivar resumed: it was continued after a restart
    :ivar begun: its start was announced
    :ivar kept: the journal has it
    :ivar finished: its end was announced, or another process has announced it
    :ivar cancelled: a user or operator has stopped it
    :ivar phase: one of ``failures.PHASES``
    """

    id: str
    action: str
    backup_id: str
    started_at: float
    request_id: str | None = None
    restore_volume_id: str | None = None
    volume_is_new: bool | None = None
    chain_length: int | None = None
    objects_total: int | None = None
    volume_bytes: int | None = None
    backup_service: str | None = None
    resumed: bool = False
    sequence: int = 0

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self.progress: Progress | None = None
        self.begun = False
        self.kept = False
        self.finished = False
        self.cancelled = False
        self.phase = "prepare"
        self._failed = False

    @contextlib.contextmanager
    def at(self, phase: str, then: str | None = None) -> Iterator[None]:
        """The body is this phase; once a phase has failed, the phase stays.

        :param then: the phase after the body, by default the one before
        """
        if self._failed:
            yield
            return
        before, self.phase = self.phase, phase
        try:
            yield
        except Exception:
            self._failed = True
            raise
        self.phase = then or before

    def next_sequence(self, now: float) -> int:
        """The number of the next notification.

        It grows with the milliseconds, so that a process that takes over does not
        need to know the last number of the previous one.
        """
        with self.lock:
            elapsed = int(1000 * (now - self.started_at)) + 1
            self.sequence = max(self.sequence + 1, elapsed)
            return self.sequence

    def duration(self, now: float) -> float:
        """Seconds since the start; never negative, even if the clock was set back."""
        return round(max(now - self.started_at, 0.0), 3)

    def record(self) -> dict[str, Any]:
        """What the journal keeps."""
        return {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self)
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Operation":
        """The operation that the journal kept; ignores keys of other versions."""
        known = {field.name for field in dataclasses.fields(cls)}
        made = cls(**{key: record[key] for key in record.keys() & known})
        made.begun = made.kept = True
        return made
