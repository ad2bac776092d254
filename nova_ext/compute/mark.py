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

"""Owns the mark of a quiesced server in ``instance.system_metadata``.

The mark is one JSON value of at most 255 characters (the column's width). nova-compute
writes it; the API reads it for the server view and to refuse what a frozen guest cannot
do, and nova-compute reads it again after a restart.
"""

import dataclasses
import datetime
import enum
import json
from typing import Any

from oslo_log import log as logging

from nova_ext.virt import freezer

LOG = logging.getLogger(__name__)

KEY = "nova_ext:quiesce"
LENGTH = 255


class Status(enum.StrEnum):
    """What is known of the guest's file systems."""

    QUIESCING = "quiescing"
    QUIESCED = "quiesced"
    UNQUIESCING = "unquiescing"
    #: The marker was cleared by os-resetState; the compute host still has to thaw.
    RELEASED = "released"
    #: Thawed, but not by ``unquiesce``; kept so that the next ``unquiesce`` can say so.
    BROKEN = "broken"


#: The statuses that a user sees; with the others a server counts as not quiesced.
VISIBLE = frozenset({Status.QUIESCING, Status.QUIESCED, Status.UNQUIESCING})


@dataclasses.dataclass(frozen=True)
class Mark:
    """One quiesce window.

    :ivar request_id: the request that ordered what ``status`` says is going on
    :ivar timeout: seconds between ``quiesced_at`` and ``unquiesce_at``
    :ivar quiesced_at: when the guest was frozen; UTC, with time zone
    :ivar reason: why the window was broken: with :attr:`Status.BROKEN`, and with
        :attr:`Status.UNQUIESCING` when nobody ordered the thaw
    """

    status: Status
    request_id: str
    timeout: int
    quiesced_at: datetime.datetime | None = None
    evidence: freezer.Evidence | None = None
    reason: str = ""

    @property
    def unquiesce_at(self) -> datetime.datetime | None:
        """The deadline at which the compute host thaws by itself."""
        if self.quiesced_at is None:
            return None
        return self.quiesced_at + datetime.timedelta(seconds=self.timeout)

    def replace(self, **changes: Any) -> "Mark":
        """This mark with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_json(self) -> str:
        """The mark as it is stored."""
        value: dict[str, Any] = {
            "status": self.status,
            "request": self.request_id,
            "timeout": self.timeout,
        }
        if self.quiesced_at is not None:
            value["at"] = self.quiesced_at.timestamp()
        if self.evidence is not None:
            value["evidence"] = dataclasses.astuple(self.evidence)
        reason = self.reason.encode("ascii", "replace").decode()
        while reason:
            text = json.dumps({**value, "reason": reason}, separators=(",", ":"))
            if len(text) <= LENGTH:
                return text
            # A character takes up to six in JSON.
            reason = reason[: -max(1, (len(text) - LENGTH) // 6)]
        return json.dumps(value, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Mark":
        """The mark that :meth:`to_json` stored.

        :raises: AttributeError, LookupError, OSError, OverflowError, TypeError or
            ValueError when ``text`` is something else
        """
        value = json.loads(text)
        at = value.get("at")
        evidence = value.get("evidence")
        return cls(
            status=Status(value["status"]),
            request_id=value["request"],
            timeout=int(value["timeout"]),
            quiesced_at=(
                None
                if at is None
                else datetime.datetime.fromtimestamp(at, datetime.UTC)
            ),
            evidence=None if evidence is None else freezer.Evidence(*evidence),
            reason=value.get("reason", ""),
        )


def read(instance: Any) -> Mark | None:
    """The mark of ``instance``, or None; one that cannot be read counts as none."""
    text = instance.system_metadata.get(KEY)
    if not text:
        return None
    try:
        return Mark.from_json(text)
    except (
        AttributeError,
        ArithmeticError,
        LookupError,
        OSError,
        TypeError,
        ValueError,
    ) as exc:
        LOG.warning("Ignoring the unreadable quiesce mark %r: %s", text, exc)
        return None


def visible(instance: Any) -> Mark | None:
    """The mark of ``instance`` if the server counts as quiesced, else None."""
    mark = read(instance)
    return mark if mark is not None and mark.status in VISIBLE else None


def write(instance: Any, mark: Mark | None) -> None:
    """Set or, with None, remove the mark; the caller saves the instance."""
    if mark is None:
        instance.system_metadata.pop(KEY, None)
    else:
        instance.system_metadata[KEY] = mark.to_json()
