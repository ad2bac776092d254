# SPDX-License-Identifier: Apache-2.0
"""Owns how a demo tells its steps, and how one of them is found wrong."""

from __future__ import annotations

import time


class Wrong(Exception):
    """A step was not as it should be."""


class Transcript:
    """Prints each step with the seconds since the start."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"[{time.monotonic() - self._start:7.2f}s] {text}", flush=True)

    def check(self, ok: bool, text: str) -> None:
        """Print a statement that has been checked.

        :raises Wrong: it is not true
        """
        self(f"  {'ok   ' if ok else 'WRONG'} {text}")
        if not ok:
            raise Wrong(text)
