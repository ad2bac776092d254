# SPDX-License-Identifier: Apache-2.0
"""Owns what is announced of an operation: its identity, priorities, results and end.

Makes events; keeps, sends and locks nothing. Cinder's own keys of a backup come from a
function, because Cinder cannot be imported without eventlet.
"""

import time
from collections.abc import Callable
from typing import Any

from cinder_ext.notifications import emitter, payload
from cinder_ext.objects import failures
from cinder_ext.objects.operation import TERMINAL, Clock, Operation, operation_id

#: The status of a backup that is or was deleted (cinder.objects.fields.BackupStatus).
_GONE = ("deleting", "deleted")


class Events:
    """Makes operations, and the events that announce them.

    :param options: the group ``[backup_notifications]``
    :param usage: returns the 16 keys of Cinder's own notifications for a backup
    """

    def __init__(
        self,
        options: Any,
        usage: Callable[[Any], dict[str, Any]],
        clock: Clock = time.time,
    ) -> None:
        self._options = options
        self._usage = usage
        self._clock = clock

    def new_operation(
        self,
        context: Any,
        backup: Any,
        action: str,
        *,
        again: bool = False,
        **details: Any,
    ) -> Operation:
        """An operation that begins now.

        :param again: it is not the one that Cinder's calls lead to, so that its ID
            has to differ
        :param details: more fields of the operation
        """
        now = self._clock()
        discriminator = {
            "create": str(backup.created_at),
            "restore": f"{details.get('restore_volume_id')} {context.request_id}",
        }.get(action, str(context.request_id))
        if again:
            discriminator += f" {now}"
        return Operation(
            id=operation_id(backup.id, action, discriminator),
            action=action,
            backup_id=backup.id,
            started_at=now,
            request_id=context.request_id,
            **details,
        )

    def start(self, op: Operation, backup: Any) -> emitter.Event | None:
        """The start; None for an export, whose end is enough."""
        if op.action == "export":
            return None
        return self._event(op, backup, "start")

    def progress(
        self, op: Operation, backup: Any, progress: dict[str, Any]
    ) -> emitter.Event:
        """The progress of the transfer.

        :param progress: as from ``Progress.to_payload``
        """
        return self._event(op, backup, "progress", **progress)

    def stalled(self, op: Operation, backup: Any, idle: float) -> emitter.Event:
        """The operation has shown no activity.

        :param idle: seconds
        """
        return self._event(op, backup, "stalled", age_seconds=idle)

    def succeeded(self, op: Operation, backup: Any) -> emitter.Event:
        """The end of an operation whose work is done, unless it was cancelled."""
        if op.cancelled or self._is_deleted(op, backup):
            return self.cancelled(op, backup)
        return self._end(op, backup, "end", result=_result(op, backup))

    def cancelled(self, op: Operation, backup: Any) -> emitter.Event:
        """The end of an operation that another operation, or an operator, ended."""
        return self._end(op, backup, "cancelled")

    def failed(
        self, op: Operation, backup: Any, failure: BaseException, *, deleting: bool
    ) -> emitter.Event:
        """The end of an operation that failed, unless a delete was the cause.

        :param deleting: a delete of the backup is running
        """
        if op.action == "create" and (deleting or self._is_deleted(op, backup)):
            return self.cancelled(op, backup)
        error = failures.describe(failure, op.phase, payload.known_ids(backup, op))
        return self._end(op, backup, "error", error=error)

    def dropped(self, count: int) -> emitter.Event:
        """This process has lost this number of notifications."""
        return emitter.Event(
            event_type="backup.notifications.dropped",
            priority="info",
            payload=payload.dropped(count, self._clock()),
            context={},
        )

    @staticmethod
    def _is_deleted(op: Operation, backup: Any) -> bool:
        return op.action == "create" and backup.status in _GONE

    def _end(
        self, op: Operation, backup: Any, phase: str, **more: Any
    ) -> emitter.Event:
        if op.progress:
            more |= op.progress.to_payload(succeeded=phase == "end")
        duration = op.duration(self._clock())
        return self._event(op, backup, phase, duration=duration, **more)

    def _event(
        self, op: Operation, backup: Any, phase: str, **more: Any
    ) -> emitter.Event:
        priority = "error" if phase == "error" else "info"
        if phase == "stalled":
            priority = self._options.stalled_priority
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
                self._usage(backup),
                backup,
                op,
                phase,
                self._clock(),
                service_metadata=self._options.include_service_metadata,
                **more,
            ),
            context={
                "user_id": backup.user_id,
                "project_id": backup.project_id,
                "request_id": op.request_id,
            },
            kept=op.kept and phase in TERMINAL,
        )


def _result(op: Operation, backup: Any) -> dict[str, Any] | None:
    """What a successful operation has transferred; None if it transfers nothing."""
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
