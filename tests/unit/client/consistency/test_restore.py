# SPDX-License-Identifier: Apache-2.0

import threading

import pytest

from nova_ext.client.consistency import errors, restore
from tests.unit.client.consistency import shop


@pytest.fixture
def daily(cloud, servers, create, conn, find):
    """A group of the shop, with backups, whose servers are gone; the log is empty."""
    create(name="daily", backup=True)
    for server in servers.values():
        conn.compute.delete_server(server.id)
    with cloud.lock:
        for port in list(cloud.network.ports):
            del cloud.network.ports[port]
        cloud.log.clear()
    return find("daily")


@pytest.fixture
def make(conn, find):
    """Return the restore of that group."""

    def make(**options):
        return restore.restore(conn, find("daily"), **options)

    return make


def made_volumes(cloud):
    return [v for v in cloud.volumes.volumes.values() if v.name.startswith("daily-")]


def left(cloud):
    """Return what a restore has made and not removed."""
    return (
        [server.name for server in cloud.compute.servers.values()],
        [volume.name for volume in made_volumes(cloud)],
        list(cloud.network.ports),
    )


NOTHING = ([], [], [])


def test_servers_come_back_with_their_disks_and_addresses(cloud, servers, daily, make):
    made = make()
    assert [(one.name, one.original) for one in made] == [
        (name, server.id) for name, server in servers.items()
    ]
    (web,) = cloud.compute.by_name("web")
    (db,) = cloud.compute.by_name("db")
    assert [one.id for one in made] == [web.id, db.id]
    assert (web.status, web.flavor, db.status) == ("ACTIVE", "small", "ACTIVE")
    (image,) = cloud.images.with_property("consistency:id")
    assert web.image == image["id"]
    contents = {
        f"{server.name} {device}": cloud.volumes.volumes[volume].content
        for server in (web, db)
        for volume, device in server.devices.items()
    }
    assert contents == {
        "web /dev/vdb": "data of web-vdb",
        "db /dev/vda": "data of db-vda",
    }
    assert [one[2] for one in cloud.network.addresses_of("web")] == ["10.0.0.5"]
    assert [one[2] for one in cloud.network.addresses_of("db")] == ["10.0.0.6"]
    (db_volume,) = db.devices
    assert made[1].disks == [f"/dev/vda: volume {db_volume}"]


def test_mac_addresses_networks_and_security_groups_come_back(
    cloud, create, conn, make
):
    for name in ("inner", "outer"):
        cloud.network.add_group(name)
    front, back = cloud.network.add("front"), cloud.network.add("back", "10.1.0.0/24")
    db = cloud.compute.add_on_volume(
        "db", config_drive=True, zone="nova", security_groups=["inner", "outer"]
    )
    cloud.network.add_port(db, front, "10.0.0.7")
    cloud.network.add_port(db, back, "10.1.0.7")
    before = cloud.network.addresses_of("db")
    create([["db"]], name="daily")
    conn.compute.delete_server(db.id)
    cloud.network.ports.clear()
    make()
    assert cloud.network.addresses_of("db") == before
    wanted = {g["id"] for g in cloud.network.groups.values() if g["name"] != "default"}
    for port in cloud.network.ports.values():
        assert set(port["security_groups"]) == wanted
    (again,) = cloud.compute.by_name("db")
    assert (again.config_drive, again.zone) == (True, "nova")


def test_nics_come_back_in_their_order(cloud, create, conn, make):
    db = cloud.compute.add_on_volume("db")
    names = ["one", "two", "three"]
    for number, name in enumerate(names):
        network = cloud.network.add(name, f"10.0.{number}.0/24")
        cloud.network.add_port(db, network, f"10.0.{number}.7")
    create([["db"]], name="daily")
    conn.compute.delete_server(db.id)
    cloud.network.ports.clear()
    make()
    assert [one[0] for one in cloud.network.addresses_of("db")] == names


def test_disks_come_back_in_the_order_of_their_devices(cloud, create, conn, make):
    db = cloud.compute.add_on_volume("db")
    for device in ("/dev/vdd", "/dev/vdb", "/dev/vdc"):
        cloud.compute.attach(db, device=device)
    create([["db"]], name="daily")
    conn.compute.delete_server(db.id)
    make()
    (again,) = cloud.compute.by_name("db")
    assert {
        device: cloud.volumes.volumes[volume].content
        for volume, device in again.devices.items()
    } == {
        "/dev/vda": "data of db-vda",
        "/dev/vdb": "data of db-vdb",
        "/dev/vdc": "data of db-vdc",
        "/dev/vdd": "data of db-vdd",
    }


