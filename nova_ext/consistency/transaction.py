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

"""Owns the making of a consistency snapshot: freeze in order, cut, thaw, prove, keep.

All requests are sent by worker threads, so that the calling thread, which decides, can
give up at any of its waits: because a step failed, the time is over, or a signal came.
Whatever ends it, it first thaws what is frozen, in reverse order, and then removes what
was made. The order is plain code: a flow engine's revert runs a step's undo where the
step stands, and here the thaw has to come before all other undoing and on success too.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Any

from nova_ext.consistency import errors, facts, parts, plan, report, waiting
from nova_ext.consistency.window import GRACE, Window

#: Requests at the same time; also the number of connections that a session keeps.
_PARALLEL = 10

#: Seconds for which the thaw of the servers of one stage holds up the stage before.
_PATIENCE = 10

#: Seconds for which work that is no longer wanted is waited for before its results are
#: removed: longer than any one request.
_SETTLE = waiting.REQUEST_LIMIT + 10


def create(
    conn: Any,
    stages: Sequence[Sequence[str]],
    *,
    name: str | None = None,
    timeout: int = plan.TIMEOUT,
    properties: Mapping[str, str] | None = None,
    best_effort: bool = False,
    backup: bool = False,
    incremental: bool = False,
    backup_zone: str | None = None,
    observe: report.Observer = report.nobody,
) -> report.Report:
    """Make a consistency snapshot of servers.

    The servers are frozen in the given order and thawed in its reverse. Each of them
    thaws by itself at the deadline of the group, whatever becomes of this process.
    While this runs in the main thread, SIGINT and SIGTERM end it cleanly.

    :param conn: ``openstack.connection.Connection``
    :param stages: names or IDs of servers; those of a stage are frozen at the same time
    :param timeout: seconds from the first freeze to the last thaw
    :param properties: metadata of the user for all parts
    :param best_effort: also keep disks of servers that could not be frozen, or whose
        freeze had a gap; they are only what a power cut would leave
    :param backup: back the snapshots up, too, once the servers are thawed
    :param incremental: make backups that build on the latest ones
    :param backup_zone: availability zone of the backup service to use
    :param observe: is told each step; if it raises, the snapshot is undone
    :raises errors.PlanError, nova_ext.client.ClientError: nothing has been done
    :raises errors.GroupFailed: it failed and is undone
    """
    with waiting.bounded_requests(conn), waiting.Attention() as attention:
        planned = plan.make(
            conn,
            stages,
            name=name,
            timeout=timeout,
            properties=properties,
            best_effort=best_effort,
            incremental=incremental,
        )
        work = _Transaction(conn, planned, attention, observe, timeout, backup)
        try:
            work.run(best_effort, incremental, backup_zone)
        except Exception as exc:
            left = work.undo()
            raise work.failure(exc, left) from exc
        except BaseException:
            work.undo()
            raise
        return work.report()


class _Transaction:
    def __init__(
        self,
        conn: Any,
        planned: plan.Plan,
        attention: waiting.Attention,
        observe: report.Observer,
        timeout: int,
        backup: bool,
    ) -> None:
        self._conn = conn
        self._plan = planned
        self._attention = attention
        self._backup = backup
        self._timeout = timeout
        self._deadline = float("inf")
        self._group_window = 0.0
        self._windows = {
            server.id: Window(conn, server, planned.refusals.get(server.id))
            for server in planned.servers
        }
        self._freezes: dict[str, futures.Future[Any]] = {}
        self._parts: dict[int, parts.Part] = {}
        self._backups: dict[int, parts.Part] = {}
        self._mark: dict[str, str] = {}
        self._work: list[futures.Future[Any]] = []
        self._stop = threading.Event()
        volumes = sum(bool(disk.volume) for disk in planned.disks)
        self._tell = report.Progress(
            observe,
            2 * (len(self._windows) - len(planned.refusals))
            + len(planned.disks)
            + 1
            + (volumes if backup else 0),
        )
        # Work that hangs must not keep a thaw waiting for a thread.
        self._pool = futures.ThreadPoolExecutor(_PARALLEL)
        self._thaw_pool = futures.ThreadPoolExecutor(len(self._windows))

    def run(self, best_effort: bool, incremental: bool, zone: str | None) -> None:
        """Do it all; if it raises, :meth:`undo` has to follow."""
        self._tell(report.Kind.PLANNED, self._plan.header.name)
        self._attention.check()
        begin = time.monotonic()
        self._deadline = begin + self._timeout
        for stage in self._plan.stages:
            self._freeze(stage, best_effort)
        self._cut()
        self._thaw(self._tell)
        self._group_window = time.monotonic() - begin
        self._attention.check()
        if time.monotonic() > self._deadline:
            raise errors.TimeOver("The group", self._timeout)
        if not (best_effort or self._all_proved()):
            raise errors.StepFailed("Not every server was frozen all the time.")
        self._commit()
        if self._backup:
            self._back_up(incremental, zone)

    def _all_proved(self) -> bool:
        return all(window.proved for window in self._windows.values())

    def _submit(
        self, function: Callable[..., Any], *arguments: Any
    ) -> "futures.Future[Any]":
        future = self._pool.submit(function, *arguments)
        self._work.append(future)
        return future

    # -- the steps --

    def _freeze(self, stage: Sequence[facts.Server], best_effort: bool) -> None:
        pending: dict[futures.Future[Any], Window] = {}
        for server in stage:
            if server.id not in self._plan.refusals:
                self._tell(report.Kind.FREEZING, server.name)
                window = self._windows[server.id]
                window.mine = True
                future = self._submit(window.freeze, self._deadline)
                self._freezes[server.id] = future
                pending[future] = window
        for future in self._attention.results(
            pending, self._deadline, "The freeze of the group"
        ):
            try:
                future.result()
            except Exception:
                if not best_effort:
                    raise
            else:
                self._tell(report.Kind.FROZEN, pending[future].server.name)

    def _cut(self) -> None:
        pending: dict[futures.Future[Any], facts.Disk] = {}
        for disk in self._plan.disks:
            self._tell(report.Kind.CUTTING, disk.title)
            pending[self._submit(self._cut_one, disk)] = disk
        for future in self._attention.results(
            pending, self._deadline, "The cut of the disks"
        ):
            future.result()
            self._tell(report.Kind.CUT, pending[future].title)

    def _cut_one(self, disk: facts.Disk) -> None:
        metadata = self._plan.metadata[disk.number]
        part = self._parts[disk.number] = parts.cut(self._conn, disk, metadata)
        left = self._deadline - time.monotonic()
        parts.wait_cut(self._conn, disk, part, left, self._stop)

    def _thaw(self, tell: Callable[[report.Kind, str], None]) -> None:
        """Thaw what may be frozen, the last stage first, and wait for it."""
        late: list[futures.Future[Any]] = []
        for stage in reversed(self._plan.stages):
            windows = [w for server in stage if (w := self._windows[server.id]).mine]
            pending = []
            for window in windows:
                tell(report.Kind.THAWING, window.server.name)
                pending.append(self._thaw_pool.submit(window.thaw))
            if not waiting.ended(pending, _PATIENCE):
                late += pending
            for window in windows:
                if window.thawed_at:
                    tell(report.Kind.THAWED, window.server.name)
        if late:
            left = max(0.0, self._deadline - time.monotonic())
            waiting.ended(late, left + 2 * GRACE)

    def _commit(self) -> None:
        """Wait until all parts are there; one last write then makes them a group."""
        for number, part in sorted(self._parts.items()):
            what = f"The {part.kind} of {self._plan.disks[number].title}"
            self._parts[number] = self._result(
                parts.wait_ready, self._conn, part, parts.UPLOAD_LIMIT, what, self._stop
            )
        for part in self._parts.values():
            if part.kind is parts.Kind.IMAGE:
                self._result(parts.mark, self._conn, part, {facts.IMAGE: part.id})
        self._mark = {
            facts.PROVED: self._plan.header.id,
            facts.CONSISTENCY: self._consistency(),
            facts.WINDOW: str(round(self._group_window * 1000)),
        }
        self._result(parts.mark, self._conn, self._parts[0], self._mark)
        self._tell(report.Kind.COMMITTED, self._plan.header.name)

    def _result(self, function: Callable[..., Any], *arguments: Any) -> Any:
        (done,) = self._attention.results([self._submit(function, *arguments)])
        return done.result()

    def _consistency(self) -> str:
        return "group" if self._all_proved() else "partial"

    def _back_up(self, incremental: bool, zone: str | None) -> None:
        pending: dict[futures.Future[Any], facts.Disk] = {}
        for disk in self._plan.disks:
            if disk.volume:
                self._tell(report.Kind.BACKING_UP, disk.title)
                future = self._submit(self._back_up_one, disk, incremental, zone)
                pending[future] = disk
        for future in self._attention.results(pending):
            future.result()
            self._tell(report.Kind.BACKED_UP, pending[future].title)

    def _back_up_one(
        self, disk: facts.Disk, incremental: bool, zone: str | None
    ) -> None:
        assert disk.volume is not None
        metadata = {**self._plan.metadata[disk.number], **self._mark}
        snapshot = self._parts[disk.number]
        part = self._backups[disk.number] = parts.back_up(
            self._conn,
            snapshot,
            metadata,
            disk.volume,
            incremental=incremental,
            zone=zone,
        )
        what = f"The backup of {disk.title}"
        parts.wait_ready(self._conn, part, None, what, self._stop)

    # -- the way back --

    def undo(self) -> list[str]:
        """Thaw, then remove what was made; return what could not be removed."""
        for server, future in self._freezes.items():
            if future.cancel():
                self._windows[server].mine = False
        self._thaw(lambda _kind, _name: None)
        self._stop.set()
        for future in self._work:
            future.cancel()
        waiting.ended(self._work, _SETTLE)
        return self._remove()

    def _remove(self) -> list[str]:
        group = self._plan.header.id
        known = {p.id: p for p in (*self._parts.values(), *self._backups.values())}
        left: list[str] = []
        if len(self._work) > len(self._freezes):
            # An answer may have got lost, but not the metadata.
            try:
                found = waiting.until(
                    lambda: list(parts.find(self._conn, group)),
                    _SETTLE,
                    "Looking for parts",
                    interval=parts.INTERVAL,
                )
                known |= {part.id: part for part in found}
            except Exception as exc:
                left.append(f"all with {facts.ID}={group}: {parts.reason(exc)}")
        try:
            parts.delete(self._conn, list(known.values()))
        except errors.Leftovers as exc:
            left += exc.left
        return left

    def failure(self, exc: Exception, left: Sequence[str]) -> errors.GroupFailed:
        """Return what to raise for an exception, once all is undone."""
        names = Counter(server.name for server in self._plan.servers)
        reasons = {}
        frozen = []
        for window in self._windows.values():
            server = window.server
            title = server.name if names[server.name] == 1 else server.id
            if window.reason:
                reasons[title] = window.reason
            if window.mine:
                frozen.append(title)
        why = parts.reason(exc)
        text = "The consistency snapshot was not made."
        if why not in reasons.values():
            text = f"{text} {why}"
        return errors.GroupFailed(text, reasons, left, frozen)

    def report(self) -> report.Report:
        """Return how it went."""
        servers = []
        for server in self._plan.servers:
            window = self._windows[server.id]
            servers.append(
                report.ServerReport(
                    id=server.id,
                    name=server.name,
                    frozen_at=window.frozen_at,
                    thawed_at=window.thawed_at,
                    window_ms=window.milliseconds,
                    consistent=window.proved,
                    reason=window.reason,
                    members=[
                        f"{disk.device}={self._parts[disk.number].title}"
                        for disk in self._plan.disks
                        if disk.server is server
                    ],
                )
            )
        return report.Report(
            id=self._plan.header.id,
            name=self._plan.header.name,
            consistency=self._consistency(),
            window_ms=round(self._group_window * 1000),
            servers=servers,
        )
