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

"""Owns the way of a notification out of the process, apart from the work it tells of.

Whoever announces something puts it into a bounded queue and goes on at once. One thread
per process sends. A message bus that is dead, hung or slow costs a backup nothing.
"""

import atexit
import collections
import dataclasses
import os
import threading
from collections.abc import Callable
from typing import Any

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
        """Whose event it is; None of one about the notifications themselves."""
        return self.payload.get("operation_id")

    @property
    def is_progress(self) -> bool:
        """Whether a newer one of the operation makes this one worthless."""
        return self.payload.get("phase") == "progress"


Send = Callable[[Event], None]


class Emitter:
    """Sends events in order, from a thread that each process starts when it needs it.

    cinder builds its manager before it forks the workers; a thread that is made in a
    constructor would live in the parent alone.

    :param connect: returns what sends one event and raises if that fails; called in
        the thread that sends
    :param length: events that wait at most
    :param retries: how often an event is tried again
    :param pause: seconds between two tries
    :param delivered: called after each event that was sent
    :param dropped: makes the event that tells of a number of lost ones
    :param recovered: called when sending works again after it did not, and now and
        then until it does; has to put again what the journal kept
    :param again: seconds without any event after which that is tried
    """

    def __init__(
        self,
        connect: Callable[[], Send],
        *,
        length: int,
        retries: int,
        delivered: Callable[[Event], None],
        dropped: Callable[[int], Event],
        recovered: Callable[[], None],
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
        self.recovered = recovered
        self._workers: dict[int, _Worker] = {}

    def _worker(self) -> "_Worker":
        pid = os.getpid()
        found = self._workers.get(pid)
        # setdefault is atomic: two threads that both find none get the same one.
        return found or self._workers.setdefault(pid, _Worker(self))

    def put(self, event: Event) -> None:
        """Have the event sent; returns at once whatever the message bus does."""
        self._worker().put(event)

    def flush(self, timeout: float = _FLUSH) -> bool:
        """Wait until all is sent; returns whether it is."""
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
        # A forked process inherits this call, and perhaps a lock that nobody frees.
        if pid == os.getpid():
            self.flush(_FLUSH)

    def _forget_older(self, event: Event) -> None:
        for waiting in self._queue:
            if waiting.is_progress and waiting.operation_id == event.operation_id:
                self._queue.remove(waiting)
                return

    def _drop_one(self) -> None:
        """The oldest progress, else the oldest of all."""
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
                    self._emitter.recovered()
            except Exception:
                # The thread must live: nobody would send the next one.
                LOG.exception("Failed to handle %s.", event or "what was kept")

    def _handle(self, event: Event) -> None:
        if not self._try(event):
            self._give_up(event)
            return
        self._emitter.delivered(event)
        with self._changed:
            # What comes back from the journal must not push out what waits.
            room = self._left_to_journal and not self._queue
            self._left_to_journal = self._left_to_journal and not room
            lost, self._lost = self._lost, 0
        if room:
            self._emitter.recovered()
        if lost:
            LOG.warning("Lost %d notifications of backups.", lost)
            self._try(self._emitter.dropped(lost))

    def _try(self, event: Event) -> bool:
        for attempt in range(self._emitter.retries + 1):
            if attempt:
                threading.Event().wait(self._emitter.pause)
            try:
                if self._send is None:
                    self._send = self._emitter.connect()
                self._send(event)
                return True
            except Exception as error:
                LOG.warning(
                    "Could not send %(type)s, try %(attempt)d: %(error)s",
                    {"type": event.event_type, "attempt": attempt + 1, "error": error},
                )
        return False
