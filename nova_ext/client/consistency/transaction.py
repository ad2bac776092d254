# SPDX-License-Identifier: Apache-2.0
"""Makes a consistency snapshot: freeze in order, snapshot, thaw, prove, keep.

All requests are sent by worker threads, so that the calling thread, which decides, can
give up at any of its waits: because a step failed, the time is over, or a signal came.
Whatever ends it, it first thaws what is frozen, in reverse order, and then removes what
was made. The order is plain code: a flow engine's revert runs a step's undo where the
step stands, and here the thaw has to come before all other undoing and on success too.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Any

from nova_ext.client.consistency import errors, members, metadata, plan, report, waiting
from nova_ext.client.consistency.server_freeze import GRACE, ServerFreeze

#: Seconds for which the thaw of the servers of one stage holds up the stage before.
_PATIENCE = 10


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
    :param properties: metadata of the user for all members
    :param best_effort: also keep disks of servers that could not be frozen, or whose
        freeze had a gap; they are only what a power cut would leave
    :param backup: back the snapshots up, too, once the servers are thawed
    :param incremental: make backups that build on the latest ones
    :param backup_zone: availability zone of the backup service to use
    :param observe: is told each step; if it raises, the snapshot is undone
    :raises errors.PlanError, nova_ext.client.exceptions.ClientError: nothing has been
        done
    :raises errors.GroupFailed: it failed and is undone
    """
    with waiting.bounded_requests(conn) as once, waiting.InterruptGuard() as guard:
        planned = plan.make(
            once,
            stages,
            name=name,
            timeout=timeout,
            properties=properties,
            best_effort=best_effort,
            incremental=incremental,
        )
        work = _Transaction(once, planned, guard, observe, backup)
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
        guard: waiting.InterruptGuard,
        observe: report.Observer,
        backup: bool,
    ) -> None:
        self._conn = conn
        self._plan = planned
        self._guard = guard
        self._backup = backup
        self._deadline = float("inf")
        self._group_window = 0.0
        self._freezes = {
            server.id: ServerFreeze(conn, server, planned.refusals.get(server.id))
            for server in planned.servers
        }
        self._freeze_futures: dict[str, futures.Future[Any]] = {}
        self._snapshots: dict[int, members.Member] = {}
        self._backups: dict[int, members.Member] = {}
        self._proof: dict[str, str] = {}
        self._workers = waiting.Workers()
        volumes = sum(bool(disk.volume) for disk in planned.disks)
        self._tell = report.Progress(
            observe,
            2 * (len(self._freezes) - len(planned.refusals))
            + len(planned.disks)
            + 1
            + (volumes if backup else 0),
        )
        # Work that hangs must not keep a thaw waiting for a thread.
        self._thaw_pool = futures.ThreadPoolExecutor(len(self._freezes))

    def run(self, best_effort: bool, incremental: bool, zone: str | None) -> None:
        """Do it all; if it raises, :meth:`undo` has to follow."""
        self._tell(report.Kind.PLANNED, self._plan.header.name)
        self._guard.check()
        begin = time.monotonic()
        self._deadline = begin + self._plan.timeout
        for stage in self._plan.stages:
            self._freeze(stage, best_effort)
        self._snapshot()
        self._thaw(self._tell)
        self._group_window = time.monotonic() - begin
        self._guard.check()
        if time.monotonic() > self._deadline:
            raise errors.TimeOver("The group", self._plan.timeout)
        if not (best_effort or self._all_proved()):
            raise errors.StepFailed("Not every server was frozen all the time.")
        self._commit()
        if self._backup:
            self._back_up(incremental, zone)

    def _all_proved(self) -> bool:
        return all(freeze.proved for freeze in self._freezes.values())

    # -- the steps --

    def _freeze(self, stage: Sequence[metadata.Server], best_effort: bool) -> None:
        pending: dict[futures.Future[Any], ServerFreeze] = {}
        for server in stage:
            if server.id not in self._plan.refusals:
                self._tell(report.Kind.FREEZING, server.name)
                freeze = self._freezes[server.id]
                freeze.mine = True
                future = self._workers.submit(freeze.freeze, self._deadline)
                self._freeze_futures[server.id] = future
                pending[future] = freeze
        for future in self._guard.results(
            pending, self._deadline, "The freeze of the group"
        ):
            try:
                future.result()
            except Exception:
                if not best_effort:
                    raise
            else:
                self._tell(report.Kind.FROZEN, pending[future].server.name)

    def _snapshot(self) -> None:
        pending: dict[futures.Future[Any], metadata.Disk] = {}
        for disk in self._plan.disks:
            self._tell(report.Kind.SNAPSHOTTING, disk.title)
            pending[self._workers.submit(self._snapshot_one, disk)] = disk
        for future in self._guard.results(
            pending, self._deadline, "The snapshot of the disks"
        ):
            future.result()
            self._tell(report.Kind.SNAPSHOTTED, pending[future].title)

    def _snapshot_one(self, disk: metadata.Disk) -> None:
        values = self._plan.metadata[disk.number]
        member = members.snapshot(self._conn, disk, values)
        self._snapshots[disk.number] = member
        left = self._deadline - time.monotonic()
        members.wait_snapshot(self._conn, disk, member, left, self._workers.stop)

    def _thaw(self, tell: Callable[[report.Kind, str], None]) -> None:
        """Thaw what may be frozen, the last stage first, and wait for it."""
        late: list[futures.Future[Any]] = []
        for stage in reversed(self._plan.stages):
            freezes = [f for server in stage if (f := self._freezes[server.id]).mine]
            pending = []
            for freeze in freezes:
                tell(report.Kind.THAWING, freeze.server.name)
                pending.append(self._thaw_pool.submit(freeze.thaw))
            if not waiting.ended(pending, _PATIENCE):
                late += pending
            for freeze in freezes:
                if freeze.thawed_at:
                    tell(report.Kind.THAWED, freeze.server.name)
        if late:
            left = max(0.0, self._deadline - time.monotonic())
            waiting.ended(late, left + 2 * GRACE)

    def _commit(self) -> None:
        """Wait until all members are there; one last write then makes them a group."""
        for number, member in sorted(self._snapshots.items()):
            what = f"The {member.kind} of {self._plan.disks[number].title}"
            self._snapshots[number] = self._result(
                members.wait_ready,
                self._conn,
                member,
                members.UPLOAD_LIMIT,
                what,
                self._workers.stop,
            )
        for member in self._snapshots.values():
            if member.kind is members.Kind.IMAGE:
                self._result(
                    members.add_metadata,
                    self._conn,
                    member,
                    {metadata.IMAGE: member.id},
                )
        self._proof = {
            metadata.PROVED: self._plan.header.id,
            metadata.CONSISTENCY: self._consistency(),
            metadata.WINDOW: str(round(self._group_window * 1000)),
        }
        self._result(members.add_metadata, self._conn, self._snapshots[0], self._proof)
        self._tell(report.Kind.COMMITTED, self._plan.header.name)

    def _result(self, function: Callable[..., Any], *arguments: Any) -> Any:
        (done,) = self._guard.results([self._workers.submit(function, *arguments)])
        return done.result()

    def _consistency(self) -> str:
        return "group" if self._all_proved() else "partial"

    def _back_up(self, incremental: bool, zone: str | None) -> None:
        pending: dict[futures.Future[Any], metadata.Disk] = {}
        for disk in self._plan.disks:
            if disk.volume:
                self._tell(report.Kind.BACKING_UP, disk.title)
                future = self._workers.submit(
                    self._back_up_one, disk, incremental, zone
                )
                pending[future] = disk
        for future in self._guard.results(pending):
            future.result()
            self._tell(report.Kind.BACKED_UP, pending[future].title)

    def _back_up_one(
        self, disk: metadata.Disk, incremental: bool, zone: str | None
    ) -> None:
        assert disk.volume is not None
        values = {**self._plan.metadata[disk.number], **self._proof}
        snapshot = self._snapshots[disk.number]
        member = self._backups[disk.number] = members.back_up(
            self._conn,
            snapshot,
            values,
            disk.volume,
            incremental=incremental,
            zone=zone,
        )
        what = f"The backup of {disk.title}"
        members.wait_ready(self._conn, member, None, what, self._workers.stop)

    # -- the way back --

    def undo(self) -> list[str]:
        """Thaw, then remove what was made; return what could not be removed."""
        for server, future in self._freeze_futures.items():
            if future.cancel():
                self._freezes[server].mine = False
        self._thaw(lambda _kind, _name: None)
        self._workers.give_up()
        return self._remove()

    def _remove(self) -> list[str]:
        group = self._plan.header.id
        known = {p.id: p for p in (*self._snapshots.values(), *self._backups.values())}
        left: list[str] = []
        if len(self._workers.submitted) > len(self._freeze_futures):
            # An answer may have got lost, but not the metadata.
            try:
                found = waiting.until(
                    lambda: list(members.find(self._conn, group)),
                    waiting.SETTLE,
                    "Looking for members",
                    interval=members.INTERVAL,
                )
                known |= {member.id: member for member in found}
            except Exception as exc:
                left.append(f"all with {metadata.ID}={group}: {members.reason(exc)}")
        try:
            members.delete(self._conn, list(known.values()))
        except errors.Leftovers as exc:
            left += exc.left
        return left

    def failure(self, exc: Exception, left: Sequence[str]) -> errors.GroupFailed:
        """Return what to raise for an exception, once all is undone."""
        names = Counter(server.name for server in self._plan.servers)
        reasons = {}
        frozen = []
        for freeze in self._freezes.values():
            server = freeze.server
            title = server.name if names[server.name] == 1 else server.id
            if freeze.reason:
                reasons[title] = freeze.reason
            if freeze.mine:
                frozen.append(title)
        why = members.reason(exc)
        text = "The consistency snapshot was not made."
        if why not in reasons.values():
            text = f"{text} {why}"
        return errors.GroupFailed(text, reasons, left, frozen)

    def report(self) -> report.Report:
        """Return how it went."""
        servers = []
        for server in self._plan.servers:
            freeze = self._freezes[server.id]
            servers.append(
                report.ServerReport(
                    id=server.id,
                    name=server.name,
                    frozen_at=freeze.frozen_at,
                    thawed_at=freeze.thawed_at,
                    window_ms=freeze.milliseconds,
                    consistent=freeze.proved,
                    reason=freeze.reason,
                    members=[
                        f"{disk.device}={self._snapshots[disk.number].title}"
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
