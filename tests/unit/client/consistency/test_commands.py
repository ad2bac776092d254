# SPDX-License-Identifier: Apache-2.0
"""The commands, most of them in this process, some by the real program."""

import contextlib
import datetime
import functools
import json
import os
import re
import sys
import threading

import pytest
from osc_lib import exceptions

from nova_ext.client.v1 import consistency_snapshot as commands
from tests.unit.client import http_cloud, openstack_cli
from tests.unit.client.consistency import shop

GROUP = ("--server", "web", "--server", "db")
REPORT = ["id", "name", "consistency", "window_ms", "servers"]
SERVER = [
    *("id", "name", "frozen_at", "thawed_at", "window_ms", "consistent", "reason"),
    "members",
]
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture
def run(conn):
    """Return a runner of a command with the connection of the first cloud."""
    return functools.partial(openstack_cli.here, conn)


@pytest.fixture
def make(servers, run):
    """Return the command ``create`` for the shop; it answers with its report."""

    def make(*arguments, group=GROUP):
        words = (*group, "-f", "json", *arguments)
        return json.loads(run(commands.CreateConsistencySnapshot, *words))

    return make


@pytest.fixture
def fails(run):
    """Return a runner of what has to fail; it answers with the error, of one line."""

    def fails(kind, *arguments):
        with pytest.raises(exceptions.CommandError) as raised:
            run(kind, *arguments)
        text = str(raised.value)
        assert text
        assert "\n" not in text
        return text

    return fails


@pytest.fixture
def create_fails(servers, fails):
    return functools.partial(fails, commands.CreateConsistencySnapshot, *GROUP)


@pytest.fixture
def other_by_name(other, tmp_path, monkeypatch):
    """The second cloud, with the shop's network, as ``east`` in clouds.yaml."""
    other.network.add("backend")
    entry = {"auth": other.credentials, "region_name": "RegionOne"}
    (tmp_path / "clouds.yaml").write_text(json.dumps({"clouds": {"east": entry}}))
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    return other


# -- create --


def test_the_report_for_programs(servers, make):
    report = make("--name", "daily")
    assert list(report) == REPORT
    assert (report["name"], report["consistency"]) == ("daily", "group")
    web, db = report["servers"]
    assert [list(web), list(db)] == [SERVER, SERVER]
    assert [web["id"], db["id"]] == [servers["web"].id, servers["db"].id]
    assert [web["name"], db["name"]] == ["web", "db"]
    for server in (web, db):
        assert (server["consistent"], server["reason"]) == (True, None)
        assert 0 < server["window_ms"] <= report["window_ms"]
        assert TIME.fullmatch(server["frozen_at"])
        assert TIME.fullmatch(server["thawed_at"])
        assert server["frozen_at"] <= server["thawed_at"]
    frozen = datetime.datetime.fromisoformat(web["frozen_at"])
    age = datetime.datetime.now(datetime.UTC) - frozen
    assert datetime.timedelta() <= age < datetime.timedelta(minutes=5)
    assert [member.split()[0] for member in web["members"]] == [
        "/dev/vda=image",
        "/dev/vdb=snapshot",
    ]
    assert [member.split()[0] for member in db["members"]] == ["/dev/vda=snapshot"]


def test_the_report_for_people_has_a_line_for_each_server(servers, run):
    text = run(commands.CreateConsistencySnapshot, *GROUP)
    web = r"\| servers +\| web: consistent, frozen \S+Z to \S+Z \d+ ms; /dev/vda=image "
    db = r"\| +\| db: consistent, frozen \S+Z to \S+Z \d+ ms; /dev/vda=snapshot "
    assert re.search(f"^{web}.*\n{db}", text, re.MULTILINE)


def test_all_servers_are_required_unless_something_else_is_asked_for(
    cloud, servers, create_fails
):
    servers["db"].freeze_fails = "the agent is dead"
    for mode in ((), ("--require-all",)):
        text = create_fails(*mode)
        assert "db: " in text
        assert "was not quiesced" in text
        assert text.endswith("Nothing of it is left.")
        assert shop.undone(cloud)


def test_a_server_that_cannot_be_frozen_is_refused_before(cloud, servers, create_fails):
    servers["db"].locked = True
    text = create_fails()
    assert text == "Not all servers can be quiesced. db: it is locked: unlock it first."
    assert cloud.events("quiesce") == []


