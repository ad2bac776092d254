# SPDX-License-Identifier: Apache-2.0
"""The schema: made once, the same as the models, gone without a trace."""

from typing import Any

import pytest
import sqlalchemy as sa
from nova.db.main import api as main_api

from nova_ext.db import api as db
from nova_ext.db import migration, models, schema
from tests.unit.db import databases, rows, servers
from tests.unit.db.databases import INSTANCES


def tables(engine: Any) -> set[str]:
    if not migration.exists(engine):
        return set()
    return set(sa.inspect(engine).get_table_names(schema=schema.name_of(engine)))


def test_where_it_lies() -> None:
    mysql = sa.create_engine("mysql+pymysql://nova@host/nova_cell1?charset=utf8")
    mariadb = sa.create_engine("mariadb+pymysql://nova@host/nova_cell1")
    postgresql = sa.create_engine("postgresql+psycopg2://nova@host/nova_cell1")
    sqlite = sa.create_engine("sqlite://")
    assert schema.name_of(mysql) == "nova_cell1_nova_ext"
    assert schema.name_of(mariadb) == "nova_cell1_nova_ext"
    assert schema.name_of(postgresql) == "nova_ext"
    assert schema.name_of(sqlite) is None
    assert schema.options(mysql) == {
        "schema_translate_map": {"nova_ext": "nova_cell1_nova_ext"}
    }


def test_from_nothing_and_back(bare: databases.Database) -> None:
    engine = bare.engine
    before = tables(engine)
    assert migration.version(engine) is None
    for _ in range(2):  # the second time changes nothing
        migration.create(engine)
        migration.upgrade(engine, migration.MAIN)
        assert migration.version(engine) == migration.head(migration.MAIN)
        assert tables(engine) - before == {
            "quiesce_windows",
            "pmem_copies",
            "nova_ext_alembic_version",
        }
    for _ in range(2):
        migration.drop(engine, migration.MAIN)
        assert migration.version(engine) is None
        assert tables(engine) <= before
    if engine.dialect.name != "sqlite":
        assert not migration.exists(engine)
    assert sa.inspect(engine).get_table_names() == ["instances"]


def test_beside_the_api_database_there_is_no_table(bare: databases.Database) -> None:
    engine = bare.engine
    migration.create(engine)
    migration.upgrade(engine, migration.API)
    assert migration.version(engine) == migration.head(migration.API)
    assert tables(engine) - {"instances"} == {"nova_ext_alembic_version"}
    migration.drop(engine, migration.API)
    assert migration.version(engine) is None


def test_the_tables_are_those_of_the_models(database: databases.Database) -> None:
    inspector = sa.inspect(database.engine)
    dialect = database.engine.dialect
    for table in models.metadata.sorted_tables:
        name = schema.name_of(database.engine)
        found = {c["name"]: c for c in inspector.get_columns(table.name, schema=name)}
        assert list(found) == table.c.keys()
        for column in table.c:
            made = found[column.name]
            assert made["nullable"] is column.nullable
            assert _type(made["type"], dialect) == _type(column.type, dialect)
        key = inspector.get_pk_constraint(table.name, schema=name)
        assert key["constrained_columns"] == ["instance_uuid"]


def _type(value: Any, dialect: Any) -> str:
    text = str(value.compile(dialect=dialect)).replace("INTEGER(11)", "INTEGER")
    text = text.replace("TINYINT(1)", "BOOL")
    return text.replace("BIGINT(20)", "BIGINT").partition(" CHARACTER SET")[0]


@pytest.mark.parametrize("collation", ["utf8mb3_unicode_ci", "utf8mb4_bin"])
def test_server_ids_compare_like_those_of_nova(
    mariadb: servers.Server, collation: str
) -> None:
    """Else MariaDB refuses the join, or does it without an index."""
    name = f"nova_{collation}"
    mariadb.run(f"CREATE DATABASE {name}")
    made = databases.make(mariadb.url(name), bare=True)
    charset = collation.partition("_")[0]
    made.execute(
        sa.text(
            "ALTER TABLE instances MODIFY uuid VARCHAR(36)"
            f" CHARACTER SET {charset} COLLATE {collation} NOT NULL"
        )
    )
    migration.create(made.engine)
    migration.upgrade(made.engine, migration.MAIN)
    windows = models.quiesce_windows
    statement = (
        sa.select(windows.c.reason)
        .join_from(INSTANCES, windows, windows.c.instance_uuid == INSTANCES.c.uuid)
        .where(INSTANCES.c.host == "compute1", INSTANCES.c.deleted == 0)
    )
    plan = made.explain(statement)
    assert [row["key"] for row in plan][1:] == ["PRIMARY"]


def test_nothing_of_nova_knows_the_tables() -> None:
    for table in models.metadata.sorted_tables:
        assert not table.foreign_keys
        assert table.name not in databases.main_models.BASE.metadata.tables


def test_nova_archives_beside_it(on_mariadb: databases.Database) -> None:
    """It reflects each table of its database, and knows them all.

    Not on PostgreSQL: nova 34 cannot move instances there, because of the type of
    ``locked_by``.
    """
    database = on_mariadb
    database.clear()
    kept, gone = database.add_instance(), database.add_instance()
    for uuid in (kept, gone):
        rows.stored(database.context(), uuid)
    database.change_instance(gone, deleted=1)
    moved, uuids, *_ = main_api.archive_deleted_rows(database.context(), 100)
    assert moved == {"instances": 1}
    assert uuids == [gone]
    assert db.count_gone(database.context()) == 1
    assert db.delete_gone(database.context()) == 1
    assert database.window(kept) is not None
    main_api.purge_shadow_tables(database.context(), None)
