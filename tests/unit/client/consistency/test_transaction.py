# SPDX-License-Identifier: Apache-2.0

import threading
import time

import pytest

from nova_ext.client import compute
from nova_ext.client.consistency import (
    errors,
    groups,
    members,
    report,
    server_freeze,
    transaction,
    waiting,
)
from tests.unit.client.consistency import shop


def verbs(cloud, *wanted):
    return [(verb, name) for verb, name in cloud.events(*wanted)]


def test_servers_are_frozen_in_order_and_thawed_in_reverse(cloud, servers, create):
    cloud.compute.add("cache")
    servers["db"].freeze_takes = servers["db"].thaw_takes = 0.05
    create([["web"], ["db"], ["cache"]])
    assert verbs(cloud, "quiesce", "freeze", "unquiesce", "thaw") == [
        ("quiesce", "web"),
        ("freeze", "web"),
        ("quiesce", "db"),
        ("freeze", "db"),
        ("quiesce", "cache"),
        ("freeze", "cache"),
        ("unquiesce", "cache"),
        ("thaw", "cache"),
        ("unquiesce", "db"),
        ("thaw", "db"),
        ("unquiesce", "web"),
        ("thaw", "web"),
    ]


def test_servers_of_one_stage_are_frozen_and_thawed_at_the_same_time(
    cloud, servers, create
):
    cloud.compute.add("cache")
    # Neither gets on before the other has been asked.
    for server, name in ((servers["web"], "db"), (servers["db"], "web")):
        server.freeze_takes = ("quiesce", name)
        server.thaw_takes = ("unquiesce", name)
    create([["web", "db"], ["cache"]], timeout=10)
    log = verbs(cloud, "quiesce", "freeze", "unquiesce", "thaw")
    assert {verb for verb, _ in log[:2]} == {"quiesce"}
    assert {verb for verb, _ in log[2:4]} == {"freeze"}
    assert log[4:8] == [
        ("quiesce", "cache"),
        ("freeze", "cache"),
        ("unquiesce", "cache"),
        ("thaw", "cache"),
    ]
    assert {verb for verb, _ in log[8:10]} == {"unquiesce"}
    assert {verb for verb, _ in log[10:]} == {"thaw"}


def test_disks_are_snapshotted_while_all_are_frozen_and_none_is_thawed_before(
    cloud, servers, create
):
    shop.volume(cloud, "web-vdb").snapshot_takes = 0.1
    servers["web"].copy_takes = 0.15
    create()
    log = [verb for verb, _name in cloud.log]
    last_freeze = max(n for n, verb in enumerate(log) if verb == "freeze")
    first_thaw = log.index("unquiesce")
    cuts = [n for n, v in enumerate(log) if v.startswith(("snapshot", "image cut"))]
    assert len(cuts) == 5
    assert all(last_freeze < number < first_thaw for number in cuts)


def test_the_upload_of_an_image_does_not_hold_up_the_thaw(cloud, servers, create):
    servers["web"].upload_takes = ("thaw", "web")
    create(timeout=10)
    log = [verb for verb, _name in cloud.log]
    assert log.index("image cut") < log.index("unquiesce")
    assert log[-1] == "image saved"


def test_the_snapshots_of_all_disks_run_at_the_same_time(cloud, servers, create):
    shop.volume(cloud, "web-vdb").snapshot_takes = ("snapshot", "db-vda")
    shop.volume(cloud, "db-vda").snapshot_takes = ("image", "web")
    servers["web"].copy_takes = ("snapshot", "web-vdb")
    assert create(timeout=10).consistency == "group"


def test_it_snapshots_more_disks_than_it_sends_requests_at_once(cloud, create):
    db = cloud.compute.add_on_volume("db")
    for letter in "bcdefghijklm":
        cloud.compute.attach(db, device=f"/dev/vd{letter}", snapshot_takes=0.02)
    create([["db"]])
    assert len(cloud.volumes.snapshots) == 13


def test_the_report_tells_the_windows_and_the_members(cloud, servers, create):
    made = create(name="daily", properties={"keep": "7"})
    assert (made.name, made.consistency) == ("daily", "group")
    assert [server.name for server in made.servers] == ["web", "db"]
    assert all(server.consistent and not server.reason for server in made.servers)
    web, db = made.servers
    assert web.frozen_at <= db.frozen_at <= db.thawed_at <= web.thawed_at
    assert 0 < db.window_ms <= web.window_ms <= made.window_ms
    (image,) = cloud.images.with_property("consistency:id")
    assert web.members[0] == f"/dev/vda=image {image['id']}"
    assert {one.split(" ")[1] for s in made.servers for one in s.members} == {
        image["id"],
        *cloud.volumes.snapshots,
    }


