# SPDX-License-Identifier: Apache-2.0
"""A cell without the extension's database, tables or rights, told from other errors."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from oslo_db import exception as db_exc

from nova_ext import exception
from nova_ext.db import api as db
from nova_ext.db import migration, models, schema
from nova_ext.objects.pmem_copy import PmemCopy, PmemCopyList
from nova_ext.objects.quiesce_window import QuiesceWindow, QuiesceWindowList
from nova_ext.objects.state import ExtensionDatabase
from tests.unit.db import databases, rows, servers

#: Everything that reads or writes, for a context and a server.
CALLS: dict[str, Callable[[Any, str], Any]] = {
    "check": lambda context, uuid: ExtensionDatabase.check(context),
    "window": QuiesceWindow.get_by_instance_uuid,
    "windows": lambda context, uuid: QuiesceWindowList.get_by_host(context, "compute1"),
    "page": lambda context, uuid: QuiesceWindowList.get_by_instance_uuids(
        context, [uuid]
    ),
    "create": rows.stored,
    "save": lambda context, uuid: rows.window(context, uuid).save(rows.new_id()),
    "destroy": lambda context, uuid: rows.window(context, uuid).destroy(),
    "destroy by id": QuiesceWindow.destroy_by_instance_uuid,
    "of deleted": lambda context, uuid: QuiesceWindowList.destroy_of_deleted(
        context, "compute1"
    ),
    "copy": PmemCopy.get_by_instance_uuid,
    "copies": lambda context, uuid: PmemCopyList.get_by_host(context, "compute1"),
    "order": rows.ordered,
    "save copy": lambda context, uuid: rows.copy(context, uuid).save(rows.new_id()),
    "destroy copy": lambda context, uuid: rows.copy(context, uuid).destroy(),
    "destroy copy by id": PmemCopy.destroy_by_instance_uuid,
    "copies of deleted": lambda context, uuid: PmemCopyList.destroy_of_deleted(
        context, "compute1"
    ),
}


def assert_all_tell(database: databases.Database, kind: Any, *words: str) -> None:
    uuid = database.add_instance()
    for name, call in CALLS.items():
        with pytest.raises(exception.StateDatabaseMissing) as caught:
            call(database.context(), uuid)
        assert type(caught.value) is kind, name
        for word in words:
            assert word in caught.value.format_message()


def test_no_database(bare: databases.Database) -> None:
    name = schema.database_of(bare.engine)
    assert_all_tell(bare, exception.StateDatabaseMissing, name, "db sync")


def test_no_tables(bare: databases.Database) -> None:
    migration.create(bare.engine)
    assert_all_tell(bare, exception.StateDatabaseMissing, "db sync")


def test_an_older_version(
    database: databases.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ExtensionDatabase.check(database.context())
    with monkeypatch.context() as patched:
        head = migration.head(migration.MAIN)
        patched.setattr(migration, "older", lambda kind: frozenset([head]))
        with pytest.raises(exception.StateDatabaseMissing):
            ExtensionDatabase.check(database.context())


@pytest.mark.parametrize("name", ["page", "create", "save"])
def test_tables_of_an_earlier_release(older: databases.Database, name: str) -> None:
    """Each of these names a column that is not there yet."""
    uuid = older.add_instance()
    with pytest.raises(exception.StateDatabaseMissing, match="db sync"):
        CALLS[name](older.context(), uuid)


@pytest.fixture(params=["mariadb_cell", "postgresql_cell"])
def older(request: pytest.FixtureRequest) -> databases.Database:
    cell: databases.Database = request.getfixturevalue(request.param)
    table = f"{schema.name_of(cell.engine)}.quiesce_windows"
    cell.execute(sa.text(f"ALTER TABLE {table} DROP COLUMN reason"))
    return cell


def test_a_newer_version_is_no_error(database: databases.Database) -> None:
    """The database is upgraded before the services are."""
    version = sa.update(models.version)
    database.execute(version.values(version_num="later"))
    try:
        ExtensionDatabase.check(database.context())
    finally:
        database.execute(version.values(version_num=migration.head(migration.MAIN)))


def test_check_changes_nothing(database: databases.Database) -> None:
    uuid = database.add_instance()
    rows.stored(database.context(), uuid)
    rows.ordered(database.context(), uuid)
    before = database.window(uuid), database.copy(uuid)
    ExtensionDatabase.check(database.context())
    assert (database.window(uuid), database.copy(uuid)) == before


@pytest.fixture
def mariadb_cell(mariadb: servers.Server, new_name: Any) -> databases.Database:
    return _cell(mariadb, new_name())


@pytest.fixture
def postgresql_cell(postgresql: servers.Server, new_name: Any) -> databases.Database:
    return _cell(postgresql, new_name())


def _cell(server: servers.Server, name: str) -> databases.Database:
    server.run(f"CREATE DATABASE {name}")
    made = databases.make(server.url(name), bare=True)
    migration.create(made.engine)
    migration.upgrade(made.engine, migration.MAIN)
    return made


def _user_of_mariadb(server: servers.Server, name: str) -> databases.Database:
    """A cell as an account sees it that has its database and not the extension's."""
    server.run(
        f"CREATE USER {name}@localhost",
        f"GRANT ALL ON {name}.* TO {name}@localhost",
    )
    return databases.connect(server.url(name, user=name))


