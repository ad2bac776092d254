# SPDX-License-Identifier: Apache-2.0
"""Freeze windows in the database, one writer at a time."""

import datetime
from typing import Any

import pytest
from nova import exception
from oslo_utils import uuidutils

from nova_ext import exception as ext_exception
from nova_ext.db import api as db
from nova_ext.objects.quiesce_window import (
    VISIBLE,
    QuiesceStatus,
    QuiesceWindow,
    QuiesceWindowList,
)
from tests.unit.db import databases, rows

EXACT = datetime.datetime(2026, 11, 26, 10, 30, 15, 123456, tzinfo=datetime.UTC)
LEFT_OUT = '["/boot/efi"]'


def get(database: databases.Database, uuid: str) -> Any:
    return QuiesceWindow.get_by_instance_uuid(database.context(), uuid)


def names(found: Any) -> set[str]:
    return {window.instance_uuid for window in found}


def test_create_and_read(database: databases.Database) -> None:
    uuid = database.add_instance()
    made = rows.stored(database.context(), uuid)
    assert made.obj_what_changed() == set()
    assert made.created_at is not None
    read = get(database, uuid)
    for window in (made, read):
        assert window.status is QuiesceStatus.QUIESCING
        assert window.request_id == rows.REQUEST
        assert window.timeout == 60
        assert window.quiesced_at is window.unquiesce_at is window.left_out is None
        assert window.partial is False
        assert window.reason is None
        assert window.visible
    assert read.window_id == made.window_id
    assert read.change_id == made.change_id
    assert read.updated_at is None


def test_save_changes_what_was_set_and_no_more(database: databases.Database) -> None:
    uuid = database.add_instance()
    rows.stored(database.context(), uuid, reason="kept")
    window = get(database, uuid)
    window.status = QuiesceStatus.QUIESCED
    window.quiesced_at = EXACT
    window.left_out = LEFT_OUT
    change = rows.new_id()
    window.save(change, host="compute1", expected_task_states=[None])
    assert window.change_id == change
    assert window.obj_what_changed() == set()
    for seen in (window, get(database, uuid)):
        assert seen.change_id == change
        assert seen.status is QuiesceStatus.QUIESCED
        assert seen.quiesced_at == EXACT
        assert seen.unquiesce_at == EXACT + datetime.timedelta(seconds=60)
        assert seen.left_out == LEFT_OUT
        assert seen.reason == "kept"
        assert seen.updated_at is not None


def test_a_time_of_another_zone_is_stored_in_utc(database: databases.Database) -> None:
    uuid = database.add_instance()
    zone = datetime.timezone(datetime.timedelta(hours=2))
    rows.stored(database.context(), uuid, quiesced_at=EXACT.astimezone(zone))
    assert database.window(uuid)["quiesced_at"] == EXACT.replace(tzinfo=None)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"task_state": "powering-off"}, exception.UnexpectedTaskStateError),
        ({"task_state": "deleting"}, exception.UnexpectedDeletingTaskStateError),
        ({"vm_state": "stopped"}, exception.InstanceUpdateConflict),
        ({"host": "compute2"}, exception.InstanceNotFound),
        ({"host": None}, exception.InstanceNotFound),
        ({"deleted": 7}, exception.InstanceNotFound),
    ],
)
def test_create_where_the_server_is_not_as_expected(
    database: databases.Database, values: dict[str, Any], kind: Any
) -> None:
    uuid = database.add_instance(**values)
    with pytest.raises(exception.NovaException) as caught:
        rows.stored(database.context(), uuid)
    assert type(caught.value) is kind
    if kind is not exception.InstanceNotFound:
        assert caught.value.kwargs["actual"] == values
        assert caught.value.kwargs["instance_uuid"] == uuid
    assert database.window(uuid) is None


def test_create_without_a_server(database: databases.Database) -> None:
    with pytest.raises(exception.InstanceNotFound):
        rows.stored(database.context(), rows.new_id())


def test_create_again_after_the_answer_was_lost(database: databases.Database) -> None:
    uuid = database.add_instance()
    window = rows.window(database.context(), uuid)
    again = window.obj_clone()
    window.create("compute1", ["active"], [None])
    # The server may have gone on in the meantime.
    database.change_instance(uuid, task_state="image_snapshot", vm_state="paused")
    again.create("compute1", ["active"], [None])
    assert again.created_at == window.created_at
    assert again.change_id == database.window(uuid)["change_id"]


@pytest.mark.parametrize("status", sorted(VISIBLE | {QuiesceStatus.RELEASED}))
def test_create_where_there_is_a_window(
    database: databases.Database, status: QuiesceStatus
) -> None:
    uuid = database.add_instance()
    rows.stored(database.context(), uuid, status=status)
    before = dict(database.window(uuid))
    with pytest.raises(ext_exception.QuiesceWindowExists) as caught:
        rows.stored(database.context(), uuid)
    assert caught.value.kwargs["status"] == status.value
    assert caught.value.code == 409
    assert dict(database.window(uuid)) == before