def test_best_effort_says_which_server_was_not_frozen_and_why(servers, make):
    servers["db"].freeze_fails = "the agent is dead"
    report = make("--best-effort")
    assert report["consistency"] == "partial"
    web, db = report["servers"]
    assert (web["consistent"], web["reason"]) == (True, None)
    assert db["consistent"] is False
    assert "was not quiesced" in db["reason"]
    assert db["frozen_at"] is None
    assert len(db["members"]) == 1


def test_best_effort_says_the_reason_to_people(servers, run):
    servers["db"].locked = True
    text = run(commands.CreateConsistencySnapshot, *GROUP, "--best-effort")
    assert "| consistency | partial " in text
    assert (
        "db: not consistent (it is locked: unlock it first.), frozen - to -; " in text
    )


def test_one_mode_only(servers, create_fails, run, capsys):
    with pytest.raises(SystemExit):
        run(
            commands.CreateConsistencySnapshot,
            *(*GROUP, "--require-all", "--best-effort"),
        )
    assert "not allowed with argument" in capsys.readouterr().err


def test_servers_are_frozen_in_the_order_of_the_options(cloud, make):
    make(group=("--server", "db", "--server", "web"))
    assert cloud.events("quiesce") == [("quiesce", "db"), ("quiesce", "web")]


def test_servers_joined_by_plus_are_frozen_at_the_same_time(cloud, servers, make):
    cloud.compute.add("cache")
    # Neither gets on before the other has been asked.
    servers["web"].freeze_takes = ("quiesce", "db")
    servers["db"].freeze_takes = ("quiesce", "web")
    report = make(group=("--server", "web+db", "--server", "cache"))
    assert [one["name"] for one in report["servers"]] == ["web", "db", "cache"]
    assert cloud.events("quiesce")[-1] == ("quiesce", "cache")


@pytest.mark.parametrize("stage", ["web+", "+web", ""])
def test_a_place_without_a_server_is_refused(cloud, fails, stage):
    cloud.compute.add("web")
    text = fails(commands.CreateConsistencySnapshot, "--server", stage)
    assert text == "A group needs a server in each place: name servers."
    assert cloud.events("quiesce") == []


def test_the_timeout_is_that_of_the_servers(cloud, make):
    make("--timeout", "30")
    assert set(cloud.compute.timeouts.values()) <= {29, 30}


def test_properties_are_on_all_members_and_shown(cloud, make, run):
    make("--name", "daily", "--property", "keep=7", "--property", "who=me")
    shown = json.loads(run(commands.ShowConsistencySnapshot, "daily", "-f", "json"))
    assert shown["properties"] == {"keep": "7", "who": "me"}
    (image,) = cloud.images.with_property("consistency:id")
    assert image["keep"] == "7"
    for snapshot in cloud.volumes.snapshots.values():
        assert snapshot["metadata"]["who"] == "me"


@pytest.mark.parametrize(
    "more", [("--incremental",), ("--backup-availability-zone", "s3")]
)
def test_options_of_backups_need_a_backup(cloud, create_fails, more):
    text = create_fails(*more)
    assert text == "--incremental and --backup-availability-zone need --backup."
    assert cloud.events("quiesce") == []


def test_backups_go_to_the_zone_that_is_named(cloud, make):
    make("--backup", "--backup-availability-zone", "s3")
    backups = cloud.volumes.backups.values()
    assert [backup["availability_zone"] for backup in backups] == ["s3", "s3"]


def test_incremental_backups_build_on_earlier_ones(cloud, make):
    make("--backup")
    make("--backup", "--incremental")
    built_on = [bool(one["parent_id"]) for one in cloud.volumes.backups.values()]
    assert sorted(built_on) == [False, False, True, True]


def test_a_lower_microversion_is_refused(cloud, servers):
    conn = http_cloud.connect(cloud.credentials, compute_api_version="2.90")
    with pytest.raises(exceptions.CommandError) as raised:
        openstack_cli.here(conn, commands.CreateConsistencySnapshot, *GROUP)
    conn.close()
    assert "2.90 was asked for" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert cloud.events("quiesce") == []


