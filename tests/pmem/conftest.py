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

"""Owns the two hosts with persistent memory; `tools/pmemhosts/run up` starts them."""

import dataclasses
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tools"))

from pmemhosts import bed, network
from pmemhosts.host import Host
from pmemhosts.worker import Worker

_INSIDE = pathlib.Path(__file__).with_name("inside.py")


@dataclasses.dataclass
class PmemHost:
    """A host, its devices by name of namespace, and a Python in it."""

    host: Host
    devices: dict[str, str]
    worker: Worker

    def inside(self, function: str, device: str, **arguments: Any) -> Any:
        """Call a function of ``inside.py`` on the device of a namespace."""
        path = self.devices[device]
        return self.worker.call(f"inside:{function}", 120, path=path, **arguments)


@pytest.fixture(scope="session")
def pmem_hosts() -> Iterator[list[PmemHost]]:
    """Both hosts."""
    bed.require_up()
    found = []
    try:
        for host in bed.HOSTS:
            host.put(_INSIDE, "/opt/python")
            found.append(PmemHost(host, host.devices(), Worker(host)))
        yield found
    finally:
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
