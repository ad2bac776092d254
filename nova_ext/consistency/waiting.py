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

"""Owns how one waits: for the cloud, and for work in other threads."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent import futures
from types import FrameType
from typing import Any, TypeVar

from openstack import exceptions as sdk_exceptions
from openstack import utils as sdk_utils

from nova_ext import client
from nova_ext.consistency import errors

T = TypeVar("T")

#: Seconds after which a request that the caller's session has no limit for is given up:
#: more than the 60 after which Nova answers when a host is not reached.
REQUEST_LIMIT = 90

#: How often a thread that waits for others looks whether a signal has arrived, seconds.
_ATTENTION = 0.05


@contextlib.contextmanager
def bounded_requests(conn: Any) -> Iterator[None]:
    """Give a connection's requests a limit meanwhile, if its owner gave them none."""
    own = conn.session.timeout
    if own is None:
        conn.session.timeout = float(REQUEST_LIMIT)
    try:
        yield
    finally:
        conn.session.timeout = own


def until(
    look: Callable[[], T | None],
    limit: float | None,
    what: str,
    *,
    interval: float,
    stop: threading.Event | None = None,
) -> T:
    """Return the first answer of ``look`` that is not None.

    Errors that say nothing about the thing itself (no connection, 5xx) are waited out.

    :param limit: seconds; None for as long as it takes
    :param interval: seconds between two looks
    :param stop: is set when nobody wants the answer any more
    :raises errors.TimeOver: there was none within the limit
    :raises errors.Interrupted: ``stop`` was set
    """
    trouble = client.Trouble()
    try:
        for _count in sdk_utils.iterate_timeout(limit, what, wait=interval):
            if stop and stop.is_set():
                raise errors.Interrupted(f"{what} is not waited for any more.")
            with trouble:
                answer = look()
                if answer is not None:
                    return answer
    except sdk_exceptions.ResourceTimeout as exc:
        raise errors.TimeOver(what, limit or 0, trouble.last) from exc
    raise AssertionError("the looks end with an exception")


def ended(pending: Collection["futures.Future[Any]"], seconds: float) -> bool:
    """Wait for work in other threads, heeding no signal; whether all of it ended."""
    return not futures.wait(pending, timeout=max(0.0, seconds)).not_done


class Attention:
    """Notices SIGINT and SIGTERM, for whoever asks; a context manager.

    A handler that raised would do so anywhere, in a clean-up too. So this one makes a
    note, and :meth:`check` raises where the work can be given up. Outside the main
    thread no handler can be set, and none is.
    """

    def __init__(self) -> None:
        self._arrived: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Attention":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._arrived = number

    def check(self) -> None:
        """Raise if a signal has arrived.

        :raises errors.Interrupted: one has
        """
        if self._arrived is not None:
            name = signal.Signals(self._arrived).name
            raise errors.Interrupted(f"Interrupted by {name}.")

    def results(
        self,
        pending: Collection["futures.Future[T]"],
        deadline: float = float("inf"),
        what: str = "",
    ) -> Iterator["futures.Future[T]"]:
        """Yield each piece of work as it ends, unless a signal arrives.

        :param deadline: by ``time.monotonic``
        :raises errors.Interrupted: a signal arrived
        :raises errors.TimeOver: the deadline came
        """
        begin = time.monotonic()
        left = set(pending)
        while left:
            self.check()
            done, left = futures.wait(
                left, timeout=_ATTENTION, return_when=futures.FIRST_COMPLETED
            )
            yield from done
            if left and time.monotonic() > deadline:
                raise errors.TimeOver(what, time.monotonic() - begin)
        self.check()