def _user_of_postgresql(server: servers.Server, name: str) -> databases.Database:
    """A cell as an account sees it that has its tables and not the extension's."""
    server.run(
        f"CREATE ROLE {name} LOGIN",
        f"GRANT ALL ON instances, instances_id_seq TO {name}",
        database=name,
    )
    return databases.connect(server.url(name, user=name))


def test_no_right_to_the_database_on_mariadb(
    mariadb_cell: databases.Database, mariadb: servers.Server
) -> None:
    name = schema.database_of(mariadb_cell.engine)
    poor = _user_of_mariadb(mariadb, name)
    assert_all_tell(
        poor, exception.StateDatabaseDenied, f"{name}_nova_ext", "grant", "db sync"
    )


def test_no_right_to_write_on_mariadb(
    mariadb_cell: databases.Database, mariadb: servers.Server
) -> None:
    name = schema.database_of(mariadb_cell.engine)
    poor = _user_of_mariadb(mariadb, name)
    mariadb.run(f"GRANT SELECT ON {name}_nova_ext.* TO {name}@localhost")
    _assert_may_only_read(poor)
    mariadb.run(f"GRANT ALL ON {name}_nova_ext.* TO {name}@localhost")
    ExtensionDatabase.check(databases.connect(mariadb.url(name, user=name)).context())


def test_no_right_to_the_schema_on_postgresql(
    postgresql_cell: databases.Database, postgresql: servers.Server
) -> None:
    name = schema.database_of(postgresql_cell.engine)
    poor = _user_of_postgresql(postgresql, name)
    assert_all_tell(poor, exception.StateDatabaseDenied, "nova_ext", "grant", "db sync")


def test_no_right_to_write_on_postgresql(
    postgresql_cell: databases.Database, postgresql: servers.Server
) -> None:
    name = schema.database_of(postgresql_cell.engine)
    poor = _user_of_postgresql(postgresql, name)
    postgresql.run(
        f"GRANT USAGE ON SCHEMA nova_ext TO {name}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA nova_ext TO {name}",
        database=name,
    )
    _assert_may_only_read(poor)
    postgresql.run(
        f"GRANT ALL ON ALL TABLES IN SCHEMA nova_ext TO {name}", database=name
    )
    ExtensionDatabase.check(poor.context())


def _assert_may_only_read(poor: databases.Database) -> None:
    uuid = poor.add_instance()
    for name, call in CALLS.items():
        if name in ("windows", "page", "copies"):
            assert not call(poor.context(), uuid)
        elif name in ("window", "copy"):
            with pytest.raises(exception.exception.NotFound):
                call(poor.context(), uuid)
        elif name == "excluded":
            pass  # MariaDB lets an account lock what it may not write
        elif "of deleted" in name:
            assert call(poor.context(), uuid) == 0  # there was nothing to write
        else:
            with pytest.raises(exception.StateDatabaseDenied):
                call(poor.context(), uuid)


def test_other_errors_stay_what_they_are(database: databases.Database) -> None:
    uuid = database.add_instance()
    window = rows.window(database.context(), uuid)
    values = {**window.row(), "request_id": None}
    with pytest.raises(db_exc.DBError):
        db.quiesce_window_create(
            database.context(), values, "compute1", ["active"], [None]
        )
    window.create("compute1", ["active"], [None])
    with pytest.raises(db_exc.DBError) as caught:
        db.quiesce_window_update(
            database.context(), uuid, window.change_id, {"status": None}
        )
    assert not isinstance(caught.value, exception.StateDatabaseMissing)


def test_the_cell_itself_is_missing(mariadb: servers.Server) -> None:
    """It is not the extension's database that the remedy is about."""
    nowhere = databases.connect(mariadb.url("nowhere"))
    with pytest.raises(db_exc.DBNonExistentDatabase):
        ExtensionDatabase.check(nowhere.context())


def test_a_table_of_nova_is_missing(bare: databases.Database) -> None:
    migration.create(bare.engine)
    migration.upgrade(bare.engine, migration.MAIN)
    bare.execute(sa.text("DROP TABLE instances"))
    with pytest.raises((db_exc.DBError, sa.exc.DBAPIError)):
        rows.stored(bare.context(), rows.new_id())
