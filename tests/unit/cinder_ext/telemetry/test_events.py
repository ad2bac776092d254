# SPDX-License-Identifier: Apache-2.0
"""The event definitions, through the event converter of the installed Ceilometer."""

import copy
import datetime
import json
import pathlib
from typing import Any

import pytest

from cinder_ext.notifications import emitter
from cinder_ext.notifications.objects import backup as objects
from tests.unit.cinder_ext.telemetry import payloads
from tests.unit.cinder_ext.telemetry.conftest import Agent, traits

SAMPLES = pathlib.Path(__file__).parents[4] / "doc/notification_samples"

#: The traits that are not called like the key.
NAMES = {
    "backup_percent": "percent",
    "service": "backup_service",
    "result.bytes_read": "bytes_read",
    "result.bytes_stored": "bytes_stored",
    "result.object_count": None,
    "result.bytes_written": "bytes_written",
    "result.volume_bytes": "volume_bytes",
    "error.code": "error_code",
    "error.type": "error_type",
    "error.message": "error_message",
    "error.phase": "error_phase",
    # cinder names the driver in "service" as well.
    "backup_service": None,
}


def leaves(payload: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in payload.items():
        if isinstance(value, dict):
            found.update(leaves(value, f"{prefix}{key}."))
        else:
            found[prefix + key] = value
    return found


def as_trait(value: Any) -> Any:
    return str(value) if isinstance(value, bool) else value


def event_of(agent: Agent, message: payloads.Message) -> Any:
    # WARN is dropped before the definitions.
    if message.message["priority"] == "WARN":
        message.message["priority"] = "INFO"
    _, [event] = agent.hear(message)
    return event


def test_stock_ceilometer_knows_no_backup(stock: Agent) -> None:
    found = traits(event_of(stock, payloads.flat("backup.create.end")))
    assert "resource_id" not in found
    assert "backup_id" not in found
    assert "status" not in found


@pytest.mark.parametrize("event_type", payloads.FLAT)
def test_every_key_is_a_trait(agent: Agent, event_type: str) -> None:
    message = payloads.flat(event_type)
    event = event_of(agent, message)
    found = traits(event)
    assert event.event_type == event_type
    for key, value in leaves(message.payload).items():
        name = NAMES.get(key, key)
        if name is None:
            continue
        if value is None:
            assert name not in found
        elif isinstance(found[name], datetime.datetime):
            expected = datetime.datetime.fromisoformat(value)
            assert found[name] == expected.replace(tzinfo=None), name
        else:
            assert found[name] == as_trait(value), name
    assert found["resource_id"] == payloads.BACKUP
    assert found["project_id"] == found["tenant_id"] == payloads.PROJECT
    assert found["service"] == "backup.b1"


def test_types(agent: Agent) -> None:
    found = traits(event_of(agent, payloads.flat("backup.create.error")))
    assert found["created_at"] == datetime.datetime(2026, 11, 21, 10)
    assert found["occurred_at"] == datetime.datetime(2026, 11, 21, 10, 0, 30, 250000)
    assert found["is_incremental"] == "False"
    assert isinstance(found["sequence"], int)
    assert isinstance(found["duration"], float)
    assert found["percent"] == 50.0
    assert found["error_code"] == "no_space"
    assert found["error_phase"] == "transfer"
    assert found["phase"] == "error"


@pytest.mark.parametrize("event_type", payloads.VERSIONED)
def test_versioned_events_have_the_same_traits(agent: Agent, event_type: str) -> None:
    versioned = traits(event_of(agent, payloads.versioned(event_type)))
    unversioned = event_type.removeprefix("volume_")
    flat = traits(event_of(agent, payloads.flat(unversioned)))
    assert versioned.pop("service") == "cinder-backup:b1"
    assert flat.pop("service") == "backup.b1"
    # Versioned objects know no fractions of a second.
    flat["occurred_at"] = flat["occurred_at"].replace(microsecond=0)
    assert versioned == flat


def test_the_payloads_above_have_every_field() -> None:
    known = set()
    for event_type in payloads.FLAT:
        known |= {
            key.rpartition(".")[2] for key in leaves(payloads.flat(event_type).payload)
        }
    for kind in objects.PAYLOADS[:4]:
        nested = {"progress", "fault", "result"}
        names = {kind.FLAT.get(name, name) for name in kind.fields} - nested
        assert names <= known, kind


def test_lost_notifications(agent: Agent) -> None:
    flat = payloads.dropped()
    body = emitter.Event(flat.message["event_type"], "info", flat.payload, {})
    versioned = payloads.message(*objects.notification(body))
    for message in (flat, versioned):
        found = traits(event_of(agent, message))
        assert found["dropped"] == 12
        assert found["worker"] == "b1:4242"
        assert found["occurred_at"].second == 30


@pytest.mark.parametrize("event_type", payloads.FLAT + payloads.VERSIONED)
def test_missing_and_null_keys(agent: Agent, event_type: str) -> None:
    build = payloads.flat if event_type in payloads.FLAT else payloads.versioned
    whole = build(event_type)
    data = whole.payload.get("cinder_object.data", whole.payload)
    for change in ({}, dict.fromkeys(data)):
        message = copy.deepcopy(whole)
        if data is not whole.payload:
            message.payload["cinder_object.data"] = change
        else:
            message.message["payload"] = change
        assert set(traits(event_of(agent, message))) == {"service"}


@pytest.mark.parametrize("payload", [None, "text", [], 7])
def test_a_payload_that_is_none(agent: Agent, payload: Any) -> None:
    for event_type in ("backup.create.end", "volume_backup.create.end"):
        event = event_of(agent, payloads.message(event_type, payload))
        assert set(traits(event)) == {"service"}


def test_each_key_alone_may_be_missing_or_null(agent: Agent) -> None:
    whole = payloads.flat("backup.create.error")
    expected = set(traits(event_of(agent, whole)))
    for key in whole.payload:
        without = copy.deepcopy(whole)
        del without.payload[key]
        null = copy.deepcopy(whole)
        null.payload[key] = None
        lost = [expected - set(traits(event_of(agent, it))) for it in (without, null)]
        assert lost[0] == lost[1]
        assert len(lost[0]) < len(expected) - 20


def test_the_project_comes_from_the_context_otherwise(agent: Agent) -> None:
    message = payloads.flat("backup.create.end", tenant_id=None, request_id=None)
    message.ctxt.update(project_id="p", request_id="r")
    found = traits(event_of(agent, message))
    assert (found["project_id"], found["tenant_id"]) == ("p", "p")
    assert found["request_id"] == "r"


def test_stock_cinder_is_understood_as_well(agent: Agent) -> None:
    message = payloads.message("backup.create.end", payloads.upstream())
    found = traits(event_of(agent, message))
    assert found["backup_id"] == payloads.BACKUP
    assert "operation_id" not in found
    progress = traits(event_of(agent, payloads.stock_progress(0.5)))
    assert progress["percent"] == 0.5
    assert progress["resource_id"] == payloads.BACKUP


def sample(name: str) -> payloads.Message:
    body = json.loads((SAMPLES / f"{name}.json").read_text())
    return payloads.message(
        body["event_type"], body["payload"], body["priority"], body["publisher_id"]
    )


@pytest.mark.parametrize("action", ["quiesce", "unquiesce"])
@pytest.mark.parametrize("phase", ["start", "end", "error"])
def test_quiesced_guests(agent: Agent, action: str, phase: str) -> None:
    message = sample(f"instance-{action}-{phase}")
    data = message.payload["nova_object.data"]
    samples, [event] = agent.hear(message)
    assert samples == []
    found = traits(event)
    assert found["resource_id"] == found["instance_id"] == data["uuid"]
    assert found["project_id"] == data["tenant_id"]
    assert found["user_id"] == data["user_id"]
    assert found["host"] == "compute1"
    assert found["timeout"] == data["timeout"]
    assert found["request_id"] == data["request_id"]
    assert ("quiesced_at" in found) is bool(data["quiesced_at"])
    assert ("error_type" in found) is (phase == "error")
    if phase == "error":
        fault = data["fault"]["nova_object.data"]
        assert found["error_type"] == fault["exception"]
        assert found["error_message"] == fault["exception_message"][:255]


@pytest.mark.parametrize("phase", ["start", "progress", "end", "error"])
def test_copied_persistent_memory(agent: Agent, phase: str) -> None:
    message = sample(f"instance-copy_pmem-{phase}")
    data = message.payload["nova_object.data"]
    samples, [event] = agent.hear(message)
    assert samples == []
    found = traits(event)
    assert found["resource_id"] == data["uuid"]
    for key in (
        "migration_uuid",
        "source_compute",
        "dest_compute",
        "bytes_total",
        "bytes_copied",
        "rate",
        "duration",
        "state",
        "task_state",
    ):
        assert found[key] == data[key], key
    assert ("error_message" in found) is (phase == "error")


def test_each_published_sample_is_an_event_of_a_resource(agent: Agent) -> None:
    names = sorted(path.stem for path in SAMPLES.glob("*.json"))
    assert len(names) >= 10
    for name in names:
        found = traits(event_of(agent, sample(name)))
        assert "resource_id" in found or "dropped" in found, name


def test_other_events_stay_as_they_were(stock: Agent, agent: Agent) -> None:
    for event_type in (
        "instance.create.end",
        "compute.instance.create.end",
        "volume.create.end",
        "snapshot.create.end",
        "backup.somebody.elses",
    ):
        payload = {"tenant_id": "p", "volume_id": "v", "snapshot_id": "s", "host": "h"}
        before = traits(event_of(stock, payloads.message(event_type, payload)))
        after = traits(event_of(agent, payloads.message(event_type, payload)))
        assert before == after
