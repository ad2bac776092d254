# SPDX-License-Identifier: Apache-2.0

import os
import pathlib
import uuid

import pytest

from cinder_ext.backup import journal, watchdog
from cinder_ext.objects import operation


@pytest.fixture
def kept(tmp_path: pathlib.Path) -> journal.Journal:
    return journal.Journal(tmp_path)


def running(
    kept: journal.Journal, path: pathlib.Path, active_at: float, action: str = "create"
) -> operation.Operation:
    op = operation.Operation(str(uuid.uuid4()), action, str(uuid.uuid4()), 0.0)
    kept.begin(op)
    os.utime(path / f"{op.backup_id}.{action}.{op.id}.json", (active_at, active_at))
    return op


def test_each_stalled_create_is_found_once_per_stall_time(
    kept: journal.Journal, tmp_path: pathlib.Path
) -> None:
    op = running(kept, tmp_path, 1000.0)
    watch = watchdog.Watchdog(kept, 600)
    found = {now: list(watch.stalled(float(now))) for now in range(1000, 3000, 60)}
    assert {
        now: idle for now, ((_op, idle),) in ((n, f) for n, f in found.items() if f)
    } == {
        1600: 600.0,
        2200: 1200.0,
        2800: 1800.0,
    }
    assert found[1600][0][0] == op


def test_activity_begins_the_time_anew(
    kept: journal.Journal, tmp_path: pathlib.Path
) -> None:
    op = running(kept, tmp_path, 1000.0)
    watch = watchdog.Watchdog(kept, 600)
    assert list(watch.stalled(1700.0))
    os.utime(next(tmp_path.glob("*.json")), (1800.0, 1800.0))
    assert not list(watch.stalled(1900.0))
    assert [idle for _op, idle in watch.stalled(2400.0)] == [600.0]
    assert op.id in watch._reported


def test_other_actions_are_not_watched(
    kept: journal.Journal, tmp_path: pathlib.Path
) -> None:
    running(kept, tmp_path, 0.0, "restore")
    assert not list(watchdog.Watchdog(kept, 600).stalled(10000.0))


def test_0_turns_it_off(kept: journal.Journal, tmp_path: pathlib.Path) -> None:
    running(kept, tmp_path, 0.0)
    assert not list(watchdog.Watchdog(kept, 0).stalled(10000.0))


def test_what_has_ended_is_forgotten(
    kept: journal.Journal, tmp_path: pathlib.Path
) -> None:
    op = running(kept, tmp_path, 0.0)
    watch = watchdog.Watchdog(kept, 600)
    assert list(watch.stalled(700.0))
    kept.forget(op)
    assert not list(watch.stalled(1400.0))
    assert watch._reported == {}
