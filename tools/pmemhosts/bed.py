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

"""Both PMEM hosts and their network: up, down, and nothing left after a failure."""

from __future__ import annotations

import fcntl
import os
from concurrent import futures

from aiolib.progress import say

from pmemhosts import image, layout, network
from pmemhosts.host import Host

HOSTS = tuple(Host(name, address) for name, address in layout.ADDRESSES.items())


def up() -> None:
    """Start both hosts anew and wait until they are ready.

    :raises layout.Failure: with what to do; nothing is left running
    """
    if os.geteuid() != 0:
        raise layout.Failure("this needs root: network namespaces and mmdebstrap do")
    layout.LOG.mkdir(parents=True, exist_ok=True)
    with (layout.HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
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
