# SPDX-License-Identifier: Apache-2.0
"""How one waits: for the cloud, for work in other threads, and not for a signal."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent import futures
from types import FrameType
from typing import Any, TypeVar

from nova_ext.client import once, polling
from nova_ext.client.consistency import errors

T = TypeVar("T")

#: Seconds after which a request that the caller's session has no limit for is given up:
#: more than the 60 after which Nova answers when a host is not reached.
REQUEST_LIMIT = 90

#: Seconds for which work that is no longer wanted is waited for before its results are
#: removed: longer than any one request.
SETTLE = REQUEST_LIMIT + 10

#: Requests at the same time; also the number of connections that a session keeps.
_PARALLEL = 10

#: How often a thread that waits for others looks whether a signal has arrived, seconds.
_SIGNAL_INTERVAL = 0.05


@contextlib.contextmanager
def bounded_requests(conn: Any) -> Iterator[Any]:
    """Limit a connection's requests for the time being, if its owner did not.

    :returns: the connection to use, which sends no change twice
    """
    own = conn.session.timeout
    if own is None:
        conn.session.timeout = float(REQUEST_LIMIT)
    try:
        yield once.Connection(conn)
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
    :param what: what is waited for, for the error: the subject of a sentence
    :param interval: seconds between two looks
    :param stop: is set when nobody wants the answer any more
    :raises errors.TimeOver: there was none within the limit
    :raises errors.Interrupted: ``stop`` was set
    """
    try:
        return polling.until(look, limit, interval=interval, stop=stop)
    except polling.Expired as exc:
        raise errors.TimeOver(what, limit or 0, exc.last) from exc
    except polling.Stopped as exc:
        raise errors.Interrupted(f"{what} is not waited for any more.") from exc


def ended(pending: Collection["futures.Future[Any]"], seconds: float) -> bool:
    """Wait for work in other threads, heeding no signal; whether all of it ended."""
    return not futures.wait(pending, timeout=max(0.0, seconds)).not_done


class Workers:
    """Threads that send the requests of one operation.

    ``stop`` is set when nobody wants their work any more, see :func:`until`.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.submitted: list[futures.Future[Any]] = []
        self._pool = futures.ThreadPoolExecutor(_PARALLEL)

    def submit(
        self, function: Callable[..., Any], *arguments: Any
    ) -> "futures.Future[Any]":
        """Have a function called."""
        future = self._pool.submit(function, *arguments)
        self.submitted.append(future)
        return future

    def give_up(self) -> None:
        """Start nothing more, and wait until what is under way has settled."""
        self.stop.set()
        for future in self.submitted:
            future.cancel()
        ended(self.submitted, SETTLE)


class InterruptGuard:
    """Notices SIGINT and SIGTERM, for whoever asks; a context manager.

    A handler that raised would do so anywhere, in a clean-up too. So this one makes a
    note, and :meth:`check` raises where the work can be given up. Outside the main
    thread no handler can be set, and none is.
    """

    def __init__(self) -> None:
        self._arrived: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "InterruptGuard":
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
                left, timeout=_SIGNAL_INTERVAL, return_when=futures.FIRST_COMPLETED
            )
            yield from done
            if left and time.monotonic() > deadline:
                raise errors.TimeOver(what, time.monotonic() - begin)
        self.check()