def test_every_member_carries_the_users_properties(cloud, servers, create):
    create(properties={"keep": "7"}, backup=True)
    (image,) = cloud.images.with_property("consistency:id")
    others = (*cloud.volumes.snapshots.values(), *cloud.volumes.backups.values())
    assert len(others) == 4
    assert {one["metadata"]["keep"] for one in others} | {image["keep"]} == {"7"}


def test_steps_are_told_in_order_and_in_the_calling_thread(cloud, servers, create):
    steps, threads = [], set()

    def observe(step):
        steps.append(step)
        threads.add(threading.current_thread())

    create(observe=observe, backup=True)
    assert threads == {threading.current_thread()}
    kinds = [step.kind for step in steps]
    assert [(s.kind, s.what) for s in steps[1:5]] == [
        ("freezing", "web"),
        ("frozen", "web"),
        ("freezing", "db"),
        ("frozen", "db"),
    ]
    assert sorted(kinds[5:11]) == ["snapshotted"] * 3 + ["snapshotting"] * 3
    assert {s.what for s in steps[5:11]} == set(shop.DISKS)
    assert [(s.kind, s.what) for s in steps[11:15]] == [
        ("thawing", "db"),
        ("thawed", "db"),
        ("thawing", "web"),
        ("thawed", "web"),
    ]
    assert kinds[15] == "committed"
    assert kinds[0] == "planned"
    assert sorted(kinds[16:]) == ["backed_up"] * 2 + ["backing_up"] * 2
    assert steps[-1].done == steps[-1].total
    assert [s.done for s in steps] == sorted(s.done for s in steps)


def test_nothing_is_available_before_it_is_committed(cloud, servers, create, conn):
    seen = {}

    def observe(step):
        seen[step.kind] = [str(group.status) for group in groups.find_all(conn)]

    create(observe=observe)
    assert seen.pop("committed") == ["available"]
    assert seen.pop("thawed") == ["creating"]
    assert all(statuses in ([], ["creating"]) for statuses in seen.values())


# Failures.


def test_a_failure_at_any_step_undoes_all(cloud, servers, create, conn):
    for number, observe in shop.interruptions():
        cloud.log.clear()
        try:
            create(observe=observe, backup=True)
        except errors.GroupFailed:
            assert shop.thawed_in_reverse(cloud), (number, cloud.log)
            assert shop.undone(cloud), (number, shop.members(cloud))
            assert groups.find_all(conn) == []
        else:
            break
    assert number == 21  # one more than there are steps
    assert len(shop.members(cloud)) == 5


@pytest.mark.parametrize(
    "kind", ["frozen", "snapshotted", "thawed", "committed", "backed_up"]
)
def test_what_is_no_error_undoes_all_and_is_passed_on(cloud, servers, create, kind):
    def observe(step):
        if step.kind == kind:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        create(observe=observe, backup=True)
    assert shop.thawed_in_reverse(cloud)
    assert shop.undone(cloud)


def test_a_freeze_that_fails_thaws_what_is_frozen_and_snapshots_nothing(
    cloud, servers, create
):
    servers["db"].freeze_fails = "the agent does not answer"
    with pytest.raises(errors.GroupFailed) as caught:
        create()
    assert caught.value.reasons.keys() == {"db"}
    assert "the agent does not answer" in caught.value.reasons["db"]
    assert (caught.value.left, caught.value.frozen) == ([], [])
    assert verbs(cloud, "freeze", "thaw") == [("freeze", "web"), ("thaw", "web")]
    assert not cloud.events("snapshot", "image")


@pytest.mark.parametrize(
    ("code", "message"),
    [(400, "no agent"), (403, "policy"), (404, "gone"), (409, "busy"), (500, "oops")],
)
def test_a_refused_freeze_thaws_what_is_frozen(cloud, servers, create, code, message):
    cloud.fault("POST compute /servers/db/action quiesce", refuse=(code, message))
    with pytest.raises(errors.GroupFailed) as caught:
        create()
    assert "db" in caught.value.reasons
    assert caught.value.frozen == []
    assert verbs(cloud, "freeze", "thaw") == [("freeze", "web"), ("thaw", "web")]


