# SPDX-License-Identifier: Apache-2.0

import datetime

import pytest

from nova_ext.client.consistency import errors, groups, members, metadata
from tests.unit.client.consistency import shop


@pytest.fixture
def statuses(conn):
    """Return how all groups of the cloud are listed."""
    return lambda: {
        group.name: (str(group.snapshot_status), str(group.backup_status))
        for group in groups.find_all(conn)
    }


@pytest.fixture
def delete(conn, find):
    """Return the deletion of a group by its name."""
    return lambda name: groups.delete(conn, find(name))


def snapshot_of(cloud, name):
    return next(
        snapshot
        for snapshot in cloud.volumes.snapshots.values()
        if cloud.label(snapshot["id"]) == name
    )


def overdue(cloud):
    """Let the deadline of every group be in the past."""
    images = cloud.images.with_property("consistency:id")
    snapshots = [one["metadata"] for one in cloud.volumes.snapshots.values()]
    for values in (*images, *snapshots):
        values["consistency:deadline"] = "2026-11-20T10:00:00.000Z"


def test_a_group_is_found_by_name_and_by_id(cloud, servers, create, find):
    made = create(name="daily", properties={"keep": "7"})
    for key in ("daily", made.id):
        group = find(key)
        assert (group.id, group.name) == (made.id, "daily")
        assert (group.status, group.consistency) == ("available", "group")
        assert group.window_ms == made.window_ms
        assert group.properties == {"keep": "7"}
        assert [server.name for server in group.servers] == ["web", "db"]
        assert [disk.title for _, disk in sorted(group.disks.items())] == shop.DISKS


def test_a_group_that_is_not_there_is_not_found(cloud, servers, create, find):
    create(name="daily")
    with pytest.raises(errors.NotFound, match="weekly"):
        find("weekly")


def test_a_name_of_two_groups_is_refused(cloud, servers, create, find):
    made = create(name="daily")
    create(name="daily")
    with pytest.raises(errors.NotFound, match="More than one"):
        find("daily")
    assert find(made.id).id == made.id


def test_groups_are_listed_the_oldest_first_through_all_pages(
    cloud, servers, create, conn
):
    for number in range(3):
        create(name=f"number-{number}", backup=True)
    cloud.page_size = 2
    listed = groups.find_all(conn)
    assert [group.name for group in listed] == ["number-0", "number-1", "number-2"]
    assert [len(group.members) for group in listed] == [5, 5, 5]


def test_what_is_not_of_a_group_is_not_listed(cloud, servers, create, conn, statuses):
    conn.block_storage.create_snapshot(
        volume_id=shop.volume(cloud, "web-vdb").id, is_forced=True
    )
    conn.block_storage.create_backup(
        volume_id=shop.volume(cloud, "web-vdb").id, force=True
    )
    conn.compute.create_server_image(servers["web"].id, "mine")
    cloud.images.add("another")
    assert statuses() == {}


def test_a_group_whose_maker_died_is_creating_until_its_deadline(
    cloud, servers, create, statuses
):
    create(name="daily")
    (image,) = cloud.images.with_property("consistency:id")
    del image[metadata.PROVED]
    assert statuses() == {"daily": ("creating", "None")}
    overdue(cloud)
    assert statuses() == {"daily": ("error", "None")}


@pytest.mark.parametrize("what", ["snapshot", "image"])
def test_a_group_that_lost_a_member_is_in_error(cloud, servers, create, statuses, what):
    create(name="daily")
    if what == "snapshot":
        cloud.volumes.snapshots.popitem()
    else:
        (image,) = cloud.images.with_property("consistency:id")
        del cloud.images.images[image["id"]]
        overdue(cloud)
    assert statuses() == {"daily": ("error", "None")}


def test_a_group_that_lost_its_snapshots_lives_by_its_backups(
    cloud, servers, create, find
):
    create(name="daily", backup=True)
    cloud.volumes.snapshots.clear()
    group = find("daily")
    assert (group.snapshot_status, group.backup_status) == ("error", "available")
    assert (group.status, group.consistency) == ("available", "group")


def test_a_group_that_lost_a_backup_still_has_its_snapshots(
    cloud, servers, create, statuses
):
    create(name="daily", backup=True)
    cloud.volumes.backups.popitem()
    snapshots, backups = statuses()["daily"]
    assert snapshots == "available"
    assert backups != "available"