def test_create_replaces_a_broken_window(database: databases.Database) -> None:
    uuid = database.add_instance()
    rows.stored(
        database.context(),
        uuid,
        status=QuiesceStatus.BROKEN,
        reason="the guest rebooted",
        quiesced_at=EXACT,
        left_out=LEFT_OUT,
    )
    rows.stored(database.context(), uuid)
    window = get(database, uuid)
    assert window.status is QuiesceStatus.QUIESCING
    assert window.reason is window.quiesced_at is window.left_out is None


def test_save_what_somebody_else_has_changed(database: databases.Database) -> None:
    uuid = database.add_instance()
    mine = rows.stored(database.context(), uuid)
    other = get(database, uuid)
    other.status = QuiesceStatus.RELEASED
    other.save(rows.new_id())
    mine.status = QuiesceStatus.QUIESCED
    with pytest.raises(ext_exception.QuiesceWindowChanged):
        mine.save(rows.new_id())
    assert database.window(uuid)["status"] == "released"
    assert mine.obj_what_changed() == {"status"}  # so that the caller may decide


def test_save_what_is_gone(database: databases.Database) -> None:
    uuid = database.add_instance()
    window = rows.stored(database.context(), uuid)
    get(database, uuid).destroy()
    window.status = QuiesceStatus.QUIESCED
    with pytest.raises(ext_exception.QuiesceWindowChanged):
        window.save(rows.new_id())
    assert database.window(uuid) is None


def test_save_again_after_the_answer_was_lost(database: databases.Database) -> None:
    uuid = database.add_instance()
    rows.stored(database.context(), uuid)
    window = get(database, uuid)
    window.status = QuiesceStatus.QUIESCED
    again = window.obj_clone()
    change = rows.new_id()
    window.save(change, host="compute1", expected_task_states=[None])
    database.change_instance(uuid, task_state="image_snapshot")
    again.save(change, host="compute1", expected_task_states=[None])
    assert again.change_id == change
    assert again.status is QuiesceStatus.QUIESCED


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"host": "compute2"}, exception.InstanceNotFound),
        ({"deleted": 7}, exception.InstanceNotFound),
        ({"task_state": "deleting"}, exception.InstanceNotFound),
        ({"task_state": "soft-deleting"}, exception.InstanceNotFound),
        ({"task_state": "rebooting"}, exception.UnexpectedTaskStateError),
    ],
)
def test_save_where_the_server_is_not_as_expected(
    database: databases.Database, values: dict[str, Any], kind: Any
) -> None:
    uuid = database.add_instance()
    window = rows.stored(database.context(), uuid)
    database.change_instance(uuid, **values)
    window.status = QuiesceStatus.QUIESCED
    with pytest.raises(exception.NovaException) as caught:
        window.save(rows.new_id(), host="compute1", expected_task_states=[None])
    assert type(caught.value) is kind
    assert database.window(uuid)["status"] == "quiescing"


def test_save_wherever_the_server_is(database: databases.Database) -> None:
    uuid = database.add_instance()
    window = rows.stored(database.context(), uuid)
    database.change_instance(uuid, host="compute2", task_state="deleting")
    window.status = QuiesceStatus.BROKEN
    window.save(rows.new_id())
    assert database.window(uuid)["status"] == "broken"


def test_destroy(database: databases.Database) -> None:
    uuid, other = database.add_instance(), database.add_instance()
    window = rows.stored(database.context(), uuid)
    rows.stored(database.context(), other)
    for _ in range(2):  # the answer to the first was lost
        window.destroy()
        assert database.window(uuid) is None
    assert database.window(other) is not None


def test_destroy_what_somebody_else_has_changed(database: databases.Database) -> None:
    uuid = database.add_instance()
    window = rows.stored(database.context(), uuid)
    get(database, uuid).save(rows.new_id())
    with pytest.raises(ext_exception.QuiesceWindowChanged):
        window.destroy()
    assert database.window(uuid) is not None


@pytest.mark.parametrize("written", [True, False])
def test_destroy_after_the_answer_to_save_was_lost(
    database: databases.Database, written: bool
) -> None:
    uuid = database.add_instance()
    window = rows.stored(database.context(), uuid)
    change = rows.new_id()
    if written:
        get(database, uuid).save(change)
    window.destroy(change)
    assert database.window(uuid) is None