@pytest.mark.parametrize("code", [400, 403, 413, 500, 503])
@pytest.mark.parametrize(
    "what", ["snapshots web-vdb", "servers/web/action createImage"]
)
def test_a_refused_snapshot_undoes_all(cloud, servers, create, conn, what, code):
    cloud.fault(f"POST .* /{what}", refuse=(code, "because"))
    with pytest.raises(errors.GroupFailed, match="because"):
        create()
    assert shop.thawed_in_reverse(cloud)
    assert shop.undone(cloud)
    assert len(cloud.events("freeze")) == 2
    assert groups.find_all(conn) == []


@pytest.mark.parametrize("status", ["error", "error_deleting"])
def test_a_snapshot_that_ends_in_error_undoes_all(cloud, servers, create, status):
    shop.volume(cloud, "db-vda").snapshot_ends = status
    with pytest.raises(errors.GroupFailed, match="db /dev/vda failed"):
        create()
    assert shop.thawed_in_reverse(cloud)
    left = ["snapshot db-vda"] if status == "error_deleting" else []
    assert shop.members(cloud) == left


def test_an_image_that_fails_undoes_all(cloud, servers, create):
    servers["web"].image_fails = True
    with pytest.raises(errors.GroupFailed, match="web /dev/vda"):
        create()
    assert shop.thawed_in_reverse(cloud)
    assert shop.undone(cloud)


def test_a_window_that_had_a_gap_undoes_all(cloud, servers, create):
    servers["web"].unfit = "of 2 frozen file systems only 1 still were so"
    with pytest.raises(errors.GroupFailed, match="only 1 still were so") as caught:
        create()
    assert caught.value.reasons.keys() == {"web"}
    assert caught.value.frozen == []
    assert shop.undone(cloud)


def test_a_guest_that_thawed_early_undoes_all(cloud, servers, create):
    def observe(step):
        if step.kind == "snapshotted":
            cloud.compute.break_window(servers["web"], "the server was rebooted")

    with pytest.raises(errors.GroupFailed, match="rebooted") as caught:
        create(observe=observe)
    assert caught.value.reasons.keys() == {"web"}
    assert shop.undone(cloud)
    assert verbs(cloud, "thaw", "thaw by itself") == [
        ("thaw by itself", "web"),
        ("thaw", "db"),
    ]


def test_a_failing_backup_removes_the_snapshots_too(cloud, servers, create):
    shop.volume(cloud, "web-vdb").backup_ends = "error"
    with pytest.raises(errors.GroupFailed, match="backup of web /dev/vdb"):
        create(backup=True)
    assert shop.undone(cloud)


def test_a_backup_that_hangs_does_not_hold_up_the_way_back(
    cloud, servers, create, monkeypatch
):
    monkeypatch.setattr(members.delete, "__defaults__", (0.2,))
    shop.volume(cloud, "db-vda").backup_ends = "creating"

    def observe(step):
        if step.kind == "backed_up":
            raise shop.Boom

    begin = time.monotonic()
    with pytest.raises(errors.GroupFailed) as caught:
        create(backup=True, observe=observe)
    assert time.monotonic() - begin < waiting.SETTLE / 2
    assert shop.members(cloud) == ["backup db-vda"]
    (left,) = cloud.volumes.backups
    assert [one.partition(":")[0] for one in caught.value.left] == [f"backup {left}"]


def test_what_cannot_be_deleted_is_listed_and_the_rest_is_deleted(
    cloud, servers, create
):
    shop.volume(cloud, "web-vdb").snapshots_stay = True
    servers["db"].unfit = "a gap"
    with pytest.raises(errors.GroupFailed) as caught:
        create()
    (left,) = cloud.volumes.snapshots
    assert [one.partition(":")[0] for one in caught.value.left] == [f"snapshot {left}"]
    assert left in str(caught.value)
    assert shop.members(cloud) == ["snapshot web-vdb"]


def test_a_snapshot_that_never_leaves_creating_is_listed(
    cloud, servers, create, monkeypatch
):
    monkeypatch.setattr(members.delete, "__defaults__", (0.2,))
    shop.volume(cloud, "web-vdb").snapshot_ends = "creating"
    with pytest.raises(errors.GroupFailed, match="longer than") as caught:
        create(timeout=2)
    (left,) = cloud.volumes.snapshots
    assert [one.partition(":")[0] for one in caught.value.left] == [f"snapshot {left}"]
    assert cloud.compute.frozen() == []
    assert shop.members(cloud) == ["snapshot web-vdb"]


