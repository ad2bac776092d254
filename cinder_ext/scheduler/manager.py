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

"""Owns the error of a backup that never comes to a backup service.

Where the scheduler finds no service, it sets the backup to ``error`` and says nothing.
This manager is optional; it runs in cinder-scheduler.
"""

from typing import Any

from cinder import context as cinder_context
from cinder import exception as cinder_exception
from cinder import objects
from cinder.objects import fields
from cinder.scheduler import manager
from oslo_config import cfg

from cinder_ext import conf, exception
from cinder_ext.backup import recorder

CONF = cfg.CONF
conf.register_opts(CONF)


class SchedulerManager(manager.SchedulerManager):
    """cinder's SchedulerManager, which tells that it found no backup service.

    Set ``[DEFAULT] scheduler_manager = cinder_ext.scheduler.manager.SchedulerManager``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        conf.require(CONF)
        self.recorder = recorder.Recorder(CONF, self.host, "cinder-scheduler")

    def init_host_with_rpc(self) -> None:
        """Tell what the end of the service kept from being told."""
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
        with self.recorder.during(context, backup, "create") as op:
            op.phase = "schedule"
            super().create_backup(context, backup)
            # cinder catches the exception that says so.
            if backup.status == fields.BackupStatus.ERROR:
                self.recorder.fail(op, backup, exception.NoBackupService())
