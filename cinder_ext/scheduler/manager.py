# SPDX-License-Identifier: Apache-2.0
"""Owns the error of a backup that never reaches a backup service.

If the scheduler finds no service, it sets the backup to ``error`` and sends nothing.
This manager is optional; it runs in ``cinder-scheduler``.
"""

from typing import Any

from cinder import context as cinder_context
from cinder import exception as cinder_exception
from cinder import objects
from cinder.objects import fields
from cinder.scheduler import manager
from oslo_config import cfg

from cinder_ext import conf, exception
from cinder_ext.backup import factory

CONF = cfg.CONF
conf.register_opts(CONF)


class SchedulerManager(manager.SchedulerManager):
    """Cinder's SchedulerManager, which announces that it found no backup service.

    Set ``[DEFAULT] scheduler_manager = cinder_ext.scheduler.manager.SchedulerManager``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        conf.require(CONF)
        self.recorder = factory.make_recorder(CONF, self.host, "cinder-scheduler")

    def init_host_with_rpc(self) -> None:
        """Announce what the service could not announce before it ended."""
        super().init_host_with_rpc()
        self.recorder.repeat()
        context = cinder_context.get_admin_context()
        for op in self.recorder.interrupted():
            try:
                backup = objects.Backup.get_by_id(context, op.backup_id)
            except cinder_exception.BackupNotFound:
                self.recorder.journal.forget(op)
            else:
                op.phase = "schedule"
                self.recorder.fail(op, backup, exception.NoBackupService())

    def create_backup(self, context: Any, backup: Any) -> None:
        """Choose a backup service for a new backup."""
        with self.recorder.operation(context, backup, "create") as op:
            op.phase = "schedule"
            super().create_backup(context, backup)
            # Cinder catches the exception that says so.
            if backup.status == fields.BackupStatus.ERROR:
                self.recorder.fail(op, backup, exception.NoBackupService())
