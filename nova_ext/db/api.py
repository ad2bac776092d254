# SPDX-License-Identifier: Apache-2.0
"""Owns what is read from and written to the tables of the extension.

The functions follow nova's: the context names the cell, and inside a transaction that
is under way on it they take part in that one. All use the writer's engine, never a
replica.

The row of the server in ``instances`` is locked first, then the own row, in this order
everywhere. Each change carries the id of its writer and names the change that it has
seen; who finds the own id there has been answered "no" to what was done: success.
"""

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any, ParamSpec, TypeVar

import sqlalchemy as sa
from nova import exception
from nova.compute import task_states
from nova.db.main import api as main_api
from nova.db.main import models as main_models
from oslo_db import api as oslo_db_api
from oslo_db import exception as db_exc
from oslo_utils import timeutils

from nova_ext import exception as ext_exception
from nova_ext.db import errors, migration, models, schema

P = ParamSpec("P")
R = TypeVar("R")

Row = dict[str, Any]

_INSTANCES: Any = main_models.Instance.__table__
_WINDOWS = models.quiesce_windows
_COPIES = models.pmem_copies

_DELETING = (task_states.DELETING, task_states.SOFT_DELETING)

#: A deadlock's victim, and MariaDB's "record has changed since last read"; besides, a
#: connection that was lost: to do the same change twice is harmless.
_retry = oslo_db_api.wrap_db_retry(
    retry_interval=0.1,
    max_retries=5,
    retry_on_deadlock=True,
    retry_on_disconnect=True,
    exception_checker=lambda exc: isinstance(exc, db_exc.DBConsistencyError),
)


def _in_transaction(context: Any) -> bool:
    """Whether a transaction of this thread is under way on ``context``."""
    try:
        return context.session is not None
    except (db_exc.NoEngineContextEstablished, db_exc.ContextNotRequestedError):
        return False


def _retried(function: Callable[P, R]) -> Callable[P, R]:
    """Repeat a transaction that lost against another one."""
    retrying = _retry(function)

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        # Inside somebody else's transaction a retry would lose what was done before:
        # it is for whoever has begun it.
        called = function if _in_transaction(args[0]) else retrying
        return called(*args, **kwargs)

    return wrapper


def _writer(function: Callable[P, R]) -> Callable[P, R]:
    return _retried(main_api.pick_context_manager_writer(errors.translated(function)))


def _reader(function: Callable[P, R]) -> Callable[P, R]:
    return _retried(main_api.pick_context_manager_reader(errors.translated(function)))


# Quiesce windows.


@_reader
def quiesce_window_get(context: Any, instance_uuid: str) -> Row:
    """The window of a server that is not deleted.

    :raises: nova_ext.exception.QuiesceWindowNotFound
    """
    found = _get_all(context, _WINDOWS, _WINDOWS.c.instance_uuid == instance_uuid)
    if not found:
        raise ext_exception.QuiesceWindowNotFound(instance_uuid=instance_uuid)
    return found[0]


@_reader
def quiesce_window_get_all_by_host(context: Any, host: str) -> list[Row]:
    """The windows of the servers of a host that are not deleted."""
    return _get_all(context, _WINDOWS, _INSTANCES.c.host == host)


@_reader
def quiesce_window_get_all_by_instances(
    context: Any, instance_uuids: Collection[str]
) -> list[Row]:
    """The windows of those of the servers that have one and are not deleted."""
    if not instance_uuids:
        return []
    return _get_all(context, _WINDOWS, _WINDOWS.c.instance_uuid.in_(instance_uuids))


@_writer
def quiesce_window_create(
    context: Any,
    values: Row,
    host: str,
    expected_vm_states: Sequence[str | None],
    expected_task_states: Sequence[str | None],
) -> Row:
    """Insert a window, if the server is on ``host`` and in one of these states.

    A broken window is replaced.

    :param values: all columns but ``created_at`` and ``updated_at``
    :returns: the row
    :raises: nova.exception.InstanceNotFound or InstanceUpdateConflict (and its
        subclasses, as nova raises them), nova_ext.exception.QuiesceWindowExists
    """
    uuid = values["instance_uuid"]
    instance = _lock_instance(context, uuid, host)
    done = _check_states(
        context,
        _WINDOWS,
        instance,
        values["change_id"],
        vm_state=expected_vm_states,
        task_state=expected_task_states,
    )
    if done:
        return done
    row = _stamped(values)
    current = _insert(context, _WINDOWS, row)
    if current is None:
        return row
    if current["change_id"] == values["change_id"]:
        return current
    if current["status"] != "broken":
        raise ext_exception.QuiesceWindowExists(
            instance_uuid=uuid, status=current["status"]
        )
    _update(context, _WINDOWS, uuid, row)
    return row