def test_a_plan_past_its_deadline_is_no_success(cloud, servers, create):
    # The compute host takes its time to thaw, and does not call that a gap.
    servers["db"].thaw_takes = 2.2
    with pytest.raises(errors.GroupFailed, match="longer than 2 seconds") as caught:
        create([["db"]], timeout=2)
    assert caught.value.reasons == {}
    assert shop.undone(cloud)


def test_the_deadline_of_each_server_is_that_of_the_group(cloud, servers, create):
    servers["web"].freeze_takes = 1.1
    create(timeout=10)
    assert cloud.compute.timeouts["web"] == 10
    assert 5 < cloud.compute.timeouts["db"] <= 9


def test_a_freeze_that_hangs_ends_at_the_deadline(cloud, servers, create):
    servers["db"].freeze_takes = 2.3
    with pytest.raises(errors.GroupFailed, match="did not end within") as caught:
        create(timeout=2)
    assert caught.value.frozen == []
    assert cloud.compute.frozen() == []
    assert not cloud.events("snapshot", "image")


def test_a_thaw_that_is_refused_for_a_while_is_repeated(cloud, servers, create):
    cloud.fault("/servers/db/action unquiesce", refuse=(503, "restarting"), times=3)
    assert create().consistency == "group"
    assert shop.thawed_in_reverse(cloud)


def test_passing_errors_of_the_apis_are_waited_out(cloud, servers, create):
    shop.volume(cloud, "web-vdb").snapshot_takes = 0.05
    cloud.fault("GET .*os-instance-actions", refuse=(503, "restarting"), times=2)
    cloud.fault("GET volume /snapshots/", refuse=(503, "restarting"), times=3)
    cloud.fault("GET image /images/", refuse=(502, "restarting"), times=2)
    assert create().consistency == "group"


def test_a_server_that_cannot_be_thawed_is_named(cloud, servers, create, monkeypatch):
    monkeypatch.setattr(server_freeze, "GRACE", 0.1)
    monkeypatch.setattr(transaction, "GRACE", 0.1)
    cloud.fault("/servers/db/action unquiesce", refuse=(403, "not you"), times=None)
    with pytest.raises(errors.GroupFailed, match="May be frozen: db") as caught:
        create(timeout=2)
    assert caught.value.frozen == ["db"]
    # Its host does it at the deadline.
    cloud.wait_for("thaw by itself", "db")
    assert ("thaw", "web") in cloud.log
    assert shop.undone(cloud)


def test_a_server_deleted_while_frozen_undoes_all(cloud, servers, create, conn):
    def observe(step):
        if step.kind == "thawing" and step.what == "db":
            conn.compute.delete_server(servers["db"].id)

    with pytest.raises(errors.GroupFailed) as caught:
        create(observe=observe)
    assert caught.value.reasons.keys() == {"db"}
    assert caught.value.frozen == []
    assert ("thaw", "web") in cloud.log
    assert shop.undone(cloud)


def test_a_server_locked_while_frozen_is_waited_for_until_its_deadline(
    cloud, servers, create
):
    def observe(step):
        if step.kind == "committed":
            raise AssertionError("it is no success")
        servers["db"].locked = step.kind in (
            "snapshotting",
            "snapshotted",
            "thawing",
            "thawed",
        )

    with pytest.raises(errors.GroupFailed) as caught:
        create(timeout=2, observe=observe)
    assert caught.value.frozen == []
    assert ("thaw by itself", "db") in cloud.log
    assert shop.undone(cloud)


def test_two_servers_of_one_name_are_told_apart_by_id(cloud, create, find):
    twins = [cloud.compute.add_on_volume("db") for _ in range(2)]
    made = create([[twin.id] for twin in twins], name="twins")
    assert [server.id for server in made.servers] == [twin.id for twin in twins]
    assert [server.id for server in find("twins").servers] == [t.id for t in twins]
    twins[1].unfit = "a gap in the second"
    with pytest.raises(errors.GroupFailed, match="a gap in the second"):
        create([[twin.id] for twin in twins])


# Answers that got lost.


#: No answer at all, and those of a proxy or an API that did not wait long enough.
LOST = [True, (504, "Gateway Timeout"), (500, "oops")]


