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

"""Owns the flat payload: cinder's 16 keys as they are, and what they lack.

A payload has the same size whatever the volume: no list, no checksum, no path, no key.
"""

import datetime
from typing import Any

from cinder_ext.backup import failures, operation

VERSION = "1.0"


def timestamp(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def known_ids(backup: Any, op: operation.Operation) -> set[str | None]:
    """The ids that the payload has anyway."""
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
    """The flat payload of one notification; counts its sequence.

    :param usage: cinder's 16 keys
    :param backup: cinder's Backup object
    :param now: seconds since the epoch; the message may be sent much later
    :param service_metadata: whether to say where the data lies in the store
    :param more: keys of this event beyond the common block
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
    """The flat payload that tells of lost notifications of this process."""
    return {
        "payload_version": VERSION,
        "dropped": count,
        "occurred_at": timestamp(now),
        "worker": operation.worker(),
    }
