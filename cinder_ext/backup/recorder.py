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

"""Owns the life of an operation within one process: what is announced when.

The manager says what happens, the driver what moves; the journal and the emitter keep
and send what follows. Nothing here may ever fail a backup.
"""

import contextlib
import contextvars
import functools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec

from cinder import utils
from cinder.objects import fields
from cinder.volume import volume_utils
from oslo_log import log as logging
from oslo_utils import units

from cinder_ext.backup import failures, journal, operation
from cinder_ext.notifications import emitter, payload, sender

LOG = logging.getLogger(__name__)

_BACKUP = "cinder-backup"

#: Seconds between two marks of activity in the journal.
_ACTIVITY = 10.0

_GONE = (fields.BackupStatus.DELETING, fields.BackupStatus.DELETED)

_PRIORITIES = {"error": "error"}

P = ParamSpec("P")


def _harmless(function: Callable[P, None]) -> Callable[P, None]:
    """Log what goes wrong, the first time with its traceback, and go on."""
    seen: list[str] = []

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except Exception as error:
            if not seen:
                seen.append(function.__name__)
                LOG.exception("Failed to tell of a backup; the backup goes on.")
            else:
                LOG.debug("Failed to tell of a backup: %s", error)

    return wrapper


class _Transfer:
    """The work of the driver for one operation.

    :param op: None where the driver works for none, and nothing is told
    """

    def __init__(
        self, recorder: "Recorder", op: operation.Operation | None, backup: Any
    ) -> None:
        self.progress = operation.Progress(
            backup.size and backup.size * units.Gi,
            op.objects_total if op else None,
            recorder.clock,
        )
        options = recorder.conf.backup_notifications
        self.interval: float = options.max_interval
        self._pace = operation.Pace(
            options.min_interval,
            self.interval,
            options.min_percent_step,
            recorder.clock,
        )
        self._recorder = recorder
        self._op = op
        self._backup = backup
        self._active_at = 0.0

    @_harmless
    def moved(self) -> None:
        self._active()
        self._tell()

    @_harmless
    def counted(self) -> None:
        self._tell(counted=True)

    @_harmless
    def beat(self) -> None:
        """Time has passed; a driver that shows nothing counts as active."""
        if self.progress.percent is None:
            self._active()
        self._tell()

    def _active(self) -> None:
        now = self._recorder.clock()
        if self._op and abs(now - self._active_at) >= _ACTIVITY:
            self._active_at = now
            self._recorder.journal.touch(self._op)

    def _tell(self, *, counted: bool = False) -> None:
        op = self._op
        if op is None:
            return
        with op.lock:
            if op.finished or not self._pace.due(
                self.progress.percent, counted=counted
            ):
                return
            if op.kept and not self._recorder.journal.is_running(op):
                # Another process has told its end, as one that deletes the backup.
                op.finished = True
                return
            self._recorder.announce(
                op, self._backup, "progress", **self.progress.facts()
            )


