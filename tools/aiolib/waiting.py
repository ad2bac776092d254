# SPDX-License-Identifier: Apache-2.0
"""Owns waiting for something to become true within a bound, for tools and tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def until(
    what: str | Callable[[], str],
    look: Callable[[], Value],
    seconds: float,
    every: float = 0.1,
) -> Value:
    """Look again and again until what is seen is true; what was seen.

    What ``look`` raises ends the waiting.

    :param what: what is waited for; a function tells it at the end, with what is there
    :param every: seconds between two looks
    :raises TimeoutError: it was not true after ``seconds``
    """
    end = time.monotonic() + seconds
    while not (value := look()):
        if time.monotonic() > end:
            told = what if isinstance(what, str) else what()
            raise TimeoutError(f"not within {seconds:g} s: {told}")
        time.sleep(every)
    return value
