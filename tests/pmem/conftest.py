# SPDX-License-Identifier: Apache-2.0
"""Owns the two hosts with persistent memory; `tools/pmemhosts/run up` starts them."""

import pathlib
import sys
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, Protocol

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tools"))

from pmemhosts import bed, layout, network
from pmemhosts.host import Host
from pmemhosts.worker import Worker

from tests.pmem.transfer import MIB, ROOT, Compute, PmemHost, Transfer, sudoers

_INSIDE = [
    pathlib.Path(__file__).with_name(name) for name in ("inside.py", "compute.py")
]


def _reach(host: Host) -> PmemHost:
    for path in (layout.REPO / "nova_ext", *_INSIDE):
        host.put(path, "/opt/python")
    reached = PmemHost(host, host.devices(), Worker(host))
    # Under load the imports alone take a minute.
    reached.worker.call("compute:lives", 180)
    return reached


@pytest.fixture(scope="session")
def pmem_hosts() -> Iterator[list[PmemHost]]:
    """Both hosts."""
    bed.require_up()
    network.mend()
    with futures.ThreadPoolExecutor() as pool:
        found = list(pool.map(_reach, bed.HOSTS))
    allow = "umask 337 && cat > /etc/sudoers.d/nova-ext && visudo -cq"
    found[1].host.exec(["sh", "-c", allow], 30, input=sudoers().encode())
    yield found
    for each in found:
        each.worker.close()


@pytest.fixture
def source(pmem_hosts: list[PmemHost]) -> PmemHost:
    """The host with data."""
    return pmem_hosts[0]


@pytest.fixture
def destination(pmem_hosts: list[PmemHost]) -> PmemHost:
    """The host that gets data."""
    return pmem_hosts[1]


@pytest.fixture
def links() -> Iterator[Any]:
    """Has ``cut`` and ``mend`` for what is between the hosts; mended at the end."""
    yield network
    network.mend()


@pytest.fixture(scope="session")
def content(pmem_hosts: list[PmemHost]) -> dict[str, str]:
    """The digest of each device of the source that has data.

    One is full, one has zeros alone, two have long zeros that neither begin nor end at
    round numbers.
    """
    source = pmem_hosts[0]
    data = {
        "ns_30MB_0": [(0, 30 * MIB)],
        "ns_30MB_1": [(0, 2 * MIB + 5), (12 * MIB + 77, MIB), (29 * MIB - 1, MIB + 1)],
        "ns_30MB_2": [],
        "ns_14MB_1": [(0, MIB + 4097), (13 * MIB - 3, MIB + 3)],
    }
    for name, ranges in data.items():
        source.inside("fill", name, kind="zero")
        for offset, length in ranges:
            source.inside("fill", name, kind="random", offset=offset, length=length)
    return {name: source.inside("digest", name) for name in data}


class _Begin(Protocol):
    def __call__(self, host: PmemHost, **settings: Any) -> Compute: ...


@pytest.fixture
def begin() -> Iterator[_Begin]:
    """Starts a nova-compute on a host; all are killed at the end."""
    begun: list[Compute] = []

    def start(host: PmemHost, **settings: Any) -> Compute:
        new = host not in [compute.on for compute in begun]
        begun.append(Compute(host))
        return begun[-1].begin(new=new, **settings)

    yield start
    for compute in begun:
        if compute.lives:
            compute.kill()
    for compute in begun:
        compute.on.python("sweep")
        # Its privileged daemon ends with it, when what that runs has ended.
        compute.on.python("wait_for", pattern="host-worker$", count=1)


@pytest.fixture
def transfer(
    source: PmemHost, destination: PmemHost, content: dict[str, str], begin: _Begin
) -> Callable[..., Transfer]:
    """Makes a copy between two new nova-computes, given the settings of the source."""

    def make(**settings: Any) -> Transfer:
        settings["overrides"] = {**ROOT, **settings.get("overrides", {})}
        return Transfer(begin(source, **settings), begin(destination), content)

    return make
