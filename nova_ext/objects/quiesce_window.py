# SPDX-License-Identifier: Apache-2.0
"""Owns the quiesce state of a server: one freeze window, from its order to its end.

nova-compute writes it, ahead of what it does to the guest; the API reads it for the
server view and to refuse what a frozen guest cannot do, and nova-compute reads it again
after a restart.
"""

import contextlib
import datetime
import enum
import json
from collections.abc import Collection, Sequence
from typing import Any

from nova.objects import base as nova_base
from nova.objects import fields

from nova_ext import exception
from nova_ext.db import api as db
from nova_ext.objects import base
from nova_ext.objects import fields as ext_fields


class QuiesceStatus(enum.StrEnum):
    """What is known of the guest's file systems."""

    QUIESCING = "quiescing"
    QUIESCED = "quiesced"
    UNQUIESCING = "unquiescing"
    #: The state was cleared by os-resetState; the compute host still has to thaw.
    RELEASED = "released"
    #: Thawed, but not by ``unquiesce``; kept so that the next ``unquiesce`` can say so.
    BROKEN = "broken"


#: The statuses that a user sees; with the others a server counts as not quiesced.
VISIBLE = frozenset(
    {QuiesceStatus.QUIESCING, QuiesceStatus.QUIESCED, QuiesceStatus.UNQUIESCING}
)


@nova_base.NovaObjectRegistry.register
class QuiesceWindow(base.StateObject):
    """One freeze window.

    :ivar window_id: the same as long as the window lasts
    :ivar change_id: of the last change; a new UUID for each
    :ivar request_id: the request that ordered what ``status`` says is going on
    :ivar timeout: seconds between ``quiesced_at`` and ``unquiesce_at``
    :ivar partial: the request accepts writable file systems that cannot be frozen
    :ivar left_out: the mount points of these, as a JSON list; None if there are none
    :ivar quiesced_at: when the guest was frozen; UTC, with time zone
    :ivar reason: why the window was broken: with ``BROKEN``, and with ``UNQUIESCING``
        when nobody ordered the thaw
    """

    missing = exception.QuiesceWindowNotFound

    VERSION = "1.0"

    fields = {
        "instance_uuid": fields.UUIDField(),
        "window_id": fields.UUIDField(),
        "change_id": fields.UUIDField(),
        "status": ext_fields.MemberField(QuiesceStatus),
        "request_id": fields.StringField(),
        "timeout": fields.IntegerField(),
        "quiesced_at": ext_fields.ExactDateTimeField(nullable=True),
        "partial": fields.BooleanField(),
        "left_out": fields.StringField(nullable=True),
        "reason": fields.StringField(nullable=True),
        "created_at": fields.DateTimeField(nullable=True),
        "updated_at": fields.DateTimeField(nullable=True),
    }

    @property
    def unquiesce_at(self) -> datetime.datetime | None:
        """The deadline at which the compute host thaws by itself."""
        if not self.obj_attr_is_set("quiesced_at") or self.quiesced_at is None:
            return None
        deadline: datetime.datetime = self.quiesced_at
        with contextlib.suppress(OverflowError):
            deadline += datetime.timedelta(seconds=self.timeout)
        return deadline

    @property
    def mount_points_left_out(self) -> list[str]:
        """The mount points of writable file systems that are not frozen."""
        stored = self.left_out if self.obj_attr_is_set("left_out") else None
        return list(json.loads(stored)) if stored else []

    @property
    def visible(self) -> bool:
        """Whether the server counts as quiesced."""
        return self.status in VISIBLE

    @classmethod
    @base.remotable
    def get_by_instance_uuid(cls, context: Any, instance_uuid: str) -> "QuiesceWindow":
        """The window of a server.

        :raises: nova_ext.exception.QuiesceWindowNotFound, StateDatabaseMissing or
            ConductorTooOld
        """
        return cls.from_row(context, db.quiesce_window_get(context, instance_uuid))

    @classmethod
    @base.remotable
    def destroy_by_instance_uuid(cls, context: Any, instance_uuid: str) -> None:
        """Remove the window of a server that is gone, if it has one.

        :raises: nova_ext.exception.StateDatabaseMissing or ConductorTooOld
        """
        db.quiesce_window_delete_by_instance(context, instance_uuid)

    @base.remotable
    def create(
        self,
        host: str,
        expected_vm_states: Sequence[str | None],
        expected_task_states: Sequence[str | None],
    ) -> None:
        """Begin the window, if the server is on ``host`` and in one of these states.

        The caller sets ``change_id``, and repeats the call with the same one when the
        answer was lost. A broken window is replaced.

        :raises: nova.exception.InstanceNotFound or InstanceUpdateConflict;
            nova_ext.exception.QuiesceWindowExists, StateDatabaseMissing or
            ConductorTooOld
        """
        self.take(
            db.quiesce_window_create(
                self._context,
                self.row(),
                host,
                expected_vm_states,
                expected_task_states,
            )
        )

    @base.remotable
    def save(
        self,
        change_id: str,
        host: str | None = None,
        expected_task_states: Sequence[str | None] | None = None,
    ) -> None:
        """Write the fields that were changed, if nobody else has changed the window.

        :param change_id: a new UUID, the same one when the answer was lost
        :param host: where the server has to be, not deleted nor being deleted; None if
            that does not matter
        :param expected_task_states: of the server; None for any
        :raises: nova_ext.exception.QuiesceWindowChanged, StateDatabaseMissing or
            ConductorTooOld; nova.exception.InstanceNotFound or UnexpectedTaskStateError
        """
        self.take(
            db.quiesce_window_update(
                self._context,
                self.instance_uuid,
                self.change_id,
                self.changed_row(change_id),
                host,
                expected_task_states,
            )
        )

    @base.remotable
    def destroy(self, change_id: str | None = None) -> None:
        """Remove the window, if nobody else has changed it; it may be gone already.

        :param change_id: of a :meth:`save` whose answer was lost: the window may have
            this one instead of its own
        :raises: nova_ext.exception.QuiesceWindowChanged, StateDatabaseMissing or
            ConductorTooOld
        """
        seen = [each for each in (self.change_id, change_id) if each is not None]
        db.quiesce_window_delete(self._context, self.instance_uuid, seen)


