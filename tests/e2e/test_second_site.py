# SPDX-License-Identifier: Apache-2.0
"""A group of servers that is restored at a second site.

The second site has its own keystone, nova, cinder, glance and Ceph; the S3 server with
the backups is the first one's.
"""

import concurrent.futures
import json
from collections.abc import Iterator
from typing import Any

import pytest
from aiolib import chain
from aiolib.client import Cloud

from nova_ext.client.consistency import groups
from tests.e2e import second_site, steps

pytestmark = pytest.mark.xdist_group("groups")
HOST = "cmp5"

#: Who may export and import records of backups, in the tenant's project.
_FIRST, _SECOND = "aio-demo-admin", "site2-demo-admin"


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest) -> Cloud:
    """The second site."""
    return second_site.begin(request.config).site()


@pytest.fixture(scope="module")
def group(cloud: Cloud, tenant: Any) -> Iterator[list[Any]]:
    """Two guests on volumes and one whose root is none."""
    roots = {"site-1": {"boot_from": "rbd"}, "site-2": {"boot_from": "rbd"}}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        made = [
            pool.submit(cloud.boot, tenant, name, host=HOST, **roots.get(name, {}))
            for name in ("site-1", "site-2", "site-3")
        ]
    try:
        yield [future.result() for future in made]
    finally:
        for left in groups.find_all(tenant):
            groups.delete(tenant, left)
        for found in tenant.compute.servers(name="^site-"):
            tenant.compute.delete_server(found)


def test_restored_at_a_second_site(
    cloud: Cloud, site: Cloud, tenant: Any, group: list[Any]
) -> None:
    """It is replicated and booted there, with the order kept, by two commands."""
    ids = [server.id for server in group]
    options = [word for one in ids for word in ("--server", one)]
    with chain.Chain(cloud, ids):
        steps.until(
            "the guests hear of each other",
            lambda: all(chain.heard(cloud, one) for one in ids[:2]),
        )
        done = steps.openstack(
            *("consistency", "snapshot", "create", "-f", "json", "--name", "dr"),
            *(*options, "--backup", "--backup-availability-zone", "s3"),
        )
    assert done.returncode == 0, done.stderr
    for one in ids:
        chain.hush(cloud, one)
    assert json.loads(done.stdout)["consistency"] == "group"
    there = groups.find(tenant, "dr")
    assert (there.snapshot_status, there.backup_status) == ("available", "available")

    done = steps.openstack(
        *("consistency", "snapshot", "replicate", "--cloud", _SECOND, "dr")
    )
    assert done.returncode == 1
    assert "ask its operator for the policy backup:export-import" in done.stderr
    second: Any = site.tenant
    as_admin = ("--os-cloud", _FIRST, "consistency", "snapshot")
    done = steps.openstack(
        *(*as_admin, "restore", "-f", "json", "--cloud", _SECOND, "dr"), seconds=600
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert [one["Name"] for one in made] == ["site-1", "site-2", "site-3"]
    assert [one["Original"] for one in made] == ids
    try:
        last = []
        for one in made:
            site.wait_agent(one["ID"])
            assert chain.journal_was_clean(site, one["ID"])
            record = chain.found(site, one["ID"])
            assert record is not None
            last.append(record)
        assert 0 < last[0].heard <= last[1].number
        assert 0 < last[1].heard <= last[2].number
        restored = second.compute.get_server(made[0]["ID"])
        steps.quiesce(second, restored)
        steps.unquiesce(second, restored)

        # What is there is not brought again, and can be restored without this site.
        done = steps.openstack(*as_admin, "replicate", "--cloud", _SECOND, "dr")
        assert done.returncode == 0, done.stderr
        (found,) = groups.find_all(second)
        assert (found.id, found.status) == (there.id, "available")
        assert [server.name for server in found.servers] == [
            server.name for server in group
        ]
    finally:
        for one in made:
            second.compute.delete_server(one["ID"])
