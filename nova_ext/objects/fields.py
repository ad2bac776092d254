# SPDX-License-Identifier: Apache-2.0
"""Owns the field types that nova's objects do not have."""

import enum
from typing import Any

from oslo_versionedobjects import fields


class ExactDateTime(fields.DateTime):
    """A time that keeps its microseconds when it is sent."""

    def to_primitive(self, obj: Any, attr: str, value: Any) -> str:
        """The time in ISO 8601, with microseconds."""
        return str(value.isoformat(timespec="microseconds"))


class ExactDateTimeField(fields.AutoTypedField[Any]):
    """A time with microseconds; UTC, with time zone."""

    AUTO_TYPE = ExactDateTime()


class Member(fields.Enum):
    """A member of an ``enum.StrEnum``, which is a plain string when it is sent."""

    def __init__(self, kind: type[enum.StrEnum]) -> None:
        self._kind = kind
        super().__init__(valid_values=tuple(each.value for each in kind))

    def coerce(self, obj: Any, attr: str, value: Any) -> Any:
        """The member that ``value`` names.

        :raises: ValueError
        """
        return self._kind(super().coerce(obj, attr, value))

    def to_primitive(self, obj: Any, attr: str, value: Any) -> str:
        """The value of the member."""
        return str(value.value)


class MemberField(fields.BaseEnumField):
    """A member of an ``enum.StrEnum``."""

    def __init__(self, kind: type[enum.StrEnum], **kwargs: Any) -> None:
        self.AUTO_TYPE = Member(kind)
        super().__init__(**kwargs)
