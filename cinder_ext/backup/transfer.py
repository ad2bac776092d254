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

"""Owns what is told of the work of a driver while it runs."""

import threading
import time
from collections.abc import Callable
from typing import Any

from cinder_ext.backup import journal, operation
from cinder_ext.backup.harmless import harmless

#: Seconds between two marks of activity in the journal.
_ACTIVITY = 10.0


class Transfer:
    """The work of the driver for one operation.

    :param op: None where the driver works for none, and nothing is told
    :param progress: how far it is
    :param pace: when that is told
    :param kept: where the operation shows that it is alive
    :param announce: tells the progress
    :ivar by_count: progress is only told when the driver has counted its chunks
    """

    def __init__(
        self,
        op: operation.Operation | None,
        progress: operation.Progress,
        pace: operation.Pace,
        kept: journal.Journal,
        announce: Callable[[dict[str, Any]], None],
        clock: operation.Clock = time.time,
    ) -> None:
        self.progress = progress
        self.by_count = False
        self._op = op
        self._pace = pace
        self._journal = kept
        self._announce = announce
        self._clock = clock
        self._active_at = 0.0
        self._ended = threading.Event()

    @harmless
    def moved(self) -> None:
        """The progress has changed."""
        self._active()
        if not self.by_count:
            self._tell()

    @harmless
    def counted(self) -> None:
        """The driver has done as many chunks as may be worth a notification."""
        self._tell()

    @harmless
    def beat(self) -> None:
        """Time has passed; a driver that shows nothing counts as active."""
        if self.progress.percent is None:
            self._active()
        self._tell()

    @harmless
    def start_beating(self, interval: float) -> None:
        """Beat until ``stop_beating``.

        :param interval: seconds
        """
        threading.Thread(
            target=self._beat, args=(interval,), name="backup-beat", daemon=True
        ).start()

    def stop_beating(self) -> None:
        """A heart that beats on would tell of a backup that has failed."""
        self._ended.set()

    def _beat(self, interval: float) -> None:
        while not self._ended.wait(interval):
            self.beat()

    def _active(self) -> None:
        now = self._clock()
        if self._op and abs(now - self._active_at) >= _ACTIVITY:
            self._active_at = now
            self._journal.touch(self._op)

    def _tell(self) -> None:
        op = self._op
        if op is None:
            return
        with op.lock:
            if op.finished or not self._pace.due(self.progress.percent):
                return
            if op.kept and not self._journal.is_running(op):
                # Another process has told its end, as one that deletes the backup.
                op.finished = True
                return
            self._announce(self.progress.facts())
