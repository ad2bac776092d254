# SPDX-License-Identifier: Apache-2.0
"""The demo of consistency snapshots: three guests that refer to each other, cut as one.

Each guest writes with every record the newest number that the next guest has synced.
A disk that has heard of a number which the next disk does not have is the proof of an
inconsistent cut. First the disks are cut without quiesce, ten times, one after the
other in any order, as a program does that knows of no group; then with it.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import json
import random
import subprocess
from typing import Any

from aiolib import chain, waiting
from aiolib.client import Cloud
from aiolib.demos import Stage
from aiolib.transcript import Transcript, Wrong
from nova_ext.client.consistency import errors, groups, restore

_TRIES = 10
_SERVERS = 3
_TIMEOUT = 180  # s; of one command


class _Tenant:
    """Three guests on volumes, and what is made of them."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.connection: Any = cloud.tenant
        self.storage = self.connection.block_storage
        self.servers: list[Any] = []
        self.volumes: list[str] = []

    def boot(self) -> None:
        with concurrent.futures.ThreadPoolExecutor() as pool:
            made = [
                pool.submit(
                    self.cloud.boot, self.connection, f"vnf-{number}", boot_from="rbd"
                )
                for number in range(1, _SERVERS + 1)
            ]
        self.servers = [future.result() for future in made]
        for server in self.servers:
            found = self.connection.compute.get_server(server.id)
            self.volumes.append(found.attached_volumes[0]["id"])

    def cut_in_any_order(self) -> list[Any]:
        """Snapshots of the volumes without quiesce, in the group's order."""
        made: dict[int, Any] = {}
        for place in random.sample(range(_SERVERS), _SERVERS):
            made[place] = self.storage.create_snapshot(
                volume_id=self.volumes[place], is_forced=True, name="no-quiesce"
            )
            self.storage.wait_for_status(made[place], "available", ["error"], 0.1, 60)
        return [made[place] for place in range(_SERVERS)]

    def look(self, snapshots: list[str]) -> list[chain.Disk]:
        """What is on snapshots of the volumes."""
        return [
            chain.records_of_snapshot(self.cloud, volume, snapshot)
            for volume, snapshot in zip(self.volumes, snapshots, strict=True)
        ]

    def forget(self, snapshots: list[Any]) -> None:
        """Delete snapshots and wait for it."""
        for one in snapshots:
            self.storage.delete_snapshot(one)
        for one in snapshots:
            self.storage.wait_for_delete(one, 0.5, 60)

    def clean(self) -> None:
        """Remove all of it."""
        for group in groups.find_all(self.connection):
            with contextlib.suppress(errors.ConsistencyError):
                groups.delete(self.connection, group)
        self.forget(list(self.storage.snapshots(name="no-quiesce")))
        compute = self.connection.compute
        servers = list(compute.servers(name="^vnf-"))
        volumes = [volume["id"] for one in servers for volume in one.attached_volumes]
        for one in servers:
            compute.delete_server(one)
        for one in servers:
            compute.wait_for_delete(one, wait=120)
        for volume in self.storage.volumes():
            if volume.id in volumes and volume.status == "available":
                self.storage.delete_volume(volume)


def _openstack(say: Transcript, *words: str) -> Any:
    """Run a command as a tenant does; what its ``-f json`` says."""
    say(f"openstack {' '.join(words)}")
    done = subprocess.run(
        ["openstack", *words, "-f", "json"],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
    )
    if done.returncode:
        raise Wrong(done.stderr.strip())
    return json.loads(done.stdout)


def tell(stage: Stage) -> None:
    """Cut the disks of three guests without quiesce, and then with it."""
    say, tenant = stage.say, _Tenant(stage.cloud)
    stage.cleanup.callback(tenant.clean)
    cloud = tenant.cloud
    say("Booting three guests from volumes on Ceph; each writes what it hears")
    tenant.boot()
    with chain.Chain(cloud, [server.id for server in tenant.servers]):
        _wait_heard(tenant)
        _without(say, tenant)
        names = [server.name for server in tenant.servers]
        options = [word for name in names for word in ("--server", name)]
        told = _openstack(
            say,
            *("consistency", "snapshot", "create", "--name", "demo", *options),
            *("--timeout", "60"),
        )
    for one in told["servers"]:
        say(f"{one['name']}: frozen {one['frozen_at']}, thawed {one['thawed_at']}")
    say(f"the group's window: {told['window_ms']} ms")
    say.check(told["consistency"] == "group", "every guest was frozen without a gap")
    frozen = [one["frozen_at"] for one in told["servers"]]
    thawed = [one["thawed_at"] for one in told["servers"]]
    say.check(
        frozen == sorted(frozen) and thawed == sorted(thawed, reverse=True),
        "frozen in order, thawed in reverse",
    )
    group = groups.find(tenant.connection, "demo")
    disks = tenant.look([group.snapshots[n].id for n in sorted(group.snapshots)])
    _check_cut(say, [disk.records[-1] for disk in disks], "on the snapshots")
    wrong = chain.order_kept([disk.records for disk in disks])
    say.check(not wrong, f"with quiesce: the order is kept in every record {wrong}")
    clean = not any(disk.unclean for disk in disks)
    say.check(clean, "with quiesce: journals are clean, no needs_recovery")
    say("openstack consistency snapshot restore demo")
    made = restore.restore(tenant.connection, group)
    found = []
    for one in made:
        cloud.wait_agent(one.id)
        record = chain.found(cloud, one.id)
        if record is None:
            raise Wrong(f"{one.name} found no record when it booted")
        found.append(record)
    _check_cut(say, found, "in the servers that were restored")
    say.check(
        all(chain.journal_was_clean(cloud, one.id) for one in made),
        "their kernels recovered no journal",
    )


def _wait_heard(tenant: _Tenant) -> None:
    waiting.until(
        "the guests hear of each other",
        lambda: all(chain.heard(tenant.cloud, one.id) for one in tenant.servers[:-1]),
        60,
        0.5,
    )


def _check_cut(say: Transcript, last: list[chain.Record], where: str) -> None:
    pairs = list(itertools.pairwise(last))
    told = "; ".join(f"heard {one.heard}, is {two.number}" for one, two in pairs)
    say.check(
        all(0 < one.heard <= two.number for one, two in pairs), f"{where}: {told}"
    )


def _without(say: Transcript, tenant: _Tenant) -> None:
    say(f"{_TRIES} times one volume after the other, in any order, without quiesce")
    broken = unclean = 0
    for _ in range(_TRIES):
        snapshots = tenant.cut_in_any_order()
        disks = tenant.look([snapshot.id for snapshot in snapshots])
        tenant.forget(snapshots)
        wrong = chain.order_kept([disk.records for disk in disks])
        say(f"    {'; '.join(wrong) or 'kept by luck'}")
        broken += bool(wrong)
        unclean += any(disk.unclean for disk in disks)
    say.check(
        broken > 0,
        f"without quiesce: the order was broken in {broken} of {_TRIES} cuts, journals "
        f"had to be recovered in {unclean}",
    )
