# SPDX-License-Identifier: Apache-2.0
"""Owns which backups are considered stalled.

Cinder has no deadline for a create that waits for a volume service that failed, or for
a store that does not answer: it stays ``creating`` until an operator intervenes.
"""

from collections.abc import Iterator

from cinder_ext.backup import journal
from cinder_ext.objects import operation


class Watchdog:
    """Finds each stalled create once per ``stall_time``.

    :param stall_time: seconds without activity; 0 disables it
    """

    def __init__(self, kept: journal.Journal, stall_time: int) -> None:
        self._journal = kept
        self._stall_time = stall_time
        self._reported: dict[str, int] = {}

    def stalled(self, now: float) -> Iterator[tuple[operation.Operation, float]]:
        """The creates to report now, each with its seconds without activity.

        :param now: seconds since the epoch
        """
        if not self._stall_time:
            return
        reported, self._reported = self._reported, {}
        for op in self._journal.running(action="create"):
            active_at = self._journal.active_at(op)
            if active_at is None:
                continue
            idle = now - active_at
            times = int(idle // self._stall_time)
            self._reported[op.id] = max(times, 0)
            if times > reported.get(op.id, 0):
                yield op, round(idle, 3)
