# SPDX-License-Identifier: Apache-2.0
"""Knows whether the services of nova and cinder take orders since their start.

A report is not enough: the last one of a service that was stopped together with the
conductor waits in the conductor's queue, and is written once that is back. A
nova-compute that is only starting then finds a server that is being built, and ends it
as one whose build it has interrupted. So the queue of the service itself has a
consumer, too.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from aiolib import config, records
from aiolib.settings import STORAGE_HOST, Settings

if TYPE_CHECKING:
    from openstack.connection import Connection


def reported(service: Any) -> float:
    """When a service of nova or cinder last reported; seconds since the epoch.

    The second is told, and counts to its end.
    """
    when = service.updated_at or "1970-01-01T00:00:00"
    stamp = datetime.datetime.fromisoformat(when[:19])
    return stamp.replace(tzinfo=datetime.UTC).timestamp() + 1


def late(s: Settings, c: Connection, since: float = 0) -> list[str]:
    """Services that have not reported since their start, or take no orders.

    :param c: a connection of the administrator
    :param since: seconds since the epoch, if they are to have reported since then, too
    """
    # The rest of what imports this works without kombu.
    from aiolib import bus

    wanted = {("nova-compute", host) for host in s.computes}
    wanted |= {("nova-conductor", "ctl"), ("nova-scheduler", "ctl")}
    storage = {("cinder-scheduler", STORAGE_HOST): "cinder-scheduler"}
    for name in config.backup_services(s):
        storage["cinder-backup", config.backup_host(name)] = name
    for backend in config.back_ends(s):
        storage["cinder-volume", f"{STORAGE_HOST}@{backend}"] = "cinder-volume"
    wanted |= set(storage)
    queues = {}
    for service in (*c.compute.services(), *c.block_storage.services()):
        who = (service.binary, service.host)
        record = storage.get(who, service.binary)
        if record == "nova-compute":
            record += f"-{service.host}"
        begin = max(since, records.started(s, record))
        if who in wanted and reported(service) > begin:
            queues[who] = f"{service.binary.removeprefix('nova-')}.{service.host}"
    served = bus.consumed(s.rabbit_url, queues.values())
    wanted -= {who for who, queue in queues.items() if queue in served}
    return sorted(f"{binary} on {host}" for binary, host in wanted)
