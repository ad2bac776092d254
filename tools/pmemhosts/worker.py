# SPDX-License-Identifier: Apache-2.0
"""A Python in a PMEM host that stays, and calls functions there one by one."""

from __future__ import annotations

import json
import os
import pathlib
import select
import subprocess
import time
from typing import Any

from aiolib import command

from pmemhosts import layout
from pmemhosts.host import Host


class CallError(Exception):
    """A function raised in the host.

    :ivar kind: name of the exception's class
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


class Worker:
    """Calls functions of modules that are in the host; not from two threads at once."""

    def __init__(self, host: Host) -> None:
        self._name = host.name
        self.errors = pathlib.Path(layout.LOG / f"{host.name}.worker")
        # dnspython alone would be a third of the time that the imports take
        variables = ("EVENTLET_NO_GREENDNS=yes", "OS_NOVA_DISABLE_EVENTLET_PATCHING=1")
        with self.errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [*host.ssh(), *variables, "host-worker"],
                env=command.clean_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self._rest = b""

    def call(self, function: str, timeout: float, **arguments: Any) -> Any:
        """The value of ``module:name`` called there; all as JSON can carry it.

        :param timeout: seconds; after them this worker is of no more use
        :raises CallError: the function raised
        :raises TimeoutError: it did not return in time
        """
        words = {"function": function, "arguments": arguments}
        assert self._process.stdin
        self._process.stdin.write(json.dumps(words).encode() + b"\n")
        self._process.stdin.flush()
        outcome = json.loads(self._line(time.monotonic() + timeout, function))
        if "error" in outcome:
            raise CallError(outcome["error"], outcome["text"])
        return outcome["value"]

    def _line(self, deadline: float, function: str) -> bytes:
        assert self._process.stdout
        pipe = self._process.stdout.fileno()
        while b"\n" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                raise TimeoutError(f"{function} did not return in {self._name}")
            block = os.read(pipe, 65536)
            if not block:
                end = self.errors.read_text(errors="replace")[-2000:]
                raise layout.Failure(f"the worker in {self._name} ended: {end}")
            self._rest += block
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def close(self) -> None:
        """End it; what it runs in the host is not waited for."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
