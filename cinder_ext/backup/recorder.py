# SPDX-License-Identifier: Apache-2.0
"""Owns the life of an operation within one process: when it starts and how it ends.

The manager reports what happens, the driver what it moves. The events say what is
announced of that, the journal keeps it, and the emitter sends it. Nothing here may
ever fail a backup.
"""

import contextlib
import contextvars
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

from oslo_log import log as logging
from oslo_utils import units

from cinder_ext.backup import journal
from cinder_ext.backup.best_effort import best_effort
from cinder_ext.backup.transfer import Transfer
from cinder_ext.notifications import emitter, events
from cinder_ext.objects.operation import Clock, Operation, Progress, ProgressThrottle

LOG = logging.getLogger(__name__)


class Recorder:
    """Announces the operations of one host.

    :param options: the group ``[backup_notifications]``
    :param kept: the journal of the host
    :param sending: sends events
    :param made: makes them
    :param enabled: whether notifications are enabled at all
    :ivar started_at: seconds since the epoch
    """

    def __init__(
        self,
        options: Any,
        kept: journal.Journal,
        sending: emitter.Emitter,
        made: events.Events,
        enabled: Callable[[], bool],
        clock: Clock = time.time,
    ) -> None:
        self.journal = kept
        self.emitter = sending
        self.events = made
        self.started_at = clock()
        self._options = options
        self._enabled = enabled
        self._clock = clock
        self._op: contextvars.ContextVar[Operation | None] = contextvars.ContextVar(
            "backup_operation", default=None
        )
        self._transfer: contextvars.ContextVar[Transfer | None] = (
            contextvars.ContextVar("backup_transfer", default=None)
        )
        self._live: dict[str, Operation] = {}
        #: Running operations that the journal could not keep.
        self._unkept: dict[str, Operation] = {}

    # What the manager does.

    @contextlib.contextmanager
    def operation(
        self,
        context: Any,
        backup: Any,
        action: str,
        *,
        second_half: bool = False,
        **details: Any,
    ) -> Iterator[Operation]:
        """Announce an error, if the body raises one, and the start before it.

        :param second_half: the operation has begun before. If it has ended since then,
            because the service was restarted, the body is a new operation.
        """
        op = None
        if action in ("create", "delete"):
            op = next(iter(self._running(backup, action)), None)
        if op is None:
            op = self.events.new_operation(
                context,
                backup,
                action,
                again=second_half,
                resumed=second_half,
                **details,
            )
        if second_half:
            self.start(op, backup)
        token = self._op.set(op)
        self._live[op.id] = op
        try:
            yield op
        except Exception as failure:
            self.fail(op, backup, failure)
            raise
        finally:
            # The other half of a create may be at work here under the same id.
            if self._live.get(op.id) is op:
                del self._live[op.id]
            self._op.reset(token)

    def current(self, action: str | None = None) -> Operation | None:
        """The operation that this thread works on."""
        op = self._op.get()
        return op if op and action in (None, op.action) else None

    @contextlib.contextmanager
    def at(self, phase: str, then: str | None = None) -> Iterator[None]:
        """The body is this phase of the operation that this thread works on."""
        op = self.current()
        with op.at(phase, then) if op else contextlib.nullcontext():
            yield

    @best_effort
    def start(self, op: Operation, backup: Any) -> None:
        """Announce the start, unless that was done, perhaps by another process."""
        if op.begun or not self._enabled():
            return
        op.begun = True
        # The journal comes first: a process that dies after it has an end at the
        # next start.
        op.kept = self.journal.begin(op)
        if not op.kept:
            self._unkept[op.id] = op
        if event := self.events.start(op, backup):
            self.emitter.put(event)

    @best_effort
    def succeed(self, op: Operation, backup: Any) -> None:
        """Announce the end, and that of the create that a delete ends."""
        if op.action == "delete":
            for create in self._running(backup, "create"):
                # The process that creates knows how far it came.
                self.cancel(self._live.get(create.id, create), backup)
        self._finish(op, backup, self.events.succeeded)

    @best_effort
    def cancel(self, op: Operation, backup: Any) -> None:
        """Announce that another operation, or an operator, ended this one."""
        self._finish(op, backup, self.events.cancelled)

    @best_effort
    def fail(self, op: Operation, backup: Any, failure: BaseException) -> None:
        """Announce an error."""
        deleting = op.action == "create" and bool(self._running(backup, "delete"))
        failed = functools.partial(
            self.events.failed, failure=failure, deleting=deleting
        )
        self._finish(op, backup, failed)

    @best_effort
    def stalled(self, op: Operation, backup: Any, idle: float) -> None:
        """Announce that an operation shows no activity.

        :param idle: seconds
        """
        self.emitter.put(self.events.stalled(op, backup, idle))

    def resume(self, context: Any, backup: Any, action: str) -> Operation:
        """The operation that the end of a service interrupted.

        If the journal does not have it, it never started here or has ended already, and
        this is a new one. Only a delete continues after a restart.
        """
        resumed = action == "delete"
        for op in self.journal.running(backup.id, action):
            op.resumed = resumed
            self.journal.begin(op)
            return op
        volume_id = backup.restore_volume_id if action == "restore" else None
        op = self.events.new_operation(
            context,
            backup,
            action,
            again=True,
            resumed=resumed,
            restore_volume_id=volume_id,
        )
        self.start(op, backup)
        return op

    def interrupted(self) -> list[Operation]:
        """The operations that were running when the service ended."""
        return [op for op in self.journal.running() if op.started_at < self.started_at]

    def repeat(self) -> None:
        """Send the ends that were not delivered before the service ended."""
        for event in self.journal.undelivered():
            self.emitter.put(event)

    # What the driver does.

    @contextlib.contextmanager
    def transfer(self, backup: Any) -> Iterator[Transfer]:
        """The body is the work of the driver."""
        op = self.current()
        transfer = self._new_transfer(op, backup)
        if op is None:
            yield transfer
            return
        op.progress = transfer.progress
        token = self._transfer.set(transfer)
        # Four times as often as it may report, so as not to miss its time by much.
        transfer.start_heartbeat(self._options.max_interval / 4)
        try:
            with op.at("transfer", then="finalize"):
                yield transfer
        finally:
            transfer.stop_heartbeat()
            self._transfer.reset(token)

    def current_transfer(self) -> Transfer | None:
        """The work of the driver in this thread."""
        return self._transfer.get()

    def _new_transfer(self, op: Operation | None, backup: Any) -> Transfer:
        def announce(progress: dict[str, Any]) -> None:
            if op:
                self.emitter.put(self.events.progress(op, backup, progress))

        options = self._options
        return Transfer(
            op,
            Progress(
                backup.size and backup.size * units.Gi,
                op.objects_total if op else None,
                self._clock,
            ),
            ProgressThrottle(
                options.min_interval,
                options.max_interval,
                options.min_percent_step,
                self._clock,
            ),
            self.journal,
            announce,
            self._clock,
        )

    # What follows.

    def _running(self, backup: Any, action: str) -> list[Operation]:
        """The operations on a backup that have no end, oldest first.

        Of those that the journal could not keep, only those of this process are known.
        """
        return self.journal.running(backup.id, action) or [
            op
            for op in list(self._unkept.values())
            if (op.backup_id, op.action) == (backup.id, action)
        ]

    @best_effort
    def _finish(
        self,
        op: Operation,
        backup: Any,
        make: Callable[[Operation, Any], emitter.Event],
    ) -> None:
        """End an operation once: of all callers, the first does."""
        self.start(op, backup)
        if not op.begun:
            return
        with op.lock:
            if op.finished:
                return
            op.finished = True
            self._unkept.pop(op.id, None)
            event = make(op, backup)
            if op.kept and not self.journal.end(op, event):
                LOG.info("Operation %s has an end already.", op.id)
                return
        self.emitter.put(event)
