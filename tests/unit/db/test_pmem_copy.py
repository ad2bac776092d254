# SPDX-License-Identifier: Apache-2.0
"""Copies of persistent memory in the database."""

from typing import Any

import pytest
from nova import exception

from nova_ext import exception as ext_exception
from nova_ext.objects.pmem_copy import PmemCopy, PmemCopyList, PmemCopyStatus
from tests.unit.db import databases, rows

PREP = "resize_prep"


def get(database: databases.Database, uuid: str) -> Any:
    return PmemCopy.get_by_instance_uuid(database.context(), uuid)


def test_order_and_progress(database: databases.Database) -> None:
    uuid = database.add_instance(task_state=PREP)
    made = rows.copy(database.context(), uuid)
    made.order([PREP])
    copy = get(database, uuid)
    assert copy.status is PmemCopyStatus.ORDERED
    assert copy.request_id == rows.REQUEST
    assert copy.migration_id is None
    assert not copy.begun
    copy.status, copy.migration_id = PmemCopyStatus.COPYING, 7
    change = rows.new_id()
    copy.save(change)
    copy = get(database, uuid)
    assert copy.begun
    assert copy.status is PmemCopyStatus.COPYING
    assert copy.migration_id == 7
    assert copy.change_id == change
    copy.destroy()
    copy.destroy()
    with pytest.raises(ext_exception.PmemCopyNotFound):
        get(database, uuid)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"task_state": None}, exception.UnexpectedTaskStateError),
        ({"task_state": "deleting"}, exception.UnexpectedDeletingTaskStateError),
        ({"deleted": 3}, exception.InstanceNotFound),
    ],
)
def test_order_where_the_server_is_not_as_expected(
    database: databases.Database, values: dict[str, Any], kind: Any
) -> None:
    uuid = database.add_instance(**values)
    with pytest.raises(exception.NovaException) as caught:
        rows.copy(database.context(), uuid).order([PREP])
    assert type(caught.value) is kind
    assert database.copy(uuid) is None


def test_order_replaces_an_older_one(database: databases.Database) -> None:
    uuid = database.add_instance()
    rows.ordered(database.context(), uuid, status=PmemCopyStatus.COPIED, migration_id=7)
    second = rows.ordered(database.context(), uuid, request_id="req-2")
    copy = get(database, uuid)
    assert copy.status is PmemCopyStatus.ORDERED
    assert copy.request_id == "req-2"
    assert copy.migration_id is None
    assert copy.change_id == second.change_id


def test_order_again_after_the_answer_was_lost(database: databases.Database) -> None:
    uuid = database.add_instance(task_state=PREP)
    copy = rows.copy(database.context(), uuid)
    again = copy.obj_clone()
    copy.order([PREP])
    database.change_instance(uuid, task_state="resize_migrating")
    again.order([PREP])
    assert again.change_id == copy.change_id
    database.change_instance(uuid, task_state=PREP)
    again.order([PREP])


def test_save_what_somebody_else_has_changed(database: databases.Database) -> None:
    uuid = database.add_instance()
    mine = rows.ordered(database.context(), uuid)
    again = mine.obj_clone()
    other = get(database, uuid)
    other.status = PmemCopyStatus.COPIED
    change = rows.new_id()
    other.save(change)
    mine.status = PmemCopyStatus.COPYING
    with pytest.raises(ext_exception.PmemCopyChanged):
        mine.save(rows.new_id())
    with pytest.raises(ext_exception.PmemCopyChanged):
        mine.destroy()
    assert database.copy(uuid)["status"] == "copied"
    again.save(change)  # as if the answer to it had been lost
    assert again.status is PmemCopyStatus.COPIED
    mine.destroy(change)
    assert database.copy(uuid) is None


def test_destroy_by_instance(database: databases.Database) -> None:
    uuid, other = database.add_instance(), database.add_instance()
    for each in (uuid, other):
        rows.ordered(database.context(), each, status=PmemCopyStatus.COPYING)
    for _ in range(2):
        PmemCopy.destroy_by_instance_uuid(database.context(), uuid)
        assert database.copy(uuid) is None
    assert database.copy(other) is not None


def test_lists_and_deleted_servers(database: databases.Database) -> None:
    here, gone, elsewhere = (database.add_instance() for _ in range(3))
    for uuid in (here, gone, elsewhere):
        rows.ordered(database.context(), uuid)
    database.change_instance(gone, deleted=1)
    database.change_instance(elsewhere, host="compute2")
    context = database.context()
    found = PmemCopyList.get_by_host(context, "compute1")
    assert [copy.instance_uuid for copy in found] == [here]
    with pytest.raises(ext_exception.PmemCopyNotFound):
        get(database, gone)
    assert PmemCopyList.destroy_of_deleted(context, "compute2") == 0
    assert PmemCopyList.destroy_of_deleted(context, "compute1") == 1
    assert database.copy(gone) is None
    assert database.copy(here) is not None
    assert database.copy(elsewhere) is not None
