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

"""A second site beside the cloud under test, for as long as a module needs it."""

import contextlib
import os
import pathlib
import subprocess
from collections.abc import Iterator

from aiolib import settings
from aiolib.client import Cloud

_AIO = pathlib.Path(__file__).parents[2] / "tools" / "aio"
_TIMEOUT = 900


def _run(first: Cloud, *words: str) -> None:
    home = pathlib.Path(f"{first.settings.home}-2")
    environment = os.environ | {
        "AIO_HOME": str(home),
        "AIO_BESIDE": str(first.settings.home),
    }
    subprocess.run([_AIO, *words], env=environment, check=True, timeout=_TIMEOUT)


@contextlib.contextmanager
def beside(first: Cloud) -> Iterator[Cloud]:
    """Bring up a site with databases of its own, and the same store of backups."""
    try:
        _run(first, "up")
        yield Cloud(settings.load(pathlib.Path(f"{first.settings.home}-2")))
    finally:
        _run(first, "down", "--purge")
