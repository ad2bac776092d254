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

"""Owns the running cloud of the e2e tests; `tools/aio up` brings it up before."""

import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tools"))

from aiolib.client import Cloud


@pytest.fixture(scope="session")
def cloud() -> Cloud:
    """The one-machine cloud, all of it running."""
    found = Cloud()
    found.require_up()
    return found


@pytest.fixture(scope="session")
def tenant(cloud: Cloud) -> Any:
    """A connection of a project member."""
    return cloud.connect("demo", compute_api_version="2.105")


@pytest.fixture(scope="session")
def admin(cloud: Cloud) -> Any:
    """A connection of an administrator."""
    return cloud.connect("admin", compute_api_version="2.105")


@pytest.fixture(scope="module")
def boot(cloud: Cloud, tenant: Any) -> Iterator[Callable[..., Any]]:
    """Boots servers of the tenant that end with the module."""
    servers: list[Any] = []

    def start(name: str, **options: Any) -> Any:
        server = cloud.boot(tenant, name, **options)
        servers.append(server)
        return server

    yield start
    for server in servers:
        tenant.compute.delete_server(server, ignore_missing=True)
    for server in servers:
        tenant.compute.wait_for_delete(server, wait=60)
