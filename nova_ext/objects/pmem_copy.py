# SPDX-License-Identifier: Apache-2.0
"""Owns the state of a copy of a server's persistent memory.

The API writes the order when a resize or migration asks for a copy and removes it with
every other one; the source host turns it into what it has done so far, always before it
does the next thing, so that a restart knows what it finds. An order counts only for the
request that gave it.
"""

import enum
from collections.abc import Sequence
from typing import Any

from nova.objects import base as nova_base
from nova.objects import fields

from nova_ext import exception
from nova_ext.db import api as db
from nova_ext.objects import base
from nova_ext.objects import fields as ext_fields


class PmemCopyStatus(enum.StrEnum):
    """How far the copy is."""

    #: The API has accepted the order.
    ORDERED = "ordered"
    #: Written ahead by the source host: the destination may hold a part of the data.
    COPYING = "copying"
    #: The data is whole on the destination, and that was verified.
    COPIED = "copied"


@nova_base.NovaObjectRegistry.register
class PmemCopy(base.StateObject):
    """One copy of the PMEM devices of a server.

    :ivar change_id: of the last change; a new UUID for each
    :ivar request_id: the request that ordered the copy
    :ivar migration_id: the row of the migration that does it; None while ordered
    """

    missing = exception.PmemCopyNotFound

    VERSION = "1.0"

    fields = {
        "instance_uuid": fields.UUIDField(),
        "change_id": fields.UUIDField(),
        "status": ext_fields.MemberField(PmemCopyStatus),
        "request_id": fields.StringField(),
        "migration_id": fields.IntegerField(nullable=True),
        "created_at": fields.DateTimeField(nullable=True),
        "updated_at": fields.DateTimeField(nullable=True),
    }

    @property
    def begun(self) -> bool:
        """Whether the copy has begun, so that the destination may hold data."""
        return self.status is not PmemCopyStatus.ORDERED

    @classmethod
    @base.remotable
    def get_by_instance_uuid(cls, context: Any, instance_uuid: str) -> "PmemCopy":
        """The copy of a server.

        :raises: nova_ext.exception.PmemCopyNotFound, StateDatabaseMissing or
            ConductorTooOld
        """
        return cls.from_row(context, db.pmem_copy_get(context, instance_uuid))

    @classmethod
    @base.remotable
    def destroy_by_instance_uuid(cls, context: Any, instance_uuid: str) -> None:
        """Remove the copy of a server, if it has one, whatever its state.

        :raises: nova_ext.exception.StateDatabaseMissing or ConductorTooOld
        """
        db.pmem_copy_delete_by_instance(context, instance_uuid)

    @base.remotable
    def order(self, expected_task_states: Sequence[str | None]) -> None:
        """Write the order, if the server is in one of these states; an older one goes.

        The caller sets ``change_id``, and repeats the call with the same one when the
        answer was lost.

        :raises: nova.exception.InstanceNotFound or UnexpectedTaskStateError;
            nova_ext.exception.StateDatabaseMissing or ConductorTooOld
        """
        self.take(db.pmem_copy_order(self._context, self.row(), expected_task_states))

    @base.remotable
    def save(self, change_id: str) -> None:
        """Write the fields that were changed, if nobody else has changed the copy.

        :param change_id: a new UUID, the same one when the answer was lost
        :raises: nova_ext.exception.PmemCopyChanged, StateDatabaseMissing or
            ConductorTooOld
        """
        self.take(
            db.pmem_copy_update(
                self._context,
                self.instance_uuid,
                self.change_id,
                self.changed_row(change_id),
            )
        )

    @base.remotable
    def destroy(self, change_id: str | None = None) -> None:
        """Remove the copy, if nobody else has changed it; it may be gone already.

        :param change_id: of a :meth:`save` whose answer was lost: the copy may have
            this one instead of its own
        :raises: nova_ext.exception.PmemCopyChanged, StateDatabaseMissing or
            ConductorTooOld
        """
        seen = [each for each in (self.change_id, change_id) if each is not None]
        db.pmem_copy_delete(self._context, self.instance_uuid, seen)


@nova_base.NovaObjectRegistry.register
class PmemCopyList(nova_base.ObjectListBase, nova_base.NovaObject):
    """Copies of servers that are not deleted."""

    VERSION = "1.0"

    fields = {"objects": fields.ListOfObjectsField("PmemCopy")}

    @classmethod
    @base.remotable
    def get_by_host(cls, context: Any, host: str) -> "PmemCopyList":
        """The copies of the servers on a host.

        :raises: nova_ext.exception.StateDatabaseMissing or ConductorTooOld
        """
        rows = db.pmem_copy_get_all_by_host(context, host)
        made = cls(context, objects=[PmemCopy.from_row(context, row) for row in rows])
        made.obj_reset_changes()
        return made

    @classmethod
    @base.remotable
    def destroy_of_deleted(cls, context: Any, host: str) -> int:
        """Remove the copies of servers that were deleted on a host; how many.

        :raises: nova_ext.exception.StateDatabaseMissing or ConductorTooOld
        """
        return db.pmem_copy_delete_of_deleted(context, host)
