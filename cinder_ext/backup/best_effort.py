# SPDX-License-Identifier: Apache-2.0
"""Owns how code that only reports on a backup keeps its failures from the backup."""

import functools
from collections.abc import Callable
from typing import ParamSpec

from oslo_log import log as logging

LOG = logging.getLogger(__name__)

P = ParamSpec("P")


def best_effort(function: Callable[P, None]) -> Callable[P, None]:
    """Log an exception, the first time with its traceback, and continue."""
    seen: list[str] = []

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except Exception as error:
            if not seen:
                seen.append(function.__name__)
                LOG.exception("Failed to tell of a backup; the backup goes on.")
            else:
                LOG.debug("Failed to tell of a backup: %s", error)

    return wrapper
