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

"""Owns what must happen before a unit test imports anything of nova."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

# nova's services run native threads; some libraries would load eventlet otherwise.
os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "true"

from nova import monkey_patch

if "eventlet" not in monkey_patch.sys.modules:
    monkey_patch.patch(backend="threading")

import nova.privsep

from tests.unit import pmem_hosts


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
