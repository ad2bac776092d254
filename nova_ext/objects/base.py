# SPDX-License-Identifier: Apache-2.0
"""Owns what the objects of the extension share: their way to nova-conductor and back.

nova-conductor calls the methods of any class in its registry by name, so that those of
the extension need no RPC of their own. One that does not have the extension answers
that it does not know the class.
"""

import datetime
import enum
import functools
from collections.abc import Callable
from typing import Any, Self

import oslo_messaging as messaging
import tenacity
from nova.objects import base
from oslo_log import log as logging

from nova_ext import exception

LOG = logging.getLogger(__name__)

#: Seconds in which another nova-conductor may answer, in the midst of an upgrade.
UPGRADE_WAIT = 10

#: What a conductor raises that has no such class, or an older one.
_UNKNOWN = ("IncompatibleObjectVersion", "UnsupportedObjectError")


def remotable(function: Callable[..., Any]) -> Callable[..., Any]:
    """nova's ``remotable``, which waits for a nova-conductor with the extension.

    While nova-conductors are upgraded one after the other, the next one may know the
    object. Nothing was done by one that does not, so that asking again is safe.

    :raises: nova_ext.exception.ConductorTooOld when none knows it
    """
    remote = base.remotable(function)

    @functools.wraps(remote)
    def wrapper(first: Any, *args: Any, **kwargs: Any) -> Any:
        if not first.indirection_api:
            return remote(first, *args, **kwargs)
        try:
            return _patient(remote, first, *args, **kwargs)
        except messaging.RemoteError as exc:
            if not _is_too_old(exc):
                raise
            raise exception.ConductorTooOld(objname=first.obj_name()) from exc

    return wrapper


def _is_too_old(exc: BaseException) -> bool:
    return isinstance(exc, messaging.RemoteError) and exc.exc_type in _UNKNOWN


def _log(state: tenacity.RetryCallState) -> None:
    LOG.debug("nova-conductor does not know the object; trying again: %s", state)


_patient = tenacity.Retrying(
    retry=tenacity.retry_if_exception(_is_too_old),
    stop=tenacity.stop_after_delay(UPGRADE_WAIT),
    wait=tenacity.wait_exponential(multiplier=0.1, max=1),
    before_sleep=_log,
    reraise=True,
)


class StateObject(base.NovaObject):
    """A row of a table of the extension; its fields are the columns.

    :cvar missing: what ``get_by_instance_uuid`` raises for a server without one
    """

    missing: type[Exception]

    @classmethod
    def find(cls, context: Any, instance_uuid: str) -> Self | None:
        """The row of a server, or None if it has none.

        :raises: nova_ext.exception.StateDatabaseMissing or ConductorTooOld
        """
        try:
            found: Self = cls.get_by_instance_uuid(context, instance_uuid)
        except cls.missing:
            return None
        return found

    def row(self) -> dict[str, Any]:
        """The values of all columns that the caller sets; None for those unset."""
        return {
            name: _stored(getattr(self, name) if self.obj_attr_is_set(name) else None)
            for name in self.fields
            if name not in ("created_at", "updated_at")
        }

    def changed_row(self, change_id: str) -> dict[str, Any]:
        """The values of the columns that were changed, with the new ``change_id``."""
        changes = {
            name: _stored(value) for name, value in self.obj_get_changes().items()
        }
        return {**changes, "change_id": change_id}

    def take(self, row: dict[str, Any]) -> None:
        """Take over a row as it is in the database."""
        for name in self.fields:
            setattr(self, name, row[name])
        self.obj_reset_changes()

    def replace(self, **changes: Any) -> Any:
        """A copy with other values, which remembers what differs from the row."""
        other = self.obj_clone()
        other._context = self._context
        for name, value in changes.items():
            setattr(other, name, value)
        return other

    @classmethod
    def from_row(cls, context: Any, row: dict[str, Any]) -> Any:
        """The object of a row."""
        made = cls(context)
        made.take(row)
        return made


def _stored(value: Any) -> Any:
    """A value as the database takes it: times go without time zone, in UTC."""
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.UTC).replace(tzinfo=None)
    if isinstance(value, enum.Enum):
        return value.value
    return value