class Recorder:
    """Announces the operations of one host.

    :param conf: cinder's configuration
    :param host: of the service, as in ``node1@backend``
    :param binary: of the service; each has its own journal
    """

    def __init__(
        self,
        conf: Any,
        host: str,
        binary: str = _BACKUP,
        clock: operation.Clock = time.time,
    ) -> None:
        options = conf.backup_notifications
        self.conf = conf
        name = host if binary == _BACKUP else f"{binary}@{host}"
        self.journal = journal.Journal(journal.directory(conf.state_path, name))
        self.emitter = emitter.Emitter(
            functools.partial(sender.connect, conf, host, binary),
            length=options.queue_length,
            retries=options.retries,
            delivered=self._delivered,
            dropped=self._dropped,
            recovered=self._recovered,
        )
        self.clock = clock
        self._op: contextvars.ContextVar[operation.Operation | None] = (
            contextvars.ContextVar("backup_operation", default=None)
        )
        self._transfer: contextvars.ContextVar[_Transfer | None] = (
            contextvars.ContextVar("backup_transfer", default=None)
        )
        self._live: dict[str, operation.Operation] = {}
        self.born = clock()

    # What the manager does.

    @contextlib.contextmanager
    def during(
        self,
        context: Any,
        backup: Any,
        action: str,
        *,
        second_half: bool = False,
        **details: Any,
    ) -> Iterator[operation.Operation]:
        """Announce an error, if the body raises one, and the start before it.

        :param second_half: the operation has begun before. If it has ended since,
            because the service was restarted, the body is one of its own.
        """
        op = None
        if action in ("create", "delete"):
            op = next(iter(self.journal.running(backup.id, action)), None)
        if op is None:
            op = self._new(context, backup, action, again=second_half, **details)
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
            del self._live[op.id]
            self._op.reset(token)

    def current(self, action: str | None = None) -> operation.Operation | None:
        """The operation that this thread works on."""
        op = self._op.get()
        return op if op and action in (None, op.action) else None

    @contextlib.contextmanager
    def at(self, phase: str, then: str | None = None) -> Iterator[None]:
        """The body is this phase of the operation that this thread works on."""
        op = self.current()
        with op.at(phase, then) if op else contextlib.nullcontext():
            yield

    @_harmless
    def start(self, op: operation.Operation, backup: Any) -> None:
        """Announce the start, if that was not done, perhaps by another process."""
        if op.begun or not utils.notifications_enabled(self.conf):
            return
        op.begun = True
        # The journal comes first: who dies after it has an end at the next start.
        op.kept = self.journal.begin(op)
        # An export only reads a record: its end tells all.
        if op.action != "export":
            self.announce(op, backup, "start")

    @_harmless
    def succeed(self, op: operation.Operation, backup: Any) -> None:
        """Announce the end, which is a cancellation if somebody wanted that."""
        gone = op.action == "create" and backup.status in _GONE
        if gone or op.cancelled:
            self.cancel(op, backup)
            return
        if op.action == "delete":
            for create in self.journal.running(backup.id, "create"):
                # The process that creates knows how far it came.
                self.cancel(self._live.get(create.id, create), backup)
        self._finish(op, backup, "end", result=self._result(op, backup))

    @_harmless
    def cancel(self, op: operation.Operation, backup: Any) -> None:
        """Announce that somebody else ended the operation."""
        self._finish(op, backup, "cancelled")

    @_harmless
    def fail(
        self, op: operation.Operation, backup: Any, failure: BaseException
    ) -> None:
        """Announce an error, unless a deleted backup is its cause."""
        if op.action == "create" and (
            backup.status in _GONE or self.journal.running(backup.id, "delete")
        ):
            self.cancel(op, backup)
            return
        error = failures.describe(failure, op.phase, payload.known_ids(backup, op))
        self._finish(op, backup, "error", error=error)

    @_harmless
    def stalled(self, op: operation.Operation, backup: Any, idle: float) -> None:
        """Announce that an operation shows no activity.

        :param idle: seconds
        """
        self.announce(op, backup, "stalled", age_seconds=idle)

    def resume(self, context: Any, backup: Any, action: str) -> operation.Operation:
        """The operation that the end of a service interrupted.

        Without a trace of it, it never started here or has ended already; then this is
        a new one, and says so.
        """
        for op in self.journal.running(backup.id, action):
            op.resumed = True
            op.kept = self.journal.begin(op)
            return op
        volume_id = backup.restore_volume_id if action == "restore" else None
        op = self._new(context, backup, action, restore_volume_id=volume_id, again=True)
        self.start(op, backup)
        return op

    def interrupted(self) -> list[operation.Operation]:
        """The operations that were running when the service ended."""
        return [op for op in self.journal.running() if op.started_at < self.born]

    def repeat(self) -> None:
        """Send what no process has delivered before the service ended."""
        for event in self.journal.undelivered():
            self.emitter.put(event)

    # What the driver does.

    @contextlib.contextmanager
    def transfer(self, backup: Any) -> Iterator[_Transfer]:
        """The body is the work of the driver."""
        op = self.current()
        transfer = _Transfer(self, op, backup)
        if op is None:
            yield transfer
            return
        op.progress = transfer.progress
        token = self._transfer.set(transfer)
        ended = threading.Event()
        self._start_beat(transfer, ended)
        try:
            with op.at("transfer", then="finalize"):
                yield transfer
        finally:
            # A heart that beats on would tell of a backup that has failed.
            ended.set()
            self._transfer.reset(token)

    def current_transfer(self) -> _Transfer | None:
        """The work of the driver in this thread."""
        return self._transfer.get()

    @_harmless
    def _start_beat(self, transfer: _Transfer, ended: threading.Event) -> None:
        threading.Thread(
            target=self._beat, args=(transfer, ended), name="backup-beat", daemon=True
        ).start()

    @staticmethod
    def _beat(transfer: _Transfer, ended: threading.Event) -> None:
        while not ended.wait(transfer.interval / 4):
            transfer.beat()

    # What follows.

    def announce(
        self, op: operation.Operation, backup: Any, phase: str, **more: Any
    ) -> None:
        """Send an event that is not the end of an operation."""
        self.emitter.put(self._event(op, backup, phase, **more))

    @_harmless
    def _finish(
        self, op: operation.Operation, backup: Any, phase: str, **more: Any
    ) -> None:
        self.start(op, backup)
        if not op.begun:
            return
        with op.lock:
            if op.finished:
                return
            op.finished = True
            now = self.clock()
            facts = op.progress.facts(succeeded=phase == "end") if op.progress else {}
            event = self._event(
                op, backup, phase, duration=op.duration(now), **facts, **more
            )
            if op.kept and not self.journal.end(op, event):
                LOG.info("Operation %s has an end already.", op.id)
                return
        self.emitter.put(event)

    def _event(
        self, op: operation.Operation, backup: Any, phase: str, **more: Any
    ) -> emitter.Event:
        options = self.conf.backup_notifications
        if phase == "stalled":
            priority = options.stalled_priority
        else:
            priority = _PRIORITIES.get(phase, "info")
        if op.action == "restore":
            more |= {"volume_is_new": op.volume_is_new, "chain_length": op.chain_length}
        elif op.action in ("import", "export"):
            more["backup_service"] = op.backup_service
        else:
            more["resumed"] = op.resumed
        return emitter.Event(
            event_type=f"backup.{op.action}.{phase}",
            priority=priority,
            payload=payload.build(
                volume_utils._usage_from_backup(backup),
                backup,
                op,
                phase,
                self.clock(),
                service_metadata=options.include_service_metadata,
                **more,
            ),
            context={
                "user_id": backup.user_id,
                "project_id": backup.project_id,
                "request_id": op.request_id,
            },
            kept=op.kept and phase in operation.TERMINAL,
        )

    def _result(self, op: operation.Operation, backup: Any) -> dict[str, Any] | None:
        if op.action == "create":
            return {
                "bytes_read": op.progress and op.progress.bytes_done,
                "bytes_stored": op.progress and op.progress.bytes_stored,
                "object_count": backup.object_count,
            }
        if op.action == "restore":
            return {
                "bytes_written": op.progress and op.progress.bytes_written,
                "volume_bytes": op.volume_bytes,
            }
        return None

    def _new(
        self,
        context: Any,
        backup: Any,
        action: str,
        *,
        again: bool = False,
        **details: Any,
    ) -> operation.Operation:
        now = self.clock()
        discriminator = {
            "create": str(backup.created_at),
            "restore": f"{details.get('restore_volume_id')} {context.request_id}",
        }.get(action, str(context.request_id))
        if again:
            discriminator += f" {now}"
        return operation.Operation(
            id=operation.operation_id(backup.id, action, discriminator),
            action=action,
            backup_id=backup.id,
            started_at=now,
            request_id=context.request_id,
            resumed=again,
            **details,
        )

    def _delivered(self, event: emitter.Event) -> None:
        if event.kept:
            self.journal.delivered(event)

    def _recovered(self) -> None:
        for event in self.journal.undelivered(operation.worker()):
            self.emitter.put(event)

    def _dropped(self, count: int) -> emitter.Event:
        return emitter.Event(
            event_type="backup.notifications.dropped",
            priority="info",
            payload=payload.dropped(count, self.clock()),
            context={},
        )
