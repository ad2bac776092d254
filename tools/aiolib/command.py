# SPDX-License-Identifier: Apache-2.0
"""Runs one external command to its end within a bound; keeps no process alive."""

from __future__ import annotations

import os
import pathlib
import subprocess
from collections.abc import Mapping, Sequence

from aiolib.settings import Failure

_DROPPED = ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


def clean_environment(**extra: str) -> dict[str, str]:
    """The caller's environment without proxies, OS_* and Python switches."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in _DROPPED
        and not name.startswith(("OS_", "RABBITMQ_", "ERL_"))
        and not name.lower().endswith("_proxy")
    }
    return kept | extra


def tail(path: pathlib.Path, lines: int = 30) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


def run(
    arguments: Sequence[str | pathlib.Path],
    *,
    timeout: float,
    log: pathlib.Path | None = None,
    env: Mapping[str, str] | None = None,
    cwd: pathlib.Path | None = None,
    input: str | None = None,
) -> str:
    """Run a command and return what it printed.

    :param timeout: seconds until it is killed
    :param log: file that gets the command and its output appended
    :raises Failure: it ended with an error or was too slow; shows the output's end
    """
    words = [str(word) for word in arguments]
    name = pathlib.Path(words[0]).name
    try:
        done = subprocess.run(
            words,
            timeout=timeout,
            env=None if env is None else dict(env),
            cwd=cwd,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        output, outcome = done.stdout, f"exit status {done.returncode}"
        failed = done.returncode != 0
    except subprocess.TimeoutExpired as expired:
        raw = expired.stdout or b""
        output = raw.decode(errors="replace") if isinstance(raw, bytes) else raw
        outcome, failed = f"no end after {timeout:g} s", True
    except FileNotFoundError as missing:
        raise Failure(f"{name} is not installed: run `tools/aio up`") from missing
    if log:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as file:
            file.write(f"$ {' '.join(words)}\n{output}\n({outcome})\n")
    if failed:
        end = "\n".join(output.splitlines()[-30:])
        where = f" (whole output: {log})" if log else ""
        raise Failure(f"{end}\n{name}: {outcome}{where}; correct it and run it again")
    return output