@_writer
def quiesce_window_update(
    context: Any,
    instance_uuid: str,
    seen: str,
    values: Row,
    host: str | None = None,
    expected_task_states: Sequence[str | None] | None = None,
) -> Row:
    """Change a window that is as it was seen.

    :param seen: the row's ``change_id``
    :param values: the columns to change, the new ``change_id`` among them
    :param host: where the server has to be, and not being deleted; None if that does
        not matter
    :returns: the row
    :raises: nova_ext.exception.QuiesceWindowChanged, nova.exception.InstanceNotFound or
        UnexpectedTaskStateError
    """
    if host is not None or expected_task_states is not None:
        instance = _lock_instance(context, instance_uuid, host)
        if host is not None and instance["task_state"] in _DELETING:
            raise exception.InstanceNotFound(instance_id=instance_uuid)
        if expected_task_states is not None:
            done = _check_states(
                context,
                _WINDOWS,
                instance,
                values["change_id"],
                task_state=expected_task_states,
            )
            if done:
                return done
    row = _compare_and_swap(context, _WINDOWS, instance_uuid, seen, values)
    if row is None:
        raise ext_exception.QuiesceWindowChanged(instance_uuid=instance_uuid)
    return row


@_writer
def quiesce_window_delete(
    context: Any, instance_uuid: str, seen: Collection[str]
) -> None:
    """Delete a window that is as it was seen; one that is gone already is no error.

    :param seen: the ``change_id`` values that the row may have
    :raises: nova_ext.exception.QuiesceWindowChanged
    """
    if not _delete(context, _WINDOWS, instance_uuid, seen):
        raise ext_exception.QuiesceWindowChanged(instance_uuid=instance_uuid)


@_writer
def quiesce_window_delete_by_instance(context: Any, instance_uuid: str) -> None:
    """Delete whatever window a server has."""
    _delete(context, _WINDOWS, instance_uuid, None)


@_writer
def quiesce_window_delete_of_deleted(context: Any, host: str) -> int:
    """Delete the windows of servers that were deleted on ``host``; how many."""
    return _delete_of_deleted(context, _WINDOWS, host)


# Copies of persistent memory.


@_reader
def pmem_copy_get(context: Any, instance_uuid: str) -> Row:
    """The copy of a server that is not deleted.

    :raises: nova_ext.exception.PmemCopyNotFound
    """
    found = _get_all(context, _COPIES, _COPIES.c.instance_uuid == instance_uuid)
    if not found:
        raise ext_exception.PmemCopyNotFound(instance_uuid=instance_uuid)
    return found[0]


@_reader
def pmem_copy_get_all_by_host(context: Any, host: str) -> list[Row]:
    """The copies of the servers of a host that are not deleted."""
    return _get_all(context, _COPIES, _INSTANCES.c.host == host)


@_writer
def pmem_copy_order(
    context: Any, values: Row, expected_task_states: Sequence[str | None]
) -> Row:
    """Insert the order of a copy, or replace an earlier one.

    :param values: all columns but ``created_at`` and ``updated_at``
    :returns: the row
    :raises: nova.exception.InstanceNotFound or UnexpectedTaskStateError
    """
    uuid = values["instance_uuid"]
    instance = _lock_instance(context, uuid, None)
    done = _check_states(
        context,
        _COPIES,
        instance,
        values["change_id"],
        task_state=expected_task_states,
    )
    if done:
        return done
    row = _stamped(values)
    current = _insert(context, _COPIES, row)
    if current is None:
        return row
    if current["change_id"] == values["change_id"]:
        return current
    _update(context, _COPIES, uuid, row)
    return row


