# SPDX-License-Identifier: Apache-2.0
"""Writers at the same time, inside each other's transactions, and without an answer."""

import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from nova import exception, objects
from nova.db.main import api as main_api
from oslo_db import exception as db_exc

from nova_ext import exception as ext_exception
from nova_ext.compute import task_state
from nova_ext.compute.quiesce import api as quiesce_api
from nova_ext.db import api as db
from nova_ext.db import models, schema
from nova_ext.objects.quiesce_window import (
    VISIBLE,
    QuiesceStatus,
    QuiesceWindow,
    QuiesceWindowList,
)
from tests.unit.db import databases, rows

#: The exceptions with which the loser of a race is told so.
LOST = (
    ext_exception.QuiesceWindowChanged,
    ext_exception.QuiesceWindowExists,
    exception.InstanceInvalidState,
    exception.InstanceUpdateConflict,
)


def race(*calls: Callable[[], Any]) -> list[bool]:
    """Let threads go at the same instant; which of them won."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> bool:
        barrier.wait(30)
        try:
            call()
        except LOST:
            return False
        return True

    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def read(database: databases.Database, uuid: str) -> Any:
    return objects.Instance.get_by_uuid(database.context(), uuid, expected_attrs=[])


def stop(instance: Any) -> None:
    """What the API does to stop a server: take its task state, then look."""
    instance.task_state = "powering-off"
    instance.save(expected_task_state=[None])
    with task_state.given_back(instance):
        quiesce_api._check(quiesce_api.visible(instance._context, instance), "stop")


def counter(database: databases.Database, name: str) -> int:
    statement = sa.text(f"SHOW GLOBAL STATUS LIKE '{name}'")
    return int(database.execute(statement).first()[1])


@pytest.mark.timeout(300)
def test_quiesce_against_stop(real_database: databases.Database) -> None:
    """Of a window and a task that begin in the same instant, one is refused."""
    database = real_database
    winners = []
    for number in range(200):
        uuid = database.add_instance()
        window = rows.window(database.context(), uuid)
        instance = read(database, uuid)
        # Now the one is a bit earlier, now the other.
        offset = (number % 9 - 4) / 2000

        def create(window: Any = window, offset: float = offset) -> None:
            time.sleep(max(0, offset))
            window.create("compute1", ["active"], [None])

        def begin_task(instance: Any = instance, offset: float = offset) -> None:
            time.sleep(max(0, -offset))
            stop(instance)

        won = race(create, begin_task)
        assert won.count(True) == 1
        assert (database.window(uuid) is not None) is won[0]
        task = database.instance(uuid)["task_state"]
        assert task == ("powering-off" if won[1] else None)
        winners.append(won.index(True))
    assert set(winners) == {0, 1}  # else they did not meet


@pytest.mark.timeout(300)
def test_many_writers_of_one_window(real_database: databases.Database) -> None:
    database = real_database
    for _ in range(20):
        uuid = database.add_instance()
        created = [rows.window(database.context(), uuid) for _ in range(4)]
        won = race(
            *(
                lambda window=window: window.create("compute1", ["active"], [None])
                for window in created
            )
        )
        assert won.count(True) == 1
        winner = created[won.index(True)]
        assert database.window(uuid)["change_id"] == winner.change_id

        read = [
            QuiesceWindow.get_by_instance_uuid(database.context(), uuid)
            for _ in range(4)
        ]
        changes = [rows.new_id() for _ in read]
        won = race(
            *(
                lambda window=window, change=change: window.save(change, "compute1")
                for window, change in zip(read, changes, strict=True)
            )
        )
        assert won.count(True) == 1
        assert database.window(uuid)["change_id"] == changes[won.index(True)]


@pytest.mark.timeout(300)
def test_windows_of_different_servers_do_not_block_each_other(
    on_mariadb: databases.Database,
) -> None:
    """A group of servers is quiesced at once: nobody is a deadlock's victim."""
    database = on_mariadb
    database.clear()
    before = counter(database, "Innodb_deadlocks")
    for _ in range(10):
        uuids = sorted(database.add_instance() for _ in range(8))
        windows = [rows.window(database.context(), uuid) for uuid in uuids]
        assert all(
            race(
                *(
                    lambda window=window: window.create("compute1", ["active"], [None])
                    for window in windows
                )
            )
        )
    assert counter(database, "Innodb_deadlocks") == before


@contextlib.contextmanager
def rival(database: databases.Database, window: Any) -> Iterator[Any]:
    """A transaction that holds the window, and is heavy, so that others are victims."""
    table = models.quiesce_windows
    copies = [rows.copy(None, rows.new_id()).row() for _ in range(50)]
    with database.engine.connect() as connection:
        options = schema.options(connection)
        connection.execute(
            sa.insert(models.pmem_copies),
            [{**copy, "created_at": db._now()} for copy in copies],
            execution_options=options,
        )
        connection.execute(
            sa.update(table)
            .where(table.c.instance_uuid == window.instance_uuid)
            .values(reason="rival"),
            execution_options=options,
        )
        yield connection


def wait_for_a_lock_wait(database: databases.Database) -> None:
    statement = sa.text(
        "SELECT COUNT(*) FROM information_schema.innodb_trx"
        " WHERE trx_state = 'LOCK WAIT'"
    )
    end = time.monotonic() + 60
    while not database.execute(statement).scalar():
        assert time.monotonic() < end
        time.sleep(0.2)  # InnoDB shows the same again to who asks within 0.1 s


