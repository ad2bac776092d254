# SPDX-License-Identifier: Apache-2.0

import pytest

from nova_ext.client import compute, exceptions
from nova_ext.client.consistency import errors, metadata, plan
from tests.unit.client.consistency import shop


@pytest.fixture
def make(conn):
    """Return the making of a plan for the shop."""

    def make(stages=shop.STAGES, **options):
        return plan.make(conn, stages, **options)

    return make


def changes(cloud):
    """Return the requests that change something."""
    return [text for text in cloud.requests if not text.startswith("GET")]


def test_a_plan_tells_the_servers_in_order_and_their_disks_root_first(
    cloud, servers, make
):
    made = make([["db"], ["web"]])
    assert [server.name for server in made.servers] == ["db", "web"]
    assert [server.stage for server in made.servers] == [0, 1]
    assert [disk.title for disk in made.disks] == [
        "db /dev/vda",
        "web /dev/vda",
        "web /dev/vdb",
    ]
    assert [disk.number for disk in made.disks] == [0, 1, 2]
    assert [disk.boot for disk in made.disks] == [True, True, False]
    root = made.disks[1]
    assert (root.volume, root.size) == (None, 1)
    assert made.disks[0].volume == shop.volume(cloud, "db-vda").id
    assert changes(cloud) == []


def test_disks_are_in_the_order_of_their_devices(cloud, make):
    db = cloud.compute.add_on_volume("db")
    for device in ("/dev/vdz", "/dev/vdaa", "/dev/vdc"):
        cloud.compute.attach(db, device=device)
    assert [disk.device for disk in make([["db"]]).disks] == [
        "/dev/vda",
        "/dev/vdc",
        "/dev/vdz",
        "/dev/vdaa",
    ]


def test_a_plan_tells_how_a_server_is_made(cloud, conn, make):
    db = cloud.compute.add_on_volume(
        "db", flavor="big", config_drive=True, zone="east", security_groups=["a", "b"]
    )
    front, back = cloud.network.add("front"), cloud.network.add("back", "10.1.0.0/24")
    first = cloud.network.add_port(db, front, "10.0.0.7")
    cloud.network.add_port(db, back, "10.1.0.7")
    (server,) = make([[db.id]]).servers
    assert (server.id, server.name, server.flavor) == (db.id, "db", "big")
    assert (server.config_drive, server.availability_zone) == (True, "east")
    assert server.security_groups == ("a", "b")
    assert [port.network for port in server.ports] == ["front", "back"]
    assert server.ports[0].mac == first["mac_address"]
    assert server.ports[0].addresses == ("10.0.0.7",)


def test_the_zone_that_the_scheduler_chose_is_not_kept(cloud, servers, make):
    assert {server.availability_zone for server in make().servers} == {None}


def test_what_is_written_on_a_member_is_read_again(cloud, servers, make):
    made = make(name="daily", properties={"keep": "7"})
    for disk, values in zip(made.disks, made.metadata, strict=True):
        assert metadata.decode(values) == (made.header, disk)
        assert metadata.properties(values) == {"keep": "7"}
        assert all(len(value) <= 255 for value in values.values())


@pytest.mark.parametrize("name", ["datenbänk", "数据库", 'a "quoted" one', "a,b;c=d"])
def test_any_name_is_written_and_read(cloud, make, name):
    server = cloud.compute.add(name)
    network = cloud.network.add(name)
    cloud.network.add_port(server, network, "10.0.0.9")
    made = make([[server.id]], name=name)
    assert metadata.decode(made.metadata[0]) == (made.header, made.disks[0])
    (planned,) = made.servers
    assert (made.header.name, planned.name) == (name, name)
    assert planned.ports[0].network == name


def test_a_network_without_a_name_is_told_by_its_id(cloud, servers, make):
    network = cloud.network.add("")
    cloud.network.add_port(servers["db"], network, "10.0.0.9")
    assert list(make().servers)[1].ports[1].network == network["id"]


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"status": "SHUTOFF"}, "SHUTOFF"),
        ({"status": "PAUSED"}, "PAUSED"),
        ({"task": "image_uploading"}, "image_uploading"),
        ({"locked": True}, "unlock it"),
    ],
)
def test_a_server_that_cannot_be_frozen_is_refused(cloud, servers, make, state, said):
    for name, value in state.items():
        setattr(servers["db"], name, value)
    with pytest.raises(errors.PlanError, match=f"db: .*{said}"):
        make()
    assert changes(cloud) == []
    planned = make(best_effort=True)
    assert planned.refusals.keys() == {servers["db"].id}
    assert said in planned.refusals[servers["db"].id]


def test_a_server_that_is_frozen_already_is_refused(cloud, servers, make, conn):
    compute.quiesce(conn, servers["web"].id)
    with pytest.raises(errors.PlanError, match="web: it is quiesced already"):
        make()


