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

"""Owns how samples are made equal from run to run."""

import datetime
import os
import re
from typing import Any

NOW = datetime.datetime(2026, 11, 21, 10, 0, 0)
GENERATE = "GENERATE_SAMPLES" in os.environ

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

#: What is random, or changes with each line of code.
_FIXED = {
    "adminPass": "seekr3t",
    "reservation_id": "r-sample00",
    "traceback": "Traceback (most recent call last):\n  ...",
}


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