@nova_base.NovaObjectRegistry.register
class QuiesceWindowList(nova_base.ObjectListBase, nova_base.NovaObject):
    """Freeze windows of servers that are not deleted."""

    VERSION = "1.0"

    fields = {"objects": fields.ListOfObjectsField("QuiesceWindow")}

    @classmethod
    def _of(cls, context: Any, rows: list[dict[str, Any]]) -> "QuiesceWindowList":
        windows = [QuiesceWindow.from_row(context, row) for row in rows]
        made = cls(context, objects=windows)
        made.obj_reset_changes()
        return made

    @classmethod
    @base.remotable
    def get_by_host(cls, context: Any, host: str) -> "QuiesceWindowList":
        """The windows of the servers on a host.

        :raises: nova_ext.exception.StateDatabaseMissing or ConductorTooOld
        """
        return cls._of(context, db.quiesce_window_get_all_by_host(context, host))

    @classmethod
    @base.remotable
    def get_by_instance_uuids(
        cls, context: Any, instance_uuids: Collection[str]
    ) -> "QuiesceWindowList":
        """The windows of those of the servers that have one, in one query.

        :raises: nova_ext.exception.StateDatabaseMissing or ConductorTooOld
        """
        rows = db.quiesce_window_get_all_by_instances(context, instance_uuids)
        return cls._of(context, rows)

    @classmethod
    @base.remotable
    def destroy_of_deleted(cls, context: Any, host: str) -> int:
        """Remove the windows of servers that were deleted on a host; how many.

        :raises: nova_ext.exception.StateDatabaseMissing or ConductorTooOld
        """
        return db.quiesce_window_delete_of_deleted(context, host)
