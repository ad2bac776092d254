# SPDX-License-Identifier: Apache-2.0
"""What is announced of an operation, and under which rules."""

from typing import Any

import pytest

from cinder_ext.notifications import emitter, events
from cinder_ext.objects import operation
from tests.unit.cinder_ext import backups


@pytest.fixture
def clock() -> backups.Clock:
    return backups.Clock()


@pytest.fixture
def made(clock: backups.Clock) -> events.Events:
    return events.Events(backups.options(), backups.usage, clock)


def begun(
    made: events.Events, action: str = "create", **details: Any
) -> operation.Operation:
    return made.new_operation(backups.context(), backups.backup(), action, **details)


def ids(made: events.Events, backup: Any, action: str, *requests: str) -> set[str]:
    return {
        made.new_operation(backups.context(request), backup, action).id
        for request in requests
    }


def test_both_calls_of_a_create_lead_to_one_operation(
    made: events.Events, clock: backups.Clock
) -> None:
    """They may have different requests, in different processes, at other times."""
    backup = backups.backup()
    first = ids(made, backup, "create", "req-1")
    clock.now += 5
    assert ids(made, backup, "create", "req-2") == first
    assert ids(made, backups.backup(), "create", "req-1") != first


@pytest.mark.parametrize("action", ["restore", "delete", "import", "export"])
def test_each_request_is_another_operation(made: events.Events, action: str) -> None:
    backup = backups.backup()
    assert len(ids(made, backup, action, "req-1", "req-2", "req-1")) == 2


def test_restores_to_two_volumes_are_two_operations(made: events.Events) -> None:
    backup, context = backups.backup(), backups.context()
    first, second = (
        made.new_operation(context, backup, "restore", restore_volume_id=volume)
        for volume in ("v1", "v2")
    )
    assert first.id != second.id
    assert second.restore_volume_id == "v2"


def test_an_operation_of_its_own_has_another_id(
    made: events.Events, clock: backups.Clock
) -> None:
    backup, context = backups.backup(), backups.context()
    first = made.new_operation(context, backup, "create")
    again = made.new_operation(context, backup, "create", again=True)
    clock.now += 1
    later = made.new_operation(context, backup, "create", again=True)
    assert len({first.id, again.id, later.id}) == 3
    assert (first.started_at, later.started_at) == (1000.0, 1001.0)


def test_an_event_says_whose_it_is(made: events.Events) -> None:
    op = begun(made)
    event = made.start(op, backups.backup())
    assert event
    assert event.event_type == "backup.create.start"
    assert event.context == {
        "user_id": "user",
        "project_id": "project",
        "request_id": "req-1",
    }
    assert (event.operation_id, event.payload["sequence"]) == (op.id, 1)


def test_the_end_of_an_export_says_all(made: events.Events) -> None:
    op = begun(made, "export", backup_service="driver")
    assert made.start(op, backups.backup()) is None
    assert made.succeeded(op, backups.backup()).event_type == "backup.export.end"


@pytest.mark.parametrize(
    ("action", "keys"),
    [
        ("create", {"resumed": False}),
        ("delete", {"resumed": False}),
        ("restore", {"volume_is_new": True, "chain_length": 2}),
        ("import", {"backup_service": "driver"}),
    ],
)
def test_what_only_some_actions_have(
    made: events.Events, action: str, keys: dict[str, Any]
) -> None:
    op = begun(
        made, action, volume_is_new=True, chain_length=2, backup_service="driver"
    )
    event = made.start(op, backups.backup())
    assert event
    seen = event.payload.keys() & {
        "resumed",
        "volume_is_new",
        "chain_length",
        "backup_service",
    }
    assert {key: event.payload[key] for key in seen} == keys


def test_the_result_of_a_create(made: events.Events) -> None:
    op = begun(made)
    op.progress = operation.Progress(10, clock=backups.Clock())
    op.progress.reached_byte(10)
    op.progress.bytes_stored = 7
    payload = made.succeeded(op, backups.backup(status="available")).payload
    assert payload["result"] == {"bytes_read": 10, "bytes_stored": 7, "object_count": 3}
    assert (payload["backup_percent"], payload["duration"]) == (100.0, 0.0)