@pytest.mark.parametrize("what", ["error", "error_deleting", "deleting"])
def test_a_group_with_a_bad_snapshot_is_not_available(
    cloud, servers, create, statuses, what
):
    create(name="daily")
    snapshot_of(cloud, "web-vdb")["status"] = what
    assert statuses()["daily"][0] != "available"


KEYS = sorted(
    f"consistency:{key}"
    for key in (
        *("id", "name", "created_at", "deadline", "disks", "member", "server", "stage"),
        *("server_name", "flavor", "config_drive", "availability_zone", "device"),
        *("security_groups", "boot", "volume", "size", "volume_type", "ports"),
        *("port.0", "proved", "consistency", "window_ms"),
    )
)


def test_a_group_that_somebody_edited_does_not_hide_the_others(
    cloud, servers, create, conn
):
    create([["db"]], name="good")
    (good,) = cloud.volumes.snapshots.values()
    for key in KEYS:
        for value in (None, "", "7", "null", "[[]]", "{}", "x"):
            number = f"{key} {value}"
            values = {**good["metadata"], "consistency:id": number}
            values |= {"consistency:name": number, "consistency:proved": number}
            values[key] = value
            if value is None:
                del values[key]
            cloud.volumes.snapshots[number] = {**good, "metadata": values}
            cloud.volumes.snapshots[number]["id"] = number
    listed = groups.find_all(conn)
    told = {
        one.name: (one.status, one.consistency, one.window_ms, one.servers)
        for one in listed
    }
    assert told["good"][:2] == ("available", "group")
    assert len(told) > 50


def test_deleting_removes_all_members_and_nothing_else(
    cloud, servers, create, delete, conn
):
    create(name="daily", backup=True)
    create(name="other")
    conn.block_storage.create_snapshot(
        volume_id=shop.volume(cloud, "web-vdb").id, is_forced=True, name="mine"
    )
    delete("daily")
    assert shop.members(cloud) == [
        "image other-web-vda",
        "snapshot db-vda",
        "snapshot web-vdb",
        "snapshot web-vdb",
    ]
    assert [group.name for group in groups.find_all(conn)] == ["other"]


def test_deleting_waits_for_a_backup_that_is_read_or_written(
    cloud, servers, create, delete
):
    create(name="daily", backup=True)
    snapshot = snapshot_of(cloud, "web-vdb")
    snapshot["status"] = "backing-up"
    with cloud.lock:
        cloud.after(0.2, snapshot.update, {"status": "available"})
    delete("daily")
    assert shop.members(cloud) == []


def test_a_deletion_that_was_broken_off_is_finished(cloud, servers, create, delete):
    create(name="daily")
    snapshot = snapshot_of(cloud, "web-vdb")
    snapshot["status"] = "deleting"
    with cloud.lock:
        cloud.after(0.2, cloud.volumes.snapshots.pop, snapshot["id"])
    delete("daily")
    assert shop.members(cloud) == []


def test_a_group_that_is_being_made_is_not_deleted(cloud, servers, create, delete):
    create(name="daily")
    (image,) = cloud.images.with_property("consistency:id")
    del image[metadata.PROVED]
    with pytest.raises(errors.PlanError, match="is being made"):
        delete("daily")
    assert len(shop.members(cloud)) == 3
    overdue(cloud)
    delete("daily")
    assert shop.members(cloud) == []


def test_what_cannot_be_deleted_is_listed(cloud, servers, create, delete):
    create(name="daily", backup=True)
    shop.volume(cloud, "web-vdb").snapshots_stay = True
    cloud.images.delete_fails.add("daily-web-vda")
    (image,) = cloud.images.with_property("consistency:id")
    snapshot = snapshot_of(cloud, "web-vdb")
    with pytest.raises(errors.Leftovers) as caught:
        delete("daily")
    assert {one.partition(":")[0] for one in caught.value.left} == {
        f"snapshot {snapshot['id']}",
        f"image {image['id']}",
    }
    assert shop.members(cloud) == ["image daily-web-vda", "snapshot web-vdb"]


def test_a_member_that_is_gone_already_is_no_failure(
    cloud, servers, create, conn, find
):
    create(name="daily", backup=True)
    group = find("daily")
    cloud.volumes.snapshots.popitem()
    cloud.volumes.backups.popitem()
    groups.delete(conn, group)
    assert shop.members(cloud) == []


def test_a_deletion_whose_answer_is_lost_is_repeated(cloud, servers, create, delete):
    create(name="daily", backup=True)
    cloud.fault("DELETE", lost=True, times=2)
    delete("daily")
    assert shop.members(cloud) == []


