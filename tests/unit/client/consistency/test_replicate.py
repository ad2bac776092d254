# SPDX-License-Identifier: Apache-2.0

import pytest

from nova_ext.client.consistency import errors, groups, replicate, restore
from tests.unit.client.consistency import shop


@pytest.fixture
def there(other, connect):
    """A connection to the other cloud, which has the network of the shop, too."""
    other.network.add("backend")
    return connect(to=other)


@pytest.fixture
def bring(conn, there, find):
    """Return the replication of a group by its name."""

    def bring(name="daily", **options):
        return replicate.replicate(conn, there, find(name), **options)

    return bring


PARTS = ["backup db-vda", "backup web-vdb", "image daily-web-vda"]


def test_a_group_is_found_in_the_other_cloud(
    cloud, other, servers, create, find, bring
):
    made = create(name="daily", backup=True, properties={"keep": "7"})
    group = bring()
    assert (group.id, group.name, group.status) == (made.id, "daily", "available")
    assert (group.consistency, group.window_ms) == ("group", made.window_ms)
    assert group.properties == {"keep": "7"}
    assert group.disks == find("daily").disks
    assert shop.members(other) == PARTS
    assert len(shop.members(cloud)) == 5


def test_the_bytes_and_the_properties_of_images_are_the_same(
    cloud, other, servers, create, bring
):
    create(name="daily", backup=True)
    bring()
    (here,) = cloud.images.with_property("consistency:id")
    (copy,) = other.images.with_property("consistency:id")
    assert other.images.data[copy["id"]] == cloud.images.data[here["id"]]
    assert copy["status"] == "active"
    for key in ("disk_format", "container_format", "hw_qemu_guest_agent", "image_type"):
        assert copy[key] == here[key]
    assert copy["visibility"] == "private"


def test_servers_are_restored_in_the_other_cloud(other, servers, create, there, bring):
    create(name="daily", backup=True)
    restore.restore(there, bring())
    (web,) = other.compute.by_name("web")
    (db,) = other.compute.by_name("db")
    assert (web.status, db.status) == ("ACTIVE", "ACTIVE")
    (root,) = db.devices
    assert other.volumes.volumes[root].content == "data of db-vda"
    assert other.images.data[web.image] == b"disk of web"
    assert [one[2] for one in other.network.addresses_of("db")] == ["10.0.0.6"]


def test_a_second_time_is_harmless(cloud, other, servers, create, bring):
    create(name="daily", backup=True)
    first = bring()
    before = list(other.log)
    again = bring()
    assert again.members == first.members
    assert other.log == before


def test_the_chain_of_an_incremental_backup_comes_along(other, servers, create, bring):
    create([["db"]], name="full", backup=True)
    create([["db"]], name="more", backup=True, incremental=True)
    create([["db"]], name="most", backup=True, incremental=True)
    assert bring("most").status == "available"
    assert shop.members(other) == ["backup db-vda"] * 3
    # The full one came first, and each has its parent.
    backups = list(other.volumes.backups.values())
    assert [backup["parent_id"] for backup in backups] == [
        None,
        backups[0]["id"],
        backups[1]["id"],
    ]


def test_a_later_backup_does_not_come_along(other, servers, create, bring):
    create([["db"]], name="full", backup=True)
    create([["db"]], name="more", backup=True, incremental=True)
    bring("full")
    assert shop.members(other) == ["backup db-vda"]


def test_an_incremental_backup_builds_on_the_one_before_not_on_another_full_one(
    other, servers, create, bring
):
    for name, more in (("first", False), ("second", False), ("third", True)):
        create([["db"]], name=name, backup=True, incremental=more)
    bring("third")
    assert sorted(
        backup["metadata"]["consistency:name"]
        for backup in other.volumes.backups.values()
    ) == ["second", "third"]


def test_a_group_without_backups_is_refused(other, servers, create, bring):
    create(name="daily")
    with pytest.raises(errors.PlanError, match="--backup"):
        bring()
    assert other.log == []


def test_a_group_of_images_alone_needs_no_backup(cloud, other, create, there, bring):
    cloud.compute.add("cache")
    create([["cache"]], name="daily")
    assert bring().status == "available"
    restore.restore(there, groups.find(there, "daily"))
    (cache,) = other.compute.by_name("cache")
    assert other.images.data[cache.image] == b"disk of cache"


@pytest.mark.parametrize(
    ("which", "policy"),
    [("source", "backup:export-import"), ("target", "backup:backup-import")],
)
def test_whoever_may_not_is_told_the_policy(
    cloud, other, servers, create, bring, which, policy
):
    create(name="daily", backup=True)
    (cloud if which == "source" else other).volumes.may_import = False
    with pytest.raises(errors.StepFailed, match=policy):
        bring()
    assert shop.members(other) == []


def test_an_import_that_fails_later_is_told(other, servers, create, bring):
    create(name="daily", backup=True)
    other.volumes.import_ends = "error"
    with pytest.raises(errors.StepFailed, match="import"):
        bring()


@pytest.mark.parametrize(
    "harm",
    [
        {"refuse": (500, "no")},
        {"lost": True},
    ],
)
@pytest.mark.parametrize(
    "what",
    ["import_record", "POST image /images", "PUT image", "PATCH image"],
)
def test_it_can_be_repeated_after_a_failure(other, servers, create, bring, what, harm):
    create(name="daily", backup=True)
    fault = other.fault(what, **harm)
    try:
        bring()
    except Exception:
        assert fault.times == 0
    group = bring()
    assert group.status == "available"
    assert sorted(set(shop.members(other))) == PARTS
    (image,) = [other.images.images[group.snapshots[0].id]]
    assert image["consistency:image"] == image["id"]
    assert other.images.data[image["id"]] == b"disk of web"


def test_it_can_be_repeated_after_an_interruption_at_any_step(
    cloud, other, servers, create, bring
):
    create(name="daily", backup=True)
    for number, observe in shop.interruptions():  # noqa: B007 - counted
        try:
            bring(observe=observe)
        except shop.Boom:
            continue
        break
    assert number == 7  # one more than there are steps
    assert shop.members(other) == PARTS


def test_the_copy_lives_on_without_the_first_cloud(
    cloud, other, servers, create, conn, there, find, bring
):
    create(name="daily", backup=True)
    bring()
    groups.delete(conn, find("daily"))
    assert groups.find(there, "daily").status == "available"
    groups.delete(there, groups.find(there, "daily"))
    assert shop.members(other) == []
