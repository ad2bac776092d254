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

"""Owns how the extension hooks into nova-compute's manager."""

import contextlib
import contextvars
import threading
import time
from collections.abc import Iterator
from typing import Any

import nova.conf
from nova import exception, objects, utils
from nova.compute import manager, resource_tracker, task_states, vm_states
from oslo_log import log as logging
from oslo_service import periodic_task
from oslo_utils import excutils

from nova_ext.compute import endpoint, pmem, quiesce

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

#: Set while a failure of finish_resize is to bring the server back to its source.
_returning: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "nova_ext_returning", default=False
)

_TIDY_EVERY = 60  # s

#: The tasks of a server whose resize was not finished; none after a failure.
_UNFINISHED = [None, task_states.RESIZE_MIGRATED, task_states.RESIZE_FINISH]
_ATTRIBUTES = ["flavor", "info_cache", "metadata", "system_metadata"]


class ComputeManager(manager.ComputeManager):
    """nova's manager, with quiesce windows and copies of persistent memory."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.quiesce_manager = quiesce.QuiesceManager(
            self.host, getattr(self.driver, "guest_freezer", None)
        )
        self.pmem_manager = pmem.PmemManager(
            self.host, getattr(self.driver, "pmem_host", None)
        )
        self.driver.quiesce_windows = self.quiesce_manager
        self.driver.pmem_copies = self.pmem_manager
        self.additional_endpoints.append(endpoint.QuiesceEndpoint(self.quiesce_manager))
        self.additional_endpoints.append(endpoint.PmemEndpoint(self.pmem_manager))
        self._resizing: set[str] = set()
        self._resizing_lock = threading.Lock()
        self._migrated: dict[str, float] = {}
        self._cut_short: set[str] = set()

    def _init_instance(self, context: Any, instance: Any) -> None:
        cut_short = (
            instance.task_state == task_states.RESIZE_MIGRATING
            and self.pmem_manager.unfinished(instance)
        )
        if cut_short:
            self.pmem_manager.end_leftovers(instance)
        super()._init_instance(context, instance)
        if cut_short:
            self._give_up_copy(context, instance)
        self.quiesce_manager.resume(instance)

    def _give_up_copy(self, context: Any, instance: Any) -> None:
        """End a resize that nova-compute did not survive, on its source host.

        What fails is tried again by the periodic task, until the mark is gone.
        """
        self._cut_short.add(instance.uuid)
        try:
            self._end_migration(context, instance)
        except Exception:  # the other instances count too
            LOG.exception("Could not give up a copy yet.", instance=instance)
        else:
            self._cut_short.discard(instance.uuid)

    def _end_migration(self, context: Any, instance: Any) -> None:
        migration = self.pmem_manager.give_up(instance)
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

    def _give_up_again(self, context: Any) -> None:
        for uuid in sorted(self._cut_short):
            try:
                instance = objects.Instance.get_by_uuid(
                    context, uuid, expected_attrs=_ATTRIBUTES
                )
            except exception.InstanceNotFound:
                self._cut_short.discard(uuid)
                continue
            if self.pmem_manager.unfinished(instance):
                self._give_up_copy(context, instance)
            else:  # a later order took its place
                self._cut_short.discard(uuid)

    # nova leaves a server whose finish_resize failed in ERROR on the destination. Its
    # persistent memory is still whole on the source, so that it is sent back there.

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
        copied = self.pmem_manager.copied(instance, migration)
        if copied and not self._awaited(context, instance):
            LOG.warning("A finish_resize came too late.", instance=instance)
            self._end_pending_dest_resize_task(instance.uuid)
            return
        token = _returning.set(copied)
        try:
            with self._resize(instance):
                super().finish_resize(
                    context, disk_info, image, instance, migration, request_spec
                )
        except Exception:
            with excutils.save_and_reraise_exception():
                if copied:
                    self._return_to_source(context, instance, migration, request_spec)
        finally:
            _returning.reset(token)

    def _awaited(self, context: Any, instance: Any) -> bool:
        """Whether the server still waits for its resize to be finished here.

        It may have been sent back because the order to finish did not come.
        """
        now = objects.Instance.get_by_uuid(context, instance.uuid)
        return bool(
            now.host == self.host and now.task_state == task_states.RESIZE_MIGRATED
        )

    def _delete_allocation_after_move(
        self, context: Any, instance: Any, migration: Any
    ) -> None:
        if not _returning.get():  # else it is needed on the source again
            super()._delete_allocation_after_move(context, instance, migration)

    def _return_to_source(
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

    @periodic_task.periodic_task(spacing=_TIDY_EVERY, run_immediately=True)
    def _tidy_pmem(self, context: Any) -> None:
        """Take care of copies that nobody works on any more.

        That is after a restart, and after the message bus lost a message.
        """
        self._give_up_again(context)
        if not self.pmem_manager.concerned():
            return
        if not self.rt.compute_nodes:
            return  # nor is it known yet what servers have
        assigned = self._assigned_resources()
        self.pmem_manager.clean_unassigned(assigned)
        self.pmem_manager.end_holds(context, assigned)
        instances = objects.InstanceList.get_by_filters(
            context,
            {
                "host": self.host,
                "deleted": False,
                "task_state": [
                    task_states.RESIZE_MIGRATING,
                    task_states.RESIZE_MIGRATED,
                    task_states.RESIZE_FINISH,
                ],
            },
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
                self._tidy_instance(context, instance, now)
            except Exception:  # the other servers count too
                LOG.exception("Could not tidy up a copy yet.", instance=instance)

    def _tidy_instance(self, context: Any, instance: Any, now: float) -> None:
        if not self.pmem_manager.unfinished(instance):
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
        self._return_to_source(context, instance, migration)

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
