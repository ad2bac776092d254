# SPDX-License-Identifier: Apache-2.0
"""Looks at something again and again until there is an answer, or no time left.

openstacksdk's own ``iterate_timeout`` goes by the time of day, which an administrator
or a time server may change while a guest is frozen; this goes by the monotonic clock.
"""

import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import TypeVar

from keystoneauth1 import exceptions as ks_exceptions
from openstack import exceptions as sdk_exceptions

T = TypeVar("T")


class Expired(Exception):
    """There was no answer within the limit.

    :ivar last: the transient error of the last look, on one line, or nothing
    """

    def __init__(self, last: str) -> None:
        super().__init__(last)
        self.last = last


class Stopped(Exception):
    """The answer is not wanted any more."""


class tolerate_transient:  # noqa: N801 - a context manager, used like a function
    """Keeps a look that failed for a passing reason from ending the wait.

    A restart of an API or a lost connection says nothing about the thing itself.

    :ivar last: the error that was passed over last, on one line; "" after a good look
    """

    def __init__(self) -> None:
        self.last = ""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, exc: BaseException | None, _tb: object) -> bool:
        passing = isinstance(exc, ks_exceptions.ConnectFailure) or (
            isinstance(exc, sdk_exceptions.HttpException)
            and (exc.status_code or 0) >= HTTPStatus.INTERNAL_SERVER_ERROR
        )
        self.last = " ".join(str(exc).split()) if passing else ""
        return passing


def until(
    look: Callable[[], T | None],
    limit: float | None,
    *,
    interval: float,
    first: float | None = None,
    stop: threading.Event | None = None,
) -> T:
    """Return the first answer of ``look`` that is not None.

    There is a look at the beginning and one at the end of the limit, whatever it is.

    :param limit: seconds; None for as long as it takes
    :param interval: seconds between two looks
    :param first: seconds between the first two; each pause is then half as long again,
        until it is ``interval``
    :param stop: is set, by another thread, when the answer is not wanted any more
    :raises Expired: there was none within the limit
    :raises Stopped: ``stop`` was set
    :raises: what ``look`` raises, unless it is transient
    """
    transient = tolerate_transient()
    end = None if limit is None else time.monotonic() + limit
    pause = interval if first is None else min(first, interval)
    while True:
        if stop and stop.is_set():
            raise Stopped
        with transient:
            answer = look()
            if answer is not None:
                return answer
        nap = pause
        if end is not None:
            left = end - time.monotonic()
            if left <= 0:
                raise Expired(transient.last)
            nap = min(pause, left)
        time.sleep(nap)
        pause = min(pause * 1.5, interval)
