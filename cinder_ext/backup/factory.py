# SPDX-License-Identifier: Apache-2.0
"""Owns how the parts that announce the operations of a service are put together.

The one place where they meet Cinder's functions and configuration.
"""

import functools
import time
from typing import Any

from cinder import utils
from cinder.volume import volume_utils

from cinder_ext.backup import journal
from cinder_ext.backup.recorder import Recorder
from cinder_ext.notifications import emitter, events, sender
from cinder_ext.objects import operation

_BACKUP = "cinder-backup"


def make_recorder(
    conf: Any,
    host: str,
    binary: str = _BACKUP,
    clock: operation.Clock = time.time,
) -> Recorder:
    """Return what announces the operations of a service.

    :param conf: Cinder's configuration
    :param host: of the service, as in ``node1@backend``
    :param binary: of the service; each has its own journal
    """
    options = conf.backup_notifications
    name = host if binary == _BACKUP else f"{binary}@{host}"
    kept = journal.Journal(journal.directory(conf.state_path, name))
    made = events.Events(options, _usage, clock)
    sending = emitter.Emitter(
        functools.partial(sender.connect, conf, host, binary),
        length=options.queue_length,
        retries=options.retries,
        delivered=kept.delivered,
        dropped=made.dropped,
        undelivered=lambda: kept.undelivered(operation.worker()),
    )
    return Recorder(
        options,
        kept,
        sending,
        made,
        lambda: bool(utils.notifications_enabled(conf)),
        clock,
    )


def _usage(backup: Any) -> dict[str, Any]:
    usage: dict[str, Any] = volume_utils._usage_from_backup(backup)
    return usage
