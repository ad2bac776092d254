# SPDX-License-Identifier: Apache-2.0
"""copy_pmem_devices on resize and migrate: what the API checks and hands on.

API, conductor, scheduler and the hosts' reports are real. The destination chosen is
noted and then refuses, so that nothing is copied here.
"""

import copy
from typing import Any

from nova import context as nova_context
from nova import objects
from oslo_utils import uuidutils

from nova_ext.objects import capability
from tests.functional import pmem
from tests.functional.pmem import ALIGN, BIG, GIB, SMALL, Space

MISSING = "8d5b7b4e-3f43-4b0e-9a38-3f6bb8a6a8b0"


class PmemTest(pmem.PmemHosts):
    """Servers with PMEM on compute1; other hosts as a test says."""

    def setUp(self) -> None:
        super().setUp()
        self.small = self.flavor("SMALL")
        self.both = self.flavor("BIG,SMALL")
        self.plain = self._create_flavor(name="plain")
        self.host("compute1", SMALL, SMALL, BIG)

    def outdate(self, host: str, version: str | None = None) -> None:
        """Let the compute service of ``host`` be stock, or of an earlier version."""
        node = objects.ComputeNode.get_first_node_by_host_for_old_compat(
            nova_context.get_admin_context(), host
        )
        self.assertEqual(str(capability.VERSION), node.stats[capability.STATS_KEY])
        stats = {k: v for k, v in node.stats.items() if not k.startswith("nova_ext")}
        node.stats = {**stats, "nova_ext": version} if version else stats
        node.save()

    def server(self, flavor: str | None = None) -> str:
        return self.boot(flavor_id=flavor or self.small, host="compute1")

    def order(
        self, server: str, action: str, argument: Any, api: Any = None
    ) -> pmem.Chosen:
        """POST what must be accepted; where it went. The server is idle then."""
        count = len(self.chosen)
        response = self.act(server, action, argument, api=api or self.admin_api)
        self.assertEqual(202, response.status_code, response.text)
        self.assertEqual(b"", response.content)
        return self.until_refused(server, count + 1)

    def refused(
        self,
        status: int,
        server: str,
        action: str,
        argument: Any = None,
        api: Any = None,
    ) -> str:
        """POST what must be refused, and leave no trace."""
        response = self.act(server, action, argument, api=api or self.admin_api)
        self.assertEqual(status, response.status_code, response.text)
        self.assertEqual([], self.chosen)
        if server != MISSING:
            instance = self.instance(server)
            self.assertIsNone(instance.task_state)
            self.assertIsNone(self.row(server))
        return str(next(iter(response.json().values()))["message"])

    def resize(self, flavor: str, value: Any = True) -> dict[str, Any]:
        return {"flavorRef": flavor, "copy_pmem_devices": value}


