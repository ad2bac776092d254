# SPDX-License-Identifier: Apache-2.0
"""Owns the copy of a server's persistent memory between two compute hosts.

The source host leads: it asks the destination's nova-compute to check its devices and
to reserve them, tries the way there, and copies once the guest is off. All that
goes wrong up to the end of the resize has one remedy, to discard what the destination
has; the source keeps its data until the resize is confirmed.
"""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import nova.conf
import oslo_messaging as messaging
from nova import context as nova_context
from nova import exception, objects
from nova.virt import hardware
from oslo_log import log as logging
from oslo_utils import uuidutils

from nova_ext import exception as ext_exception
from nova_ext.compute import action_records, retry_queue
from nova_ext.compute.pmem import rpc
from nova_ext.notifications.objects import instance_copy_pmem as notification
from nova_ext.objects.pmem_copy import PmemCopy, PmemCopyList
from nova_ext.objects.pmem_copy import PmemCopyStatus as Status
from nova_ext.virt import pmem as pmem_host

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

EVENT = "compute_copy_pmem"


@dataclasses.dataclass
class Move:
    """One copy on its way, on the source host.

    :ivar row: what the database has of it
    :ivar change_id: of the change of the row that was asked for last
    :ivar begun: when the first byte was copied, on the monotonic clock
    :ivar done: bytes copied so far
    """

    context: Any
    instance: Any
    migration: Any
    row: PmemCopy
    queue: retry_queue.RetryQueue
    change_id: str | None = None
    names: list[str] = dataclasses.field(default_factory=list)
    copy: pmem_host.Copy | None = None
    begun: float = 0.0
    reported: float = 0.0
    done: int = 0
    stopped: str = ""

    def figures(self) -> notification.Figures:
        """What there is to tell of the copy now."""
        return notification.Figures(
            self.migration,
            self.copy.total if self.copy else 0,
            self.done,
            time.monotonic() - self.begun if self.begun else 0.0,
        )


