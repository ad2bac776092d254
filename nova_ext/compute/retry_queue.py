# SPDX-License-Identifier: Apache-2.0
"""Owns the order and the retries of what is recorded alongside urgent work.

A compute host reaches the database through the message bus. A thaw must never wait for
that, nor a copy while the guest is off, so they put their records into a queue, whose
thread writes them in order and repeats what fails until the bus is back. The queue is
lost with the process: what has to survive is written ahead, by the caller. What fails
for another reason is given up after a quarter of an hour, and the caller's note that
something is to be told stays.

A thread of its own and no executor: an executor's threads are waited for when the
process ends, which with a broken bus is never.
"""

import queue
import threading
from collections.abc import Callable
from typing import Any

import oslo_messaging as messaging
import tenacity
from nova import exception
from oslo_log import log as logging

LOG = logging.getLogger(__name__)

_LONGEST_WAIT = 30  # s
_MOST_ERRORS = 30  # about a quarter of an hour


class RetryQueue:
    """Records of one instance, written in order by a thread of its own.

    :param name: name of the thread
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._lost = False
        self._retry = tenacity.Retrying(
            retry=tenacity.retry_if_not_exception_type(exception.InstanceNotFound),
            stop=self._hopeless,
            wait=tenacity.wait_exponential(max=_LONGEST_WAIT),
            before_sleep=self._complain,
            reraise=True,
        )
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def put(self, function: Callable[..., Any], *args: Any) -> None:
        """Call ``function(*args)`` after all that was put before.

        It is called again when its answer may be lost, and has to bear that.
        """
        self._queue.put(lambda: function(*args))

    def put_last(self, function: Callable[..., Any], *args: Any) -> None:
        """Call ``function(*args)`` if nothing that was put before has been lost."""
        self._queue.put(lambda: None if self._lost else function(*args))

    @property
    def repeating(self) -> bool:
        """Whether what asks, which the queue has called, was called before."""
        return int(self._retry.statistics.get("attempt_number", 1)) > 1

    def close(self) -> None:
        """End the thread once all records are written."""
        self._queue.put(None)

    def _run(self) -> None:
        while (record := self._queue.get()) is not None:
            try:
                self._retry(record)
            except exception.InstanceNotFound:
                LOG.debug("The instance of a record is deleted.")
            except Exception:
                self._lost = True
                LOG.exception("Lost a record of %s.", self._name)

    @staticmethod
    def _hopeless(state: tenacity.RetryCallState) -> bool:
        """Whether the bus works and what answers there has failed too often."""
        failure = state.outcome.exception() if state.outcome else None
        bus_is_down = isinstance(failure, messaging.MessagingException) and not (
            isinstance(failure, messaging.RemoteError)
        )
        return not bus_is_down and state.attempt_number >= _MOST_ERRORS

    def _complain(self, state: tenacity.RetryCallState) -> None:
        outcome = state.outcome
        LOG.warning(
            "Could not write a record of %s, trying again: %s",
            self._name,
            outcome.exception() if outcome else None,
        )
