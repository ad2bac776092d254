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

"""A small cloud: as much of nova and glance as a CLI asks."""

import dataclasses
import re

import pytest
from keystoneauth1 import discover

from tests.unit import http_cloud, openstack_cli

EVENTS = {
    "quiesce": "compute_quiesce_instance",
    "unquiesce": "compute_unquiesce_instance",
    "resize": "compute_finish_resize",
    "migrate": "compute_finish_resize",
}
FROZEN = {
    "quiesce_status": "quiesced",
    "quiesced_at": "2026-11-21T10:00:00Z",
    "unquiesce_at": "2026-11-21T10:01:00Z",
}
THAWED = {"quiesce_status": None, "quiesced_at": None, "unquiesce_at": None}


@dataclasses.dataclass
class FakeServer:
    """One server; the attributes say how it behaves."""

    id: str
    name: str
    state: dict = dataclasses.field(default_factory=lambda: dict(THAWED))
    #: what the event's result is at each look; the last one stays
    results: list = dataclasses.field(default_factory=lambda: ["Success"])
    details: str | None = None
    #: the action's message; with no_event it ended before a compute took it up
    message: str | None = None
    no_event: bool = False
    #: (code, message) of the answer to POST
    refuse: tuple[int, str] | None = None
    #: a refused request that a compute host took up all the same
    taken_up: bool = False
    #: how many looks at the action answer 503
    hiccups: int = 0
    #: the server after the quiesce's Success
    after_quiesce: dict = dataclasses.field(default_factory=lambda: dict(FROZEN))
    deleted: bool = False
    #: the status at each look after a move was accepted; the last one stays
    statuses: list = dataclasses.field(
        default_factory=lambda: ["RESIZE", "VERIFY_RESIZE"]
    )
    moving: bool = False
    actions: dict = dataclasses.field(default_factory=dict)


class FakeCloud(http_cloud.HttpCloud):
    """Nova and glance behind one port, and the list of what was asked."""

    def __init__(self):
        self.maximum = "2.105"
        self.request_ids = True
        self.known_fields = True
        self.servers = {}
        self.requests = []
        super().__init__(
            {"identity": "identity", "compute": "compute/v2.1", "image": "image"}
        )

    def add(self, name, **behaviour):
        number = len(self.servers) + 1
        server = FakeServer(f"00000000-0000-4000-8000-{number:012d}", name, **behaviour)
        self.servers[server.id] = server
        return server

    def posts(self):
        """Return (server name, body, microversion) of each action that was asked."""
        return [
            (self.servers[path.split("/")[4]].name, body, version)
            for method, path, body, version in self.requests
            if method == "POST" and path.endswith("/action")
        ]

    def gets(self):
        """Return (path, microversion) of each GET of nova's resources."""
        return [
            (path, version)
            for method, path, _body, version in self.requests
            if method == "GET" and "/servers" in path
        ]

    def answer(self, request):
        method, path, body = request.method, request.path, request.json
        version = request.microversion(default="2.1")
        self.requests.append((method, path, body, version))
        if path.startswith("/image"):
            links = [{"rel": "self", "href": f"{self.url}/image/v2/"}]
            found = {"id": "v2.9", "status": "CURRENT", "links": links}
            return 200, {"versions": [found]}, {}
        if path in ("/compute", "/compute/v2.1"):
            return 200, {"version": self._compute_version()}, {}
        if match := re.fullmatch("/compute/v2.1/servers(/detail)?", path):
            named = [
                s for s in self.servers.values() if s.name == request.query.get("name")
            ]
            return 200, {"servers": [self._view(s, version) for s in named]}, {}
        if path == "/compute/v2.1/flavors/big":
            return 200, {"flavor": {"id": "big", "name": "big", "links": []}}, {}
        match = re.fullmatch("/compute/v2.1/servers/([^/]+)(/.+)?", path)
        server = self.servers.get(match[1]) if match else None
        if not server or (server.deleted and not match[2]):
            return 404, {"itemNotFound": {"code": 404, "message": "Not found."}}, {}
        if not match[2]:
            view = self._view(server, version)
            if server.moving and server.statuses[1:]:
                server.statuses.pop(0)
            return 200, {"server": view}, {}
        if match[2] == "/action":
            return self._action(server, body)
        return self._instance_action(server, match[2].rpartition("/")[2])

    def _compute_version(self):
        return {
            "id": "v2.1",
            "status": "CURRENT",
            "version": self.maximum,
            "min_version": "2.1",
            "links": [{"rel": "self", "href": f"{self.url}/compute/v2.1/"}],
        }

    def _view(self, server, version):
        view = {
            "id": server.id,
            "name": server.name,
            "status": server.statuses[0] if server.moving else "ACTIVE",
            "metadata": {},
            "image": "",
            "flavor": {"id": "1", "links": []},
            "addresses": {"private": [{"addr": "10.0.0.3", "version": 4}]},
            "created": "2026-11-21T09:00:00Z",
        }
        asked = discover.normalize_version_number(version)
        if self.known_fields and asked >= (2, 105):
            view |= server.state
        return view

    def _action(self, server, body):
        (verb,) = body
        request_id = f"req-{verb}-{server.name}-{len(server.actions)}"
        if not server.refuse or server.taken_up:
            server.actions[request_id] = verb
        server.moving = verb in ("resize", "migrate") and not server.refuse
        if verb == "quiesce" and not server.refuse:
            server.state = {**THAWED, "quiesce_status": "quiescing"}
        headers = {"x-openstack-request-id": request_id} if self.request_ids else {}
        if server.refuse:
            code, message = server.refuse
            return code, {"fault": {"code": code, "message": message}}, headers
        return 202, None, headers

    def _instance_action(self, server, request_id):
        if server.hiccups:
            server.hiccups -= 1
            return 503, {"fault": {"code": 503, "message": "Out for lunch"}}, {}
        verb = server.actions.get(request_id)
        if not verb:
            return 404, {"itemNotFound": {"code": 404, "message": "Not found."}}, {}
        result = server.results.pop(0) if server.results[1:] else server.results[0]
        if result == "Success" and not server.moving:
            server.state = server.after_quiesce if verb == "quiesce" else dict(THAWED)
        event = {"event": EVENTS[verb], "result": result}
        if server.details:
            event["details"] = server.details
        action = {
            "action": verb,
            "request_id": request_id,
            "message": server.message,
            "events": [] if server.no_event else [event],
        }
        return 200, {"instanceAction": action}, {}


@pytest.fixture
def cloud():
    fake = FakeCloud()
    yield fake
    fake.close()


@pytest.fixture
def credentials(cloud):
    return cloud.credentials


@pytest.fixture
def connect(credentials, tmp_path, monkeypatch):
    """Return a maker of SDK connections, with the microversion that a user chose."""
    monkeypatch.setenv("HOME", str(tmp_path))
    made = []

    def make(microversion=None):
        chosen = {"compute_api_version": microversion} if microversion else {}
        conn = http_cloud.connect(credentials, **chosen)
        made.append(conn)
        return conn

    yield make
    for conn in made:
        conn.close()


@pytest.fixture
def conn(connect):
    return connect()


class FakeClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self):
        self.now = 0.0

    def time(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    """Let the SDK's waits take no time; ``clock.now`` is what they would have taken."""
    fake = FakeClock()
    monkeypatch.setattr("openstack.utils.time", fake)
    return fake


@pytest.fixture
def run_openstack(credentials, tmp_path, tmp_path_factory):
    """Return a runner of the real ``openstack`` program against the fake cloud."""
    return openstack_cli.Program(credentials, tmp_path, tmp_path_factory.getbasetemp())