class OrderTest(PmemTest):
    def test_resize_goes_where_the_data_fits_and_leaves_an_order(self) -> None:
        server = self.server()
        self.host("stock", SMALL, BIG)
        self.host("older", SMALL, BIG)
        self.host("smaller", Space("SMALL", 2 * GIB - ALIGN), BIG)
        self.host("aligned", Space("SMALL", 2 * GIB, ALIGN * 2), BIG)
        self.host("fit", BIG, Space("SMALL", 3 * GIB), Space("SMALL", GIB))
        self.outdate("stock")
        self.outdate("older", "1")
        chosen = self.order(server, "resize", self.resize(self.both), api=self.api)
        self.assertEqual("fit", chosen.host)
        self.assertEqual(
            ["compute1", "aligned", "older", "smaller", "stock"], chosen.ignored
        )
        self.assert_ordered(server, chosen.request_id)
        stored = objects.RequestSpec.get_by_instance_uuid(
            nova_context.get_admin_context(), server
        )
        self.assertFalse(stored.ignore_hosts)

    def test_migrate_goes_where_the_data_fits_and_leaves_an_order(self) -> None:
        server = self.server()
        self.host("stock", SMALL)
        self.host("fit", SMALL)
        self.outdate("stock")
        chosen = self.order(server, "migrate", {"copy_pmem_devices": True})
        self.assertEqual("fit", chosen.host)
        self.assertEqual(["compute1", "stock"], chosen.ignored)
        self.assert_ordered(server, chosen.request_id)

    def test_migrate_to_a_named_host(self) -> None:
        server = self.server()
        self.host("compute2", SMALL)
        self.host("fit", SMALL)
        argument = {"host": "fit", "copy_pmem_devices": True}
        chosen = self.order(server, "migrate", argument)
        self.assertEqual("fit", chosen.host)
        self.assertEqual("fit", chosen.destination.host)
        self.assert_ordered(server, chosen.request_id)

    def test_a_stopped_server(self) -> None:
        server = self.server()
        self.accepted(server, "os-stop")
        self._wait_for_state_change({"id": server}, "SHUTOFF")
        self.host("fit", SMALL, BIG)
        self.order(server, "resize", self.resize(self.both))
        self.assertIsNotNone(self.row(server))

    def test_strings_for_booleans(self) -> None:
        server = self.server()
        self.host("fit", SMALL, BIG)
        for value, ordered in (("true", True), ("ON", True), ("0", False)):
            self.order(server, "resize", self.resize(self.both, value))
            self.assertEqual(ordered, self.row(server) is not None, value)
            self.order(server, "migrate", {"copy_pmem_devices": value})
            self.assertEqual(ordered, self.row(server) is not None, value)

    def test_a_label_twice_needs_it_twice_in_the_flavor_only(self) -> None:
        server = self.server(self.flavor("SMALL,SMALL"))
        self.host("fit", SMALL, SMALL, BIG)
        message = self.refused(400, server, "resize", self.resize(self.both))
        self.assertIn("missing in hw:pmem: SMALL.", message)
        self.order(server, "resize", self.resize(self.flavor("SMALL,BIG,SMALL")))

    def test_resize_on_the_same_host_if_the_cloud_allows_it(self) -> None:
        server = self.server()
        message = self.refused(400, server, "resize", self.resize(self.both))
        self.assertIn("No host can take a copy", message)
        self.assertIn(f"SMALL of at least {2 * GIB} bytes", message)
        self.flags(allow_resize_to_same_host=True)
        chosen = self.order(server, "resize", self.resize(self.both))
        self.assertEqual("compute1", chosen.host)

    def test_it_never_crosses_cells(self) -> None:
        self.policy.set_rules(
            {"compute:servers:resize:cross_cell": "@"}, overwrite=False
        )
        server = self.server()
        self.host("fit", SMALL, BIG)
        for argument, crosses in (
            ({"flavorRef": self.both}, True),
            (self.resize(self.both, False), True),
            (self.resize(self.both), False),
        ):
            chosen = self.order(server, "resize", argument)
            self.assertEqual(crosses, chosen.destination.allow_cross_cell_move)


class WithoutOrderTest(PmemTest):
    """Whoever does not order a copy gets nova's own resize and migration."""

    def test_every_other_resize_and_migrate_clears_the_order(self) -> None:
        server = self.server()
        self.host("fit", SMALL, BIG)
        self.host("stock", SMALL, BIG)
        self.outdate("stock")
        old_api = copy.copy(self.admin_api)
        old_api.microversion = "2.104"
        for action, argument, api in (
            ("resize", {"flavorRef": self.both}, self.api),
            ("resize", self.resize(self.both, False), self.api),
            ("resize", {"flavorRef": self.both}, old_api),
            ("migrate", None, self.admin_api),
            ("migrate", {}, self.admin_api),
            ("migrate", {"copy_pmem_devices": False}, self.admin_api),
            ("migrate", {"host": None}, self.admin_api),
            ("migrate", {"host": "stock"}, old_api),
            ("migrate", None, old_api),
        ):
            self.order(server, "resize", self.resize(self.both))
            self.assertIsNotNone(self.row(server))
            chosen = self.order(server, action, argument, api=api)
            self.assertEqual(["compute1"], chosen.ignored)
            self.assertIsNone(self.row(server))

    def test_servers_without_pmem(self) -> None:
        server = self.server(self.plain)
        self.host("stock")
        self.outdate("stock")
        self.outdate("compute1")
        other = self._create_flavor(name="other")
        for argument in ({"flavorRef": other}, self.resize(other, False)):
            self.assertEqual("stock", self.order(server, "resize", argument).host)
        self.assertIsNone(self.row(server))