class PmemManager:
    """All copies from and to this host.

    :param host: the compute host's name
    :param memory: the virt driver's persistent memory, or None if it has none
    :param published: whether this host has offered the copy since it was started
    """

    def __init__(
        self,
        host: str,
        memory: pmem_host.PmemHost | None,
        published: Callable[[], bool],
    ) -> None:
        self._host = host
        self._memory = memory
        self._published = published
        self._rpcapi = rpc.PmemRPCAPI()
        self._records = action_records.ActionRecords(host)
        self._moves: dict[str, Move] = {}
        self._lock = threading.Lock()

    # The source host, called by the virt driver.

    def ordered(self, context: Any, instance: Any) -> bool:
        """Whether this very request asks for a copy of the server's devices.

        :raises: nova_ext.exception.ConductorTooOld when that cannot be told
        """
        row = self.row(instance)
        return (
            row is not None
            and row.status is Status.ORDERED
            and row.request_id == context.request_id
        )

    def row(self, instance: Any) -> PmemCopy | None:
        """What the database has of a copy of the server's devices.

        A server without such devices, and a cell in which no copy can be asked for,
        have none: their moves go on as in stock nova.

        :raises: nova_ext.exception.ConductorTooOld when a copy may have been asked for,
            but nova-conductor does not know of it
        """
        if not hardware.get_vpmems(instance.flavor):
            return None
        try:
            return PmemCopy.find(nova_context.get_admin_context(), instance.uuid)
        except ext_exception.StateDatabaseMissing:
            return None
        except ext_exception.ConductorTooOld:
            if self._published():
                raise
            return None

    @contextlib.contextmanager
    def prepared_copy(
        self, context: Any, instance: Any, address: str
    ) -> Iterator[Move]:
        """Prepare a copy, and discard what it has done if the body fails.

        :param address: of the destination host
        :raises: nova_ext.exception.PmemCopyFailed when it cannot be done; nothing has
            been changed then
        """
        migration = objects.Migration.get_by_id_and_instance(
            context, instance.migration_context.migration_id, instance.uuid
        )
        row = PmemCopy.get_by_instance_uuid(
            nova_context.get_admin_context(), instance.uuid
        )
        records = retry_queue.RetryQueue(f"copy-pmem-records-{instance.uuid}")
        move = Move(context, instance, migration, row, records)
        with self._lock:
            self._moves[instance.uuid] = move
        try:
            with self._discarded(move):
                self._store(move, Status.COPYING)
                self._prepare(move, address)
                yield move
        finally:
            with self._lock:
                del self._moves[instance.uuid]
            records.close()

    def copy(self, move: Move) -> None:
        """Copy; the guest is off.

        :raises: nova_ext.exception.PmemCopyFailed
        """
        assert move.copy is not None  # prepared_copy() has set it
        LOG.info(
            "Copying %s bytes of persistent memory to %s.",
            move.copy.total,
            move.migration.dest_compute,
            instance=move.instance,
        )
        move.begun = move.reported = time.monotonic()
        self._put_event(move, self._records.event_start)
        self._notify(move, "start")
        try:
            self._run(move, move.copy)
        except Exception as exc:
            self._put_event(move, self._records.event_finish, exc)
            self._notify(move, "error", exc)
            raise
        self._put_event(move, self._records.event_finish, None)
        self._store(move, Status.COPIED)
        figures = move.figures()
        LOG.info(
            "Copied %(bytes)s bytes of persistent memory to %(host)s in %(time).1f s, "
            "%(rate)s bytes/s.",
            {
                "bytes": figures.copied,
                "host": move.migration.dest_compute,
                "time": figures.seconds,
                "rate": figures.rate,
            },
            instance=move.instance,
        )
        self._notify(move, "end")

    def stop(self, uuid: str, reason: str) -> None:
        """Make the copy of a server, if there is one, fail soon."""
        with self._lock:
            move = self._moves.get(uuid)
        if move is not None:
            move.stopped = reason
            if move.copy is not None:
                move.copy.stop(reason)

    def _prepare(self, move: Move, address: str) -> None:
        if self._memory is None:
            raise self._failed(move, "its host has no persistent memory to copy")
        try:
            # What is asked for is entered there even if the answer gets lost.
            resources = move.instance.migration_context.new_resources or []
            move.names = [each.identifier for each in resources]
            targets = self._rpcapi.prepare_pmem_copy(
                move.context, move.instance, move.migration
            )
            move.copy = self._memory.copy(
                [pmem_host.Device(**target) for target in targets],
                move.instance,
                address,
                lambda done: self._report(move, done),
            )
            move.copy.probe()
        except messaging.UnsupportedVersion as exc:
            raise self._failed(
                move,
                f"the compute service of {move.migration.dest_compute} does not "
                "support it; install the nova extensions there",
            ) from exc
        except (
            exception.NovaException,
            messaging.MessagingException,
            pmem_host.CopyError,
            OSError,
        ) as exc:
            raise self._failed(move, str(exc)) from exc

    def _run(self, move: Move, copy: pmem_host.Copy) -> None:
        def digest(device: pmem_host.Device, offset: int, length: int) -> str:
            return self._rpcapi.digest_pmem(
                move.context, move.migration, device.name, offset, length
            )

        try:
            if move.stopped:
                raise pmem_host.CopyError(move.stopped)
            copy.run()
            if CONF.nova_ext.pmem_verify == "digest":
                copy.verify(digest)
            self._reserve(move)
        except (
            exception.NovaException,
            messaging.MessagingException,
            pmem_host.CopyError,
            OSError,
        ) as exc:
            raise self._failed(move, str(exc)) from exc

    def _reserve(self, move: Move) -> None:
        """Keep the source's devices from others once the server is elsewhere.

        nova forgets that they are in use when the rest of the resize fails badly.
        """
        assert self._memory is not None  # _prepare() checked it
        names = [device.name for device in self._memory.devices(move.instance)]
        self._memory.reserve(names, move.instance.uuid)

    @contextlib.contextmanager
    def _discarded(self, move: Move) -> Iterator[None]:
        """Have the destination zero its devices again if the body fails."""
        try:
            yield
        except Exception:
            if self._memory is not None:
                with contextlib.suppress(OSError):  # the periodic task tries again
                    self._memory.release(move.instance.uuid)
            try:
                self.discard(move.context, move.instance, move.migration, move.names)
            except Exception:
                LOG.exception(
                    "Could not tell %s to discard what was copied; it zeroes it later.",
                    move.migration.dest_compute,
                    instance=move.instance,
                )
            move.queue.put(self._forget, move.row, move.change_id)
            raise

    @staticmethod
    def _forget(row: PmemCopy, change_id: str | None = None) -> None:
        """Remove the row of a copy that is done with, but not a later order."""
        with contextlib.suppress(ext_exception.PmemCopyChanged):
            row.destroy(change_id)

    def forget(self, instance: Any, migration: Any) -> None:
        """Remove the row of a migration's copy, if it has one: it is done with.

        What fails now is found again by :meth:`leftovers`.
        """
        try:
            row = self.row(instance)
            if row is not None and row.migration_id == migration.id:
                self._forget(row)
        except (
            ext_exception.ConductorTooOld,
            ext_exception.StateDatabaseMissing,
            messaging.MessagingException,
        ) as exc:
            LOG.warning(
                "Could not record the end of the copy yet: %s", exc, instance=instance
            )

    def discard(
        self, context: Any, instance: Any, migration: Any, names: Iterable[str]
    ) -> None:
        """Have the destination of a copy zero its devices; does not wait."""
        self._rpcapi.discard_pmem_copy(
            context, migration, _owner(instance, migration.id), list(names)
        )

    @staticmethod
    def _store(move: Move, status: Status) -> None:
        """Write ahead what comes next.

        :raises: nova_ext.exception.PmemCopyChanged when another request took over
        """
        row = move.row.replace(status=status, migration_id=move.migration.id)
        move.change_id = uuidutils.generate_uuid()
        row.save(move.change_id)
        move.row = row

    def _report(self, move: Move, done: int) -> None:
        """Called by one stream at a time."""
        move.done = done
        now = time.monotonic()
        if now - move.reported < CONF.nova_ext.pmem_progress_interval:
            return
        move.reported = now
        figures = move.figures()
        LOG.info(
            "Copied %s of %s bytes of persistent memory, %s bytes/s.",
            figures.copied,
            figures.total,
            figures.rate,
            instance=move.instance,
        )
        self._notify(move, "progress")

    @staticmethod
    def _put_event(move: Move, record: Callable[..., None], *args: Any) -> None:
        move.queue.put(record, move.context, move.instance.uuid, EVENT, *args)

    def _notify(self, move: Move, phase: str, failure: Exception | None = None) -> None:
        # The copy does not wait for the message bus, and what is sent tells how the
        # server was then, and where the failure was raised.
        move.queue.put(
            notification.emit,
            move.context,
            move.instance.obj_clone(),
            self._host,
            phase,
            move.figures(),
            notification.fault(failure),
        )

    @staticmethod
    def _failed(move: Move, reason: str) -> ext_exception.PmemCopyFailed:
        return ext_exception.PmemCopyFailed(
            instance_uuid=move.instance.uuid, reason=reason
        )

    # The destination host, called by RPC and by the virt driver.

    def prepare(
        self, context: Any, instance: Any, migration_id: int
    ) -> list[dict[str, Any]]:
        """Check the devices that a server has claimed here, and expect its data.

        :returns: the fields of a :class:`nova_ext.virt.pmem.Device` for each
        :raises: nova.exception.MigrationPreCheckError
        """
        if self._memory is None:
            raise exception.MigrationPreCheckError(
                reason=f"host {self._host} has no persistent memory to copy to"
            )
        try:
            devices = self._memory.devices(instance, prefix="new")
            names = [device.name for device in devices]
            self._memory.sanitize(names)
            self._memory.expect_copy(names, _owner(instance, migration_id))
        except (pmem_host.CopyError, OSError) as exc:
            raise exception.MigrationPreCheckError(
                reason=f"host {self._host}: {exc}"
            ) from exc
        return [dataclasses.asdict(device) for device in devices]

    def digest(self, name: str, offset: int, length: int) -> str:
        """The digest of a range of one of this host's devices.

        :raises: nova.exception.MigrationPreCheckError
        """
        try:
            assert self._memory is not None  # prepare() checked it
            return self._memory.digest(name, offset, length)
        except pmem_host.CopyError as exc:
            raise exception.MigrationPreCheckError(
                reason=f"host {self._host}: {exc}"
            ) from exc

    def discarded(self, owner: str, names: Iterable[str]) -> None:
        """Zero what has arrived here of a copy that failed."""
        if self._memory is None:
            return
        for name in names:
            self._sanitized(name, self._memory.sanitize, owner)

    def adopt_devices(self, instance: Any, migration: Any, names: list[str]) -> None:
        """Make sure that a server finds in its devices what it should.

        :param names: the devices that it gets here
        :raises: nova_ext.exception.PmemCopyFailed when its data was to be copied and is
            not there
        """
        if self._memory is None:
            return
        try:
            if self.copied(instance, migration):
                self._memory.adopt(names, _owner(instance, migration.id))
            else:
                self._memory.sanitize(names)
        except (pmem_host.CopyError, OSError) as exc:
            raise ext_exception.PmemCopyFailed(
                instance_uuid=instance.uuid, reason=str(exc)
            ) from exc

    def has_pmem(self) -> bool:
        """Whether this host has persistent memory, or remembers some."""
        return self._memory is not None and self._memory.has_pmem()

    def sanitize_unassigned(self, assigned: Iterable[str]) -> None:
        """Zero the devices that hold data of nobody and are not in use.

        :param assigned: the devices that some server has or waits for
        """
        if self._memory is None:
            return
        for name in sorted(set(self._memory.pending_sanitize()) - set(assigned)):
            if self._sanitized(name, self._memory.sanitize):
                LOG.info("Zeroed namespace %s, which held data of nobody.", name)

    def end_reservations(self, context: Any, assigned: Iterable[str]) -> None:
        """Zero the devices that are reserved for a server that needs them no more.

        :param assigned: the devices that some server has or waits for
        """
        if self._memory is None:
            return
        for name, uuid in self._memory.reserved().items():
            if self._needs(context, uuid, name) or name in assigned:
                continue
            if self._sanitized(name, self._memory.sanitize_reserved, uuid):
                LOG.info("Zeroed namespace %s, which server %s has left.", name, uuid)

    @staticmethod
    def _sanitized(name: str, sanitize: Callable[..., None], *args: Any) -> bool:
        """Whether a device could be zeroed now; if not, it stays remembered."""
        try:
            sanitize([name], *args)
        except (pmem_host.CopyError, OSError) as exc:
            LOG.warning("Could not zero namespace %s yet: %s", name, exc)
            return False
        return True

    def _needs(self, context: Any, uuid: str, name: str) -> bool:
        """Whether a server may still come back to a device that is reserved for it."""
        try:
            instance = objects.Instance.get_by_uuid(
                context, uuid, expected_attrs=["resources", "flavor"]
            )
        except exception.InstanceNotFound:
            return False
        row = self.row(instance)
        if row is not None and row.begun:
            return True
        own = {resource.identifier for resource in instance.resources or []}
        return instance.host == self._host and name in own

    def copied(self, instance: Any, migration: Any) -> bool:
        """Whether a migration has brought the server's data here.

        :raises: nova_ext.exception.ConductorTooOld when that cannot be told
        """
        row = self.row(instance)
        return (
            row is not None
            and row.status is Status.COPIED
            and row.migration_id == migration.id
        )

    # After a restart of nova-compute on the source host.

    def unfinished(self, instance: Any) -> bool:
        """Whether a copy of the server had begun, and this host knows nothing of it."""
        if self._under_way(instance.uuid):
            return False
        row = self.row(instance)
        return row is not None and row.begun

    def leftovers(self, context: Any) -> list[PmemCopy]:
        """The copies of this host's servers that had begun, and nobody works on.

        :raises: nova_ext.exception.ConductorTooOld or
            oslo_messaging.MessagingException when they cannot be read
        """
        try:
            rows = list(PmemCopyList.get_by_host(context, self._host))
        except ext_exception.StateDatabaseMissing:
            return []
        except ext_exception.ConductorTooOld:
            if self._published():
                raise
            return []
        return [
            row for row in rows if row.begun and not self._under_way(row.instance_uuid)
        ]

    def _under_way(self, uuid: str) -> bool:
        with self._lock:
            return uuid in self._moves

    def kill_stale_processes(self, instance: Any) -> None:
        """End the processes of a copy that an earlier nova-compute had begun."""
        if self._memory is None:
            return
        self._memory.kill_stale_processes(instance.uuid)

    def abort(self, instance: Any, row: PmemCopy) -> Any:
        """Discard a copy that was cut short, and record it; may be repeated.

        :returns: its migration, which the caller ends, before it has the row removed
        """
        context = nova_context.get_admin_context()
        context.request_id = row.request_id
        migration = objects.Migration.get_by_id_and_instance(
            context, row.migration_id, instance.uuid
        )
        # It is gone if an earlier attempt got that far.
        moved = instance.migration_context
        resources = (moved and moved.new_resources) or []
        self.discard(context, instance, migration, [r.identifier for r in resources])
        if self._memory is not None:
            self._memory.release(instance.uuid)
        failure = ext_exception.PmemCopyFailed(
            instance_uuid=instance.uuid,
            reason="nova-compute ended in the meantime",
        )
        LOG.warning(failure.format_message(), instance=instance)
        self._records.event_finish(context, instance.uuid, EVENT, failure)
        return migration


def _owner(instance: Any, migration_id: int) -> str:
    """Whose data it is, in the tracker of the destination."""
    return f"{instance.uuid} {migration_id}"
