# SPDX-License-Identifier: Apache-2.0
"""Requests below 2.105 behave as stock nova does, to the byte."""

import datetime
from typing import Any

import webob
from nova.api import wsgi
from oslo_utils import fixture as utils_fixture

from tests.functional import pmem, stock_api

#: None is a request without the header.
VERSIONS = (None, "2.1", "2.79", "2.104")
MISSING = "8d5b7b4e-3f43-4b0e-9a38-3f6bb8a6a8b0"

#: Headers that differ from request to request.
VOLATILE = {"x-compute-request-id", "x-openstack-request-id", "date"}


class SideBySide(stock_api.StockApi):
    """The stock router and ours, side by side on the same cloud."""

    def setUp(self) -> None:
        super().setUp()
        # "updated" and "OS-SRV-USG" must not tell which of the two was asked first.
        self.useFixture(
            utils_fixture.TimeFixture(datetime.datetime(2026, 11, 21, 10, 0, 0))
        )
        self.ours = wsgi.Loader().load_app("osapi_compute")

    def same(
        self, status: int, path: str, body: Any = None, **kwargs: Any
    ) -> list[webob.Response]:
        """Ask both at all old versions; what both answered."""
        answers = []
        for version in VERSIONS:
            stock, ours = (
                self.ask(application, version, path, body, **kwargs)
                for application in (self.stock, self.ours)
            )
            self.assertEqual(status, stock.status_int, stock.text)
            self.assertEqual(stock.status, ours.status)
            self.assertEqual(stock.body, ours.body)
            self.assertEqual(headers(stock), headers(ours))
            answers.append(ours)
        return answers


class StockIdentityTest(SideBySide):
    def test_the_two_are_not_the_same_application(self) -> None:
        server = self.boot()
        path = f"servers/{server}"
        stock, ours = (
            self.ask(application, "2.105", path).json["server"]
            for application in (self.stock, self.ours)
        )
        self.assertNotIn("quiesce_status", stock)
        self.assertIn("quiesce_status", ours)

    def test_views_of_a_quiesced_server(self) -> None:
        server = self.quiesced()
        for user in ("fake", "admin"):
            answers = [
                *self.same(200, f"servers/{server}", user=user),
                *self.same(200, "servers/detail", user=user),
                *self.same(200, "servers", user=user),
                *self.same(
                    200,
                    f"servers/{server}",
                    {"server": {"name": "renamed"}},
                    method="PUT",
                    user=user,
                ),
            ]
            self.assertEqual(16, len(answers))
            for answer in answers:
                self.assertIn(server, answer.text)
                self.assertNotIn("quiesce", answer.text)

    def test_instance_actions_of_a_server(self) -> None:
        server = self.boot()
        self.same(200, f"servers/{server}/os-instance-actions")

    def test_errors_of_resize(self) -> None:
        path = f"servers/{self.boot()}/action"
        for body in (
            {"resize": None},
            {"resize": {}},
            {"resize": {"flavorRef": []}},
            {"resize": {"flavorRef": "unknown-flavor"}},
            {"resize": {"flavorRef": "2", "copy_pmem_devices": True}},
            {"resize": {"flavorRef": "2"}, "other": None},
        ):
            self.same(400, path, body)
        self.same(404, f"servers/{MISSING}/action", {"resize": {"flavorRef": "2"}})

    def test_errors_of_migrate(self) -> None:
        path = f"servers/{self.boot()}/action"
        self.same(403, path, {"migrate": None})
        self.same(404, f"servers/{MISSING}/action", {"migrate": None}, user="admin")
        # From 2.56 on migrate has a schema; before that anything goes.
        for body in ({"migrate": {"hosts": "x"}}, {"migrate": []}, {"migrate": "x"}):
            stock, ours = (
                self.ask(application, "2.104", path, body, user="admin")
                for application in (self.stock, self.ours)
            )
            self.assertEqual(400, stock.status_int)
            self.assertEqual(stock.body, ours.body)
            self.assertEqual(headers(stock), headers(ours))

    def test_other_errors(self) -> None:
        path = f"servers/{self.boot()}/action"
        self.same(400, path, {"no-such-action": None})
        self.same(400, path, {"rebuild": {}})
        self.same(400, path, {"os-resetState": {}}, user="admin")
        self.same(403, path, {"os-resetState": {"state": "active"}})
        self.same(409, path, {"unpause": None})
        self.same(404, f"servers/{MISSING}")
        self.same(404, f"servers/{MISSING}", method="DELETE")

    def test_refusal_of_a_server_in_the_wrong_state(self) -> None:
        server = self.boot()
        self.accepted(server, "pause")
        self._wait_for_state_change({"id": server}, "PAUSED")
        for body in ({"pause": None}, {"os-start": None}, {"suspend": None}):
            self.same(409, f"servers/{server}/action", body)

    def test_quiesce_does_not_exist_below_its_version(self) -> None:
        server = self.boot()
        for action in ("quiesce", "unquiesce"):
            for version in VERSIONS:
                for target in (server, MISSING):
                    answer = self.ask(
                        self.ours, version, f"servers/{target}/action", {action: None}
                    )
                    self.assertEqual(404, answer.status_int, answer.text)
        self.assertEqual([], self.agents.calls)