def test_an_answer_of_several_lines_becomes_one(cloud, create_fails):
    cloud.fault("POST volume /snapshots", refuse=(400, "It is\nnot\r\npossible"))
    assert "It is not possible" in create_fails()
    assert shop.undone(cloud)


# -- the bar --


@contextlib.contextmanager
def terminal(told):
    """Let standard error be a terminal, and add to ``told`` what it is told."""
    master, slave = os.openpty()

    def read():
        with contextlib.suppress(OSError):  # which is how a terminal ends
            while text := os.read(master, 4096):
                told.append(text.decode(errors="replace"))

    # A terminal that nobody reads holds up who writes to it.
    reader = threading.Thread(target=read)
    reader.start()
    with pytest.MonkeyPatch.context() as patch, os.fdopen(slave, "w") as stderr:
        patch.setenv("TERM", "xterm")
        patch.setenv("COLUMNS", "200")
        patch.setattr(sys, "stderr", stderr)
        yield
    reader.join()
    os.close(master)


def test_a_terminal_has_a_bar(make):
    told = []
    with terminal(told):
        report = make("--name", "daily")
    assert "committed daily" in "".join(told)
    assert "100%" in "".join(told)
    assert report["consistency"] == "group"


def test_the_bar_is_gone_when_a_failure_is_told(servers, create_fails):
    servers["db"].freeze_fails = "the agent is dead"
    told = []
    with terminal(told):
        assert "was not quiesced" in create_fails()
    assert "freezing db" in "".join(told)
    assert "".join(told).endswith("\x1b[2K")  # clears the line


def test_nothing_else_has_a_bar(make, capfd, monkeypatch):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    make()
    assert capfd.readouterr().err == ""


# -- list, show, delete --


def test_list_keeps_the_order_of_the_servers(make, run):
    first = make("--name", "nightly", "--backup")
    make("--name", "b", group=("--server", "db", "--server", "web"))
    rows = json.loads(run(commands.ListConsistencySnapshot, "-f", "json"))
    assert TIME.fullmatch(rows[0].pop("Created"))
    assert rows[0] == {
        "ID": first["id"],
        "Name": "nightly",
        "Status": "available",
        "Consistency": "group",
        "Backup": "available",
        "Servers": ["web", "db"],
    }
    assert (rows[1]["Backup"], rows[1]["Servers"]) == (None, ["db", "web"])
    table = run(commands.ListConsistencySnapshot)
    assert "| web, db " in table
    assert "| db, web " in table


def test_list_of_nothing(cloud, run):
    assert json.loads(run(commands.ListConsistencySnapshot, "-f", "json")) == []


def test_show_has_the_members_in_order(servers, make, run):
    made = make("--name", "daily", "--backup")
    text = run(commands.ShowConsistencySnapshot, made["id"], "-f", "json")
    shown = json.loads(text)
    assert list(shown) == [
        *("id", "name", "status", "consistency", "window_ms", "snapshot_status"),
        *("backup_status", "created_at", "properties", "servers", "members"),
    ]
    assert (shown["id"], shown["name"]) == (made["id"], "daily")
    assert shown["window_ms"] == made["window_ms"]
    statuses = [shown[one] for one in ("status", "snapshot_status", "backup_status")]
    assert statuses == ["available"] * 3
    assert shown["servers"] == [f"web={servers['web'].id}", f"db={servers['db'].id}"]
    members = [re.sub(r" [0-9a-f-]{36} ", " ", member) for member in shown["members"]]
    assert members == [
        "web /dev/vda=image (active)",
        "web /dev/vdb=snapshot (available)",
        "web /dev/vdb=backup (available)",
        "db /dev/vda=snapshot (available)",
        "db /dev/vda=backup (available)",
    ]
    people = run(commands.ShowConsistencySnapshot, "daily")
    assert f"| {', '.join(shown['servers'])} " in people


@pytest.mark.parametrize(
    "kind",
    [
        commands.ShowConsistencySnapshot,
        commands.DeleteConsistencySnapshot,
        commands.RestoreConsistencySnapshot,
    ],
)
def test_what_is_not_there_is_said_in_one_line(cloud, fails, kind):
    assert "No consistency snapshot with the name or ID typo" in fails(kind, "typo")


