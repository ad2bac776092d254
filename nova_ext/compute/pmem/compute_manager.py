# SPDX-License-Identifier: Apache-2.0
"""Owns how the copy of persistent memory hooks into nova-compute's manager."""

import contextlib
import contextvars
import threading
import time
from collections.abc import Iterator
from typing import Any

import nova.conf
import oslo_messaging as messaging
from nova import exception, objects, utils
from nova.compute import resource_tracker, task_states, vm_states
from nova.virt import hardware
from oslo_log import log as logging
from oslo_utils import excutils
from typing_extensions import override

from nova_ext.compute import wing
from nova_ext.compute.pmem import manager as pmem
from nova_ext.compute.pmem import rpc
from nova_ext.objects.pmem_copy import PmemCopy

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

#: Set while a failure of finish_resize is to bring the server back to its source.
_reverting: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "nova_ext_reverting", default=False
)

#: The tasks of a server whose resize was not finished; none after a failure.
_UNFINISHED = [None, task_states.RESIZE_MIGRATED, task_states.RESIZE_FINISH]
_RESIZING = [
    task_states.RESIZE_MIGRATING,
    task_states.RESIZE_MIGRATED,
    task_states.RESIZE_FINISH,
]
_ATTRIBUTES = ["flavor", "info_cache", "metadata", "system_metadata"]