def lock(connection: Any, uuid: str) -> None:
    where = databases.INSTANCES.c.uuid == uuid
    connection.execute(
        sa.select(databases.INSTANCES.c.uuid).where(where).with_for_update()
    )


@pytest.mark.timeout(120)
def test_the_victim_of_a_deadlock_tries_again(on_mariadb: databases.Database) -> None:
    database = on_mariadb
    database.clear()
    window = rows.stored(database.context(), database.add_instance())
    window.status = QuiesceStatus.QUIESCED
    before = counter(database, "Innodb_deadlocks")
    with (
        concurrent.futures.ThreadPoolExecutor(1) as pool,
        rival(database, window) as connection,
    ):
        saved = pool.submit(window.save, rows.new_id(), "compute1")
        wait_for_a_lock_wait(database)  # for the window; it has the server
        lock(connection, window.instance_uuid)  # the other way round
        connection.commit()
        saved.result(30)
    assert counter(database, "Innodb_deadlocks") == before + 1
    stored = database.window(window.instance_uuid)
    assert stored["status"] == "quiesced"
    assert stored["reason"] == window.reason == "rival"


@pytest.mark.timeout(120)
def test_a_victim_in_another_transaction_ends_that(
    on_mariadb: databases.Database,
) -> None:
    """Tried again in there, it would lose what was done before it."""
    database = on_mariadb
    database.clear()
    context = database.context()
    window = rows.stored(context, database.add_instance())
    window.status = QuiesceStatus.QUIESCED
    first = database.add_instance()

    @main_api.pick_context_manager_writer
    def both(context: Any) -> None:
        main_api.instance_update(context, first, {"display_name": "done"})
        window.save(rows.new_id(), "compute1")

    with (
        concurrent.futures.ThreadPoolExecutor(1) as pool,
        rival(database, window) as connection,
    ):
        saved = pool.submit(both, context)
        wait_for_a_lock_wait(database)
        lock(connection, window.instance_uuid)
        connection.commit()
        with pytest.raises(db_exc.DBDeadlock):
            saved.result(30)
    assert database.instance(first)["display_name"] is None
    assert database.window(window.instance_uuid)["status"] == "quiescing"


@pytest.mark.parametrize(
    "error", [db_exc.DBDeadlock, db_exc.DBConnectionError, db_exc.DBConsistencyError]
)
def test_a_transaction_that_failed_in_passing_is_repeated(
    database: databases.Database, monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    window = rows.stored(database.context(), database.add_instance())
    execute = db._execute
    errors = [error(), error()]

    def failing(context: Any, statement: Any) -> Any:
        result = execute(context, statement)
        if errors:
            raise errors.pop()
        return result

    monkeypatch.setattr(db, "_execute", failing)
    window.status = QuiesceStatus.QUIESCED
    window.save(rows.new_id(), "compute1")
    assert not errors
    assert database.window(window.instance_uuid)["status"] == "quiesced"


@pytest.mark.parametrize("fail", [False, True])
def test_one_transaction_with_what_nova_does(
    database: databases.Database, fail: bool
) -> None:
    """The tables of both are written, or neither."""
    uuid = database.add_instance()
    stored = rows.stored(database.context(), database.add_instance())

    @main_api.pick_context_manager_writer
    def together(context: Any) -> None:
        values = {"display_name": "both", "expected_task_state": [None]}
        main_api.instance_update(context, uuid, values)
        rows.stored(context, uuid)
        stored.status = QuiesceStatus.QUIESCED
        with stored.obj_alternate_context(context):
            stored.save(rows.new_id(), "compute1")
        (found,) = QuiesceWindowList.get_by_instance_uuids(context, [uuid])
        assert found.status is QuiesceStatus.QUIESCING
        with stored.obj_alternate_context(context):
            stored.destroy()
        if fail:
            raise exception.Invalid()

    if fail:
        with pytest.raises(exception.Invalid):
            together(database.context())
        assert database.instance(uuid)["display_name"] is None
        assert database.window(uuid) is None
        assert database.window(stored.instance_uuid)["status"] == "quiescing"
    else:
        together(database.context())
        assert database.instance(uuid)["display_name"] == "both"
        assert database.window(uuid) is not None
        assert database.window(stored.instance_uuid) is None


def test_a_window_that_exists_does_not_end_the_transaction_around(
    database: databases.Database,
) -> None:
    uuid = database.add_instance()
    rows.stored(database.context(), uuid)

    @main_api.pick_context_manager_writer
    def around(context: Any) -> None:
        main_api.instance_update(context, uuid, {"display_name": "kept"})
        with pytest.raises(ext_exception.QuiesceWindowExists):
            rows.stored(context, uuid)

    around(database.context())
    assert database.instance(uuid)["display_name"] == "kept"


@pytest.mark.parametrize("status", list(QuiesceStatus))
def test_a_window_excludes_a_task(
    database: databases.Database, status: QuiesceStatus
) -> None:
    uuid = database.add_instance()
    rows.stored(database.context(), uuid, status=status)
    if status in VISIBLE:
        with pytest.raises(exception.InstanceInvalidState, match=status.value):
            stop(read(database, uuid))
        assert database.instance(uuid)["task_state"] is None
    else:
        stop(read(database, uuid))
        assert database.instance(uuid)["task_state"] == "powering-off"


def test_a_task_that_is_refused_leaves_the_server_as_it_was(
    database: databases.Database,
) -> None:
    uuid = database.add_instance(task_state="rebooting")
    with pytest.raises(exception.UnexpectedTaskStateError):
        stop(read(database, uuid))
    assert database.instance(uuid)["task_state"] == "rebooting"
