# SPDX-License-Identifier: Apache-2.0
"""Progress lines with the seconds since the command began; decides nothing."""

from __future__ import annotations

import time

_BEGIN = time.monotonic()


def say(text: str) -> None:
    print(f"[{time.monotonic() - _BEGIN:6.1f}s] {text}", flush=True)