@pytest.mark.parametrize("lost", [*LOST, (409, "compute does not answer")])
def test_a_freeze_whose_answer_is_lost_is_thawed(cloud, servers, create, lost):
    cloud.fault("/servers/db/action quiesce", lost=lost)
    with pytest.raises(errors.GroupFailed) as caught:
        create()
    assert caught.value.frozen == []
    assert shop.thawed_in_reverse(cloud)
    assert verbs(cloud, "thaw") == [("thaw", "db"), ("thaw", "web")]


def test_a_slow_freeze_whose_answer_is_lost_is_thawed(cloud, servers, create):
    servers["db"].freeze_takes = 0.3
    cloud.fault("/servers/db/action quiesce", lost=True)
    with pytest.raises(errors.GroupFailed):
        create()
    assert shop.thawed_in_reverse(cloud)
    assert len(cloud.events("thaw")) == 2


def test_the_freeze_of_somebody_else_is_not_thawed(cloud, servers, create, conn):
    def observe(step):
        if (step.kind, step.what) == ("freezing", "db"):
            compute.quiesce(conn, servers["db"].id, 300)

    with pytest.raises(errors.GroupFailed, match="quiesced") as caught:
        create(observe=observe)
    assert caught.value.frozen == []
    assert cloud.compute.frozen() == ["db"]
    assert verbs(cloud, "thaw") == [("thaw", "web")]


def test_the_freeze_of_somebody_else_is_not_thawed_when_ours_got_lost(
    cloud, servers, create, conn
):
    def observe(step):
        if (step.kind, step.what) == ("freezing", "db"):
            compute.quiesce(conn, servers["db"].id, 300)
            cloud.fault("/servers/db/action quiesce", lost=True)

    with pytest.raises(errors.GroupFailed):
        create(observe=observe)
    assert cloud.compute.frozen() == ["db"]
    assert verbs(cloud, "thaw") == [("thaw", "web")]


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize(
    "what",
    ["POST volume /snapshots web-vdb", "POST .*/servers/web/action createImage"],
)
def test_a_snapshot_whose_answer_is_lost_is_removed(cloud, servers, create, what, lost):
    cloud.fault(what, lost=lost)
    with pytest.raises(errors.GroupFailed) as caught:
        create()
    assert caught.value.left == []
    assert len(cloud.events("snapshot", "image")) == 3
    assert shop.thawed_in_reverse(cloud)
    assert shop.undone(cloud)


@pytest.mark.parametrize("lost", LOST)
def test_a_thaw_whose_answer_is_lost_is_no_success(cloud, servers, create, lost):
    cloud.fault("/servers/db/action unquiesce", lost=lost)
    with pytest.raises(errors.GroupFailed, match="db"):
        create()
    assert shop.thawed_in_reverse(cloud)
    assert shop.undone(cloud)


def test_a_commit_whose_answer_is_lost_is_undone(cloud, servers, create):
    cloud.fault("PATCH image", lost=True)
    with pytest.raises(errors.GroupFailed):
        create()
    assert shop.undone(cloud)


def test_a_backup_whose_answer_is_lost_is_removed(cloud, servers, create):
    cloud.fault("POST volume /backups web-vdb", lost=True)
    with pytest.raises(errors.GroupFailed) as caught:
        create(backup=True)
    assert caught.value.left == []
    assert ("backup", "web-vdb") in cloud.log
    assert shop.undone(cloud)


def test_when_lost_members_cannot_be_looked_for_the_way_to_find_them_is_told(
    cloud, servers, create, monkeypatch
):
    monkeypatch.setattr(waiting, "SETTLE", 1)
    cloud.fault("POST volume /snapshots web-vdb", lost=True)
    cloud.fault("GET volume /snapshots/detail", refuse=(503, "down"), times=None)
    with pytest.raises(errors.GroupFailed) as caught:
        create()
    assert shop.members(cloud) == ["snapshot web-vdb"]
    (snapshot,) = cloud.volumes.snapshots.values()
    group = snapshot["metadata"]["consistency:id"]
    assert any(f"consistency:id={group}" in one for one in caught.value.left)


@pytest.mark.parametrize(
    ("what", "lost"),
    [
        ("POST volume /snapshots web-vdb", True),
        ("POST volume /backups web-vdb", (503, "A proxy gave up")),
        ("POST compute /servers/web/action createImage", True),
        ("PATCH image", True),
    ],
)
def test_no_change_is_sent_twice_whatever_retries_the_user_has_chosen(
    cloud, servers, connect, what, lost
):
    conn = connect(connect_retries=2, status_code_retries=2)
    cloud.fault(what, lost=lost, times=None)
    with pytest.raises(errors.GroupFailed):
        transaction.create(conn, shop.STAGES, backup=True)
    assert len([text for text in cloud.requests if text.startswith(what)]) == 1
    assert shop.undone(cloud)


