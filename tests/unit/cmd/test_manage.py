# SPDX-License-Identifier: Apache-2.0
"""nova-ext-manage: what it does for one database, and the whole program."""

import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest
import sqlalchemy as sa
from nova.db.api import models as api_models
from nova.objects import cell_mapping

from nova_ext.cmd import common, manage
from nova_ext.db import migration, models, schema
from tests.unit.db import databases, rows, servers


def place(database: databases.Database, **values: Any) -> common.Place:
    return common.Place("cell one", migration.MAIN, database.context(), **values)


def version_of(database: databases.Database) -> str | None:
    return migration.version(database.engine)


HEAD = migration.head(migration.MAIN)


def test_sync(bare: databases.Database, capsys: pytest.CaptureFixture[str]) -> None:
    assert manage.version([place(bare)]) == 0
    assert manage.sync([place(bare)]) == 0
    assert manage.sync([place(bare)]) == 0
    assert manage.version([place(bare)]) == 0
    made = "" if bare.engine.dialect.name == "sqlite" else "made, "
    assert capsys.readouterr().out.splitlines() == [
        "cell one: none; run nova-ext-manage db sync",
        f"cell one: {made}version {HEAD}",
        f"cell one: version {HEAD}",
        f"cell one: {HEAD}",
    ]
    assert version_of(bare) == HEAD


def test_version_that_is_not_the_newest(
    bare: databases.Database,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manage.sync([place(bare)])
    monkeypatch.setattr(migration, "older", lambda kind: frozenset([HEAD]))
    manage.version([place(bare)])
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"cell one: {HEAD}, not the newest; run nova-ext-manage db sync"
    )


