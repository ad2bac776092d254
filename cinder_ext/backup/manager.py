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

"""Owns where the notifications of backups take hold in cinder's BackupManager.

Thin: each override says to the recorder what happens, and calls cinder. The seams, all
of cinder 29:

* ``self.service``, the driver class, is called once per operation: it becomes a
  subclass that is watched.
* ``_notify_about_backup_usage`` is how cinder tells of start and end: ours go instead.
* ``create_backup``, ``continue_backup``, ``restore_backup``, ``delete_backup``,
  ``import_record`` and ``export_record`` raise what failed, mostly after they have set
  the status. ``limit_operations`` stays on cinder's methods, so that an operation
  starts when it has got its turn.
* ``_attach_device``, ``_detach_device`` and the like say in which phase it is.
* ``_run_restore`` knows whether a restore was cancelled.
* ``_cleanup_incomplete_backup_operations`` and ``_cleanup_one_backup`` run at the start
  of the service, in one of its workers.
"""

import time
from typing import Any

from cinder import context as cinder_context
from cinder import exception as cinder_exception
from cinder import objects
from cinder.backup import manager
from cinder.objects import fields
from oslo_config import cfg
from oslo_log import log as logging
from oslo_service import periodic_task
from oslo_utils import units

from cinder_ext import conf, exception
from cinder_ext.backup import driver, operation, recorder, watchdog

LOG = logging.getLogger(__name__)

CONF = cfg.CONF
conf.register_opts(CONF)

_WATCH_INTERVAL = 60  # s


