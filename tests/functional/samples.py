# SPDX-License-Identifier: Apache-2.0
"""Owns how samples are made equal from run to run."""

import datetime
import os
import re
import time
import types
from typing import Any

import fixtures

NOW = datetime.datetime(2026, 11, 21, 10, 0, 0)
GENERATE = "GENERATE_SAMPLES" in os.environ

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

#: What is random, or changes with each line of code.
_FIXED = {
    "adminPass": "seekr3t",
    "reservation_id": "r-sample00",
    "traceback": "Traceback (most recent call last):\n  ...",
}


def wall_clock() -> fixtures.Fixture:
    """Lets the wall clock of the guard stand at :data:`NOW`."""
    now = NOW.replace(tzinfo=datetime.UTC).timestamp()
    clock = types.SimpleNamespace(
        CLOCK_BOOTTIME=time.CLOCK_BOOTTIME,
        clock_gettime=time.clock_gettime,
        time=lambda: now,
    )
    return fixtures.MonkeyPatch("nova_ext.guard.clock.time", clock)


def normalised(sample: Any) -> Any:
    """``sample`` with numbered UUIDs, and with fixed values for what is random."""
    uuids: dict[str, str] = {}

    def numbered(match: re.Match[str]) -> str:
        number = len(uuids) + 1
        return uuids.setdefault(match.group(), f"00000000-0000-4000-8000-{number:012d}")

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: _FIXED[key]
                if key in _FIXED and isinstance(value[key], str)
                else walk(value[key])
                for key in sorted(value)
            }
        if isinstance(value, list):
            return [walk(item) for item in value]
        return _UUID.sub(numbered, value) if isinstance(value, str) else value

    return walk(sample)
