# SPDX-License-Identifier: Apache-2.0
"""The benchmark of consistency snapshots: a group's window beside its lower bound.

The bound is what the parts take without us, measured in the same round: the freezes of
all guests one after the other by virsh, and then the slowest of Cinder's snapshots of
all volumes, ordered at once. The window is from the first request to freeze until the
last guest is known to be thawed, so that it has the thaws too, which the bound has not.

The guests' writers are stopped: eight emulated guests that write would need both cores
of a small machine, and then the benchmark would measure those.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import statistics
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from aiolib import chain
from aiolib.client import Cloud
from nova_ext.client.consistency import groups, report, transaction

_WANTED = 1.5
_SIZES = (3, 8)


class _Bench:
    def __init__(self, cloud: Cloud, tenant: Any, servers: list[Any]) -> None:
        self._cloud = cloud
        self._tenant = tenant
        self._ids = [server.id for server in servers]
        self._virsh = [cloud.virsh(cloud.find_host(one)) for one in self._ids]
        self._volumes = [
            tenant.compute.get_server(one).attached_volumes[0]["id"]
            for one in self._ids
        ]

    def raw(self) -> tuple[float, float, float]:
        """Seconds of all freezes, of the slowest snapshot, and of all thaws."""
        begin = time.perf_counter()
        for prefix, one in zip(self._virsh, self._ids, strict=True):
            self._call(prefix, "domfsfreeze", one)
        frozen = time.perf_counter()
        made = self._storage_snapshots()
        cut = time.perf_counter()
        for prefix, one in reversed(list(zip(self._virsh, self._ids, strict=True))):
            self._call(prefix, "domfsthaw", one)
        thawed = time.perf_counter()
        storage = self._tenant.block_storage
        for one in made:
            storage.delete_snapshot(one)
        for one in made:
            storage.wait_for_delete(one, 0.2, 60)
        return frozen - begin, cut - frozen, thawed - cut

    @staticmethod
    def _call(prefix: list[str], command: str, server: str) -> None:
        words = [*prefix, command, server]
        subprocess.run(words, check=True, capture_output=True, timeout=60)

    def _storage_snapshots(self) -> list[Any]:
        storage = self._tenant.block_storage

        def snapshot(volume: str) -> Any:
            one = storage.create_snapshot(volume_id=volume, is_forced=True, name="raw")
            return storage.wait_for_status(one, "available", ["error"], 0.05, 60)

        with concurrent.futures.ThreadPoolExecutor(len(self._volumes)) as pool:
            return list(pool.map(snapshot, self._volumes))

    def ours(self) -> tuple[float, float, float]:
        """Seconds until all were frozen, from then till cut, from then till thawed."""
        at: dict[report.Kind, float] = {}

        def observe(step: report.Step) -> None:
            at[step.kind] = time.perf_counter()

        stages = [[one] for one in self._ids]
        made = transaction.create(self._tenant, stages, timeout=60, observe=observe)
        groups.delete(self._tenant, groups.find(self._tenant, made.id))
        window = made.window_ms / 1000
        cut = at[report.Kind.SNAPSHOTTED] - at[report.Kind.FROZEN]
        thaw = at[report.Kind.THAWED] - at[report.Kind.SNAPSHOTTED]
        return window - cut - thaw, cut, thaw


@contextlib.contextmanager
def _guests(cloud: Cloud, tenant: Any, count: int) -> Iterator[list[Any]]:
    made: list[Any] = []
    try:
        for number in range(count):
            server = cloud.boot(tenant, f"bench-group-{number}", boot_from="rbd")
            made.append(server)
            chain.hush(cloud, server.id)
        yield made
    finally:
        for server in tenant.compute.servers(name="^bench-group-"):
            tenant.compute.delete_server(server)
            tenant.compute.wait_for_delete(server, wait=120)


def main(arguments: list[str]) -> int:
    """Run the benchmark; 1 if a window is longer than wanted."""
    parser = argparse.ArgumentParser(prog="tools/bench group")
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    rounds = parser.parse_args(arguments).rounds
    cloud = Cloud()
    cloud.require_up()
    tenant = cloud.tenant
    ratios = []
    with _guests(cloud, tenant, max(_SIZES)) as servers:
        print("medians in ms       freezes     cut   thaws")
        for size in _SIZES:
            bench = _Bench(cloud, tenant, servers[:size])
            bench.ours()  # the first one also gets a token and the endpoints
            raws, ours = [], []
            for _ in range(rounds):
                raws.append(bench.raw())
                ours.append(bench.ours())
            raw, own = _row(f"{size} servers, raw", raws), _row("          ours", ours)
            bound, window = sum(raw[:2]), sum(own)
            ratios.append(window / bound)
            print(
                f"{size} servers: window {window:.0f} ms, bound {bound:.0f} ms "
                f"(freezes and slowest snapshot), ratio {ratios[-1]:.2f}"
            )
    print(f"wanted: at most {_WANTED:g}, measured {max(ratios):.2f}")
    return 0 if max(ratios) <= _WANTED else 1


def _row(name: str, rounds: list[tuple[float, float, float]]) -> list[float]:
    medians = [statistics.median(column) * 1000 for column in zip(*rounds, strict=True)]
    print(f"{name:18} " + " ".join(f"{median:7.0f}" for median in medians))
    return medians
