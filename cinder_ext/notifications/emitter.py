# SPDX-License-Identifier: Apache-2.0
"""Owns how a notification leaves the process, separately from the work it reports.

The caller puts an event into a bounded queue and continues at once. One thread per
process sends. A message bus that is down, hangs or is slow does not delay a backup.
"""

import atexit
import collections
import dataclasses
import functools
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

import tenacity
from oslo_log import log as logging

LOG = logging.getLogger(__name__)

_PAUSE = 5.0  # s
_AGAIN = 60.0  # s
_FLUSH = 5.0  # s


@dataclasses.dataclass(frozen=True)
class Event:
    """One notification, as it waits in the queue and in the journal.

    :ivar event_type: as in ``backup.create.start``
    :ivar priority: ``info``, ``warn`` or ``error``
    :ivar payload: the flat payload
    :ivar context: user, project and request id; never a token
    :ivar kept: the journal has it until it is delivered
    """

    event_type: str
    priority: str
    payload: dict[str, Any]
    context: dict[str, Any]
    kept: bool = False

    @property
    def operation_id(self) -> str | None:
        """The operation; None for an event about the notifications themselves."""
        return self.payload.get("operation_id")

    @property
    def is_progress(self) -> bool:
        """Whether a newer event of the operation supersedes this one."""
        return self.payload.get("phase") == "progress"


Send = Callable[[Event], None]


class Emitter:
    """Sends events in order, from a thread that each process starts when it needs it.

    Cinder builds its manager before it forks the workers; a thread started in a
    constructor would exist in the parent only.

    :param connect: returns a function that sends one event and raises if that fails;
        called in the thread that sends
    :param length: maximum number of events in the queue
    :param retries: how often sending an event is retried
    :param pause: seconds between two attempts
    :param delivered: called after each event that was sent
    :param dropped: makes the event that reports a number of lost ones
    :param undelivered: returns the events that the journal keeps; called when sending
        works again after a failure, and periodically until it does
    :param again: the period of that, in seconds
    """

    def __init__(
        self,
        connect: Callable[[], Send],
        *,
        length: int,
        retries: int,
        delivered: Callable[[Event], None],
        dropped: Callable[[int], Event],
        undelivered: Callable[[], Iterable[Event]],
        pause: float = _PAUSE,
        again: float = _AGAIN,
    ) -> None:
        self.again = again
        self.connect = connect
        self.length = length
        self.retries = retries
        self.pause = pause
        self.delivered = delivered
        self.dropped = dropped
        self.undelivered = undelivered
        self._workers: dict[int, _Worker] = {}

    def _worker(self) -> "_Worker":
        pid = os.getpid()
        found = self._workers.get(pid)
        # setdefault is atomic: two threads that both find none get the same one.
        return found or self._workers.setdefault(pid, _Worker(self))

    def put(self, event: Event) -> None:
        """Queue the event; returns at once, whatever the state of the message bus."""
        self._worker().put(event)

    def flush(self, timeout: float = _FLUSH) -> bool:
        """Wait until all events are sent; returns whether they are.

        :param timeout: seconds
        """
        return self._worker().flush(timeout)


class _Worker:
    """The queue and the thread of one process."""

    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter
        self._changed = threading.Condition()
        self._queue: collections.deque[Event] = collections.deque()
        self._thread: threading.Thread | None = None
        self._busy = False
        self._lost = 0
        self._left_to_journal = False
        self._send: Send | None = None

    def put(self, event: Event) -> None:
        with self._changed:
            if event.kept and event in self._queue:
                return
            if event.is_progress:
                self._forget_older(event)
            self._queue.append(event)
            if len(self._queue) > self._emitter.length:
                self._drop_one()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="backup-notifications", daemon=True
                )
                self._thread.start()
                atexit.register(self._flush_at_exit, os.getpid())
            self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._queue and not self._busy, timeout
            )

    def _flush_at_exit(self, pid: int) -> None:
        # A forked process inherits this call, and maybe a lock that is never freed.
        if pid == os.getpid():
            self.flush(_FLUSH)

    def _forget_older(self, event: Event) -> None:
        for waiting in self._queue:
            if waiting.is_progress and waiting.operation_id == event.operation_id:
                self._queue.remove(waiting)
                return

    def _drop_one(self) -> None:
        """Drop the oldest progress; without any, the oldest event."""
        for waiting in self._queue:
            if waiting.is_progress:
                self._queue.remove(waiting)
                self._lost += 1
                return
        self._give_up(self._queue.popleft())

    def _give_up(self, event: Event) -> None:
        with self._changed:
            if event.kept:
                self._left_to_journal = True
            else:
                self._lost += 1

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                patience = self._emitter.again if self._left_to_journal else None
                self._changed.wait_for(lambda: self._queue, patience)
                self._busy = True
                event = self._queue.popleft() if self._queue else None
                self._left_to_journal = self._left_to_journal and event is not None
            try:
                if event:
                    self._handle(event)
                else:
                    self._put_again()
            except Exception:
                # The thread has to survive to send the next one.
                LOG.exception("Failed to handle %s.", event or "what was kept")

    def _handle(self, event: Event) -> None:
        if not self._try(event):
            self._give_up(event)
            return
        self._emitter.delivered(event)
        with self._changed:
            # Events from the journal must not displace those in the queue.
            room = self._left_to_journal and not self._queue
            self._left_to_journal = self._left_to_journal and not room
            lost, self._lost = self._lost, 0
        if room:
            self._put_again()
        if lost:
            LOG.warning("Lost %d notifications of backups.", lost)
            self._try(self._emitter.dropped(lost))

    def _put_again(self) -> None:
        for event in self._emitter.undelivered():
            self.put(event)

    def _try(self, event: Event) -> bool:
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self._emitter.retries + 1),
            wait=tenacity.wait_fixed(self._emitter.pause),
            after=functools.partial(_log_failure, event),
        )
        try:
            retrying(self._send_once, event)
        except tenacity.RetryError:
            return False
        return True

    def _send_once(self, event: Event) -> None:
        if self._send is None:
            self._send = self._emitter.connect()
        self._send(event)


def _log_failure(event: Event, state: tenacity.RetryCallState) -> None:
    LOG.warning(
        "Could not send %(type)s, try %(attempt)d: %(error)s",
        {
            "type": event.event_type,
            "attempt": state.attempt_number,
            "error": state.outcome and state.outcome.exception(),
        },
    )