def test_destroy_by_instance(database: databases.Database) -> None:
    uuid, other = database.add_instance(deleted=1), database.add_instance()
    for each in (uuid, other):
        database.change_instance(each, deleted=0)
        rows.stored(database.context(), each)
    database.change_instance(uuid, deleted=1)
    for _ in range(2):
        QuiesceWindow.destroy_by_instance_uuid(database.context(), uuid)
        assert database.window(uuid) is None
    assert database.window(other) is not None


def test_get_none(database: databases.Database) -> None:
    uuid = database.add_instance()
    with pytest.raises(ext_exception.QuiesceWindowNotFound):
        get(database, uuid)


def test_rows_of_a_deleted_server_are_not_read(database: databases.Database) -> None:
    uuid = database.add_instance()
    rows.stored(database.context(), uuid)
    database.change_instance(uuid, deleted=1)
    context = database.context()
    with pytest.raises(ext_exception.QuiesceWindowNotFound):
        get(database, uuid)
    assert not QuiesceWindowList.get_by_host(context, "compute1")
    assert not QuiesceWindowList.get_by_instance_uuids(context, [uuid])


def test_rows_of_a_soft_deleted_server_are_read(database: databases.Database) -> None:
    """Restored, it has the state that it had."""
    uuid = database.add_instance()
    rows.stored(database.context(), uuid)
    database.change_instance(uuid, vm_state="soft-delete")
    assert get(database, uuid).status is QuiesceStatus.QUIESCING


def test_lists(database: databases.Database) -> None:
    here = [database.add_instance() for _ in range(3)]
    there = database.add_instance()
    plain = database.add_instance()
    for uuid in (*here, there):
        rows.stored(database.context(), uuid)
    database.change_instance(there, host="compute2")
    context = database.context()
    by_host = QuiesceWindowList.get_by_host
    assert names(by_host(context, "compute1")) == set(here)
    assert names(by_host(context, "compute2")) == {there}
    assert names(by_host(context, "compute3")) == set()
    wanted = [here[0], there, plain, rows.new_id()]
    found = QuiesceWindowList.get_by_instance_uuids(context, wanted)
    assert names(found) == {here[0], there}
    assert found.obj_what_changed() == set()
    assert not QuiesceWindowList.get_by_instance_uuids(context, [])
    found[0].status = QuiesceStatus.RELEASED
    found[0].save(rows.new_id())  # has a context of its own


def test_a_page_of_servers_takes_one_query(
    database: databases.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    uuids = [database.add_instance() for _ in range(30)]
    for uuid in uuids[::3]:
        rows.stored(database.context(), uuid)
    executed: list[Any] = []
    execute = db._execute

    def counting(context: Any, statement: Any) -> Any:
        executed.append(statement)
        return execute(context, statement)

    monkeypatch.setattr(db, "_execute", counting)
    found = QuiesceWindowList.get_by_instance_uuids(database.context(), uuids)
    assert names(found) == set(uuids[::3])
    assert len(executed) == 1


def test_destroy_of_deleted(database: databases.Database) -> None:
    kept, gone, elsewhere = (database.add_instance() for _ in range(3))
    for uuid in (kept, gone, elsewhere):
        rows.stored(database.context(), uuid)
    database.change_instance(gone, deleted=1)
    database.change_instance(elsewhere, deleted=2, host="compute2")
    context = database.context()
    assert QuiesceWindowList.destroy_of_deleted(context, "compute1") == 1
    assert QuiesceWindowList.destroy_of_deleted(context, "compute1") == 0
    assert database.window(gone) is None
    assert database.window(kept) is not None
    assert database.window(elsewhere) is not None


@pytest.mark.parametrize("status", list(QuiesceStatus))
def test_visible(status: QuiesceStatus) -> None:
    window = rows.window(None, uuidutils.generate_uuid(), status=status)
    assert window.visible is (status in ("quiescing", "quiesced", "unquiescing"))


def test_a_status_that_does_not_exist() -> None:
    window = rows.window(None, uuidutils.generate_uuid())
    with pytest.raises(ValueError, match="asleep"):
        window.status = "asleep"


@pytest.mark.parametrize("value", [QuiesceStatus.BROKEN, "broken"])
def test_a_status_is_a_member_after_it_was_sent(value: str) -> None:
    window = rows.window(None, uuidutils.generate_uuid(), status=value)
    assert window.status is QuiesceStatus.BROKEN
    sent = window.obj_to_primitive()
    assert type(sent["nova_object.data"]["status"]) is str
    assert QuiesceWindow.obj_from_primitive(sent).status is QuiesceStatus.BROKEN


def test_a_time_is_exact_after_it_was_sent() -> None:
    window = rows.window(None, uuidutils.generate_uuid(), quiesced_at=EXACT)
    sent = window.obj_to_primitive()
    assert QuiesceWindow.obj_from_primitive(sent).quiesced_at == EXACT