@_writer
def pmem_copy_update(context: Any, instance_uuid: str, seen: str, values: Row) -> Row:
    """Change a copy that is as it was seen; as :func:`quiesce_window_update`.

    :raises: nova_ext.exception.PmemCopyChanged
    """
    row = _compare_and_swap(context, _COPIES, instance_uuid, seen, values)
    if row is None:
        raise ext_exception.PmemCopyChanged(instance_uuid=instance_uuid)
    return row


@_writer
def pmem_copy_delete(context: Any, instance_uuid: str, seen: Collection[str]) -> None:
    """Delete a copy that is as it was seen; one that is gone already is no error.

    :raises: nova_ext.exception.PmemCopyChanged
    """
    if not _delete(context, _COPIES, instance_uuid, seen):
        raise ext_exception.PmemCopyChanged(instance_uuid=instance_uuid)


@_writer
def pmem_copy_delete_by_instance(context: Any, instance_uuid: str) -> None:
    """Delete whatever copy a server has."""
    _delete(context, _COPIES, instance_uuid, None)


@_writer
def pmem_copy_delete_of_deleted(context: Any, host: str) -> int:
    """Delete the copies of servers that were deleted on ``host``; how many."""
    return _delete_of_deleted(context, _COPIES, host)


# Both.


@_writer
def check(context: Any) -> None:
    """Make sure that both tables are there and may be read and written.

    The statements name no row; rights are checked all the same.

    :raises: nova_ext.exception.StateDatabaseMissing
    """
    for table in (_WINDOWS, _COPIES):
        nothing = sa.select(table).where(sa.false())
        _execute(context, nothing)
        _execute(context, sa.insert(table).from_select(table.c.keys(), nothing))
        _execute(
            context, sa.update(table).where(sa.false()).values(status=table.c.status)
        )
        _execute(context, sa.delete(table).where(sa.false()))
    version = _execute(context, sa.select(models.version.c.version_num)).scalar()
    if version is None or version in migration.older(migration.MAIN):
        database = schema.database_of(context.session.get_bind())
        raise ext_exception.StateDatabaseMissing(database=database)


def _execute(context: Any, statement: Any) -> Any:
    session = context.session
    return session.execute(
        statement, execution_options=schema.options(session.get_bind())
    )


def _get_all(context: Any, table: sa.Table, where: Any) -> list[Row]:
    statement = (
        sa.select(table)
        .join(_INSTANCES, _INSTANCES.c.uuid == table.c.instance_uuid)
        .where(_INSTANCES.c.deleted == 0, where)
        .order_by(table.c.instance_uuid)
    )
    return [dict(row) for row in _execute(context, statement).mappings()]


def _lock_instance(context: Any, uuid: str, host: str | None) -> Row:
    """Lock the row of a server that is not deleted and, with ``host``, is there.

    :raises: nova.exception.InstanceNotFound
    """
    columns = ("uuid", "host", "vm_state", "task_state", "deleted")
    statement = (
        sa.select(*(_INSTANCES.c[name] for name in columns))
        .where(_INSTANCES.c.uuid == uuid)
        .with_for_update()
    )
    row = _execute(context, statement).mappings().first()
    if row is None or row["deleted"] or (host is not None and row["host"] != host):
        raise exception.InstanceNotFound(instance_id=uuid)
    return dict(row)


def _check_states(
    context: Any,
    table: sa.Table,
    instance: Row,
    change_id: str,
    **expected: Sequence[str | None],
) -> Row | None:
    """Refuse a change of a server in another state, as nova's ``instance_update`` does.

    The server may have gone on since the answer to this very change was lost: then it
    is the row, which says that nothing is left to do.
    """
    wrong = {name: list(states) for name, states in expected.items()}
    wrong = {n: states for n, states in wrong.items() if instance[n] not in states}
    if not wrong:
        return None
    current = _lock(context, table, instance["uuid"])
    if current is not None and current["change_id"] == change_id:
        return current
    actual = {name: instance[name] for name in wrong}
    kind = exception.InstanceUpdateConflict
    if "task_state" in actual:
        kind = exception.UnexpectedTaskStateError
        if actual["task_state"] == task_states.DELETING:
            kind = exception.UnexpectedDeletingTaskStateError
    raise kind(instance_uuid=instance["uuid"], expected=wrong, actual=actual)


