# SPDX-License-Identifier: Apache-2.0
"""One record per started process (pid, start time, what it was started from)."""

from __future__ import annotations

import json
import pathlib
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiolib import command, processes, waiting
from aiolib.settings import Failure, Settings

_LOG_LIMIT = 20 * 1024 * 1024


def _path(settings: Settings, name: str) -> pathlib.Path:
    return settings.run / f"{name}.json"


def log_path(settings: Settings, name: str) -> pathlib.Path:
    return settings.log / f"{name}.log"


def names(settings: Settings) -> list[str]:
    return sorted(path.stem for path in settings.run.glob("*.json"))


def read(settings: Settings, name: str) -> processes.Process | None:
    """The recorded process if it still runs."""
    values = _read(settings, name)
    process = processes.Process(values.get("pid", 0), values.get("start", 0))
    return process if process.pid and process.alive() else None


def fingerprint(settings: Settings, name: str) -> str:
    return str(_read(settings, name).get("fingerprint", ""))


def started(settings: Settings, name: str) -> float:
    """When it was started, in seconds of the epoch."""
    return float(_read(settings, name).get("time", 0))


def _read(settings: Settings, name: str) -> dict[str, Any]:
    try:
        return dict(json.loads(_path(settings, name).read_text()))
    except FileNotFoundError:
        return {}


def forget(settings: Settings, name: str) -> None:
    _path(settings, name).unlink(missing_ok=True)


def spawn(
    settings: Settings,
    name: str,
    arguments: Sequence[str | pathlib.Path],
    *,
    env: Mapping[str, str],
    fingerprint: str = "",
) -> None:
    """Start a process in a session of its own, its output in log/NAME.log."""
    for directory in (settings.run, settings.log):
        directory.mkdir(parents=True, exist_ok=True)
    log = log_path(settings, name)
    if log.exists() and log.stat().st_size > _LOG_LIMIT:
        log.rename(log.with_suffix(".log.1"))
    begin = time.time()
    with log.open("a") as output:
        child = subprocess.Popen(
            [str(word) for word in arguments],
            env={**env, processes.HOME_VARIABLE: str(settings.home)},
            cwd=settings.home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    process = processes.find(child.pid)
    if process is None:
        raise Failure(f"{command.tail(log)}\n{name} ended at once: see {log}")
    values = {
        "pid": process.pid,
        "start": process.start,
        "time": begin,
        "fingerprint": fingerprint,
    }
    _path(settings, name).write_text(json.dumps(values))


def wait(
    settings: Settings, name: str, ready: Callable[[], bool], *, timeout: float
) -> None:
    """Wait until `ready()`; give up when the process ends or the time is over."""
    log = log_path(settings, name)

    def ready_or_ended() -> bool:
        if ready():
            return True
        if read(settings, name) is None:
            raise Failure(f"{command.tail(log)}\n{name} ended: see {log}")
        return False

    try:
        waiting.until(name, ready_or_ended, timeout, 0.05)
    except TimeoutError:
        late = f"{name} is not ready after {timeout:g} s: see {log}"
        raise Failure(f"{command.tail(log)}\n{late}") from None