def test_a_group_that_others_build_on_is_kept_whole(
    cloud, servers, create, delete, statuses
):
    create([["db"]], name="full", backup=True)
    create([["db"]], name="more", backup=True, incremental=True)
    before = shop.members(cloud)
    with pytest.raises(errors.PlanError, match="build on those of"):
        delete("full")
    assert shop.members(cloud) == before
    assert set(statuses().values()) == {("available", "available")}
    delete("more")
    delete("full")
    assert shop.members(cloud) == []


def test_images_of_other_projects_are_no_members(cloud, servers, create, find, delete):
    create(name="daily")
    (image,) = cloud.images.with_property("consistency:id")
    # As an administrator sees one: shared, or made by a replication next door.
    copied = {key: value for key, value in image.items() if ":" in key}
    more = {"image_type": "snapshot", "owner": "another project"}
    theirs = cloud.images.add("theirs", {**copied, **more})
    theirs["consistency:image"] = theirs["id"]
    assert theirs["id"] not in {member.id for member in find("daily").members}
    delete("daily")
    assert cloud.images.with_property("consistency:id") == [theirs]


# Images that inherit the metadata.


def boot_from(cloud, image):
    """Let the web server be one that was made of an image, as nova keeps it."""
    (web,) = cloud.compute.by_name("web")
    properties = {k: v for k, v in image.items() if ":" in k}
    web.image, web.image_properties = image["id"], properties
    return web


@pytest.mark.parametrize("rebuilt", [True, False])
def test_an_image_of_a_restored_server_is_no_member_of_the_group(
    cloud, servers, create, conn, find, delete, rebuilt
):
    create(name="daily")
    (image,) = cloud.images.with_property("consistency:id")
    if not rebuilt:  # but another server of that name
        conn.compute.delete_server(servers["web"].id)
        cloud.compute.add("web")
    web = boot_from(cloud, image)
    conn.compute.create_server_image(web.id, "mine")
    group = find("daily")
    assert group.snapshots[0].id == image["id"]
    assert len(group.members) == 3
    delete("daily")
    assert [one["name"] for one in cloud.images.with_property("consistency:id")] == [
        "mine"
    ]


def test_a_group_of_a_restored_server_inherits_no_proof(
    cloud, servers, create, conn, statuses
):
    create([["web"]], name="first", properties={"keep": "7"})
    (image,) = cloud.images.with_property("consistency:id")
    boot_from(cloud, image)
    seen = []
    create([["web"]], name="second", observe=lambda _step: seen.append(statuses()))
    before = [one.get("second", ("creating",))[0] for one in seen[:-1]]
    assert set(before) == {"creating"}
    assert seen[-1]["second"][0] == "available"
    assert {one["first"][0] for one in seen} == {"available"}


def test_a_group_of_a_restored_server_has_its_own_ports(
    cloud, servers, create, conn, find
):
    extra = cloud.network.add("extra", "10.5.0.0/24")
    port = cloud.network.add_port(servers["web"], extra, "10.5.0.5")
    create([["web"]], name="first")
    (image,) = cloud.images.with_property("consistency:id")
    boot_from(cloud, image)
    conn.network.delete_port(port["id"])
    create([["web"]], name="second")
    networks = {
        name: [port.network for port in find(name).servers[0].ports]
        for name in ("first", "second")
    }
    assert networks == {"first": ["backend", "extra"], "second": ["backend"]}


def test_the_deadline_is_in_the_metadata_and_after_the_timeout(
    cloud, servers, create, find
):
    create(name="daily", timeout=100)
    header = find("daily").header
    begin, end = map(
        datetime.datetime.fromisoformat, (header.created_at, header.deadline)
    )
    assert (end - begin).total_seconds() >= 100


def test_find_returns_the_members_of_one_group(cloud, servers, create, conn):
    made = create(name="daily", backup=True)
    create(name="other", backup=True)
    assert len(list(members.find(conn, made.id))) == 5


def test_the_limit_of_requests_is_the_callers_own_again(conn, servers, create):
    seen = []
    create(observe=lambda step: seen.append(conn.session.timeout))
    groups.find_all(conn)
    assert set(seen) == {90}
    assert conn.session.timeout is None
    conn.session.timeout = 7
    create(observe=lambda step: seen.append(conn.session.timeout))
    assert set(seen) == {90, 7}
    assert conn.session.timeout == 7
