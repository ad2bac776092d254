# SPDX-License-Identifier: Apache-2.0
"""Owns the fake guest agents, which the real guard of a host asks."""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

from nova_ext.guard import guests

COUNT = 2  # of the file systems that a freeze freezes


class FakeAgents:
    """Guest agents that do what a test says.

    :ivar frozen: UUIDs of the guests that are frozen
    :ivar calls: what was asked of the agents, in order
    :ivar freeze_gate: a freeze waits until it is set
    :ivar freeze_error: raised by the next freezes
    :ivar thaw_gate: a thaw waits until it is set
    :ivar thaw_errors: raised by the next thaws, one each, which leave the guest frozen
    :ivar hook_error: raised by a thaw that has thawed the guest
    :ivar absent: raised instead of finding a guest
    :ivar domain: the number of the running domain of each guest
    :ivar bytes: what each guest has written
    :ivar mounted: the file systems that the agents list
    :ivar allowed: the commands that the agents carry out
    :ivar hung: raised when an agent is asked for its status
    """

    def __init__(self) -> None:
        self.frozen: set[str] = set()
        self.calls: list[str] = []
        self.freeze_gate = threading.Event()
        self.freeze_gate.set()
        self.freeze_error: Exception | None = None
        self.thaw_gate = threading.Event()
        self.thaw_gate.set()
        self.thaw_errors: list[Exception] = []
        self.hook_error: Exception | None = None
        self.absent: guests.GuestAbsent | None = None
        self.domain = 1
        self.bytes = 3
        self.mounted = [
            guests.FileSystem("vda1", "/", "ext4"),
            guests.FileSystem("vda2", "/data", "xfs"),
        ]
        self.allowed = {guests.FREEZE, guests.THAW, guests.STATUS, guests.FSINFO}
        self.hung: Exception | None = None
        self._asking: list[FakeGuests] = []

    def of_host(self, *args: Any, **kwargs: Any) -> "FakeGuests":
        """The guests as one nova-compute has them."""
        asking = FakeGuests(self)
        self._asking.append(asking)
        return asking

    def leave_hosts(self) -> None:
        """Let every thread of a nova-compute end that asks or waits for an agent."""
        for asking in self._asking:
            asking.dead = True


class FakeGuests:
    """See :class:`nova_ext.guard.guests.Guests`.

    :ivar dead: the process that asks was killed
    """

    def __init__(self, agents: FakeAgents) -> None:
        self.agents = agents
        self.dead = False

    def live(self) -> None:
        if self.dead:
            raise SystemExit

    def wait(self, gate: threading.Event) -> None:
        """Wait until ``gate`` is set, or the one who waits is killed."""
        patience = time.monotonic() + 60
        while not gate.wait(0.05):
            self.live()
            assert time.monotonic() < patience
        self.live()

    @contextlib.contextmanager
    def guest(self, uuid: str, urgent: bool) -> Iterator["FakeGuest"]:
        self.live()
        if self.agents.absent:
            raise self.agents.absent
        yield FakeGuest(self, uuid)


class FakeGuest:
    """A running guest; see :class:`nova_ext.guard.guests.Guest`."""

    def __init__(self, asking: FakeGuests, uuid: str) -> None:
        self._asking = asking
        self._agents = asking.agents
        self._uuid = uuid

    def domain_id(self) -> int:
        return self._agents.domain

    def require_agent(self) -> None:
        pass

    def commands(self) -> set[str]:
        return self._agents.allowed

    def status(self) -> str:
        self._asking.live()
        if self._agents.hung:
            raise self._agents.hung
        return "frozen" if self._uuid in self._agents.frozen else "thawed"

    def freeze(self) -> int:
        self._agents.calls.append("freeze")
        self._asking.wait(self._agents.freeze_gate)
        if self._agents.freeze_error:
            raise self._agents.freeze_error
        self._agents.frozen.add(self._uuid)
        return COUNT

    def thaw(self) -> int:
        self._agents.calls.append("thaw")
        self._asking.wait(self._agents.thaw_gate)
        if self._agents.thaw_errors:
            raise self._agents.thaw_errors.pop(0)
        self._agents.frozen.discard(self._uuid)
        self._agents.bytes += 512  # the journal is opened
        if self._agents.hook_error:
            raise self._agents.hook_error
        return COUNT

    def file_systems(self) -> list[guests.FileSystem]:
        return self._agents.mounted

    def mounted_read_only(self) -> set[str]:
        return set()

    def written(self) -> int:
        return self._agents.bytes
