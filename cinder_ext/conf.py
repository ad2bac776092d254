# SPDX-License-Identifier: Apache-2.0
"""Owns the options of the group ``[backup_notifications]``."""

import sys
from typing import Any

from oslo_config import cfg
from oslo_log import log as logging

from cinder_ext import exception

LOG = logging.getLogger(__name__)

GROUP = cfg.OptGroup(
    "backup_notifications",
    title="Backup notifications",
    help="""
Notifications that ``cinder-backup`` emits about the backups that it creates, restores,
deletes, imports and exports.

``[oslo_messaging_notifications]`` decides whether and where notifications are sent.
""",
)

OPTS = [
    cfg.StrOpt(
        "format",
        default="unversioned",
        choices=[
            ("unversioned", "Flat payloads, which Ceilometer reads"),
            ("versioned", "Versioned objects with a schema"),
            ("both", "Each notification in both formats, each on its own topic"),
        ],
        help="""
Format of the notifications about backups.

Related options:

* ``versioned_topic``
""",
    ),
    cfg.StrOpt(
        "versioned_topic",
        default="versioned_notifications",
        help="""
Topic of the versioned notifications.

Possible values:

* The name of a topic that is not among ``[oslo_messaging_notifications] topics``: a
  consumer that reads one topic in both formats would count each notification twice.

Related options:

* ``format``: the topic is used unless it is ``unversioned``.
* ``[oslo_messaging_notifications] topics``
""",
    ),
    cfg.IntOpt(
        "min_interval",
        default=5,
        min=0,
        max=86400,
        help="""
Minimum number of seconds between two progress notifications of an operation.

Possible values:

* 0: only ``min_percent_step`` limits progress notifications.
* A positive number of seconds, up to ``max_interval``.

Related options:

* ``max_interval``: must not be lower.
* ``min_percent_step``
""",
    ),
    cfg.IntOpt(
        "max_interval",
        default=120,
        min=1,
        max=86400,
        help="""
Maximum number of seconds between two progress notifications of a running transfer.

After this time the percentage is reported if it has grown by any amount. A driver that
does not expose its progress, such as Ceph between two RBD pools, is reported without a
percentage. Nothing is sent while a known percentage stands still.

Related options:

* ``min_interval``: must not be higher.
* ``backup_timer_interval`` and ``backup_*_enable_progress_timer`` of Cinder have no
  effect.
""",
    ),
    cfg.FloatOpt(
        "min_percent_step",
        default=1.0,
        min=0.01,
        max=100,
        help="""
Minimum growth of the percentage that is reported before ``max_interval`` has passed.

Possible values:

* A percentage of the volume, from 0.01 to 100.

Related options:

* ``min_interval``, ``max_interval``
* ``backup_object_number_per_notification`` and its variants of the drivers: after how
  many chunks a driver that writes chunks is asked for its progress.
""",
    ),
    cfg.BoolOpt(
        "legacy_progress",
        default=True,
        help="""
Send each ``backup.create.progress`` a second time as ``backup.createprogress``, the
event type that Cinder itself uses, with the correct percentage.

Disable it if no consumer depends on that event type.

Related options:

* ``format``: versioned notifications are never sent twice.
""",
    ),
    cfg.IntOpt(
        "stall_time",
        default=3600,
        min=0,
        help="""
Number of seconds without activity after which ``backup.create.stalled`` is sent for a
backup that is still being created. It is sent again after each further ``stall_time``.

Such a backup waits for a volume service that failed, for a backup store that does not
answer, or for its turn (``backup_max_operations``). If its status has been reset in the
meantime, the end of the operation is announced instead.

Possible values:

* 0: stalled backups are not reported.
* A positive number of seconds. Activity is checked once a minute: use a multiple of
  60.

Related options:

* ``stalled_priority``
""",
    ),
    cfg.StrOpt(
        "stalled_priority",
        default="warn",
        choices=[
            ("warn", "The appropriate priority, but Ceilometer drops it"),
            ("info", "For deployments that read the notifications with Ceilometer"),
        ],
        help="""
Priority of ``backup.create.stalled``.

Related options:

* ``stall_time``
""",
    ),
    cfg.BoolOpt(
        "include_service_metadata",
        default=True,
        help="""
Whether payloads include ``service_metadata``, which says where the data of a backup is
in the backup store. If disabled, the key is present and null.
""",
    ),
    cfg.IntOpt(
        "queue_length",
        default=1000,
        min=10,
        max=100000,
        help="""
Maximum number of notifications that a process keeps in memory while the message bus
does not accept them.

Only the latest progress of each operation is kept. Above the limit, progress is dropped
first, then the oldest notification. The end of an operation is also kept on disk, and
is sent once the bus is back.
""",
    ),
    cfg.IntOpt(
        "retries",
        default=3,
        min=1,
        max=100,
        help="""
Number of times a notification that the message bus did not accept is sent again.

Related options:

* ``[oslo_messaging_notifications] retry``: is not used for backups.
""",
    ),
]


def register_opts(conf: Any) -> None:
    """Register the options on ``conf``; doing it twice changes nothing."""
    conf.register_group(GROUP)
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[Any, list[Any]]]:
    """The options for oslo-config-generator."""
    return [(GROUP, OPTS)]


def check(conf: Any) -> None:
    """Refuse values that are valid one by one but not together.

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
