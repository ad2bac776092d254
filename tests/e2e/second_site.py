# SPDX-License-Identifier: Apache-2.0
"""A second site beside the cloud under test, for the tests that use the fixture site.

It needs minutes to come up, and little of the machine: it begins with the first test of
their lane, while they are its last.
"""

import os
import pathlib
import subprocess

import pytest
from aiolib import settings
from aiolib.client import Cloud

_AIO = pathlib.Path(__file__).parents[2] / "tools" / "aio"
_TIMEOUT = 900


class Beside:
    """A site with databases of its own, and the first one's store of backups."""

    def __init__(self, first: Cloud) -> None:
        self._home = pathlib.Path(f"{first.settings.home}-2")
        self._environment = os.environ | {
            "AIO_HOME": str(self._home),
            "AIO_BESIDE": str(first.settings.home),
        }
        self._log = first.settings.log / "second-site.log"
        with self._log.open("w") as log:
            self._start = subprocess.Popen(
                [_AIO, "up"], env=self._environment, stdout=log, stderr=log
            )

    def site(self) -> Cloud:
        """The site, once it is up."""
        if self._start.wait(_TIMEOUT):
            raise AssertionError(self._log.read_text(errors="replace"))
        return Cloud(settings.load(self._home))

    def end(self) -> None:
        """End it, and remove what it has left."""
        self._start.terminate()
        self._start.wait(30)
        down = [_AIO, "down", "--purge"]
        subprocess.run(down, env=self._environment, check=True, timeout=_TIMEOUT)


_KEY = pytest.StashKey[Beside]()


def of(item: pytest.Item) -> pytest.Item | None:
    """A test of this session that uses the second site."""
    for other in item.session.items:
        if "site" in getattr(other, "fixturenames", ()):
            return other
    return None


def begin(config: pytest.Config) -> Beside:
    """Start it, unless it is started."""
    if _KEY not in config.stash:
        config.stash[_KEY] = Beside(Cloud())
    return config.stash[_KEY]


def end(config: pytest.Config) -> None:
    """End it, if it is started."""
    if _KEY in config.stash:
        config.stash[_KEY].end()
