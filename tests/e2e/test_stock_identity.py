# SPDX-License-Identifier: Apache-2.0
"""Without the microversion the extension answers byte for byte as a stock nova API."""

import http.client
import json
import urllib.parse
from collections.abc import Callable
from typing import Any

import pytest
from aiolib.client import Cloud

pytestmark = pytest.mark.xdist_group("servers")
HOST = "cmp4"

#: Headers that differ from request to request.
_VOLATILE = {"date", "x-compute-request-id", "x-openstack-request-id"}

_MISSING = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def server(boot: Callable[..., Any]) -> Any:
    return boot("e2e-identity", agent=False)


def answer(
    url: str, token: str, path: str, body: Any = None, microversion: str | None = None
) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, headers and body, with a Host header that both APIs are sent alike."""
    parts = urllib.parse.urlsplit(url)
    assert parts.hostname
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    headers = {"Host": "compute.example.org", "X-Auth-Token": token}
    if microversion:
        headers["OpenStack-API-Version"] = f"compute {microversion}"
    data = None
    if body is not None:
        headers["Content-Type"] = "application/json"
        data = json.dumps(body)
    connection.request(
        "GET" if body is None else "POST", parts.path + path, data, headers
    )
    response = connection.getresponse()
    kept = [(k, v) for k, v in response.getheaders() if k.lower() not in _VOLATILE]
    return response.status, kept, response.read()


@pytest.mark.parametrize("microversion", [None, "2.1", "2.79", "2.104"])
@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/servers/{server}", None, 200),
        ("/servers/detail", None, 200),
        (f"/servers/{_MISSING}", None, 404),
        ("/servers/{server}/action", {"resize": {}}, 400),
        ("/servers/{server}/action", {"resize": {"flavorRef": "none"}}, 400),
        (
            "/servers/{server}/action",
            {"resize": {"flavorRef": "1", "copy_pmem_devices": True}},
            400,
        ),
        (f"/servers/{_MISSING}/action", {"resize": {"flavorRef": "1"}}, 404),
        ("/servers/{server}/action", {"migrate": None, "more": 1}, 400),
        (f"/servers/{_MISSING}/action", {"migrate": None}, 404),
        ("/servers/{server}/action", {"os-start": None}, 409),
        ("/servers/{server}/action", {"unpause": None}, 409),
    ],
)
def test_identical_to_stock(
    cloud: Cloud,
    admin: Any,
    server: Any,
    microversion: str | None,
    path: str,
    body: Any,
    status: int,
) -> None:
    path = path.format(server=server.id)
    token = admin.auth_token
    stock = answer(cloud.nova_api_stock_url, token, path, body, microversion)
    ours = answer(cloud.nova_api_url, token, path, body, microversion)
    assert ours == stock
    # Some microversions refuse the body before they look at the state.
    assert stock[0] in (status, 400)


def test_the_two_apis_are_not_the_same(cloud: Cloud, admin: Any, server: Any) -> None:
    """The comparison above would be worth nothing if both had the extension."""
    token = admin.auth_token
    path = f"/servers/{server.id}"
    ours = answer(cloud.nova_api_url, token, path, microversion="2.105")
    stock = answer(cloud.nova_api_stock_url, token, path, microversion="2.105")
    assert (ours[0], stock[0]) == (200, 406)
    assert "quiesce_status" in json.loads(ours[2])["server"]