def test_all_that_cannot_be_frozen_are_named_at_once(cloud, servers, make):
    servers["db"].status = servers["web"].status = "SHUTOFF"
    with pytest.raises(errors.PlanError, match=r"web: .*db: "):
        make()


@pytest.mark.parametrize("timeout", [0, -1])
def test_a_time_that_is_none_is_refused(cloud, servers, make, timeout):
    with pytest.raises(errors.PlanError, match="timeout"):
        make(timeout=timeout)


@pytest.mark.parametrize("stages", [[], [[]], [["web"], []]])
def test_a_group_needs_servers(servers, make, stages):
    with pytest.raises(errors.PlanError, match="needs a server"):
        make(stages)


@pytest.mark.parametrize("again", ["name", "id"])
def test_a_server_given_twice_is_refused(servers, make, again):
    with pytest.raises(errors.PlanError, match="more than once"):
        make([["web"], ["db"], [getattr(servers["web"], again)]])


def test_a_server_that_is_not_there_is_refused(cloud, servers, make):
    with pytest.raises(exceptions.ServerNotFound, match="cache"):
        make([["web"], ["cache"]])


def test_a_name_of_two_servers_is_refused(cloud, servers, make):
    cloud.compute.add("db")
    with pytest.raises(exceptions.ServerAmbiguous):
        make()


def test_a_cloud_without_the_extension_is_refused(cloud, servers, make):
    cloud.compute.maximum = "2.104"
    with pytest.raises(exceptions.MicroversionNotOffered):
        make()


@pytest.mark.parametrize(
    "properties",
    [{"consistency:id": "x"}, {"a" * 256: "x"}, {"": "x"}, {"x": "a" * 256}],
)
def test_properties_that_cannot_be_kept_are_refused(cloud, servers, make, properties):
    with pytest.raises(errors.PlanError):
        make(properties=properties)
    assert changes(cloud) == []


@pytest.mark.parametrize("key", ["käse", "a,b", "a=b", "a#b"])
def test_a_property_that_nova_or_cinder_would_refuse_is_refused_before(
    cloud, servers, make, key
):
    with pytest.raises(errors.PlanError, match=key):
        make(properties={key: "x"})


def test_a_volume_of_two_servers_is_refused(cloud, servers, make):
    shared = shop.volume(cloud, "web-vdb")
    cloud.compute.connect(servers["db"], shared, "/dev/vdb")
    with pytest.raises(errors.PlanError, match="several servers"):
        make()


def test_a_server_that_cannot_boot_is_refused(cloud, servers, make):
    shop.volume(cloud, "db-vda").bootable = False
    with pytest.raises(errors.PlanError, match=r"db.*bootable"):
        make()


def test_a_second_bootable_volume_is_no_root(cloud, servers, make):
    cloud.compute.attach(servers["db"], bootable=True)
    db = [disk.boot for disk in make().disks if disk.server.name == "db"]
    assert db == [True, False]


def test_a_bootable_volume_beside_an_image_is_no_root(cloud, servers, make):
    shop.volume(cloud, "web-vdb").bootable = True
    web = [disk.boot for disk in make().disks if disk.server.name == "web"]
    assert web == [True, False]


def test_a_quota_that_is_too_small_is_refused(cloud, servers, make):
    cloud.volumes.quota = 1
    with pytest.raises(errors.PlanError, match="quota of snapshots is 1"):
        make()
    cloud.volumes.quota = 2
    assert make()
    cloud.volumes.quota = -1  # without limit
    assert make()


def test_a_quota_that_may_not_be_seen_is_no_refusal(cloud, servers, make):
    cloud.fault("GET volume /os-quota-sets", refuse=(403, "no"))
    assert make()


def test_incremental_backups_need_earlier_ones(cloud, servers, make, create):
    create([["db"]], backup=True)
    with pytest.raises(errors.PlanError, match="No earlier backup of web /dev/vdb"):
        make(incremental=True)
    create([["web"]], backup=True)
    assert make(incremental=True)


def test_a_backup_that_failed_is_no_earlier_one(cloud, servers, make, create):
    create(backup=True)
    for backup in cloud.volumes.backups.values():
        backup["status"] = "error"
    with pytest.raises(errors.PlanError, match="No earlier backup"):
        make(incremental=True)


def test_a_long_list_of_addresses_is_refused_by_its_name(cloud, servers, make):
    network = cloud.network.add("wide", "10.9.0.0/16")
    port = cloud.network.add_port(servers["db"], network, "10.9.0.1")
    port["fixed_ips"] = [{"ip_address": f"10.9.100.{n}"} for n in range(100, 120)]
    with pytest.raises(errors.PlanError, match=r"port\.1 of db /dev/vda"):
        make()
