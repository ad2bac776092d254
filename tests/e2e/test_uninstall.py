# SPDX-License-Identifier: Apache-2.0
"""The extension is purged and its lines are removed: stock nova goes on."""

import os
import pathlib
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from aiolib.client import Cloud

from tests.e2e import steps

pytestmark = pytest.mark.disturbs
HOST = "cmp4"

AIO = pathlib.Path(__file__).parents[2] / "tools/aio"


def up(**environment: str) -> None:
    """Bring the cloud up as the environment says."""
    done = subprocess.run(
        [str(AIO), "up"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def greatest(cloud: Cloud, connection: Any) -> str:
    """The greatest microversion of the API."""
    answer = connection.session.get(f"{cloud.nova_api_url}/")
    return str(answer.json()["version"]["version"])


def databases(cloud: Cloud) -> set[str]:
    return set(steps.sql(cloud, "show databases").split())


def test_stock_services_work_on_what_is_left(
    cloud: Cloud, tenant: Any, boot: Callable[..., Any]
) -> None:
    server = boot("uninstall")
    steps.quiesce(tenant, server)
    steps.unquiesce(tenant, server)
    ours = {"nova_api_nova_ext", "nova_cell1_nova_ext"}
    assert databases(cloud) >= ours
    try:
        steps.manage(cloud, "nova-ext-manage", "db", "purge")
        assert not databases(cloud) & ours
        up(AIO_STOCK="1")
        assert greatest(cloud, tenant) == "2.104"
        stock = cloud.connect("demo", compute_api_version="2.96")
        for action, status in (("stop", "SHUTOFF"), ("start", "ACTIVE")):
            getattr(stock.compute, f"{action}_server")(server.id)
            steps.until(
                status,
                lambda wanted=status: (
                    stock.compute.get_server(server.id).status == wanted
                ),
                120,
            )
        cloud.wait_agent(server.id, 120)
        stock.compute.delete_server(server.id)
        stock.compute.wait_for_delete(server, wait=120)
        steps.manage(cloud, "nova-manage", "db", "sync")
    finally:
        up()
    assert greatest(cloud, tenant) == "2.105"
    server = boot("installed-again")
    steps.quiesce(tenant, server)
    steps.unquiesce(tenant, server)