class BackupManager(manager.BackupManager):
    """cinder's BackupManager, which tells what becomes of each operation.

    Set ``[DEFAULT] backup_manager = cinder_ext.backup.manager.BackupManager``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        conf.require(CONF)
        self.recorder = recorder.Recorder(CONF, self.host)
        self._watchdog = watchdog.Watchdog(
            self.recorder.journal, CONF.backup_notifications.stall_time
        )
        self.service: type = driver.instrumented(self.service, self.recorder)

    def _notify_about_backup_usage(
        self,
        context: Any,
        backup: Any,
        event_suffix: str,
        extra_usage_info: dict[str, Any] | None = None,
    ) -> None:
        action, _dot, phase = event_suffix.partition(".")
        op = self.recorder.current(action)
        if op and phase == "start":
            self.recorder.start(op, backup)
        elif op and phase == "end":
            self.recorder.succeed(op, backup)
        else:
            super()._notify_about_backup_usage(
                context, backup, event_suffix, extra_usage_info
            )

    # Create: two calls, perhaps in two processes.

    def create_backup(self, context: Any, backup: Any) -> None:
        """Create a backup, up to the request for the device of the volume."""
        with self.recorder.during(context, backup, "create"):
            super().create_backup(context, backup)

    def continue_backup(self, context: Any, backup: Any, backup_device: Any) -> None:
        """Create a backup, from the device on."""
        with self.recorder.during(context, backup, "create", second_half=True):
            super().continue_backup(context, backup, backup_device)

    def _finish_backup(
        self, context: Any, backup: Any, volume: Any, updates: Any
    ) -> None:
        with self.recorder.at("finalize"):
            super()._finish_backup(context, backup, volume, updates)

    def _cleanup_temp_volumes_snapshots_when_backup_created(
        self, ctxt: Any, backup: Any
    ) -> None:
        with self.recorder.at("cleanup"):
            super()._cleanup_temp_volumes_snapshots_when_backup_created(ctxt, backup)

    def _attach_device(self, *args: Any, **kwargs: Any) -> Any:
        with self.recorder.at("attach"):
            return super()._attach_device(*args, **kwargs)

    def _detach_device(self, *args: Any, **kwargs: Any) -> None:
        with self.recorder.at("detach"):
            super()._detach_device(*args, **kwargs)

    # Restore, delete, import, export.

    def restore_backup(
        self, context: Any, backup: Any, volume_id: str, volume_is_new: bool
    ) -> None:
        """Restore a backup to a volume."""
        with self.recorder.during(
            context,
            backup,
            "restore",
            restore_volume_id=volume_id,
            volume_is_new=volume_is_new,
            **self._restore_details(context, backup, volume_id),
        ):
            super().restore_backup(context, backup, volume_id, volume_is_new)

    def _run_restore(self, context: Any, *args: Any, **kwargs: Any) -> None:
        try:
            super()._run_restore(context, *args, **kwargs)
        except cinder_exception.BackupRestoreCancel:
            if op := self.recorder.current("restore"):
                op.cancelled = True
            raise

    @staticmethod
    def _restore_details(context: Any, backup: Any, volume_id: str) -> dict[str, Any]:
        """What there is to restore; empty if the database does not say."""
        try:
            volume = objects.Volume.get_by_id(context, volume_id)
            chain = [backup]
            while chain[-1].parent_id:
                chain.append(objects.Backup.get_by_id(context, chain[-1].parent_id))
        except Exception:
            LOG.debug("Cannot say how much there is to restore.", exc_info=True)
            return {}
        return {
            "chain_length": len(chain),
            "objects_total": sum(each.object_count or 0 for each in chain) or None,
            "volume_bytes": volume.size * units.Gi,
        }

    def delete_backup(self, context: Any, backup: Any) -> None:
        """Delete a backup, or go on with it after a restart."""
        with self.recorder.during(context, backup, "delete"):
            super().delete_backup(context, backup)

    def import_record(
        self,
        context: Any,
        backup: Any,
        backup_service: str,
        backup_url: str,
        backup_hosts: Any,
    ) -> None:
        """Import a backup, or pass it on to a host that can."""
        arguments = (context, backup, backup_service, backup_url, backup_hosts)
        if backup_hosts and not self._is_our_backup(backup_service):
            super().import_record(*arguments)
            return
        with self.recorder.during(
            context, backup, "import", backup_service=backup_service
        ) as op:
            self.recorder.start(op, backup)
            super().import_record(*arguments)
            self.recorder.succeed(op, backup)

    def export_record(self, context: Any, backup: Any) -> Any:
        """Describe a backup for an import elsewhere."""
        with self.recorder.during(
            context, backup, "export", backup_service=backup.service
        ) as op:
            record = super().export_record(context, backup)
            self.recorder.succeed(op, backup)
        return record

    # What an end of the service left.

    def _cleanup_incomplete_backup_operations(self, ctxt: Any) -> None:
        if self._process_number != 1:
            super()._cleanup_incomplete_backup_operations(ctxt)
            return
        interrupted = self.recorder.interrupted()
        self.recorder.repeat()
        super()._cleanup_incomplete_backup_operations(ctxt)
        for op in interrupted:
            try:
                # The service died after the status was set and before that was
                # announced, or in an import or export: cinder cleans up neither.
                self._conclude(op, exception.ServiceRestarted())
            except Exception:
                LOG.exception("Problem concluding operation %s.", op.id)

    def _cleanup_one_backup(self, ctxt: Any, backup: Any) -> None:
        action = {
            fields.BackupStatus.CREATING: "create",
            fields.BackupStatus.RESTORING: "restore",
            fields.BackupStatus.DELETING: "delete",
        }.get(backup.status)
        if action is None:
            super()._cleanup_one_backup(ctxt, backup)
            return
        op = self.recorder.resume(ctxt, backup, action)
        super()._cleanup_one_backup(ctxt, backup)
        # cinder goes on with a delete, except for backups of encrypted volumes.
        if action != "delete" or backup.status == fields.BackupStatus.ERROR_DELETING:
            self.recorder.fail(op, backup, exception.ServiceRestarted())

    def _conclude(self, op: operation.Operation, failure: Exception) -> None:
        """End an operation as the database says, because nobody else will.

        :param failure: what to announce if the database does not show its result
        """
        if not self.recorder.journal.is_running(op):
            return
        deleted_too = cinder_context.get_admin_context(read_deleted="yes")
        try:
            backup = objects.Backup.get_by_id(deleted_too, op.backup_id)
        except cinder_exception.BackupNotFound:
            self.recorder.journal.forget(op)
            return
        if op.action == "delete" and backup.status == fields.BackupStatus.DELETING:
            return
        if self._has_succeeded(deleted_too, op, backup):
            self.recorder.succeed(op, backup)
        else:
            self.recorder.fail(op, backup, failure)

    @staticmethod
    def _has_succeeded(ctxt: Any, op: operation.Operation, backup: Any) -> bool:
        """Whether the database shows the result of an operation."""
        if op.action == "delete":
            return bool(backup.deleted)
        if op.action == "export" or backup.status != fields.BackupStatus.AVAILABLE:
            return False
        if op.action == "restore":
            try:
                volume = objects.Volume.get_by_id(ctxt, op.restore_volume_id)
            except cinder_exception.VolumeNotFound:
                return False
            return bool(volume.status == fields.VolumeStatus.AVAILABLE)
        return True

    @periodic_task.periodic_task(spacing=_WATCH_INTERVAL)
    def _announce_stalled(self, context: Any) -> None:
        if self._process_number != 1:
            return
        for op, idle in self._watchdog.stalled(time.time()):
            try:
                backup = objects.Backup.get_by_id(context, op.backup_id)
            except cinder_exception.BackupNotFound:
                backup = None
            if backup and backup.status == fields.BackupStatus.CREATING:
                self.recorder.stalled(op, backup, idle)
            else:
                # An operator has given it up, and deleted it or reset its status.
                self._conclude(op, exception.Abandoned())
