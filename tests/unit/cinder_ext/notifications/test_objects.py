# SPDX-License-Identifier: Apache-2.0

import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from oslo_versionedobjects import base, fixture

from cinder_ext.notifications import emitter
from cinder_ext.notifications.objects import backup
from cinder_ext.objects import failures, operation

SCHEMA = (
    pathlib.Path(__file__).parents[4] / "doc/notification_schema/volume_backup.json"
)

#: A changed hash means that consumers see something new: raise the version of the
#: payload, say why at VERSION, and then change the hash here.
HASHES = {
    "BackupFaultPayload": "1.0-1a06015c496fa7cb044a8eac2de0efc6",
    "BackupNotificationsDroppedPayload": "1.0-ebc50327015c74ebe7374b881f7ba601",
    "BackupPayload": "1.0-2ca215f00b45621d1a67e97ca85f00e9",
    "BackupProgressPayload": "1.0-79bc6af2a47bbe719f70f4da0aa2bb57",
    "BackupResultPayload": "1.0-ea9c8e4a8d21a37e7b7e39f35ce89018",
}

FLAT: dict[str, Any] = {
    "backup_id": "b",
    "payload_version": "1.0",
    "operation_id": "o",
    "sequence": 3,
    "action": "create",
    "phase": "progress",
    "occurred_at": "2026-11-21T10:00:00.123Z",
    "created_at": "2026-11-21T09:00:00",
    "is_incremental": False,
    "worker": "host1:42",
}
PROGRESS = {
    "backup_percent": 50.0,
    "bytes_done": 1,
    "bytes_total": 2,
    "objects_done": None,
    "objects_total": None,
    "rate_bps": 1.0,
    "eta_seconds": 1.0,
}
ERROR = {"code": "no_space", "type": "OSError", "message": "m", "phase": "transfer"}


@pytest.fixture
def registered() -> Iterator[None]:
    """The classes in the registry, as long as a test runs."""
    base.VersionedObjectRegistry()
    with fixture.VersionedObjectRegistryFixture() as registry:
        for kind in backup.PAYLOADS:
            registry.register(kind)
        yield


def primitive(**more: Any) -> tuple[str, dict[str, Any]]:
    event_type, made = backup.notification(
        emitter.Event("backup.create.progress", "info", {**FLAT, **more}, {})
    )
    return event_type, made["cinder_object.data"]


def test_the_versions_are_locked_by_hashes() -> None:
    checker = fixture.ObjectVersionChecker(
        {kind.obj_name(): [kind] for kind in backup.PAYLOADS}
    )
    assert checker.get_hashes() == HASHES


def test_the_classes_stay_out_of_cinders_registry() -> None:
    known = base.VersionedObjectRegistry.obj_classes()
    assert not {kind.obj_name() for kind in backup.PAYLOADS} & set(known)


def test_the_schema_is_that_of_the_classes(registered: None) -> None:
    schema = json.loads(json.dumps(backup.BackupPayload.to_json_schema()))
    if "GENERATE_SAMPLES" in os.environ:
        SCHEMA.write_text(json.dumps(schema, indent=4, sort_keys=True) + "\n")
    assert json.loads(SCHEMA.read_text()) == schema
    jsonschema.Draft4Validator.check_schema(schema)


def test_a_message_follows_the_schema() -> None:
    _type, made = backup.notification(
        emitter.Event("backup.create.error", "error", {**FLAT, "error": ERROR}, {})
    )
    schema = json.loads(SCHEMA.read_text())
    jsonschema.validate(made, schema)
    made["cinder_object.data"]["phase"] = "surprise"
    with pytest.raises(jsonschema.ValidationError, match="surprise"):
        jsonschema.validate(made, schema)


def test_event_type() -> None:
    event_type, _data = primitive()
    assert event_type == "volume_backup.create.progress"


def test_parts_are_null_where_the_flat_payload_has_none() -> None:
    _type, data = primitive()
    assert data["progress"] is data["fault"] is data["result"] is None
    assert data["duration"] is None


def test_parts() -> None:
    _type, data = primitive(
        **PROGRESS, error=ERROR, result={"bytes_read": 5}, duration=2.5
    )
    part = {name: data[name]["cinder_object.data"] for name in ("progress", "fault")}
    assert part["progress"]["percent"] == 50.0
    assert part["progress"]["bytes_total"] == 2
    assert part["fault"] == ERROR
    assert data["result"]["cinder_object.data"]["bytes_read"] == 5
    assert data["result"]["cinder_object.data"]["volume_bytes"] is None
    assert data["duration"] == 2.5


def test_a_message_does_not_list_its_fields_twice() -> None:
    _type, made = backup.notification(
        emitter.Event("x", "info", {**FLAT, **PROGRESS}, {})
    )
    assert "changes" not in json.dumps(made)


def test_each_flat_key_of_a_transfer_has_a_field() -> None:
    names = {
        backup.BackupProgressPayload.FLAT.get(name, name)
        for name in backup.BackupProgressPayload.fields
    }
    assert names == set(operation.Progress().to_payload())


def test_each_code_and_phase_can_be_told() -> None:
    for code in failures.CODES:
        primitive(error={**ERROR, "code": code})
    for phase in failures.PHASES:
        primitive(error={**ERROR, "phase": phase})
    with pytest.raises(ValueError, match="surprise"):
        primitive(error={**ERROR, "code": "surprise"})


def test_dropped() -> None:
    event_type, made = backup.notification(
        emitter.Event(
            "backup.notifications.dropped",
            "info",
            {
                "payload_version": "1.0",
                "dropped": 3,
                "occurred_at": "2026-11-21T10:00:00.000Z",
                "worker": "host1:42",
            },
            {},
        )
    )
    assert event_type == "volume_backup.notifications.dropped"
    assert made["cinder_object.data"]["dropped"] == 3
