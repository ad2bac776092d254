# SPDX-License-Identifier: Apache-2.0
"""Owns what must happen before a unit test imports anything of nova."""

import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

import pytest

# nova's services run native threads; some libraries would load eventlet otherwise.
os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "true"

from nova import monkey_patch

if "eventlet" not in monkey_patch.sys.modules:
    monkey_patch.patch(backend="threading")

import nova.privsep

from tests.unit import pmem_hosts
from tests.unit.db import servers


@pytest.fixture(scope="session")
def fresh() -> Callable[..., str]:
    """Run code in an interpreter of its own, for what changes a process for good."""

    def run(code: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@contextlib.contextmanager
def _directory() -> Iterator[pathlib.Path]:
    """A directory in which other users may be let; pytest's own are for one user."""
    with tempfile.TemporaryDirectory(prefix="nova-ext-database-") as path:
        yield pathlib.Path(path)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[servers.Server]:
    with _directory() as path, servers.mariadb(path) as server:
        if server is None:
            pytest.skip("there is no mariadbd")
        yield server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[servers.Server]:
    with _directory() as path, servers.postgresql(path) as server:
        if server is None:
            pytest.skip("there is no postgres that could be run")
        yield server


@pytest.fixture
def memory(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pmem_hosts.Memory]:
    """Persistent memory whose privileged functions run in this process.

    Whatever a test does, it leaves no process and no temporary file.
    """
    made = pmem_hosts.Memory(tmp_path, monkeypatch)
    nova.privsep.sys_admin_pctxt.set_client_mode(False)
    yield made
    nova.privsep.sys_admin_pctxt.set_client_mode(True)
    assert made.left() == []
