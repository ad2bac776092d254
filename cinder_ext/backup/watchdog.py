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

"""Owns which backups count as stalled.

A create that waits for a volume service which failed, or for a store that does not
answer, has no deadline in cinder: it stays ``creating`` until an operator looks.
"""

from collections.abc import Iterator

from cinder_ext.backup import journal, operation


class Watchdog:
    """Finds each stalled create once per ``stall_time``.

    :param stall_time: seconds without activity; 0 finds nothing
    """

    def __init__(self, kept: journal.Journal, stall_time: int) -> None:
        self._journal = kept
        self._stall_time = stall_time
        self._told: dict[str, int] = {}

    def stalled(self, now: float) -> Iterator[tuple[operation.Operation, float]]:
        """The creates to be told of now, each with its seconds without activity."""
        if not self._stall_time:
            return
        told, self._told = self._told, {}
        for op in self._journal.running(action="create"):
            active_at = self._journal.active_at(op)
            if active_at is None:
                continue
            idle = now - active_at
            times = int(idle // self._stall_time)
            self._told[op.id] = max(times, 0)
            if times > told.get(op.id, 0):
                yield op, round(idle, 3)
