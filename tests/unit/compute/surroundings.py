# SPDX-License-Identifier: Apache-2.0
"""What surrounds the compute API: a server, its host and what the two are told."""

import types
from collections.abc import Callable
from typing import Any

from nova import exception, objects

from tests.unit import people

# Now, not in the midst of a test that has put something of its own in a name's place.
objects.register_all()

UUID = "0d4b1e9c-9f2f-4d2a-8b0c-6b0a3a4f7c11"


class Steps:
    """What happened, in order; and what a test lets happen in the midst of it.

    :ivar fails: what a step of that name raises
    :ivar during: what somebody else does while a step of that name runs
    """

    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.fails: dict[str, Exception] = {}
        self.during: dict[str, Callable[[], Any]] = {}

    def take(self, name: str, *values: Any) -> None:
        self.taken.append((name, *values) if values else name)
        if name in self.during:
            self.during.pop(name)()
        if name in self.fails:
            raise self.fails[name]


class Instance:
    """A server that runs on compute1."""

    uuid = UUID
    project_id = people.PROJECT
    locked = False
    launched_at = "then"
    vm_state = "active"
    task_state: str | None = None
    host: str | None = "compute1"
    node = "node1"

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.stored: str | None = None
        self.service = types.SimpleNamespace(binary="nova-compute", up=True)
        self.system_metadata = {"image_hw_qemu_guest_agent": "yes"}

    @property
    def services(self) -> list[Any]:
        return [types.SimpleNamespace(binary="nova-other", up=False), self.service]

    def save(self, expected_task_state: Any = None) -> None:
        """Write the task state if the database has an expected one."""
        self.steps.take("save", self.task_state)
        if self.stored not in expected_task_state:
            raise exception.UnexpectedTaskStateError(
                instance_uuid=UUID, expected={}, actual={"task_state": self.stored}
            )
        self.stored = self.task_state


class Caller:
    """A client of RPC: each method is a step."""

    def __init__(self, steps: Steps, name: str) -> None:
        self._steps, self._name = steps, name

    def __getattr__(self, method: str) -> Callable[..., None]:
        def call(context: Any, *args: Any, **kwargs: Any) -> None:
            self._steps.take(f"{self._name} {method}")

        return call


SERVICEGROUP = types.SimpleNamespace(service_is_up=lambda service: service.up)
