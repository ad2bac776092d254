# SPDX-License-Identifier: Apache-2.0

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from nova_ext.client.consistency import groups
from tests.unit.client.consistency import shop

ROOT = pathlib.Path(__file__).parents[4]
STAGES = [["db"], ["cache"]]


@pytest.fixture(scope="module")
def child():
    """The program that works, for all tests of this module."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.unit.client.consistency.child"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def order(child, cloud):
    """Return how work is ordered; the answer is the process that does it."""

    def order(what, **more):
        asked = {
            "what": what,
            "credentials": cloud.credentials,
            "stages": STAGES,
            "options": {},
            **more,
        }
        child.stdin.write(json.dumps(asked) + "\n")
        child.stdin.flush()
        return json.loads(child.stdout.readline())["pid"]

    return order


@pytest.fixture
def end(child):
    """Return how the ordered work ended."""
    return lambda: json.loads(child.stdout.readline())


@pytest.fixture
def group(cloud):
    """Two servers on volumes."""
    return [cloud.compute.add_on_volume(name) for name in ("db", "cache")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_step_undoes_all(cloud, group, conn, order, end, number):
    for step in range(1, 100):
        cloud.log.clear()
        order("create", signal=number, step=step)
        result = end()
        if result["error"] is None:
            break
        assert f"Interrupted by {number.name}." in result["error"], step
        assert "Nothing of it is left." in result["error"], step
        assert shop.thawed_in_reverse(cloud), (step, cloud.log)
        assert shop.undone(cloud), (step, shop.members(cloud))
    # The last step of all may be too late for the signal.
    assert step >= result["steps"] == 14
    assert [str(g.status) for g in groups.find_all(conn)] == ["available"]


def test_after_a_kill_at_any_step_nothing_unproved_is_available(
    cloud, group, conn, order, end
):
    for step in range(1, 100):
        order("create", signal=signal.SIGKILL, step=step)
        result = end()
        if result["code"] == 0:
            break
        assert result["code"] == -signal.SIGKILL
        statuses = [str(g.snapshot_status) for g in groups.find_all(conn)]
        available = ["available"] if step == 14 else []
        assert [one for one in statuses if one == "available"] == available
        with cloud.lock:
            cloud.volumes.snapshots.clear()
            for server in group:
                server.window = None
    assert step == 15


def test_after_a_kill_the_servers_thaw_at_their_deadline(
    cloud, group, order, end, conn
):
    order("create", signal=signal.SIGKILL, step=6, options={"timeout": 2})
    assert end()["code"] == -signal.SIGKILL
    assert sorted(cloud.compute.frozen()) == ["cache", "db"]
    for name in ("db", "cache"):
        cloud.wait_for("thaw by itself", name)
    assert cloud.compute.frozen() == []
    assert all(g.status != "available" for g in groups.find_all(conn))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_freeze_hangs_ends_it(cloud, group, order, end, number):
    group[1].freeze_takes = 1
    pid = order("create")
    cloud.wait_for("quiesce", "cache")
    os.kill(pid, number)
    assert number.name in end()["error"]
    assert shop.thawed_in_reverse(cloud)
    assert cloud.events("freeze") == [("freeze", "db"), ("freeze", "cache")]
    assert not cloud.events("snapshot")


def test_a_signal_while_a_snapshot_hangs_thaws_at_once(cloud, group, order, end):
    shop.volume(cloud, "db-vda").snapshot_takes = ("thaw", "db")
    pid = order("create")
    cloud.wait_for("snapshot", "db-vda")
    os.kill(pid, signal.SIGTERM)
    assert end()["error"]
    assert shop.thawed_in_reverse(cloud)
    assert shop.undone(cloud)


def test_a_signal_during_a_backup_undoes_all(cloud, group, order, end):
    shop.volume(cloud, "db-vda").backup_takes = 1
    pid = order("create", options={"backup": True})
    cloud.wait_for("backup", "db-vda")
    os.kill(pid, signal.SIGTERM)
    assert "SIGTERM" in end()["error"]
    assert shop.undone(cloud)


def test_more_signals_do_not_disturb_the_way_back(cloud, group, order, end):
    for server in group:
        server.thaw_takes = 0.3
    shop.volume(cloud, "db-vda").snapshot_takes = ("unquiesce", "cache")
    pid = order("create")
    cloud.wait_for("snapshot", "db-vda")
    os.kill(pid, signal.SIGINT)
    cloud.wait_for("unquiesce", "cache")
    os.kill(pid, signal.SIGINT)
    cloud.wait_for("thaw", "cache")
    os.kill(pid, signal.SIGTERM)
    result = end()
    assert result["code"] == 0
    assert "Interrupted" in result["error"]
    assert shop.thawed_in_reverse(cloud)
    assert shop.undone(cloud)


def test_a_signal_before_the_first_freeze_freezes_nothing(cloud, group, order, end):
    cloud.fault("GET volume /os-quota-sets", hang=0.3)
    pid = order("create")
    while not any("os-quota-sets" in text for text in list(cloud.requests)):
        pass
    os.kill(pid, signal.SIGTERM)
    assert end()["error"]
    assert cloud.log == []


def test_a_signal_at_any_step_of_a_restore_leaves_nothing(
    cloud, group, conn, create, order, end
):
    create(STAGES, name="made")
    for server in group:
        conn.compute.delete_server(server.id)
    before = set(cloud.volumes.volumes)
    for step in range(1, 100):
        order("restore", signal=signal.SIGTERM, step=step)
        result = end()
        if result["error"] is None:
            break
        assert "SIGTERM" in result["error"], step
        assert set(cloud.volumes.volumes) == before, step
        assert cloud.compute.servers == {}, step
    assert step >= result["steps"] == 8
    assert [s.name for s in cloud.compute.servers.values()] == ["db", "cache"]


def test_the_handlers_of_signals_are_those_of_before(cloud, group, create):
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    during = []
    create(STAGES, observe=lambda _: during.append(signal.getsignal(signal.SIGINT)))
    assert before[0] not in during
    after = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    assert after == before
