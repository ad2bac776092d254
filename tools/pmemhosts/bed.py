# SPDX-License-Identifier: Apache-2.0
"""Both PMEM hosts and their network: up, down, and nothing left after a failure."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from concurrent import futures

from aiolib.progress import say

from pmemhosts import image, layout, network
from pmemhosts.host import Host

HOSTS = tuple(Host(name, address) for name, address in layout.ADDRESSES.items())


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    if os.geteuid() != 0:
        raise layout.Failure("this needs root: network namespaces and mmdebstrap do")
    layout.LOG.mkdir(parents=True, exist_ok=True)
    with (layout.HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def prepare() -> None:
    """Build what is missing, and start nothing.

    :raises layout.Failure: with what to do
    """
    with _alone():
        image.build()


def up() -> None:
    """Start both hosts anew and wait until they are ready.

    :raises layout.Failure: with what to do; nothing is left running
    """
    with _alone():
        image.build()
        down()
        try:
            say("starting the PMEM hosts")
            network.up()
            started = [host.start() for host in HOSTS]
            with futures.ThreadPoolExecutor() as pool:
                list(pool.map(Host.prepare, HOSTS, started))
        except BaseException:
            down()
            raise
    say("the PMEM hosts are ready")


def down() -> None:
    """End both hosts and what talks to them, remove their network and memory."""
    network.down()
    for pattern in ("*.ssh*", "*.pid", "*.pmem"):
        for path in layout.HOME.glob(pattern):
            path.unlink()


def require_up() -> None:
    """:raises layout.Failure: a host does not run"""
    for host in HOSTS:
        if not host.running():
            raise layout.Failure(f"{host.name} is down: run `tools/pmemhosts/run up`")