class MoveIdentityTest(pmem.PmemHosts, SideBySide):
    """Moves of a server with PMEM, which below 2.105 stock nova and we do not copy."""

    def assert_same_moves(
        self,
        argument: dict[str, Any],
        versions: tuple[str | None, ...] = VERSIONS,
        root: str = "v2.1",
    ) -> None:
        path = f"servers/{self.server}/action"
        for version in versions:
            seen = []
            for application in (self.stock, self.ours):
                answer = self.ask(
                    application, version, path, argument, user="admin", root=root
                )
                self.assertEqual(202, answer.status_int, answer.text)
                chosen = self.until_refused(self.server, len(self.chosen) + 1)
                seen.append(
                    (
                        (answer.status, answer.body, headers(answer)),
                        (chosen.host, chosen.ignored),
                        chosen.destination.obj_to_primitive(),
                        without_times(self.instance(self.server).obj_to_primitive()),
                    )
                )
            self.assertEqual(*seen)

    def setUp(self) -> None:
        super().setUp()
        for host in ("compute1", "compute2"):
            self.host(host, pmem.SMALL, pmem.BIG)
        self.server = self.boot(flavor_id=self.flavor("SMALL"), host="compute1")

    def test_resize(self) -> None:
        argument = {"flavorRef": self.flavor("SMALL,BIG")}
        self.assert_same_moves({"resize": argument})
        self.assert_same_moves({"resize": argument}, (None,), root="v2")
        self.assert_same_moves({"resize": {**argument, "x": 1}}, (None,), root="v2")

    def test_migrate(self) -> None:
        self.assert_same_moves({"migrate": None})
        self.assert_same_moves({"migrate": {"host": "compute2"}}, ("2.56", "2.104"))
        for argument in ({"hosts": "x"}, [], "x", None):
            self.assert_same_moves({"migrate": argument}, ("2.1", "2.55"))
            self.assert_same_moves({"migrate": argument}, (None,), root="v2")

    def test_refusals_of_a_copy(self) -> None:
        # Where stock nova refuses what it does not know, its own words are kept.
        path = f"servers/{self.server}/action"
        resize = {"flavorRef": "1", "copy_pmem_devices": True}
        for body, versions in (
            ({"resize": resize}, VERSIONS),
            ({"migrate": {"copy_pmem_devices": True}}, ("2.56", "2.104")),
        ):
            for version in versions:
                stock, ours = (
                    self.ask(application, version, path, body, user="admin")
                    for application in (self.stock, self.ours)
                )
                self.assertEqual(400, stock.status_int, stock.text)
                self.assertEqual(stock.body, ours.body)
                self.assertEqual(headers(stock), headers(ours))
        self.assertEqual([], self.chosen)


def headers(response: webob.Response) -> dict[str, str]:
    return {
        name.lower(): value
        for name, value in response.headers.items()
        if name.lower() not in VOLATILE
    }


def without_times(value: Any) -> Any:
    """An object's primitive without what changes with each save."""
    if isinstance(value, dict):
        return {
            key: without_times(item)
            for key, item in value.items()
            if key not in ("updated_at", "nova_object.changes")
        }
    return [without_times(item) for item in value] if isinstance(value, list) else value
