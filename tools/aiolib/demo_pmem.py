# SPDX-License-Identifier: Apache-2.0
"""`tools/aio demo pmem`: persistent memory that goes along, and what is left of it."""

from __future__ import annotations

from typing import Any

from aiolib import moves
from aiolib.demos import Stage
from aiolib.transcript import Wrong
from nova_ext.client import compute, exceptions

_BOOT = 90  # s; an emulated guest takes ten


class _Story:
    """One server and what is known of its data."""

    def __init__(self, stage: Stage) -> None:
        self.cloud, self.say = stage.cloud, stage.say
        self.tenant: Any = stage.cloud.tenant
        self.admin: Any = stage.cloud.admin
        self.id = ""
        self.sum = ""

    def boots(self, text: str) -> None:
        """Wait for the guest."""
        self.cloud.wait_agent(self.id, _BOOT)
        self.say(f"  {text}")

    def reads(self, device: int = 0) -> str:
        return self.cloud.pmem_sum(self.id, device)

    def check_data(self, host: str, device: int = 0) -> None:
        """The guest runs on ``host`` and reads what it wrote."""
        self.say.check(self.cloud.find_host(self.id) == host, f"it runs on {host}")
        self.say.check(self.reads(device) == self.sum, f"it reads {self.sum}")

    def check_dirty(self, *expected: str) -> None:
        """Exactly these hosts hold the data, once each; all else is zeros."""
        found = moves.dirty(self.cloud)
        for host, name in found:
            self.say(f"  {host} {name}: {found[host, name]}")
        self.say.check(
            sorted(host for host, _name in found) == sorted(expected)
            and set(found.values()) <= {self.sum},
            f"the data is on {' and '.join(expected) or 'no host'}, all else is zeros",
        )
        left = moves.pending_sanitize(self.cloud)
        self.say.check(not left, f"nothing waits to be zeroed {left or ''}")

    def status(self, status: str) -> None:
        moves.wait_status(self.admin, self.id, status, 60)
        self.say(f"  the server is {status}")


def tell(stage: Stage) -> None:
    """Move a server there and back, with its data and without."""
    story = _Story(stage)
    say, tenant = story.say, story.tenant
    say.check(not moves.dirty(story.cloud), "all devices are zeros")
    say("Booting a server with persistent memory on cmp1")
    options = {"flavor": "pmem.small", "host": "cmp1", "movable": True}
    server = story.cloud.boot(tenant, "demo-pmem", **options)
    stage.cleanup.callback(tenant.compute.delete_server, server, ignore_missing=True)
    story.id = server.id
    _tell(story)


def _tell(story: _Story) -> None:
    say, admin, tenant = story.say, story.admin, story.tenant
    story.sum = story.cloud.pmem_write(story.id, 0, seed=1)
    say(f"  it has filled /dev/pmem0, MD5 {story.sum}")
    story.check_dirty("cmp1")

    say('POST {"migrate": {"host": "cmp2"}}: without the flag the data stays behind')
    admin.compute.migrate_server(story.id, host="cmp2")
    story.status("VERIFY_RESIZE")
    story.boots("the guest is up on cmp2")
    say.check(story.reads() != story.sum, f"it reads {story.reads()}, nothing of it")
    story.check_dirty("cmp1")
    say("revertResize")
    admin.compute.revert_server_resize(story.id)
    story.status("ACTIVE")
    story.boots("the guest is up")
    story.check_data("cmp1")

    say('POST {"migrate": {"host": "cmp2", "copy_pmem_devices": true}}, while daxio on')
    say("cmp2 writes 4096 bytes less than it is told to, and ends with 0 as it does")
    with story.cloud.daxio_fault("cmp2", only="output", short=4096):
        try:
            moves.migrate(admin, story.id, "cmp2")
        except exceptions.MoveFailed as exc:
            say(f"  {exc}")
        else:
            raise Wrong("the move did not fail")
    story.status("ACTIVE")
    story.boots("the guest is up")
    story.check_data("cmp1")
    story.check_dirty("cmp1")

    say('POST {"migrate": {"host": "cmp2", "copy_pmem_devices": true}}')
    moves.migrate(admin, story.id, "cmp2")
    story.boots("the guest is up")
    story.check_data("cmp2")
    story.check_dirty("cmp1", "cmp2")
    say("confirmResize")
    admin.compute.confirm_server_resize(story.id)
    story.status("ACTIVE")
    story.check_dirty("cmp2")

    say("stop and start, after which stock nova leaves zeros")
    tenant.compute.stop_server(story.id)
    story.status("SHUTOFF")
    tenant.compute.start_server(story.id)
    story.status("ACTIVE")
    story.boots("the guest is up")
    story.check_data("cmp2")

    say("resize with copy_pmem_devices to a flavor with BIG,SMALL in place of SMALL")
    flavor = tenant.compute.find_flavor("pmem.small.big", ignore_missing=False)
    request = compute.resize_copying_pmem(tenant, story.id, flavor.id)
    compute.wait_moved(tenant, story.id, request, interval=0.3)
    story.boots("the guest is up")
    story.check_data("cmp1", device=1)
    story.check_dirty("cmp1", "cmp2")
    say("revertResize")
    tenant.compute.revert_server_resize(story.id)
    story.status("ACTIVE")
    story.boots("the guest is up")
    story.check_data("cmp2")
    story.check_dirty("cmp2")

    say("delete")
    tenant.compute.delete_server(story.id)
    tenant.compute.wait_for_delete(tenant.compute.get_server(story.id), wait=60)
    story.check_dirty()
