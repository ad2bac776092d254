# SPDX-License-Identifier: Apache-2.0
"""Owns the flat payload: Cinder's 16 keys, unchanged, and what they lack.

The size of a payload does not depend on the volume: no list, checksum, path or key.
"""

import datetime
from typing import Any

from cinder_ext.objects import failures, operation

VERSION = "1.0"


def timestamp(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def known_ids(backup: Any, op: operation.Operation) -> set[str | None]:
    """The IDs that the payload has anyway."""
    return {
        backup.id,
        backup.volume_id,
        backup.snapshot_id,
        backup.parent_id,
        op.restore_volume_id,
        op.request_id and op.request_id.removeprefix("req-"),
    }


def build(
    usage: dict[str, Any],
    backup: Any,
    op: operation.Operation,
    phase: str,
    now: float,
    *,
    service_metadata: bool = True,
    **more: Any,
) -> dict[str, Any]:
    """The flat payload of one notification; takes its sequence number.

    :param usage: Cinder's 16 keys
    :param backup: Cinder's Backup object
    :param now: seconds since the epoch; the message may be sent much later
    :param service_metadata: whether to include where the data is in the store
    :param more: keys of this event in addition to the common ones
    """
    usage = {
        **usage,
        "fail_reason": failures.clean(usage["fail_reason"], known_ids(backup, op)),
    }
    if not service_metadata:
        usage["service_metadata"] = None
    data_timestamp = backup.data_timestamp
    return {
        **usage,
        "payload_version": VERSION,
        "operation_id": op.id,
        "sequence": op.next_sequence(now),
        "action": op.action,
        "phase": phase,
        "occurred_at": timestamp(now),
        "is_incremental": bool(backup.parent_id),
        "restore_volume_id": op.restore_volume_id,
        "object_count": backup.object_count,
        "data_timestamp": data_timestamp and data_timestamp.isoformat(),
        "request_id": op.request_id,
        "worker": operation.worker(),
        **more,
    }


def dropped(count: int, now: float) -> dict[str, Any]:
    """The flat payload that reports lost notifications of this process."""
    return {
        "payload_version": VERSION,
        "dropped": count,
        "occurred_at": timestamp(now),
        "worker": operation.worker(),
    }
