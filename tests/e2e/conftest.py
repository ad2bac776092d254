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

"""Owns the running cloud of the e2e tests; `tools/aio up` brings it up before.

The emulator itself (QEMU 7.2 without KVM) crashes now and then, most of all when it
starts a guest on a busy machine. A test that fails while the kernel records such a
crash fails with :class:`GuestCrashed`, which is the one reason to run a test again.
"""

import pathlib
import re
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tools"))

from aiolib.bus import Listener
from aiolib.client import Cloud

_CRASH = re.compile(r"\b(qemu-system\S*|worker|(CPU|IO) \S+)\[[0-9]+\]: segfault at ")


class GuestCrashed(Exception):
    """An emulator crashed while a test ran that failed."""


def crashes() -> set[str]:
    """What the kernel has recorded of crashed threads that have an emulator's name."""
    log = subprocess.run(
        ["dmesg"], capture_output=True, text=True, timeout=30, check=True
    )
    return {line for line in log.stdout.splitlines() if _CRASH.search(line)}


def _blame_the_emulator() -> Generator[None, Any, Any]:
    before = crashes()
    try:
        return (yield)
    except Exception as exc:
        if found := crashes() - before:
            raise GuestCrashed("; ".join(found)) from exc
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, Any, Any]:
    """Setting up a test starts guests too."""
    return (yield from _blame_the_emulator())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, Any, Any]:
    """See :class:`GuestCrashed`."""
    return (yield from _blame_the_emulator())


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


@pytest.fixture
def listener(cloud: Cloud) -> Iterator[Listener]:
    found = Listener(cloud.rabbit_url, "nova", "versioned_notifications")
    yield found
    found.close()
