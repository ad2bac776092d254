# SPDX-License-Identifier: Apache-2.0
"""The openstack commands against the real cloud."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from aiolib.client import Cloud

from tests.e2e import steps

pytestmark = pytest.mark.xdist_group("servers")
HOST = "cmp4"


@pytest.fixture(scope="module")
def servers(boot: Callable[..., Any]) -> list[Any]:
    return [boot("e2e-cli-1"), boot("e2e-cli-2")]


def test_quiesce_show_and_unquiesce_of_two_servers(
    cloud: Cloud, tenant: Any, servers: list[Any]
) -> None:
    names = [server.name for server in servers]
    done = steps.openstack("server", "quiesce", "--timeout", "120", "--wait", *names)
    assert done.returncode == 0, done.stderr
    for server in servers:
        assert steps.agent_says(cloud, server) == "frozen"
    shown = steps.openstack(
        "--os-compute-api-version", "2.105", "server", "show", names[0], "-f", "json"
    )
    assert shown.returncode == 0, shown.stderr
    fields = json.loads(shown.stdout)
    assert fields["quiesce_status"] == "quiesced"
    assert fields["unquiesce_at"] > fields["quiesced_at"]
    plain = steps.openstack("server", "show", names[0], "-f", "json")
    assert "quiesce_status" not in json.loads(plain.stdout)
    done = steps.openstack("server", "unquiesce", "--wait", *reversed(names))
    assert done.returncode == 0, done.stderr
    for server in servers:
        assert steps.status(tenant, server) is None
        assert steps.agent_says(cloud, server) == "thawed"


def test_unquiesce_of_a_server_that_is_not_quiesced_fails_in_one_line(
    servers: list[Any],
) -> None:
    done = steps.openstack("server", "unquiesce", servers[0].name)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) <= 2, done.stderr


def test_microversion_below_2_105_is_refused(servers: list[Any]) -> None:
    done = steps.openstack(
        "--os-compute-api-version", "2.90", "server", "quiesce", servers[0].name
    )
    assert done.returncode == 1
    assert "2.105" in done.stderr
