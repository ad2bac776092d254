#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

"""Requests below 2.105 behave as stock nova does, to the byte."""

import datetime
import json
import pathlib
import sys
from typing import Any

import webob
from nova.api import wsgi
from nova.tests.functional.api_samples_test_base import PROJECT_ID
from oslo_utils import fixture as utils_fixture

from tests.functional import base

#: None is a request without the header.
VERSIONS = (None, "2.1", "2.79", "2.104")
MISSING = "8d5b7b4e-3f43-4b0e-9a38-3f6bb8a6a8b0"

#: Headers that differ from request to request.
VOLATILE = {"x-compute-request-id", "x-openstack-request-id", "date"}


class StockIdentityTest(base.FunctionalTest):
    """The stock router and ours, side by side on the same cloud."""

    def setUp(self) -> None:
        super().setUp()
        # "updated" and "OS-SRV-USG" must not tell which of the two was asked first.
        self.useFixture(
            utils_fixture.TimeFixture(datetime.datetime(2026, 11, 21, 10, 0, 0))
        )
        stock = str(pathlib.Path(sys.prefix, "etc/nova/api-paste.ini"))
        self.stock = wsgi.Loader(stock).load_app("osapi_compute")
        self.ours = wsgi.Loader().load_app("osapi_compute")

    def ask(
        self,
        application: Any,
        version: str | None,
        path: str,
        body: Any = None,
        method: str = "",
        user: str = "fake",
    ) -> webob.Response:
        request = webob.Request.blank(f"/v2.1/{path}")
        request.method = method or ("GET" if body is None else "POST")
        request.headers["X-Auth-User"] = user
        request.headers["X-Auth-Project-Id"] = PROJECT_ID
        request.headers["X-Roles"] = "reader,member" + ",admin" * (user == "admin")
        if version:
            request.headers["OpenStack-API-Version"] = f"compute {version}"
        if body is not None:
            request.content_type = "application/json"
            request.body = json.dumps(body).encode()
        return request.get_response(application)

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
        self.assertEqual([], self.freezer.calls)


def headers(response: webob.Response) -> dict[str, str]:
    return {
        name.lower(): value
        for name, value in response.headers.items()
        if name.lower() not in VOLATILE
    }
