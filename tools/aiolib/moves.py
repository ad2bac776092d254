# SPDX-License-Identifier: Apache-2.0
"""What a move with persistent memory leaves on the hosts: for demo and tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiolib import devices, waiting
from aiolib.client import Cloud
from nova_ext.client import compute

HOSTS = ("cmp1", "cmp2")


def dirty(cloud: Cloud, hosts: Sequence[str] = HOSTS) -> dict[tuple[str, str], str]:
    """Host and namespace of each device that is not zero, with what a guest sees."""
    return {
        (host, name): cloud.device_sum(host, name)
        for host in hosts
        for name in devices.of_host(cloud.settings, host)
        if not cloud.device_is_zero(host, name)
    }


def used(cloud: Cloud, server_id: str) -> list[tuple[str, str]]:
    """Host and namespace of each device of the running guest, in its order."""
    host = cloud.find_host(server_id)
    return [(host, name) for name in cloud.pmem_namespaces(server_id)]


def pending_sanitize(cloud: Cloud, hosts: Sequence[str] = HOSTS) -> list[str]:
    """The namespaces that a host's nova-compute still has to zero."""
    found: list[str] = []
    for host in hosts:
        directory = cloud.settings.state(f"nova-{host}") / "nova_ext/pmem" / host
        for entry in directory.glob("*"):
            if entry.read_text().startswith("sanitize"):
                found.append(f"{host} {entry.name}")
    return found


def wait_status(connection: Any, server_id: str, status: str, seconds: float) -> Any:
    """Wait until the server has a status and no task; the server.

    :raises TimeoutError: it has not within ``seconds``
    """
    found: Any = None

    def look() -> Any:
        nonlocal found
        found = connection.compute.get_server(server_id)
        return found if (found.status, found.task_state) == (status, None) else None

    def told() -> str:
        task = found.task_state
        return f"{status} of {server_id}, which is {found.status} with task {task}"

    return waiting.until(told, look, seconds, 0.3)


def migrate(admin: Any, server_id: str, host: str | None = None) -> None:
    """Migrate with the data and wait.

    :raises nova_ext.client.exceptions.MoveFailed: it was not moved
    """
    request = compute.migrate_copying_pmem(admin, server_id, host)
    compute.wait_moved(admin, server_id, request, interval=0.3)
