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

"""What a move with persistent memory leaves on the hosts: for demo and tests."""

from __future__ import annotations

import time
from typing import Any

from aiolib import devices
from aiolib.client import Cloud
from nova_ext import client

HOSTS = ("cmp1", "cmp2")


def dirty(cloud: Cloud) -> dict[tuple[str, str], str]:
    """Host and namespace of each device that is not zero, with what a guest sees."""
    return {
        (host, name): cloud.device_sum(host, name)
        for host in HOSTS
        for name in devices.NAMESPACES
        if not cloud.device_is_zero(host, name)
    }


def used(cloud: Cloud, server_id: str) -> list[tuple[str, str]]:
    """Host and namespace of each device of the running guest, in its order."""
    host = cloud.find_host(server_id)
    return [(host, name) for name in cloud.pmem_namespaces(server_id)]


def ledger(cloud: Cloud) -> list[str]:
    """The namespaces that a host's nova-compute still has to zero."""
    found: list[str] = []
    for host in HOSTS:
        directory = cloud.settings.state(f"nova-{host}") / "nova_ext/pmem" / host
        for entry in directory.glob("*"):
            if not entry.read_text().startswith("held "):  # which waits for a confirm
                found.append(f"{host} {entry.name}")
    return found


def wait_status(connection: Any, server_id: str, status: str, seconds: float) -> Any:
    """Wait until the server has a status and no task; the server.

    :raises TimeoutError: it has not within ``seconds``
    """
    end = time.monotonic() + seconds
    while True:
        server = connection.compute.get_server(server_id)
        if server.status == status and server.task_state is None:
            return server
        if time.monotonic() > end:
            raise TimeoutError(
                f"{server_id} is {server.status} with task {server.task_state}, not "
                f"{status}, after {seconds:g} s"
            )
        time.sleep(0.3)


def migrate(admin: Any, server_id: str, host: str | None = None) -> None:
    """Migrate with the data and wait.

    :raises nova_ext.client.MoveFailed: it was not moved
    """
    request = client.migrate_copying_pmem(admin, server_id, host)
    client.wait_moved(admin, server_id, request, interval=0.3)
