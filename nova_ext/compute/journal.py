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

"""Owns the order and the retries of what is recorded beside an urgent work.

A compute host reaches the database through the message bus. A thaw must never wait for
that, nor a copy while the guest is off, so they hand their records to a journal, whose
thread writes them in order and repeats what fails until the bus is back.
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
_MOST_REMOTE_ERRORS = 30  # about a quarter of an hour


class Journal:
    """A queue of records of one instance, written in order by a thread of its own.

    :param name: name of the thread
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._retry = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(messaging.MessagingException),
            stop=self._hopeless,
            wait=tenacity.wait_exponential(max=_LONGEST_WAIT),
            before_sleep=self._complain,
            reraise=True,
        )
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def put(self, function: Callable[..., Any], *args: Any) -> None:
        """Call ``function(*args)`` after all that was put before."""
        self._queue.put(lambda: function(*args))

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
                # What is not the bus will not get better: the next record counts.
                LOG.exception("Lost a record of %s.", self._name)

    @staticmethod
    def _hopeless(state: tenacity.RetryCallState) -> bool:
        """Whether the bus works and what answers there has failed too often."""
        outcome = state.outcome
        return (
            outcome is not None
            and isinstance(outcome.exception(), messaging.RemoteError)
            and state.attempt_number >= _MOST_REMOTE_ERRORS
        )

    def _complain(self, state: tenacity.RetryCallState) -> None:
        outcome = state.outcome
        LOG.warning(
            "Could not write a record of %s, trying again: %s",
            self._name,
            outcome.exception() if outcome else None,
        )