# Best effort.


def test_best_effort_keeps_the_disks_of_a_server_that_cannot_be_frozen(
    cloud, servers, create, find
):
    servers["web"].freeze_fails = "no agent"
    made = create(best_effort=True, name="some")
    assert made.consistency == "partial"
    web, db = made.servers
    assert (web.consistent, db.consistent) == (False, True)
    assert "no agent" in web.reason
    assert (web.frozen_at, web.window_ms) == (None, None)
    assert len(shop.members(cloud)) == 3
    assert (find("some").status, find("some").consistency) == ("available", "partial")
    assert cloud.compute.frozen() == []


def test_best_effort_keeps_the_disks_of_a_window_with_a_gap(cloud, servers, create):
    servers["db"].unfit = "a gap"
    made = create(best_effort=True)
    assert made.consistency == "partial"
    assert [server.consistent for server in made.servers] == [True, False]
    assert "a gap" in made.servers[1].reason
    assert len(shop.members(cloud)) == 3


def test_best_effort_asks_no_freeze_of_a_server_that_is_off(cloud, servers, create):
    servers["db"].status = "SHUTOFF"
    made = create(best_effort=True)
    assert (made.consistency, made.servers[1].consistent) == ("partial", False)
    assert "SHUTOFF" in made.servers[1].reason
    assert verbs(cloud, "quiesce") == [("quiesce", "web")]
    assert len(shop.members(cloud)) == 3


def test_best_effort_thaws_a_freeze_whose_answer_is_lost(cloud, servers, create):
    cloud.fault("/servers/db/action quiesce", lost=True)
    made = create(best_effort=True)
    assert made.consistency == "partial"
    assert cloud.compute.frozen() == []
    assert verbs(cloud, "thaw") == [("thaw", "db"), ("thaw", "web")]


def test_best_effort_is_group_when_all_goes_well(cloud, servers, create):
    assert create(best_effort=True).consistency == "group"


def test_best_effort_does_not_forgive_a_disk(cloud, servers, create):
    shop.volume(cloud, "db-vda").snapshot_ends = "error"
    with pytest.raises(errors.GroupFailed):
        create(best_effort=True)
    assert shop.undone(cloud)


# Backups.


def test_backups_are_made_of_the_snapshots_once_all_are_thawed(cloud, servers, create):
    made = create(backup=True)
    log = [verb for verb, _name in cloud.log]
    assert log.index("backup") > max(n for n, v in enumerate(log) if v == "thaw")
    assert {b["snapshot_id"] for b in cloud.volumes.backups.values()} == set(
        cloud.volumes.snapshots
    )
    assert {
        b["metadata"]["consistency:id"] for b in cloud.volumes.backups.values()
    } == {made.id}


def test_backups_are_made_by_the_service_of_a_zone(cloud, servers, create):
    create(backup=True, backup_zone="east")
    zones = [one["availability_zone"] for one in cloud.volumes.backups.values()]
    assert zones == ["east", "east"]


def test_an_incremental_backup_builds_on_the_latest(cloud, servers, create):
    create(backup=True)
    full = set(cloud.volumes.backups)
    create(backup=True, incremental=True)
    parents = {
        backup["parent_id"]
        for backup in cloud.volumes.backups.values()
        if backup["id"] not in full
    }
    assert parents == full


def test_two_groups_of_different_servers_do_not_meet(cloud, servers, create, conn):
    names = iter(("web", "db"))
    done = []

    def run(name):
        done.append(create([[name]], name=f"of-{name}"))

    threads = [threading.Thread(target=run, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.name for one in done) == ["of-db", "of-web"]
    found = {group.name: group for group in groups.find_all(conn)}
    assert [len(found[name].snapshots) for name in ("of-db", "of-web")] == [1, 2]
    assert {str(group.status) for group in found.values()} == {"available"}


def test_the_steps_count_what_is_done():
    told = []
    progress = report.Progress(told.append, 2)
    progress(report.Kind.FREEZING, "a")
    progress(report.Kind.FROZEN, "a")
    assert [(step.done, step.total) for step in told] == [(0, 2), (1, 2)]
