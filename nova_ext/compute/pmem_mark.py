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

"""Owns the mark of a PMEM copy in ``instance.system_metadata``.

The mark is one JSON value of at most 255 characters (the column's width). The API
writes the order when a resize or migration asks for a copy and removes it with every
other one; the source host turns it into what it has done so far, always before it does
the next thing, so that a restart knows what it finds. An order counts only for the
request that gave it.
"""

import dataclasses
import enum
import json
from typing import Any

from oslo_log import log as logging

LOG = logging.getLogger(__name__)

KEY = "nova_ext:copy_pmem"


class Status(enum.StrEnum):
    """How far the copy is."""

    #: The API has accepted the order.
    ORDERED = "ordered"
    #: Written ahead by the source host: the destination may hold a part of the data.
    COPYING = "copying"
    #: The data is whole on the destination, and that was verified.
    COPIED = "copied"


@dataclasses.dataclass(frozen=True)
class PmemMark:
    """One copy of the PMEM devices of a server.

    :ivar request_id: the request that ordered the copy
    :ivar migration_id: the row of the migration that does it; None while ordered
    """

    status: Status
    request_id: str
    migration_id: int | None = None

    def to_json(self) -> str:
        """The mark as it is stored."""
        value: dict[str, Any] = {"status": self.status, "request": self.request_id}
        if self.migration_id is not None:
            value["migration"] = self.migration_id
        return json.dumps(value, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "PmemMark":
        """The mark that :meth:`to_json` stored.

        :raises: AttributeError, LookupError, TypeError or ValueError when ``text`` is
            something else
        """
        value = json.loads(text)
        migration_id = value.get("migration")
        return cls(
            status=Status(value["status"]),
            request_id=str(value["request"]),
            migration_id=None if migration_id is None else int(migration_id),
        )


def read(instance: Any) -> PmemMark | None:
    """The mark of ``instance``, or None; one that cannot be read counts as none."""
    text = instance.system_metadata.get(KEY)
    if not text:
        return None
    try:
        return PmemMark.from_json(text)
    except (AttributeError, ArithmeticError, LookupError, TypeError, ValueError) as exc:
        LOG.warning("Ignoring the unreadable PMEM copy mark %r: %s", text, exc)
        return None


def begun(instance: Any) -> bool:
    """Whether a copy of the server's devices has begun, and is not done with."""
    mark = read(instance)
    return mark is not None and mark.status is not Status.ORDERED


def write(instance: Any, mark: PmemMark | None) -> None:
    """Set or, with None, remove the mark; the caller saves the instance."""
    if mark is None:
        instance.system_metadata.pop(KEY, None)
    else:
        instance.system_metadata[KEY] = mark.to_json()
