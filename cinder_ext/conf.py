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

"""Owns the options of the ``[backup_notifications]`` group."""

import sys
from typing import Any

from oslo_config import cfg
from oslo_log import log as logging

from cinder_ext import exception

LOG = logging.getLogger(__name__)

GROUP = cfg.OptGroup(
    "backup_notifications",
    title="Backup notifications",
    help="What cinder-backup tells about the backups that it creates, restores and "
    "deletes. Whether and where notifications are sent at all is the matter of "
    "``[oslo_messaging_notifications]``.",
)

OPTS = [
    cfg.StrOpt(
        "format",
        default="unversioned",
        choices=[
            ("unversioned", "Flat payloads, which Ceilometer reads."),
            ("versioned", "Versioned objects with a schema."),
            ("both", "Each notification in both formats, on topics of their own."),
        ],
        help="""
Format of the notifications of backups.

Related options: ``versioned_topic``.
""",
    ),
    cfg.StrOpt(
        "versioned_topic",
        default="versioned_notifications",
        help="""
Topic of the versioned notifications. It has to differ from
``[oslo_messaging_notifications] topics``: a consumer of both would count all twice.
""",
    ),
    cfg.IntOpt(
        "min_interval",
        default=5,
        min=0,
        max=86400,
        help="""
Seconds that lie at least between two progress notifications of an operation. 0 means
that only ``min_percent_step`` limits them.

Related options: not above ``max_interval``.
""",
    ),
    cfg.IntOpt(
        "max_interval",
        default=120,
        min=1,
        max=86400,
        help="""
Seconds after which a running transfer is heard of again: with its percentage if that
grew, and with none where the driver shows nothing of its work, as Ceph does between two
RBD pools. While a known percentage stands still, nothing is sent.

Related options: not below ``min_interval``. cinder's ``backup_timer_interval`` and
``backup_*_enable_progress_timer`` have no effect.
""",
    ),
    cfg.FloatOpt(
        "min_percent_step",
        default=1.0,
        min=0.01,
        max=100,
        help="""
Percent of the volume that are worth a progress notification before ``max_interval`` is
over. A driver that writes chunks is asked after each cinder's
``backup_object_number_per_notification`` of them.
""",
    ),
    cfg.BoolOpt(
        "legacy_progress",
        default=True,
        help="""
Send each ``backup.create.progress`` a second time under cinder's own name
``backup.createprogress``, with the right percentage, for those who know that name.

Has no effect on versioned notifications.
""",
    ),
    cfg.IntOpt(
        "stall_time",
        default=3600,
        min=0,
        help="""
Seconds without any activity after which a backup that is still creating is announced
with ``backup.create.stalled``, and again after each further ``stall_time``. Such a
backup waits for a volume service that failed, for a store that does not answer, or
for its turn (``backup_max_operations``). If somebody has reset its status meanwhile,
its end is announced instead. 0 turns it off.

Activity is noticed once a minute: use a multiple of that.
""",
    ),
    cfg.StrOpt(
        "stalled_priority",
        default="warn",
        choices=[
            ("warn", "The right one, but Ceilometer drops it."),
            ("info", "For those who read the notifications with Ceilometer."),
        ],
        help="""
Priority of ``backup.create.stalled``.
""",
    ),
    cfg.BoolOpt(
        "include_service_metadata",
        default=True,
        help="""
Whether payloads say where in the backup store the data lies (``service_metadata``).
If not, the key is there with null.
""",
    ),
    cfg.IntOpt(
        "queue_length",
        default=1000,
        min=10,
        max=100000,
        help="""
How many notifications of a process wait at most while the message bus does not take
them. Of the progress of an operation only the newest waits. Above the limit progress is
dropped first and then the oldest; the end of an operation is kept on disk as well and
is sent when the bus is back.
""",
    ),
    cfg.IntOpt(
        "retries",
        default=3,
        min=1,
        max=100,
        help="""
How often a notification that the message bus did not take is tried again.

Takes the place of ``[oslo_messaging_notifications] retry`` for backups.
""",
    ),
]


def register_opts(conf: Any) -> None:
    """Register the options on ``conf``; doing it twice is harmless."""
    conf.register_group(GROUP)
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[Any, list[Any]]]:
    """The options for oslo-config-generator."""
    return [(GROUP, OPTS)]


def check(conf: Any) -> None:
    """Refuse values that are fine one by one but not together.

    :raises InvalidOptions: with what to change
    """
    options = conf.backup_notifications
    if options.min_interval > options.max_interval:
        raise exception.InvalidOptions(
            f"[backup_notifications] min_interval ({options.min_interval}) is above "
            f"max_interval ({options.max_interval}): lower the one or raise the other."
        )
    if (
        options.format != "unversioned"
        and options.versioned_topic in conf.oslo_messaging_notifications.topics
    ):
        raise exception.InvalidOptions(
            f"[backup_notifications] versioned_topic ({options.versioned_topic}) is "
            "one of [oslo_messaging_notifications] topics, too: choose another."
        )


def require(conf: Any) -> None:
    """End the service with one line if ``check`` refuses the options."""
    try:
        check(conf)
    except exception.InvalidOptions as error:
        LOG.critical(error)
        sys.exit(str(error))
