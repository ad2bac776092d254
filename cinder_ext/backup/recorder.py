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
import time
from collections.abc import Iterator
from typing import Any

from cinder import utils
from cinder.objects import fields
from cinder.volume import volume_utils
from oslo_log import log as logging
from oslo_utils import units

from cinder_ext.backup import failures, journal, operation
from cinder_ext.backup.harmless import harmless
from cinder_ext.backup.transfer import Transfer
from cinder_ext.notifications import emitter, payload, sender

LOG = logging.getLogger(__name__)

_BACKUP = "cinder-backup"

_GONE = (fields.BackupStatus.DELETING, fields.BackupStatus.DELETED)


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
        self._transfer: contextvars.ContextVar[Transfer | None] = (
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
            op = self._new(
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

    @harmless
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

    @harmless
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

    @harmless
    def cancel(self, op: operation.Operation, backup: Any) -> None:
        """Announce that somebody else ended the operation."""
        self._finish(op, backup, "cancelled")

    @harmless
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

    @harmless
    def stalled(self, op: operation.Operation, backup: Any, idle: float) -> None:
        """Announce that an operation shows no activity.

        :param idle: seconds
        """
        self.announce(op, backup, "stalled", age_seconds=idle)

    def resume(self, context: Any, backup: Any, action: str) -> operation.Operation:
        """The operation that the end of a service interrupted.

        Without a trace of it, it never started here or has ended already; then this is
        a new one. Only a delete goes on after a restart.
        """
        resumed = action == "delete"
        for op in self.journal.running(backup.id, action):
            op.resumed = resumed
            self.journal.begin(op)
            return op
        volume_id = backup.restore_volume_id if action == "restore" else None
        op = self._new(
            context,
            backup,
            action,
            again=True,
            resumed=resumed,
            restore_volume_id=volume_id,
        )
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
    def transfer(self, backup: Any) -> Iterator[Transfer]:
        """The body is the work of the driver."""
        op = self.current()

        def tell(facts: dict[str, Any]) -> None:
            if op:
                self.announce(op, backup, "progress", **facts)

        options = self.conf.backup_notifications
        transfer = Transfer(
            op,
            operation.Progress(
                backup.size and backup.size * units.Gi,
                op.objects_total if op else None,
                self.clock,
            ),
            operation.Pace(
                options.min_interval,
                options.max_interval,
                options.min_percent_step,
                self.clock,
            ),
            self.journal,
            tell,
            self.clock,
        )
        if op is None:
            yield transfer
            return
        op.progress = transfer.progress
        token = self._transfer.set(transfer)
        # Four times as often as it may tell, so as not to miss its time by much.
        transfer.start_beating(options.max_interval / 4)
        try:
            with op.at("transfer", then="finalize"):
                yield transfer
        finally:
            transfer.stop_beating()
            self._transfer.reset(token)

    def current_transfer(self) -> Transfer | None:
        """The work of the driver in this thread."""
        return self._transfer.get()

    # What follows.

    def announce(
        self, op: operation.Operation, backup: Any, phase: str, **more: Any
    ) -> None:
        """Send an event that is not the end of an operation."""
        self.emitter.put(self._event(op, backup, phase, **more))

    @harmless
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
        priority = "error" if phase == "error" else "info"
        if phase == "stalled":
            priority = options.stalled_priority
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
        """An operation that begins now.

        :param again: not the one that the calls of cinder lead to, so that its id has
            to differ
        """
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