def test_the_result_of_a_restore(made: events.Events) -> None:
    op = begun(made, "restore", volume_bytes=20)
    op.progress = operation.Progress(10, clock=backups.Clock())
    op.progress.bytes_written = 9
    payload = made.succeeded(op, backups.backup()).payload
    assert payload["result"] == {"bytes_written": 9, "volume_bytes": 20}


def test_an_operation_that_moved_nothing_has_no_progress(made: events.Events) -> None:
    payload = made.succeeded(begun(made, "delete"), backups.backup()).payload
    assert payload["result"] is None
    assert "backup_percent" not in payload


def test_a_failure(made: events.Events, clock: backups.Clock) -> None:
    op = begun(made)
    op.phase = "transfer"
    clock.now += 2.5
    event = made.failed(
        op, backups.backup(), OSError(28, "No space left on device"), deleting=False
    )
    assert (event.event_type, event.priority) == ("backup.create.error", "error")
    error = event.payload["error"]
    assert (error["code"], error["phase"]) == ("no_space", "transfer")
    assert event.payload["duration"] == 2.5


def test_a_failure_shows_how_far_it_came(made: events.Events) -> None:
    op = begun(made)
    op.progress = operation.Progress(10, clock=backups.Clock())
    op.progress.reached_byte(5)
    event = made.failed(op, backups.backup(), ValueError(), deleting=False)
    assert event.payload["backup_percent"] == 50.0


def types_of(op: operation.Operation, made: events.Events, backup: Any) -> list[str]:
    return [
        made.succeeded(op, backup).payload["phase"],
        made.failed(op, backup, ValueError(), deleting=False).payload["phase"],
    ]


@pytest.mark.parametrize("status", ["deleting", "deleted"])
def test_a_create_whose_backup_is_deleted_is_cancelled(
    made: events.Events, status: str
) -> None:
    backup = backups.backup(status=status)
    assert types_of(begun(made), made, backup) == ["cancelled", "cancelled"]
    # For a delete it is success.
    assert types_of(begun(made, "delete"), made, backup) == ["end", "error"]


def test_a_create_that_fails_because_of_a_delete_is_cancelled(
    made: events.Events,
) -> None:
    failed = [
        made.failed(begun(made, action), backups.backup(), ValueError(), deleting=True)
        for action in ("create", "restore")
    ]
    assert [event.payload["phase"] for event in failed] == ["cancelled", "error"]


def test_a_restore_that_somebody_stopped_is_cancelled(made: events.Events) -> None:
    op = begun(made, "restore")
    op.cancelled = True
    assert made.succeeded(op, backups.backup()).payload["phase"] == "cancelled"


def test_only_the_ends_of_what_the_journal_has_are_kept(made: events.Events) -> None:
    op, backup = begun(made), backups.backup()

    def kept() -> list[bool]:
        return [
            event.kept
            for event in (
                made.progress(op, backup, {}),
                made.stalled(op, backup, 1.0),
                made.succeeded(op, backup),
                made.cancelled(op, backup),
                made.failed(op, backup, ValueError(), deleting=False),
            )
        ]

    assert kept() == [False] * 5
    op.kept = True
    assert kept() == [False, False, True, True, True]


@pytest.mark.parametrize("priority", ["warn", "info"])
def test_the_priority_of_a_stalled_backup_is_an_option(priority: str) -> None:
    made = events.Events(backups.options(stalled_priority=priority), backups.usage)
    event = made.stalled(begun(made), backups.backup(), 600.0)
    assert (event.priority, event.payload["age_seconds"]) == (priority, 600.0)


def test_service_metadata_is_an_option() -> None:
    def usage(backup: Any) -> dict[str, Any]:
        return {**backups.usage(backup), "service_metadata": "where"}

    seen = []
    for wanted in (True, False):
        options = backups.options(include_service_metadata=wanted)
        made = events.Events(options, usage)
        event = made.cancelled(begun(made), backups.backup())
        seen.append(event.payload["service_metadata"])
    assert seen == ["where", None]


def test_lost_notifications_are_of_no_operation(made: events.Events) -> None:
    event: emitter.Event = made.dropped(17)
    assert event.operation_id is None
    assert (event.event_type, event.payload["dropped"]) == (
        "backup.notifications.dropped",
        17,
    )
