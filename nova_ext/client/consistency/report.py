# SPDX-License-Identifier: Apache-2.0
"""The steps of an operation on a group, and the report at its end."""

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """The steps, in the order in which they come."""

    PLANNED = "planned"
    FREEZING = "freezing"
    FROZEN = "frozen"
    SNAPSHOTTING = "snapshotting"
    SNAPSHOTTED = "snapshotted"
    THAWING = "thawing"
    THAWED = "thawed"
    COMMITTED = "committed"
    BACKING_UP = "backing_up"
    BACKED_UP = "backed_up"
    COPYING = "copying"
    COPIED = "copied"
    BUILDING = "building"
    BUILT = "built"
    BOOTING = "booting"
    BOOTED = "booted"


@dataclass(frozen=True)
class Step:
    """One step, told right before it begins or after it has ended.

    :param what: the name of the server, or of server and device
    :param done: steps that have ended so far
    :param total: steps that there will be, if nothing fails
    """

    kind: Kind
    what: str
    done: int
    total: int


#: Is told each step, in the thread that asked for the operation.
Observer = Callable[[Step], None]


def nobody(_step: Step) -> None:
    """Do nothing with a step."""


class Progress:
    """Counts the steps of an operation and tells them."""

    #: The kinds that say that something has ended.
    _ENDS = frozenset(
        {
            *(
                Kind.FROZEN,
                Kind.SNAPSHOTTED,
                Kind.THAWED,
                Kind.COMMITTED,
                Kind.BACKED_UP,
            ),
            *(Kind.COPIED, Kind.BUILT, Kind.BOOTED),
        }
    )

    def __init__(self, observe: Observer, total: int) -> None:
        self._observe = observe
        self._total = total
        self._done = 0

    def __call__(self, kind: Kind, what: str = "") -> None:
        """Tell a step."""
        self._done += kind in self._ENDS
        self._observe(Step(kind, what, self._done, self._total))


@dataclass
class ServerReport:
    """How it went with one server.

    ``frozen_at`` is when the client saw the guest frozen, ``thawed_at`` when it saw it
    thawed again; ``window_ms`` is the time between its request to freeze and that.

    :param consistent: the guest was frozen without a gap for the snapshots
    :param reason: why it was not
    :param members: the snapshots and images of its disks, as "vda=snapshot ID"
    """

    id: str
    name: str
    frozen_at: datetime.datetime | None = None
    thawed_at: datetime.datetime | None = None
    window_ms: int | None = None
    consistent: bool = False
    reason: str | None = None
    members: list[str] = field(default_factory=list)


@dataclass
class Report:
    """How it went with a group.

    :param window_ms: from the first request to freeze until all were thawed
    :param consistency: ``group``, or ``partial`` if a server was not frozen
    """

    id: str
    name: str
    consistency: str
    window_ms: int
    servers: list[ServerReport]
