# SPDX-License-Identifier: Apache-2.0
"""Owns hosts with PMEM devices, and those whose destinations refuse every move.

The latter are for tests of what the API, the conductor and the scheduler make of an
order: nothing is copied.
"""

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

import fixtures
from nova import context as nova_context
from nova import exception

from nova_ext.objects.pmem_copy import PmemCopy
from tests.functional import base

GIB = 1 << 30
ALIGN = 2 << 20


@dataclasses.dataclass(frozen=True)
class Space:
    """A namespace of a host; sizes in bytes."""

    label: str
    size: int = 4 * GIB
    align: int = ALIGN
    name: str = ""
    chardev: str = ""


SMALL = Space("SMALL", 2 * GIB)
BIG = Space("BIG")


@dataclasses.dataclass(frozen=True)
class Chosen:
    """What the conductor asked of the destination that the scheduler chose."""

    host: str
    ignored: list[str]
    destination: Any
    request_id: str


class PmemTest(base.FunctionalTest):
    """Makes flavors and hosts with PMEM devices."""

    def flavor(self, labels: str, **kwargs: Any) -> str:
        return str(
            self._create_flavor(
                name=f"pmem {labels}",
                extra_spec={"hw:pmem": labels},
                memory_mb=512,
                disk=1,
                ephemeral=0,
                **kwargs,
            )
        )

    def row(self, server: str) -> Any:
        """What the database has of a copy of the server's devices, or None."""
        return PmemCopy.find(nova_context.get_admin_context(), server)

    def assert_ordered(self, server: str, request_id: str) -> None:
        """The database has the order of this request."""
        row = self.row(server)
        self.assertIsNotNone(row)
        self.assertEqual(("ordered", request_id), (row.status, row.request_id))

    def namespaces(self, spaces: Iterable[Space]) -> Any:
        """Let a nova-compute that starts now find these namespaces."""
        labels: dict[str, list[str]] = {}
        listed = []
        for space in spaces:
            labels.setdefault(space.label, []).append(space.name)
            devices = [{"chardev": space.chardev, "size": space.size}]
            listed.append(
                {
                    "name": space.name,
                    "size": space.size,
                    "daxregion": {"align": space.align, "devices": devices},
                }
            )
        self.flags(
            pmem_namespaces=[f"{k}:{'|'.join(v)}" for k, v in labels.items()],
            group="libvirt",
        )
        return fixtures.MockPatch(
            "nova.privsep.libvirt.get_pmem_namespaces", return_value=json.dumps(listed)
        )


class PmemHosts(PmemTest):
    """Notes where servers would go."""

    CAST_AS_CALL = False  # the API must not see what becomes of a request

    def setUp(self) -> None:
        self.chosen: list[Chosen] = []
        self.useFixture(
            fixtures.MonkeyPatch(
                "nova.compute.rpcapi.ComputeAPI.prep_resize", self.prep_resize
            )
        )
        self.useFixture(fixtures.MockPatch("nova.privsep.libvirt.cleanup_vpmem"))
        self.flags(state_path=self.useFixture(fixtures.TempDir()).path)
        super().setUp()

    def prep_resize(
        self, _api: Any, context: Any, *args: Any, request_spec: Any, **_: Any
    ) -> None:
        self.chosen.append(
            Chosen(
                host=args[3],
                ignored=list(request_spec.ignore_hosts or ()),
                destination=request_spec.requested_destination,
                request_id=context.request_id,
            )
        )
        raise exception.MigrationError(reason="not in this test")

    def until_refused(self, server: str, count: int) -> Chosen:
        """Wait for the ``count``-th move to be refused; where it should have gone."""
        self._wait_for_assert(lambda: self.assertEqual(count, len(self.chosen)))
        self._wait_for_server_parameter(
            {"id": server}, {"OS-EXT-STS:task_state": None}, api=self.admin_api
        )
        return self.chosen[-1]

    def host(self, name: str, *spaces: Space) -> None:
        """Start a host with these namespaces."""
        with self.namespaces(
            dataclasses.replace(space, name=f"ns{number}", chardev=f"dax0.{number}")
            for number, space in enumerate(spaces)
        ):
            self.start_compute(name)
