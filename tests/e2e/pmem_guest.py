# SPDX-License-Identifier: Apache-2.0
"""Owns a guest with persistent memory that is moved between two hosts and back."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from aiolib import moves
from aiolib.bus import Listener
from aiolib.client import Cloud

from nova_ext.client import compute, exceptions
from tests.e2e import steps

SLOW = 1 << 20  # bytes a second for each of the streams: a copy takes eight seconds


class Guest:
    """A server on its home that has filled its SMALL device.

    :param hosts: its home, and the host that it is moved to
    """

    def __init__(
        self, cloud: Cloud, admin: Any, server: Any, hosts: Sequence[str], seed: int
    ) -> None:
        self.cloud, self.admin, self.server = cloud, admin, server
        self.hosts = self.home, self.away = tuple(hosts)
        self.id: str = server.id
        self.name: str = server.name
        self.sum = cloud.pmem_write(server.id, 0, seed)

    def order(self, host: str = "") -> str:
        return compute.migrate_copying_pmem(self.admin, self.id, host or self.away)

    def wait(self, request: str) -> None:
        compute.wait_moved(self.admin, self.id, request, interval=0.3)

    def moved(self) -> None:
        self.wait(self.order())
        self.cloud.wait_agent(self.id, 90)

    def until(self, status: str, seconds: float = 90) -> None:
        moves.wait_status(self.admin, self.id, status, seconds)

    def copying(self) -> Callable[[], bool]:
        """Tells whether some of the data has arrived."""
        mine = set(moves.used(self.cloud, self.id))
        return lambda: bool(set(self.dirty()) - mine)

    def dirty(self) -> dict[tuple[str, str], str]:
        """The devices with data on its hosts."""
        return moves.dirty(self.cloud, self.hosts)

    def told(self, listener: Listener) -> list[dict[str, Any]]:
        """The notifications of the copy, once it has ended."""
        found = steps.told(listener, self.id, "copy_pmem")
        return found if found and found[-1]["event_type"].endswith(".end") else []

    def revert(self) -> None:
        self.admin.compute.revert_server_resize(self.id)
        self.until("ACTIVE")
        self.cloud.wait_agent(self.id, 90)

    def assert_reads(self, host: str, device: int = 0) -> None:
        """The guest is on ``host`` and reads what it wrote."""
        assert self.cloud.find_host(self.id) == host
        assert self.cloud.pmem_sum(self.id, device) == self.sum

    def is_home(self) -> bool:
        """Whether it runs at home, and its data is nowhere else."""
        server = self.admin.compute.get_server(self.id)
        return (server.status, server.compute_host) == ("ACTIVE", self.home) and list(
            self.dirty().values()
        ) == [self.sum]

    def assert_back(self) -> None:
        """It runs at home with its data, of which nothing is elsewhere."""
        self.until("ACTIVE")
        self.cloud.wait_agent(self.id, 90)
        self.assert_reads(self.home)
        steps.until(
            "nothing of the data elsewhere",
            lambda: self.dirty() == {moves.used(self.cloud, self.id)[0]: self.sum},
            100,
        )
        steps.until(
            "nothing to be zeroed",
            lambda: not moves.pending_sanitize(self.cloud, self.hosts),
            100,
        )
        self.assert_allocated(self.home)

    def assert_allocated(self, *hosts: str) -> None:
        """Placement has the server on these hosts and nowhere else."""
        providers = {
            each["uuid"]: each["name"]
            for each in self.admin.placement.get("/resource_providers").json()[
                "resource_providers"
            ]
        }
        path = f"/allocations/{self.id}"
        taken = self.admin.placement.get(path).json()["allocations"]
        assert sorted(providers[uuid] for uuid in taken) == sorted(hosts)

    def fails(self, request: str, reason: str) -> None:
        """The move ends with this reason, and the server is as before."""
        with pytest.raises(exceptions.MoveFailed, match=reason):
            self.wait(request)
        self.assert_back()