def test_servers_are_started_in_the_order_of_the_freeze(cloud, daily, make):
    cloud.compute.boot_takes["web"] = 0.1
    make()
    assert cloud.events("boot", "booted") == [
        ("boot", "web"),
        ("booted", "web"),
        ("boot", "db"),
        ("booted", "db"),
    ]


def test_servers_of_one_stage_are_started_at_the_same_time(
    cloud, servers, create, conn, make, monkeypatch
):
    monkeypatch.setattr(restore, "_BOOT_LIMIT", 5)
    create([["web", "db"]], name="daily")
    for server in servers.values():
        conn.compute.delete_server(server.id)
    cloud.network.ports.clear()
    # Whichever comes first waits for the other.
    for name, other in (("web", "db"), ("db", "web")):
        cloud.compute.boot_takes[name] = ("boot", other)
    assert len(make()) == 2


def test_snapshots_are_preferred_to_backups(cloud, daily, make):
    make()
    assert not cloud.events("restore")
    assert all(volume.snapshot_id for volume in made_volumes(cloud))


@pytest.mark.parametrize("bootable", [True, False])
def test_without_snapshots_volumes_are_made_of_the_backups(
    cloud, daily, make, bootable
):
    cloud.volumes.snapshots.clear()
    if not bootable:  # a backup of a volume without the metadata of an image
        for backup in cloud.volumes.backups.values():
            backup["image_metadata"] = {}
    cloud.volumes.restore_takes = 0.05
    make()
    assert len(cloud.events("restored")) == 2
    (db,) = cloud.compute.by_name("db")
    (volume,) = db.devices
    assert cloud.volumes.volumes[volume].content == "data of db-vda"
    assert cloud.volumes.volumes[volume].bootable


def test_a_volume_type_of_the_group_is_kept_if_it_is_there(cloud, daily, make):
    cloud.volumes.snapshots.clear()
    for backup in cloud.volumes.backups.values():
        kind = "lvm" if "db-vda" in cloud.label(backup["id"]) else "ceph"
        backup["metadata"]["consistency:volume_type"] = kind
    cloud.volumes.types.append("else")
    make()
    assert "ceph" not in {volume.type for volume in made_volumes(cloud)}


def test_what_is_made_tells_what_it_is_made_of(cloud, daily, make):
    make()
    things = [*cloud.compute.servers.values(), *made_volumes(cloud)]
    assert len(things) == 4
    assert {one.metadata[restore.RESTORED_FROM] for one in things} == {daily.id}


def test_a_server_without_ports_comes_back_without(cloud, create, conn, make):
    db = cloud.compute.add_on_volume("db")
    create([["db"]], name="daily")
    conn.compute.delete_server(db.id)
    make()
    assert cloud.network.addresses_of("db") == []


# Beside the originals.


def test_addresses_in_use_are_refused_and_nothing_is_left(cloud, servers, create, make):
    create(name="daily")
    before = left(cloud)
    with pytest.raises(errors.GroupFailed, match="--new-addresses") as caught:
        make()
    assert caught.value.left == []
    assert left(cloud) == before


def test_new_addresses_are_for_servers_beside_the_originals(
    cloud, servers, create, make
):
    create(name="daily")
    make(new_addresses=True)
    addresses = [
        fixed["ip_address"]
        for port in cloud.network.ports.values()
        for fixed in port["fixed_ips"]
    ]
    assert len(set(addresses)) == 4
    assert len(cloud.compute.by_name("web")) == len(cloud.compute.by_name("db")) == 2


# What the cloud lacks is told before anything is made.


def test_a_group_that_is_not_available_is_refused(cloud, daily, make):
    cloud.volumes.snapshots.popitem()
    cloud.volumes.backups.popitem()
    with pytest.raises(errors.PlanError, match="not available"):
        make()
    assert cloud.log == []


