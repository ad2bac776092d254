# SPDX-License-Identifier: Apache-2.0
"""Owns where the backup notifications attach to Cinder's BackupManager.

Thin: each override reports to the recorder what happens, and calls Cinder. The seams,
all of Cinder 29:

* ``self.service``, the driver class, is called once per operation: it becomes a
  subclass that is watched.
* ``_notify_about_backup_usage`` is how Cinder announces start and end: ours replace
  them.
* ``create_backup``, ``continue_backup``, ``restore_backup``, ``delete_backup``,
  ``import_record`` and ``export_record`` raise what failed, mostly after they have set
  the status. ``limit_operations`` stays on Cinder's methods, so that an operation
  starts when it is its turn.
* ``_attach_device``, ``_detach_device`` and others show the phase of an operation.
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
from cinder_ext.backup import driver, factory, watchdog
from cinder_ext.objects import operation

LOG = logging.getLogger(__name__)

CONF = cfg.CONF
conf.register_opts(CONF)

_WATCH_INTERVAL = 60  # s


class BackupManager(manager.BackupManager):
    """Cinder's BackupManager, which announces how each operation goes and ends.

    Set ``[DEFAULT] backup_manager = cinder_ext.backup.manager.BackupManager``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        conf.require(CONF)
        self.recorder = factory.make_recorder(CONF, self.host)
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
        with self.recorder.operation(context, backup, "create"):
            super().create_backup(context, backup)

    def continue_backup(self, context: Any, backup: Any, backup_device: Any) -> None:
        """Create a backup, from the device on."""
        with self.recorder.operation(context, backup, "create", second_half=True):
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
        with self.recorder.operation(
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
        """What is to be restored; empty if the database does not say."""
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
        """Delete a backup, or continue to after a restart."""
        with self.recorder.operation(context, backup, "delete"):
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
        with self.recorder.operation(
            context, backup, "import", backup_service=backup_service
        ) as op:
            self.recorder.start(op, backup)
            super().import_record(*arguments)
            self.recorder.succeed(op, backup)

    def export_record(self, context: Any, backup: Any) -> Any:
        """Describe a backup so that it can be imported elsewhere."""
        with self.recorder.operation(
            context, backup, "export", backup_service=backup.service
        ) as op:
            record = super().export_record(context, backup)
            self.recorder.succeed(op, backup)
        return record

    # What the end of a service left behind.

    def _cleanup_incomplete_backup_operations(self, ctxt: Any) -> None:
        if self._process_number != 1:
            super()._cleanup_incomplete_backup_operations(ctxt)
            return
        interrupted = self.recorder.interrupted()
        self.recorder.repeat()
        super()._cleanup_incomplete_backup_operations(ctxt)
        for op in interrupted:
            try:
                # The service died between setting the status and announcing it, or
                # during an import or export: Cinder cleans up neither.
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
        # Cinder continues a delete, except for backups of encrypted volumes.
        if action != "delete" or backup.status == fields.BackupStatus.ERROR_DELETING:
            self.recorder.fail(op, backup, exception.ServiceRestarted())

    def _conclude(self, op: operation.Operation, failure: Exception) -> None:
        """End an operation as the database shows, because no process works on it.

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
                # An operator has deleted it or reset its status.
                self._conclude(op, exception.Abandoned())