def test_one_cell_that_fails_does_not_keep_the_others(
    bare: databases.Database,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gone = databases.connect(f"sqlite:///{tmp_path}/no/such/file")
    lost = common.Place("cell two", migration.MAIN, gone.context())
    assert manage.sync([lost, place(bare)]) == 1
    told = capsys.readouterr()
    assert version_of(bare) == HEAD
    assert told.out.startswith("cell one: ")
    (line,) = told.err.splitlines()
    assert line.startswith("cell two: ")
    assert "unable to open database file" in line


def test_archive(bare: databases.Database, capsys: pytest.CaptureFixture[str]) -> None:
    manage.sync([place(bare)])
    here, deleted, purged = (bare.add_instance() for _ in range(3))
    for uuid in (here, deleted, purged):
        rows.stored(bare.context(), uuid)
        rows.ordered(bare.context(), uuid)
    bare.change_instance(deleted, deleted=1)
    bare.execute(
        sa.delete(databases.INSTANCES).where(databases.INSTANCES.c.uuid == purged)
    )
    assert manage.archive([place(bare)]) == 0
    assert manage.archive([place(bare)]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "cell one: 4 rows removed",
        "cell one: 0 rows removed",
    ]
    assert bare.window(here) is not None
    assert bare.copy(here) is not None
    assert bare.window(deleted) is bare.window(purged) is None


def test_archive_leaves_out_the_api_database(
    bare: databases.Database, capsys: pytest.CaptureFixture[str]
) -> None:
    api = common.Place("the API database", migration.API, bare.context())
    assert manage.archive([api]) == 0
    assert capsys.readouterr().out == ""


LIVE = ["quiescing", "quiesced", "unquiescing", "released"]


@pytest.mark.parametrize("status", LIVE)
def test_purge_refuses_frozen_guests(
    bare: databases.Database, capsys: pytest.CaptureFixture[str], status: str
) -> None:
    manage.sync([place(bare)])
    uuid = bare.add_instance()
    rows.stored(bare.context(), uuid, status=status)
    assert manage.purge([place(bare)]) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[0] == f"cell one: server {uuid} is {status}"
    assert "--force" in told[-1]
    assert version_of(bare) == HEAD
    assert bare.window(uuid) is not None
    assert manage.purge([place(bare)], force=True) == 0
    assert version_of(bare) is None


@pytest.mark.parametrize(
    ("status", "task_state", "live"),
    [
        ("copying", "resize_migrating", True),
        ("copied", None, True),
        ("ordered", "resize_prep", True),
        ("ordered", None, False),
    ],
)
def test_purge_refuses_copies_under_way(
    bare: databases.Database, status: str, task_state: str | None, live: bool
) -> None:
    manage.sync([place(bare)])
    uuid = bare.add_instance()
    rows.ordered(bare.context(), uuid, status=status)
    bare.change_instance(uuid, task_state=task_state)
    assert manage.purge([place(bare)]) == int(live)
    assert version_of(bare) == (HEAD if live else None)


def test_purge_of_what_is_over(bare: databases.Database) -> None:
    manage.sync([place(bare)])
    broken, deleted = bare.add_instance(), bare.add_instance()
    rows.stored(bare.context(), broken, status="broken")
    rows.stored(bare.context(), deleted)
    bare.change_instance(deleted, deleted=1)
    assert manage.purge([place(bare)]) == 0
    assert manage.purge([place(bare)]) == 0
    assert version_of(bare) is None


def test_purge_of_no_cell_where_one_is_live(
    bare: databases.Database, tmp_path: pathlib.Path
) -> None:
    other = databases.make(f"sqlite:///{tmp_path}/two", bare=True)
    two = common.Place("cell two", migration.MAIN, other.context())
    manage.sync([two, place(bare)])
    rows.stored(bare.context(), bare.add_instance())
    assert manage.purge([two, place(bare)]) == 1
    assert version_of(other) == HEAD


def test_many_live_rows_are_not_all_listed(
    bare: databases.Database, capsys: pytest.CaptureFixture[str]
) -> None:
    manage.sync([place(bare)])
    for _ in range(25):
        rows.stored(bare.context(), bare.add_instance())
    manage.purge([place(bare)])
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 22
    assert told[20] == "cell one: and 5 more"


# An account without the right.


def administrator(server: servers.Server, lines: list[str], database: str) -> None:
    """Do what the command has told, and nothing else."""
    statements = [line.removeprefix("cell one: ").removesuffix(";") for line in lines]
    server.run(*statements, database=database)


def test_what_the_administrator_runs_on_mariadb(
    mariadb: servers.Server, new_name: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    name = new_name()
    mariadb.run(
        f"CREATE DATABASE {name}",
        f"CREATE USER {name}@localhost",
        f"GRANT ALL ON {name}.* TO {name}@localhost",
    )
    poor = databases.make(mariadb.url(name, user=name), bare=True)
    assert manage.sync([place(poor)]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines()[1:] == [
        f"cell one: CREATE DATABASE IF NOT EXISTS `{name}_nova_ext`;",
        f"cell one: GRANT ALL PRIVILEGES ON `{name}_nova_ext`.* TO "
        f"'{name}'@'localhost';",
    ]
    assert f"account {name}@localhost lacks rights" in told.err
    administrator(mariadb, told.err.splitlines()[1:], name)
    granted = databases.connect(mariadb.url(name, user=name))
    assert manage.sync([place(granted)]) == 0
    assert manage.purge([place(granted)]) == 0


def test_what_the_administrator_runs_on_postgresql(
    postgresql: servers.Server, new_name: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    name = new_name()
    postgresql.run(f"CREATE DATABASE {name}", f"CREATE ROLE {name} LOGIN")
    postgresql.run(f"GRANT ALL ON SCHEMA public TO {name}", database=name)
    poor = databases.make(postgresql.url(name, user=name), bare=True)
    assert manage.sync([place(poor)]) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[1:] == [
        'cell one: CREATE SCHEMA IF NOT EXISTS "nova_ext";',
        f'cell one: GRANT ALL ON SCHEMA "nova_ext" TO "{name}";',
    ]
    administrator(postgresql, told[1:], name)
    assert manage.sync([place(poor)]) == 0
    assert manage.purge([place(poor)]) == 1  # the schema is the administrator's
    told = capsys.readouterr().err.splitlines()
    assert told[1:] == ['cell one: DROP SCHEMA "nova_ext" CASCADE;']
    administrator(postgresql, told[1:], name)
    assert version_of(poor) is None


@pytest.mark.parametrize("engine", ["mariadb", "postgresql"])
def test_what_another_account_of_nova_needs(
    engine: str,
    request: pytest.FixtureRequest,
    new_name: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The mapping's account makes the tables; that of the conductors needs them too."""
    server: servers.Server = request.getfixturevalue(engine)
    name = new_name()
    server.run(f"CREATE DATABASE {name}")
    database = databases.make(server.url(name), bare=True)
    if engine == "mariadb":
        server.run(
            f"CREATE USER {name}@localhost",
            f"GRANT ALL ON {name}.* TO {name}@localhost",
        )
    else:
        server.run(f"CREATE ROLE {name} LOGIN")
    other = databases.connect(server.url(name, user=name))
    cell = place(database, others=(other.context(),))
    assert manage.sync([cell]) == 1
    told = capsys.readouterr()
    assert f"version {HEAD}" in told.out
    administrator(server, told.err.splitlines()[1:], name)
    fresh = databases.connect(server.url(name, user=name))
    assert manage.sync([place(database, others=(fresh.context(),))]) == 0


# The whole program.


def run(config: pathlib.Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "nova_ext.cmd.manage"),
            *("--config-file", str(config), *arguments),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OS_NOVA_DISABLE_EVENTLET_PATCHING": "true"},
    )


@pytest.fixture
def cloud(tmp_path: pathlib.Path) -> pathlib.Path:
    """Two cells and cell0 in the API database; the path of nova.conf."""
    api = sa.create_engine(f"sqlite:///{tmp_path}/api")
    api_models.CellMapping.__table__.create(api)
    uuids = [cell_mapping.CellMapping.CELL0_UUID, rows.new_id(), rows.new_id()]
    with api.begin() as connection:
        for number, uuid in enumerate(uuids):
            url = f"sqlite:///{tmp_path}/cell{number}"
            databases.make(url, bare=True)
            values = {
                "uuid": uuid,
                "name": f"cell{number}",
                "transport_url": "none:///",
                "database_connection": url,
                "disabled": False,
            }
            connection.execute(sa.insert(api_models.CellMapping.__table__), values)
    config = tmp_path / "nova.conf"
    config.write_text(
        f"""\
[DEFAULT]
config_source = nova_ext
[nova_ext]
driver = nova_ext
[api_database]
connection = sqlite:///{tmp_path}/api
[database]
connection = sqlite:///{tmp_path}/cell1
"""
    )
    return config


@pytest.mark.timeout(600)
def test_the_program(cloud: pathlib.Path) -> None:
    done = run(cloud, "db", "sync")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(": ")[2] for line in lines] == [
        f"version {HEAD}",
        f"version {HEAD}",
        f"version {migration.head(migration.API)}",
    ]
    assert lines[0].startswith("cell ")
    assert "(cell1)" in lines[0]
    assert "(cell2)" in lines[1]
    assert lines[2].startswith("the API database: ")
    cells = [
        databases.connect(f"sqlite:///{cloud.parent}/cell{number}")
        for number in range(3)
    ]
    assert not sa.inspect(cells[0].engine).has_table(models.VERSION_TABLE)
    assert version_of(cells[2]) == HEAD

    rows.stored(cells[1].context(), cells[1].add_instance())
    refused = run(cloud, "db", "purge")
    assert refused.returncode == 1
    assert "is quiescing" in refused.stderr
    forced = run(cloud, "db", "purge", "--local_cell", "--force")
    assert forced.returncode == 0, forced.stderr
    assert forced.stdout == "the local cell: removed\n"
    assert version_of(cells[1]) is None
    assert version_of(cells[2]) == HEAD


@pytest.mark.timeout(300)
def test_the_program_without_an_api_database(tmp_path: pathlib.Path) -> None:
    config = tmp_path / "nova.conf"
    config.write_text("[api_database]\nconnection = sqlite:///no/such/file\n")
    done = run(config, "db", "version")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "[api_database] connection" in line
    assert "--local_cell" in line


def test_names_in_statements_are_quoted() -> None:
    engine = sa.create_engine("mysql+pymysql://nova@host/nova-one")
    create, grant = schema.statements(engine, "nova@10.0.0.%", place=True)
    assert create == "CREATE DATABASE IF NOT EXISTS `nova-one_nova_ext`;"
    assert grant.endswith("`nova-one_nova_ext`.* TO 'nova'@'10.0.0.%';")