class RefusedTest(PmemTest):
    def test_a_server_without_pmem(self) -> None:
        server = self.server(self.plain)
        self.host("fit", SMALL, BIG)
        for action, argument in (
            ("resize", self.resize(self.small)),
            ("migrate", {"copy_pmem_devices": True}),
            ("migrate", {"host": "fit", "copy_pmem_devices": True}),
        ):
            message = self.refused(400, server, action, argument)
            self.assertIn("has no persistent memory to copy", message)

    def test_a_flavor_without_the_label(self) -> None:
        server = self.server(self.both)
        self.host("fit", SMALL, BIG)
        for flavor, missing in (
            (self.plain, "BIG, SMALL."),
            (self.small, "BIG."),
            (self.flavor("SMALL,SMALL"), "BIG."),
        ):
            message = self.refused(400, server, "resize", self.resize(flavor))
            self.assertIn(f"missing in hw:pmem: {missing}", message)

    def test_a_source_that_would_not_copy(self) -> None:
        server = self.server()
        self.host("fit", SMALL, BIG)
        for version in ("1", None):
            self.outdate("compute1", version)
            for action, argument in (
                ("resize", self.resize(self.both)),
                ("migrate", {"copy_pmem_devices": True}),
                ("migrate", {"host": "fit", "copy_pmem_devices": True}),
            ):
                message = self.refused(400, server, action, argument)
                self.assertIn(f"compute service of instance {server}", message)
                self.assertIn("cannot copy persistent memory", message)
            node = objects.ComputeNode.get_first_node_by_host_for_old_compat(
                nova_context.get_admin_context(), "compute1"
            )
            node.stats = {**node.stats, "nova_ext": str(capability.VERSION)}
            node.save()

    def test_no_host_that_could_take_it(self) -> None:
        server = self.server()
        self.host("stock", SMALL, BIG)
        self.host("smaller", Space("SMALL", GIB), BIG)
        self.outdate("stock")
        for action, argument in (
            ("resize", self.resize(self.both)),
            ("migrate", {"copy_pmem_devices": True}),
        ):
            message = self.refused(400, server, action, argument)
            self.assertIn("No host can take a copy", message)

    def test_named_hosts(self) -> None:
        server = self.server()
        self.host("stock", SMALL)
        self.host("older", SMALL)
        self.host("smaller", Space("SMALL", GIB))
        self.host("other", BIG)
        self.outdate("stock")
        self.outdate("older", "1")
        cell = objects.CellMapping(
            nova_context.get_admin_context(),
            uuid=uuidutils.generate_uuid(),
            name="far",
            transport_url="fake://far",
            database_connection="sqlite:////nonexistent",
            disabled=False,
        )
        cell.create()
        objects.HostMapping(
            nova_context.get_admin_context(), host="far", cell_mapping=cell
        ).create()
        for host, said in (
            ("stock", "host stock cannot take a copy of persistent memory"),
            ("older", "cannot take a copy"),
            ("smaller", f"needed are: SMALL of at least {2 * GIB} bytes, aligned to"),
            ("other", "Host other has no persistent memory that takes all data"),
            ("far", "Host far is in another cell"),
            ("nowhere", "Compute host nowhere could not be found"),
            ("compute1", "Cannot migrate to the host where the server exists"),
        ):
            argument = {"host": host, "copy_pmem_devices": True}
            self.assertIn(said, self.refused(400, server, "migrate", argument))

    def test_a_locked_server_is_409(self) -> None:
        server = self.server(self.plain)
        self.accepted(server, "lock")
        message = self.refused(
            409, server, "resize", self.resize(self.both), api=self.api
        )
        self.assertIn("locked", message)

    def test_a_server_in_the_wrong_state_is_409(self) -> None:
        server = self.server(self.plain)
        self.accepted(server, "pause")
        self._wait_for_state_change({"id": server}, "PAUSED")
        for action, argument in (
            ("resize", self.resize(self.both)),
            ("migrate", {"copy_pmem_devices": True}),
        ):
            message = self.refused(409, server, action, argument)
            self.assertIn(f"Cannot '{action}' instance {server}", message)
            self.assertIn("vm_state paused", message)

    def test_a_quiesced_server_is_409(self) -> None:
        server = self.quiesced(flavor_id=self.plain)
        message = self.refused(409, server, "resize", self.resize(self.both))
        self.assertIn("unquiesce first", message)

    def test_a_source_that_is_down_is_409(self) -> None:
        server = self.server(self.plain)
        service = self.computes["compute1"].service_ref
        service.forced_down = True
        service.save()
        self.refused(409, server, "resize", self.resize(self.both))
        self.refused(409, server, "migrate", {"copy_pmem_devices": True})

    def test_what_nova_refuses_by_itself(self) -> None:
        server = self.server()
        self.host("fit", SMALL, BIG)
        self.refused(404, MISSING, "resize", self.resize(self.both))
        self.refused(404, MISSING, "migrate", {"copy_pmem_devices": True})
        self.assertIn(
            "Flavor no-such could not be found",
            self.refused(400, server, "resize", self.resize("no-such")),
        )
        self.assertIn(
            "must change flavor",
            self.refused(400, server, "resize", self.resize(self.small)),
        )
        argument: dict[str, Any] = {"copy_pmem_devices": True}
        self.refused(403, server, "migrate", argument, api=self.api)
        argument = {**argument, "host": "fit"}
        self.refused(403, server, "migrate", argument, api=self.api)
        self.policy.set_rules(
            {"os_compute_api:servers:resize": "role:nobody"}, overwrite=False
        )
        self.refused(403, server, "resize", self.resize(self.both), api=self.api)

    def test_malformed_bodies(self) -> None:
        server = self.server()
        self.host("fit", SMALL, BIG)
        for value in ("maybe", "", 1, 0, None, [], {}):
            self.refused(400, server, "resize", self.resize(self.both, value))
            self.refused(400, server, "migrate", {"copy_pmem_devices": value})
        self.refused(400, server, "resize", {"copy_pmem_devices": True})
        self.refused(400, server, "resize", {**self.resize(self.both), "other": 1})
        self.refused(400, server, "migrate", {"copy_pmem_devices": True, "other": 1})
        self.refused(400, server, "migrate", [])
        self.refused(400, server, "resize", None)


