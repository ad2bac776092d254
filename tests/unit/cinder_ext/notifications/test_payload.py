# SPDX-License-Identifier: Apache-2.0

import datetime
import json
import types
import uuid
from typing import Any

import pytest

from cinder_ext.notifications import payload
from cinder_ext.objects import failures, operation
from tests.backup_keys import UPSTREAM

NOW = datetime.datetime(2026, 11, 21, 10, tzinfo=datetime.UTC).timestamp()
KEY = str(uuid.uuid4())


def usage(**more: Any) -> dict[str, Any]:
    return {
        **dict.fromkeys(UPSTREAM, "x"),
        "backup_id": str(uuid.uuid4()),
        "fail_reason": None,
        **more,
    }


def backup(**more: Any) -> Any:
    values: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "volume_id": str(uuid.uuid4()),
        "snapshot_id": None,
        "parent_id": None,
        "object_count": 3,
        "data_timestamp": datetime.datetime(2026, 11, 21, 9, 0),
        "encryption_key_id": KEY,
    }
    return types.SimpleNamespace(**values | more)


def operation_of(made: Any) -> operation.Operation:
    return operation.Operation(
        id="op", action="create", backup_id=made.id, started_at=NOW, request_id="req-1"
    )


def build(made: Any, upstream: dict[str, Any], **more: Any) -> dict[str, Any]:
    return payload.build(upstream, made, operation_of(made), "start", NOW, **more)


def test_the_keys_of_cinder_are_unchanged() -> None:
    upstream = usage()
    built = build(backup(), upstream)
    assert {key: built[key] for key in UPSTREAM} == upstream


def test_common_block() -> None:
    built = build(backup(parent_id="p"), usage())
    assert {key: built[key] for key in built if key not in UPSTREAM} == {
        "payload_version": "1.0",
        "operation_id": "op",
        "sequence": 1,
        "action": "create",
        "phase": "start",
        "occurred_at": "2026-11-21T10:00:00.000Z",
        "is_incremental": True,
        "restore_volume_id": None,
        "object_count": 3,
        "data_timestamp": "2026-11-21T09:00:00",
        "request_id": "req-1",
        "worker": operation.worker(),
    }


def test_service_metadata_can_be_left_out() -> None:
    built = build(backup(), usage(), service_metadata=False)
    assert built["service_metadata"] is None


def test_the_reason_of_a_failure_is_cleaned() -> None:
    told = build(backup(), usage(fail_reason=f"key {KEY}\nCommand: ceph --id admin"))
    assert told["fail_reason"] == "key <id>"


def test_no_key_leaves_the_service() -> None:
    assert KEY not in json.dumps(build(backup(), usage(fail_reason=f"no {KEY}")))


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_a_payload_has_at_most_4_kb_whatever_the_volume(size: int) -> None:
    made = backup(object_count=size * 20)
    progress = operation.Progress(size << 30, size * 20)
    progress.reached_byte(size << 29)
    text = "x" * 255
    built = build(
        made,
        usage(
            size=size,
            display_name=text,
            service_metadata=text,
            service=text,
            host=text,
            availability_zone=text,
            fail_reason=text,
        ),
        **progress.to_payload(),
        error=failures.describe(ValueError(text), "transfer"),
        duration=86400.0,
        result={"bytes_read": size << 30, "object_count": size * 20},
    )
    assert 1000 < len(json.dumps(built)) <= 4096