@pytest.mark.parametrize("what", ["flavor", "network", "security group"])
def test_what_is_missing_is_told_before_anything_is_made(cloud, daily, make, what):
    lacking = {
        "flavor": cloud.compute.flavors,
        "network": cloud.network.networks,
        "security group": cloud.network.groups,
    }
    lacking[what].clear()
    with pytest.raises(errors.PlanError, match=f"no {what}"):
        make()
    assert cloud.log == []


def test_two_networks_of_one_name_are_refused(cloud, daily, make):
    cloud.network.add("backend")
    with pytest.raises(errors.PlanError, match="More than one network"):
        make()
    assert cloud.log == []


# Failures.


def fails_to_boot(cloud):
    cloud.compute.fails_to_boot.add("db")


def fails_to_create_a_volume(cloud):
    cloud.volumes.create_ends["daily-db-vda"] = "error"


def fails_to_restore_a_backup(cloud):
    cloud.volumes.snapshots.clear()
    cloud.volumes.restore_ends = "error_restoring"


def refused(text, code=500):
    def refuse(cloud):
        cloud.fault(text, refuse=(code, "because"))

    return refuse


@pytest.mark.parametrize(
    "harm",
    [
        fails_to_boot,
        fails_to_create_a_volume,
        fails_to_restore_a_backup,
        refused("POST volume /volumes daily-web-vdb", 413),
        refused("POST volume /volumes daily-db-vda"),
        refused("os-set_bootable"),
        refused("POST network /ports"),
        refused("POST compute /servers web", 403),
        refused("POST compute /servers db", 400),
    ],
)
def test_after_a_failure_nothing_is_left(cloud, daily, make, harm):
    harm(cloud)
    with pytest.raises(errors.GroupFailed) as caught:
        make()
    assert caught.value.left == []
    assert left(cloud) == NOTHING
    assert len(shop.members(cloud)) in (3, 5)  # the group itself is untouched


def test_a_failure_at_any_step_leaves_nothing(cloud, daily, make):
    for number, observe in shop.interruptions():
        try:
            make(observe=observe)
        except errors.GroupFailed:
            assert left(cloud) == NOTHING, number
        else:
            break
    assert number == 9  # one more than there are steps
    assert [server.status for server in cloud.compute.servers.values()] == [
        "ACTIVE"
    ] * 2


@pytest.mark.parametrize("kind", ["built", "booted"])
def test_what_is_no_error_leaves_nothing_and_is_passed_on(cloud, daily, make, kind):
    def observe(step):
        if step.kind == kind:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(observe=observe)
    assert left(cloud) == NOTHING


def test_steps_are_counted_and_told_in_the_calling_thread(cloud, daily, make):
    steps, threads = [], set()

    def observe(step):
        steps.append(step)
        threads.add(threading.current_thread())

    make(observe=observe)
    assert threads == {threading.current_thread()}
    assert (steps[-1].kind, steps[-1].done) == ("booted", steps[-1].total)
    assert [step.what for step in steps if step.kind == "booting"] == ["web", "db"]


def test_what_cannot_be_removed_is_listed(cloud, daily, make):
    fails_to_boot(cloud)
    cloud.fault("DELETE volume /volumes/daily-db-vda", refuse=(500, "no"), times=None)
    with pytest.raises(errors.GroupFailed) as caught:
        make()
    (volume,) = made_volumes(cloud)
    assert [one.partition(":")[0] for one in caught.value.left] == [
        f"volume {volume.id}"
    ]


@pytest.mark.parametrize(
    "what",
    ["POST volume /volumes daily-db-vda", "POST network /ports", "POST .*/servers web"],
)
def test_what_was_made_though_its_answer_is_lost_is_removed_or_told(
    cloud, daily, make, what
):
    cloud.fault(what, lost=True)
    with pytest.raises(errors.GroupFailed) as caught:
        make()
    things = [
        *(f"server {one.id}" for one in cloud.compute.servers.values()),
        *(f"volume {one.id}" for one in made_volumes(cloud)),
        *(f"port {one}" for one in cloud.network.ports),
    ]
    assert things == [one.partition(":")[0] for one in caught.value.left]


def test_passing_errors_are_waited_out(cloud, daily, make):
    cloud.volumes.snapshots.clear()
    cloud.volumes.restore_takes = 0.1
    cloud.fault("GET volume /volumes/", refuse=(503, "restarting"), times=4)
    cloud.fault("GET compute /servers/", refuse=(503, "restarting"), times=2)
    assert len(make()) == 2