class OldMicroversionTest(PmemTest):
    """Nobody loses data because an older API does not know the order."""

    def setUp(self) -> None:
        super().setUp()
        self.uuid = self.server()
        self.host("fit", SMALL, BIG)

    def client(self, microversion: str | None, base: str = "/v2.1") -> Any:
        client = copy.copy(self.admin_api)
        client.microversion = microversion
        client.base_url = client.base_url.replace("/v2.1", base)
        return client

    def test_resize(self) -> None:
        for version in (None, "2.1", "2.56", "2.104"):
            for value in (True, False):
                message = self.refused(
                    400,
                    self.uuid,
                    "resize",
                    self.resize(self.both, value),
                    api=self.client(version),
                )
                self.assertIn("copy_pmem_devices", message)

    def test_migrate(self) -> None:
        for version in (None, "2.1", "2.55", "2.56", "2.104"):
            for value in (True, False):
                for named in ({}, {"host": "fit"}):
                    message = self.refused(
                        400,
                        self.uuid,
                        "migrate",
                        {**named, "copy_pmem_devices": value},
                        api=self.client(version),
                    )
                    self.assertIn("copy_pmem_devices", message)

    def test_the_legacy_api_ignores_microversions(self) -> None:
        for version in (None, "2.105"):
            api = self.client(version, base="/v2")
            for action, argument in (
                ("resize", self.resize(self.both)),
                ("migrate", {"copy_pmem_devices": True}),
            ):
                message = self.refused(400, self.uuid, action, argument, api=api)
                self.assertIn("copy_pmem_devices needs microversion 2.105", message)

    def test_what_an_old_api_does_not_check_goes_on_as_before(self) -> None:
        legacy = self.client(None, base="/v2")
        for action, argument, api in (
            ("resize", {"flavorRef": self.both, "other": 1}, legacy),
            ("migrate", {"hosts": "x"}, legacy),
            ("migrate", None, legacy),
            ("migrate", "copy_pmem_devices", self.client("2.1")),
            ("migrate", ["copy_pmem_devices"], self.client("2.55")),
            ("migrate", None, self.client("2.1")),
        ):
            self.assertEqual("fit", self.order(self.uuid, action, argument, api).host)
            self.assertIsNone(self.row(self.uuid))
