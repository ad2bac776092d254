# SPDX-License-Identifier: Apache-2.0
"""nova-ext-status: what it finds, and how bad that is."""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest
import sqlalchemy as sa
from nova import objects
from nova.db.main import models as main_models

from nova_ext.cmd import common, manage, status
from nova_ext.db import migration
from nova_ext.objects import capability
from tests.unit.db import databases, rows

Code = status.Code


@pytest.fixture
def cell(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The only cell of the cloud, in order."""
    objects.register_all()
    database = databases.make("sqlite://")
    api = databases.make("sqlite://", bare=True)
    places = [
        common.Place("cell one", migration.MAIN, database.context()),
        common.Place("the API database", migration.API, api.context()),
    ]
    assert manage.sync(places) == 0
    monkeypatch.setattr(common, "cells", lambda: places[:1])
    monkeypatch.setattr(common, "api_database", lambda: places[1])
    return database


def add_host(
    database: databases.Database,
    host: str,
    version: int | None,
    guarded: bool | None = None,
) -> None:
    """A compute node that publishes this version of the extension."""
    table: Any = main_models.ComputeNode.__table__
    resources: dict[str, Any] = {"stats": {}}
    if version is not None:
        capability.publish(resources, guarded=guarded)
        resources["stats"][capability.STATS_KEY] = str(version)
    database.execute(
        sa.insert(table).values(
            uuid=rows.new_id(),
            host=host,
            hypervisor_hostname=host,
            stats=json.dumps(resources["stats"]),
            deleted=0,
            mapped=1,
            **{
                column.name: "x" if isinstance(column.type, sa.String | sa.Text) else 1
                for column in table.c
                if not column.nullable and column.name not in ("id", "created_at")
            },
        )
    )


def results() -> list[tuple[Any, str | None]]:
    commands = status.UpgradeCommands()
    found = [check(commands) for _, check in commands._upgrade_checks]
    return [(result.code, result.details) for result in found]


def test_in_order(cell: databases.Database) -> None:
    add_host(cell, "compute1", capability.VERSION, guarded=True)
    rows.stored(cell.context(), cell.add_instance())
    assert results() == [(Code.SUCCESS, None)] * 4


def test_no_database(cell: databases.Database) -> None:
    cell.drop()
    databases_, _, _, kept = results()
    assert databases_[0] is Code.FAILURE
    assert "cell one" in databases_[1]
    assert "nova-ext-manage db sync" in databases_[1]
    assert kept[0] is Code.FAILURE  # it cannot be told


def test_not_the_newest(
    cell: databases.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = migration.head(migration.MAIN)
    monkeypatch.setattr(migration, "older", lambda kind: frozenset([head]))
    code, details = results()[0]
    assert code is Code.FAILURE
    assert f"has version {head}, not the newest" in (details or "")


def test_hosts_that_lag(cell: databases.Database) -> None:
    add_host(cell, "compute1", capability.VERSION)
    add_host(cell, "compute2", None)
    add_host(cell, "compute3", capability.VERSION - 1)
    code, details = results()[1]
    assert code is Code.WARNING
    assert details == (
        "cell one has hosts without the extension: compute2; hosts below version "
        f"{capability.VERSION}: compute3 ({capability.VERSION - 1})"
    )


def test_many_hosts_are_not_all_listed(cell: databases.Database) -> None:
    for number in range(13):
        add_host(cell, f"compute{number:02}", None)
    assert (results()[1][1] or "").endswith("compute09 and 3 more")


def test_hosts_without_a_guard(cell: databases.Database) -> None:
    add_host(cell, "compute1", capability.VERSION, guarded=True)
    add_host(cell, "compute2", capability.VERSION, guarded=False)
    add_host(cell, "compute3", None)
    add_host(cell, "compute4", capability.VERSION)  # it freezes no guests
    code, details = results()[2]
    assert code is Code.WARNING
    assert details == (
        "cell one has hosts that keep no deadline while nova-compute is down: "
        "compute2: run nova-ext-guard there"
    )


def test_rows_of_servers_that_are_gone(cell: databases.Database) -> None:
    uuid = cell.add_instance()
    rows.stored(cell.context(), uuid)
    rows.ordered(cell.context(), uuid)
    cell.change_instance(uuid, deleted=1)
    code, details = results()[3]
    assert code is Code.WARNING
    assert details == "cell one keeps 2 rows of them: run nova-ext-manage db archive"


def test_one_cell_that_fails_does_not_hide_the_others(
    cell: databases.Database, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = databases.connect(f"sqlite:///{tmp_path}/no/such/file")
    lost = common.Place("cell two", migration.MAIN, gone.context())
    add_host(cell, "compute1", None)
    one = common.cells()
    monkeypatch.setattr(common, "cells", lambda: [lost, *one])
    code, details = results()[1]
    assert code is Code.FAILURE
    assert "cell two: " in (details or "")
    assert "cell one has hosts without" in (details or "")


@pytest.mark.timeout(300)
def test_the_program(tmp_path: pathlib.Path) -> None:
    config = tmp_path / "nova.conf"
    config.write_text("[api_database]\nconnection = sqlite:///no/such/file\n")
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "nova_ext.cmd.status"),
            *("--config-file", str(config), "upgrade", "check", "--json"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OS_NOVA_DISABLE_EVENTLET_PATCHING": "true"},
    )
    assert done.returncode == Code.FAILURE, done.stderr
    checks = json.loads(done.stdout)["checks"]
    assert len(checks) == 4
    for check in checks:
        assert check["result"] == Code.FAILURE
        assert "[api_database] connection" in check["details"]