def _lock(context: Any, table: sa.Table, uuid: str) -> Row | None:
    statement = sa.select(table).where(table.c.instance_uuid == uuid).with_for_update()
    row = _execute(context, statement).mappings().first()
    return None if row is None else dict(row)


def _now() -> Any:
    return timeutils.utcnow().replace(microsecond=0)


def _stamped(values: Row) -> Row:
    return {**values, "created_at": _now(), "updated_at": None}


def _insert(context: Any, table: sa.Table, row: Row) -> Row | None:
    """Insert a row; the one that the server has already, locked, if it has one.

    Inserted first, not looked up first: of two transactions that lock the same gap in
    the index of InnoDB and then insert into it, one is a deadlock's victim.
    """
    try:
        with context.session.begin_nested():
            _execute(context, sa.insert(table).values(row))
    except db_exc.DBDuplicateEntry:
        current = _lock(context, table, row["instance_uuid"])
        assert current is not None  # nobody deletes it while the instance is locked
        return current
    return None


def _update(context: Any, table: sa.Table, uuid: str, row: Row) -> None:
    where = table.c.instance_uuid == uuid
    _execute(context, sa.update(table).where(where).values(row))


def _compare_and_swap(
    context: Any, table: sa.Table, uuid: str, seen: str, values: Row
) -> Row | None:
    """Change a row that has the ``change_id`` ``seen``; None if it has another one."""
    where = (table.c.instance_uuid == uuid, table.c.change_id == seen)
    changed = {**values, "updated_at": _now()}
    _execute(context, sa.update(table).where(*where).values(changed))
    current = _lock(context, table, uuid)
    if current is None or current["change_id"] != values["change_id"]:
        return None
    return current


def _delete(
    context: Any, table: sa.Table, uuid: str, seen: Collection[str] | None
) -> bool:
    """Delete a row with one of these ``change_id``; False if it has another one."""
    statement = sa.delete(table).where(table.c.instance_uuid == uuid)
    if seen is not None:
        statement = statement.where(table.c.change_id.in_(seen))
    deleted = _execute(context, statement).rowcount
    return bool(deleted) or seen is None or _lock(context, table, uuid) is None


def _delete_of_deleted(context: Any, table: sa.Table, host: str) -> int:
    statement = (
        sa.select(table.c.instance_uuid)
        .join(_INSTANCES, _INSTANCES.c.uuid == table.c.instance_uuid)
        .where(_INSTANCES.c.deleted != 0, _INSTANCES.c.host == host)
    )
    return _delete_all(context, table, list(_execute(context, statement).scalars()))


# For those who look after the databases.


@_reader
def count_gone(context: Any) -> int:
    """How many rows there are whose server is deleted, or was never there."""
    return sum(len(_gone(context, table)) for table in (_WINDOWS, _COPIES))


@_writer
def delete_gone(context: Any) -> int:
    """Delete the rows whose server is deleted, or was never there; how many."""
    return sum(
        _delete_all(context, table, _gone(context, table))
        for table in (_WINDOWS, _COPIES)
    )


@_reader
def get_live(context: Any) -> list[str]:
    """What would be lost with the tables, for a person: frozen guests and copies."""
    windows = _get_all(context, _WINDOWS, _WINDOWS.c.status != "broken")
    resizing = _INSTANCES.c.task_state.like("resize%")
    copies = _get_all(context, _COPIES, sa.or_(_COPIES.c.status != "ordered", resizing))
    return [
        *(f"server {row['instance_uuid']} is {row['status']}" for row in windows),
        *(
            f"persistent memory of server {row['instance_uuid']} is {row['status']}"
            for row in copies
        ),
    ]


def _gone(context: Any, table: sa.Table) -> list[str]:
    statement = (
        sa.select(table.c.instance_uuid)
        .join(_INSTANCES, _INSTANCES.c.uuid == table.c.instance_uuid, isouter=True)
        .where(sa.or_(_INSTANCES.c.uuid.is_(None), _INSTANCES.c.deleted != 0))
    )
    return list(_execute(context, statement).scalars())


def _delete_all(context: Any, table: sa.Table, uuids: list[str]) -> int:
    if not uuids:
        return 0
    gone = sa.delete(table).where(table.c.instance_uuid.in_(uuids))
    return int(_execute(context, gone).rowcount)
