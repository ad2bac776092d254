# SPDX-License-Identifier: Apache-2.0
"""One consistent snapshot of a group of real guests, and what becomes of it when not.

The guests' disks are volumes on Ceph. Each guest writes what it has heard of the next
one, so that a cut that is not consistent shows.
"""

import concurrent.futures
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiolib import chain
from aiolib.client import Cloud

from nova_ext.client import compute
from nova_ext.client.consistency import errors, groups, report, restore, transaction
from tests.e2e import steps

pytestmark = pytest.mark.xdist_group("groups")
HOST = "cmp5"

#: A client that kills itself, or has itself interrupted, at a step.
_CLIENT = """
import os, signal, sys
from aiolib.client import Cloud
from nova_ext.client.consistency import errors, transaction
step, number, timeout, name, *servers = sys.argv[1:]
seen = 0
def observe(told):
    global seen
    if seen == int(step):
        os.kill(os.getpid(), int(number))
    seen += 1
conn = Cloud().connect("demo")
try:
    transaction.create(
        conn, [[one] for one in servers], name=name, timeout=int(timeout),
        observe=observe,
    )
except errors.GroupFailed as exc:
    sys.exit(str(exc))
"""


@pytest.fixture(scope="module")
def group(cloud: Cloud, tenant: Any) -> Iterator[list[Any]]:
    """Three guests, the first with a data volume beside its root volume."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        made = [
            pool.submit(
                cloud.boot,
                tenant,
                f"vnf-{number}",
                host=HOST,
                boot_from="rbd",
                data=number == 1,
            )
            for number in (1, 2, 3)
        ]
    servers = []
    try:
        servers = [future.result() for future in made]
        yield servers
    finally:
        for found in tenant.compute.servers(name="^vnf-"):
            tenant.compute.delete_server(found)


@pytest.fixture(scope="module")
def still(cloud: Cloud, group: list[Any]) -> list[Any]:
    """The group with its writers stopped, so that the cloud has the machine."""
    for server in group:
        chain.hush(cloud, server.id)
    return group


@pytest.fixture
def removed(tenant: Any) -> Iterator[None]:
    """Leave no consistency snapshot behind."""
    yield
    for left in groups.find_all(tenant):
        groups.delete(tenant, left)


def create(servers: list[str], *words: str) -> "subprocess.CompletedProcess[str]":
    options = [word for one in servers for word in ("--server", one)]
    return steps.openstack(
        *("consistency", "snapshot", "create", "-f", "json"), *options, *words
    )


def thawed(cloud: Cloud, tenant: Any, servers: list[Any]) -> bool:
    return all(
        steps.status(tenant, server) is None
        and steps.agent_says(cloud, server) == "thawed"
        for server in servers
    )


def parts_left(tenant: Any) -> list[str]:
    return [part.title for left in groups.find_all(tenant) for part in left.members]


def discard(tenant: Any, made: list[restore.Restored]) -> None:
    """Delete restored servers and the volumes that they were given."""
    storage = tenant.block_storage
    for one in made:
        server = tenant.compute.get_server(one.id)
        volumes = [found.id for found in server.attached_volumes]
        tenant.compute.delete_server(server)
        tenant.compute.wait_for_delete(server, wait=120)
        for volume in volumes:
            storage.wait_for_status(
                storage.get_volume(volume), "available", ["error"], 1, 60
            )
            storage.delete_volume(volume)


@pytest.mark.usefixtures("removed")
def test_cut_keeps_the_order_and_boots(
    cloud: Cloud, tenant: Any, group: list[Any]
) -> None:
    """Invariant and journals hold on the snapshots and in servers made of them."""
    names = [server.name for server in group]
    hooks = [cloud.console_log(server.id).read_text() for server in group]
    with chain.Chain(cloud, [server.id for server in group]):
        steps.until(
            "the guests hear of each other",
            lambda: all(chain.heard(cloud, one.id) for one in group[:2]),
        )
        words = ("--name", "vnf", "--property", "owner=telco", "--timeout", "60")
        done = create(names, *words)
    assert done.returncode == 0, done.stderr
    for server in group:
        chain.hush(cloud, server.id)
    told = json.loads(done.stdout)
    assert told["consistency"] == "group"
    servers = told["servers"]
    assert [one["name"] for one in servers] == names
    assert all(one["consistent"] and one["window_ms"] > 0 for one in servers)
    frozen = [one["frozen_at"] for one in servers]
    assert frozen == sorted(frozen)
    thaws = [one["thawed_at"] for one in servers]
    assert thaws == sorted(thaws, reverse=True)
    assert max(frozen) < min(thaws)
    for server, before in zip(group, hooks, strict=True):
        console = cloud.console_log(server.id).read_text()[len(before) :]
        assert console.count("H freeze") == console.count("H thaw") == 1

    found = groups.find(tenant, "vnf")
    assert (found.status, found.properties) == ("available", {"owner": "telco"})
    assert [(disk.device, disk.boot) for disk in found.disks.values()] == [
        ("/dev/vda", True),
        ("/dev/vdb", False),
        ("/dev/vda", True),
        ("/dev/vda", True),
    ]
    roots = [n for n, disk in sorted(found.disks.items()) if disk.boot]
    disks = [
        chain.records_of_snapshot(
            cloud, str(found.disks[number].volume), found.snapshots[number].id
        )
        for number in roots
    ]
    assert not any(disk.unclean for disk in disks)
    assert chain.order_kept([disk.records for disk in disks]) == []
    assert all(disk.records[-1].heard > 0 for disk in disks[:2])

    done = steps.openstack("consistency", "snapshot", "show", "-f", "json", "vnf")
    assert json.loads(done.stdout)["status"] == "available"

    made = restore.restore(tenant, found)
    try:
        assert [one.name for one in made] == names
        for one, disk in zip(made, disks, strict=True):
            cloud.wait_agent(one.id)
            assert chain.found(cloud, one.id) == disk.records[-1]
            assert chain.journal_was_clean(cloud, one.id)
        attached = tenant.compute.volume_attachments(made[0].id)
        assert sorted(one.device for one in attached) == ["/dev/vda", "/dev/vdb"]
        state = compute.get_server(tenant, made[0].id)
        assert state.quiesce_status is None
    finally:
        discard(tenant, made)


def test_killed(cloud: Cloud, tenant: Any, still: list[Any]) -> None:
    """Within the deadline all are thawed; no half snapshot is listed as good.

    Each step of all is taken in tests/unit/consistency/test_signals.py.
    """
    # Less is not enough to get to the last step on a busy machine.
    timeout, servers = 20, still[1:]
    try:
        # both frozen, one disk cut, one thawed, all done but for the commit
        for step in (4, 6, 10, 12):
            begin = time.monotonic()
            done = run_client(step, signal.SIGKILL, timeout, f"killed-{step}", servers)
            assert done.returncode == -signal.SIGKILL, done.stderr
            steps.until(
                f"all thawed after a kill at step {step}",
                lambda: thawed(cloud, tenant, servers),
                # the last one may have been asked right before the kill
                begin + 20 + timeout - time.monotonic(),
            )
        steps.until(
            "what can become nothing is told so",
            lambda: (
                not any(one.status == "creating" for one in groups.find_all(tenant))
            ),
            60,
        )
        assert not any(one.status == "available" for one in groups.find_all(tenant))
    finally:
        for left in groups.find_all(tenant):
            groups.delete(tenant, left)
    assert parts_left(tenant) == []


def run_client(
    step: int, number: signal.Signals, timeout: int, name: str, servers: list[Any]
) -> "subprocess.CompletedProcess[str]":
    words = [str(step), str(int(number)), str(timeout), name]
    return subprocess.run(
        [sys.executable, "-c", _CLIENT, *words, *(one.id for one in servers)],
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("step", "number"),
    [(4, signal.SIGINT), (8, signal.SIGTERM)],
    ids=["freezing", "snapshotting"],
)
def test_interrupted(
    cloud: Cloud, tenant: Any, still: list[Any], step: int, number: signal.Signals
) -> None:
    """All are thawed at once, and nothing is left."""
    begin = time.monotonic()
    done = run_client(step, number, 300, "interrupted", still)
    assert time.monotonic() - begin < 100
    assert done.returncode == 1
    assert f"Interrupted by {number.name}" in done.stderr
    assert "Nothing of it is left" in done.stderr
    assert thawed(cloud, tenant, still)
    assert parts_left(tenant) == []


@pytest.fixture
def failing_hook(cloud: Cloud, still: list[Any]) -> Iterator[Any]:
    """The second guest, whose hook refuses the freeze."""
    cloud.guest_output(still[1].id, "/bin/touch", "/run/hook-fail")
    yield still[1]
    cloud.guest_output(still[1].id, "/bin/rm", "/run/hook-fail")


def test_a_hook_that_fails_undoes_all(
    cloud: Cloud, tenant: Any, still: list[Any], failing_hook: Any
) -> None:
    """The first server is thawed, the third one was never frozen, nothing is left."""
    consoles = [cloud.console_log(server.id).read_text() for server in still]
    done = create([server.id for server in still])
    assert done.returncode == 1
    assert f"{failing_hook.name}: " in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert thawed(cloud, tenant, still)
    assert parts_left(tenant) == []
    freezes = [
        cloud.console_log(server.id).read_text()[len(before) :].count("H freeze")
        for server, before in zip(still, consoles, strict=True)
    ]
    assert freezes == [1, 1, 0]


@pytest.mark.usefixtures("removed")
def test_best_effort_keeps_what_is_not_proved(
    cloud: Cloud, tenant: Any, still: list[Any], failing_hook: Any
) -> None:
    """The snapshot is partial, and says of which server and why."""
    done = create([server.id for server in still], "--best-effort")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["consistency"] == "partial"
    assert [one["consistent"] for one in told["servers"]] == [True, False, True]
    assert "not quiesced" in told["servers"][1]["reason"]
    assert thawed(cloud, tenant, still)
    (found,) = groups.find_all(tenant)
    assert (found.status, found.consistency) == ("available", "partial")


def test_a_guest_that_reboots_breaks_the_group(
    cloud: Cloud, tenant: Any, still: list[Any]
) -> None:
    """The window of one guest had a gap: the snapshots of all are removed."""
    cut = []

    def observe(step: report.Step) -> None:
        if step.kind is report.Kind.SNAPSHOTTED:
            if not cut:
                words = [*cloud.virsh(cloud.find_host(still[2].id)), "domfsthaw"]
                subprocess.run([*words, still[2].id], check=True, timeout=30)
            cut.append(step.what)

    stages = [[still[0].id], [still[1].id, still[2].id]]
    with pytest.raises(errors.GroupFailed) as raised:
        transaction.create(tenant, stages, timeout=60, observe=observe)
    assert len(cut) == 4
    assert list(raised.value.reasons) == [still[2].name]
    assert raised.value.left == []
    assert thawed(cloud, tenant, still)
    assert parts_left(tenant) == []


def test_a_plan_that_takes_too_long_fails(
    cloud: Cloud, tenant: Any, still: list[Any]
) -> None:
    """The deadline of the group is that of each server."""
    cloud.guest_output(still[2].id, "/bin/sh", "-c", "echo 4 >/run/hook-slow")
    begin = time.monotonic()
    try:
        with pytest.raises(errors.GroupFailed):
            transaction.create(tenant, [[server.id] for server in still], timeout=3)
        assert time.monotonic() - begin < 60
        steps.until("all thawed", lambda: thawed(cloud, tenant, still), 20)
        assert parts_left(tenant) == []
    finally:
        cloud.guest_output(still[2].id, "/bin/rm", "/run/hook-slow")


def test_a_frozen_server_of_somebody_else_is_left_alone(
    cloud: Cloud, tenant: Any, still: list[Any]
) -> None:
    """It is refused before anything is frozen, and stays frozen."""
    steps.quiesce(tenant, still[2])
    try:
        done = create([server.id for server in still])
        assert done.returncode == 1
        assert "quiesced already: unquiesce it first" in done.stderr
        assert steps.status(tenant, still[2]) == "quiesced"
        assert thawed(cloud, tenant, still[:2])
    finally:
        steps.unquiesce(tenant, still[2])


@pytest.mark.usefixtures("removed")
def test_a_root_that_is_no_volume(
    cloud: Cloud, tenant: Any, boot: Callable[..., Any]
) -> None:
    """It becomes an image, of which the server is restored."""
    server = boot("local-root")
    with chain.Chain(cloud, [server.id]):
        made = transaction.create(tenant, [[server.id]], name="local")
    assert made.consistency == "group"
    found = groups.find(tenant, "local")
    assert [part.kind for part in found.snapshots.values()] == ["image"]
    (restored,) = restore.restore(tenant, found)
    try:
        cloud.wait_agent(restored.id)
        assert chain.found(cloud, restored.id) is not None
        assert chain.journal_was_clean(cloud, restored.id)
        again = tenant.compute.create_server_image(
            restored.id, "unrelated", wait=True, timeout=120
        )
        assert len(groups.find(tenant, "local").members) == 1
        tenant.image.delete_image(again.id)
    finally:
        discard(tenant, [restored])
