# SPDX-License-Identifier: Apache-2.0
"""Owns what is reported of the work of a driver while it runs."""

import threading
import time
from collections.abc import Callable
from typing import Any

from cinder_ext.backup import journal
from cinder_ext.backup.best_effort import best_effort
from cinder_ext.objects import operation

#: Seconds between two records of activity in the journal.
_ACTIVITY = 10.0


class Transfer:
    """The work of the driver for one operation.

    :param op: None if the driver works for no operation; then nothing is reported
    :param progress: how far it is
    :param throttle: decides when that is reported
    :param kept: where the activity of the operation is recorded
    :param announce: reports the progress
    :ivar by_count: report progress only when the driver has counted its chunks
    """

    def __init__(
        self,
        op: operation.Operation | None,
        progress: operation.Progress,
        throttle: operation.ProgressThrottle,
        kept: journal.Journal,
        announce: Callable[[dict[str, Any]], None],
        clock: operation.Clock = time.time,
    ) -> None:
        self.progress = progress
        self.by_count = False
        self._op = op
        self._throttle = throttle
        self._journal = kept
        self._announce = announce
        self._clock = clock
        self._active_at = 0.0
        self._ended = threading.Event()

    @best_effort
    def moved(self) -> None:
        """The progress has changed."""
        self._active()
        if not self.by_count:
            self._report()

    @best_effort
    def counted(self) -> None:
        """The driver has processed the number of chunks that it reports after."""
        self._report()

    @best_effort
    def heartbeat(self) -> None:
        """Time has passed; a driver that does not expose its progress is active."""
        if self.progress.percent is None:
            self._active()
        self._report()

    @best_effort
    def start_heartbeat(self, interval: float) -> None:
        """Call ``heartbeat`` until ``stop_heartbeat``.

        :param interval: seconds
        """
        threading.Thread(
            target=self._run_heartbeat,
            args=(interval,),
            name="backup-heartbeat",
            daemon=True,
        ).start()

    def stop_heartbeat(self) -> None:
        """Stop; otherwise a backup that has failed would go on reporting."""
        self._ended.set()

    def _run_heartbeat(self, interval: float) -> None:
        while not self._ended.wait(interval):
            self.heartbeat()

    def _active(self) -> None:
        now = self._clock()
        if self._op and abs(now - self._active_at) >= _ACTIVITY:
            self._active_at = now
            self._journal.touch(self._op)

    def _report(self) -> None:
        op = self._op
        if op is None:
            return
        with op.lock:
            if op.finished or not self._throttle.due(self.progress.percent):
                return
            if op.kept and not self._journal.is_running(op):
                # Another process has announced its end, such as one that deletes it.
                op.finished = True
                return
            self._announce(self.progress.to_payload())