class PmemComputeManager(wing.WingComputeManager):
    """nova's manager, with copies of persistent memory."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pmem_manager = pmem.PmemManager(
            self.host,
            getattr(self.driver, "pmem_host", None),
            lambda: self.driver.state_reachable is not None,
        )
        self.driver.pmem_copies = self.pmem_manager
        self.additional_endpoints.append(rpc.PmemEndpoint(self.pmem_manager))
        self._resizing: set[str] = set()
        self._resizing_lock = threading.Lock()
        self._migrated: dict[str, float] = {}

    @override
    def _init_instance(self, context: Any, instance: Any) -> None:
        cut_short = (
            instance.task_state == task_states.RESIZE_MIGRATING
            and self.pmem_manager.unfinished(instance)
        )
        if cut_short:
            self.pmem_manager.kill_stale_processes(instance)
        super()._init_instance(context, instance)
        if cut_short:
            row = self.pmem_manager.row(instance)
            if row is not None:
                self._abort_copy(context, instance, row)

    def _abort_copy(self, context: Any, instance: Any, row: PmemCopy) -> None:
        """End a resize that nova-compute did not survive, on its source host.

        Its row goes last, so that what fails is tried again, by another nova-compute
        too.
        """
        try:
            migration = self.pmem_manager.abort(instance, row)
            migration.status = "error"
            migration.save()
            # nova's own way to do this does not say that placement is down.
            if not self.reportclient.move_allocations(
                context, migration.uuid, instance.uuid
            ):
                raise exception.AllocationMoveFailed(
                    source_consumer=migration.uuid,
                    target_consumer=instance.uuid,
                    error="placement does not answer",
                )
            instance.drop_migration_context()
            self._delete_stashed_flavor_info(instance)
            self.pmem_manager.forget(instance, migration)
        except Exception:  # the other instances count too
            LOG.exception("Could not abort a copy yet.", instance=instance)

    def _end_leftovers(self, context: Any) -> None:
        """End the copies whose resize is over, but whose row is still there."""
        for row in self.pmem_manager.leftovers(context):
            try:
                instance = objects.Instance.get_by_uuid(
                    context, row.instance_uuid, expected_attrs=_ATTRIBUTES
                )
                if instance.host != self.host or instance.task_state is not None:
                    continue
                migration = objects.Migration.get_by_id_and_instance(
                    context, row.migration_id, row.instance_uuid
                )
            except (exception.InstanceNotFound, exception.MigrationNotFoundForInstance):
                continue
            if instance.vm_state not in (vm_states.ACTIVE, vm_states.STOPPED):
                continue  # confirm or revert come yet, or somebody has to look at it
            if migration.status in ("confirmed", "reverted"):
                self.pmem_manager.forget(instance, migration)
            elif migration.source_compute == self.host:
                self._abort_copy(context, instance, row)

    # nova leaves a server whose finish_resize failed in ERROR on the destination. Its
    # persistent memory is still whole on the source, so that it is sent back there.

    @override
    def finish_resize(
        self,
        context: Any,
        disk_info: Any,
        image: Any,
        instance: Any,
        migration: Any,
        request_spec: Any,
    ) -> None:
        """nova's, but a failure after a copy reverts the resize."""
        # The row is gone if the server was sent back, so that it does not tell.
        if hardware.get_vpmems(instance.flavor) and not self._awaited(
            context, instance
        ):
            LOG.warning("A finish_resize came too late.", instance=instance)
            self._end_pending_dest_resize_task(instance.uuid)
            return
        copied = self.pmem_manager.copied(instance, migration)
        token = _reverting.set(copied)
        try:
            with self._resize(instance):
                super().finish_resize(
                    context, disk_info, image, instance, migration, request_spec
                )
        except Exception:
            with excutils.save_and_reraise_exception():
                if copied:
                    self._revert_to_source(context, instance, migration, request_spec)
        finally:
            _reverting.reset(token)

    def _awaited(self, context: Any, instance: Any) -> bool:
        """Whether the server still waits for its resize to be finished here.

        It may have been sent back because the request to finish did not come.
        """
        now = objects.Instance.get_by_uuid(context, instance.uuid)
        return bool(
            now.host == self.host and now.task_state == task_states.RESIZE_MIGRATED
        )

    @override
    def _delete_allocation_after_move(
        self, context: Any, instance: Any, migration: Any
    ) -> None:
        if not _reverting.get():  # else it is needed on the source again
            super()._delete_allocation_after_move(context, instance, migration)

    def _revert_to_source(
        self, context: Any, instance: Any, migration: Any, request_spec: Any = None
    ) -> None:
        """Revert a resize whose end failed here; the data on the source is whole."""
        LOG.warning(
            "The resize could not be finished here; sending the server back to %s.",
            migration.source_compute,
            instance=instance,
        )
        instance.apply_migration_context()  # what the revert has to free here
        instance.vm_state = vm_states.RESIZED
        instance.task_state = task_states.RESIZE_REVERTING
        # Not while it is being deleted, or has moved on.
        instance.save(expected_task_state=_UNFINISHED)
        migration.status = "reverting"
        migration.save()
        self.revert_resize(context, instance, migration, request_spec)

    @override
    def _resize_instance(
        self, context: Any, instance: Any, *args: Any, **kwargs: Any
    ) -> None:
        with self._resize(instance):
            super()._resize_instance(context, instance, *args, **kwargs)

    @contextlib.contextmanager
    def _resize(self, instance: Any) -> Iterator[None]:
        """Remember that this nova-compute is at work on the server's resize."""
        with self._resizing_lock:
            self._resizing.add(instance.uuid)
        try:
            yield
        finally:
            with self._resizing_lock:
                self._resizing.discard(instance.uuid)

    def _reconcile(self, context: Any) -> None:
        super()._reconcile(context)
        if not self.pmem_manager.has_pmem():
            return
        if not self.rt.compute_nodes:
            return  # nor is it known yet what servers have
        try:
            self._cleanup_incomplete_pmem_copies(context)
        except (exception.NovaException, messaging.MessagingException) as exc:
            LOG.warning("Could not look after the PMEM copies yet: %s", exc)

    def _cleanup_incomplete_pmem_copies(self, context: Any) -> None:
        """Take care of copies that nobody works on any more.

        That is after a restart, and after the message bus lost a message.
        """
        assigned = self._assigned_resources()
        self.pmem_manager.sanitize_unassigned(assigned)
        self._end_leftovers(context)
        self.pmem_manager.end_reservations(context, assigned)
        instances = objects.InstanceList.get_by_filters(
            context,
            {"host": self.host, "deleted": False, "task_state": _RESIZING},
            expected_attrs=_ATTRIBUTES,
        )
        with self._resizing_lock:
            idle = [each for each in instances if each.uuid not in self._resizing]
        now = time.monotonic()
        self._migrated = {
            each.uuid: self._migrated.get(each.uuid, now)
            for each in idle
            if each.task_state == task_states.RESIZE_MIGRATED
        }
        for instance in idle:
            try:
                self._cleanup_incomplete_pmem_copy(context, instance, now)
            except Exception:  # the other servers count too
                LOG.exception("Could not clean up a copy yet.", instance=instance)

    def _cleanup_incomplete_pmem_copy(
        self, context: Any, instance: Any, now: float
    ) -> None:
        if not (
            self.pmem_manager.unfinished(instance) or _rolled_back(context, instance)
        ):
            return
        if instance.task_state == task_states.RESIZE_MIGRATING:
            self._init_instance(context, instance)
            return
        since = self._migrated.get(instance.uuid)
        if since is not None and now - since < CONF.rpc_response_timeout:
            return  # its finish_resize may still come
        migration = objects.Migration.get_by_id_and_instance(
            context, instance.migration_context.migration_id, instance.uuid
        )
        self._revert_to_source(context, instance, migration)

    def _assigned_resources(self) -> set[str]:
        """The identifiers of what servers have on this host or wait for."""

        @utils.synchronized(resource_tracker.COMPUTE_RESOURCE_SEMAPHORE, fair=True)
        def read() -> set[str]:
            return {
                resource.identifier
                for by_class in self.rt.assigned_resources.values()
                for resources in by_class.values()
                for resource in resources
            }

        return set(read())


def _rolled_back(context: Any, instance: Any) -> bool:
    """Whether a move has failed here, but the server was not told.

    nova gives the server's task state back at the very end, over a message bus that may
    be what has failed: the guest runs again by then, and the row of the copy is gone.
    """
    moved = instance.migration_context
    if not moved or instance.task_state != task_states.RESIZE_MIGRATING:
        return False
    if not hardware.get_vpmems(instance.flavor):
        return False
    migration = objects.Migration.get_by_id_and_instance(
        context, moved.migration_id, instance.uuid
    )
    return bool(migration.status == "error")