def test_delete_removes_all_that_it_can_and_names_the_rest(cloud, make, run, fails):
    for name in ("a", "b", "c"):
        make("--name", name)
    text = fails(commands.DeleteConsistencySnapshot, "a", "typo", "c")
    assert text.startswith("typo: No consistency snapshot ")
    rows = json.loads(run(commands.ListConsistencySnapshot, "-f", "json"))
    assert [row["Name"] for row in rows] == ["b"]
    assert run(commands.DeleteConsistencySnapshot, "b") == ""
    assert shop.members(cloud) == []


def test_delete_says_what_cinder_keeps(cloud, make, fails):
    make("--name", "daily")
    volume = shop.volume(cloud, "db-vda")
    volume.snapshots_stay = True
    text = fails(commands.DeleteConsistencySnapshot, "daily")
    (left,) = cloud.volumes.snapshots
    assert text.startswith("daily: Could not be removed: ")
    assert f"snapshot {left}: " in text


# -- restore, replicate --


def test_restore_shows_the_new_servers(cloud, servers, make, run):
    make("--name", "daily")
    text = run(
        commands.RestoreConsistencySnapshot,
        *("--new-addresses", "daily", "-f", "json"),
    )
    web, db = json.loads(text)
    assert list(web) == ["ID", "Name", "Original", "Disks"]
    assert [web["Name"], db["Name"]] == ["web", "db"]
    assert [web["Original"], db["Original"]] == [servers["web"].id, servers["db"].id]
    assert {web["ID"], db["ID"]} <= set(cloud.compute.servers)
    assert web["Disks"][0] == "/dev/vda: local"
    (volume,) = cloud.compute.servers[db["ID"]].devices
    assert db["Disks"] == [f"/dev/vda: volume {volume}"]


def test_restore_beside_the_originals_says_what_to_do(cloud, make, fails):
    make("--name", "daily")
    text = fails(commands.RestoreConsistencySnapshot, "daily")
    assert "restore with --new-addresses, or free it." in text
    assert len(cloud.compute.servers) == 2


def test_restore_in_another_cloud_replicates_first(other_by_name, make, run):
    make("--name", "daily", "--backup")
    text = run(
        commands.RestoreConsistencySnapshot,
        *("--cloud", "east", "daily", "-f", "json"),
    )
    made = json.loads(text)
    assert [one["Name"] for one in made] == ["web", "db"]
    assert [one["ID"] for one in made] == list(other_by_name.compute.servers)
    assert len(shop.members(other_by_name)) == 3


def test_replicate_prints_nothing(other_by_name, make, run):
    make("--name", "daily", "--backup")
    words = ("--cloud", "east", "daily")
    assert run(commands.ReplicateConsistencySnapshot, *words) == ""
    assert len(shop.members(other_by_name)) == 3


def test_replicate_without_a_backup_says_what_to_do(other_by_name, make, fails):
    make("--name", "daily")
    words = ("--cloud", "east", "daily")
    text = fails(commands.ReplicateConsistencySnapshot, *words)
    assert "make one with --backup." in text


@pytest.mark.parametrize(
    "kind",
    [commands.RestoreConsistencySnapshot, commands.ReplicateConsistencySnapshot],
)
def test_a_cloud_that_is_not_there(other_by_name, make, fails, kind):
    make("--name", "daily", "--backup")
    text = fails(kind, "--cloud", "nowhere", "daily")
    assert text == "There is no cloud nowhere: name one of clouds.yaml."


# -- the program --


def test_the_program_fails_with_one_line(cloud, servers, run_openstack):
    servers["db"].freeze_fails = "the agent is dead"
    done = run_openstack("consistency", "snapshot", "create", *GROUP)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("The consistency snapshot was not made. db: ")
    assert shop.undone(cloud)


def test_the_program_has_all_commands(cloud, servers, run_openstack):
    snapshot = ("consistency", "snapshot")
    done = run_openstack(*snapshot, "create", *GROUP, "--name", "daily", "-f", "json")
    assert (done.returncode, done.stderr) == (0, "")
    assert list(json.loads(done.stdout)) == REPORT
    done = run_openstack(*snapshot, "list", "-f", "value", "-c", "Name")
    assert done.stdout == "daily\n"
    done = run_openstack(*snapshot, "delete", "typo", "daily")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert shop.members(cloud) == []
