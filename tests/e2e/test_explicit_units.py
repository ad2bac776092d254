# SPDX-License-Identifier: Apache-2.0
"""The other way in: console script and WSGI module instead of configuration."""

import contextlib
import datetime
import json
import os
import pathlib
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiolib import config, services
from aiolib.client import Cloud

from tests.e2e import steps

pytestmark = pytest.mark.xdist_group("backups")

TOOLS = pathlib.Path(__file__).parents[2] / "tools"


@contextlib.contextmanager
def process(words: list[str], log: pathlib.Path, **env: str) -> Iterator[None]:
    """Run a program for a while."""
    with log.open("wb") as output:
        running = subprocess.Popen(
            words, stdout=output, stderr=output, env={**os.environ, **env}
        )
        try:
            yield
        finally:
            running.terminate()
            try:
                running.wait(timeout=services.GRACE)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait(timeout=10)


def test_wsgi_module_serves_2_105_with_the_stock_paste_file(
    cloud: Cloud, tmp_path: pathlib.Path
) -> None:
    stock = services.get(cloud.settings, "nova-api-stock")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [
        str(cloud.settings.venv / "bin/python"),
        str(TOOLS / "aiolib/serve_wsgi.py"),
        "nova_ext.wsgi.osapi_compute",
        str(port),
    ]

    def document() -> Any:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            url = f"http://127.0.0.1:{port}/v2.1/"
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)

    log = tmp_path / "api.log"
    with process(words, log, **stock.env):
        found = steps.until(f"an answer, see {log}", document, 60)
    assert found["version"]["version"] == "2.105"


@pytest.fixture
def stock_host(cloud: Cloud, admin: Any) -> Iterator[str]:
    """A compute host whose stock nova-compute is away for a while.

    It is not the one that other lanes know to be stock.
    """
    host = cloud.settings.stock_computes[-1]
    assert not cloud.settings.extended(host)
    cloud.stop(f"nova-compute-{host}")
    yield host
    cloud.start(f"nova-compute-{host}")
    cloud.wait_reported(admin, host, 60)


def test_console_script_brings_quiesce_to_a_host_and_its_absence_takes_it_away(
    cloud: Cloud,
    tenant: Any,
    admin: Any,
    stock_host: str,
    boot: Callable[..., Any],
    tmp_path: pathlib.Path,
) -> None:
    stock = services.get(cloud.settings, f"nova-compute-{stock_host}")
    driver = tmp_path / "driver.conf"
    driver.write_text(
        "[DEFAULT]\ncompute_driver = nova_ext.LibvirtDriver\n"
        f"[nova_ext]\nguard_directory = {cloud.settings.guard_directory(stock_host)}\n"
    )
    words = [
        *cloud.in_host(stock_host),
        str(cloud.settings.venv / "bin/nova-ext-compute"),
        *stock.command[1:],
        "--config-file",
        str(driver),
    ]
    log = tmp_path / "compute.log"
    started = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.999999")

    def reported() -> bool:
        found = admin.compute.services(binary="nova-compute", host=stock_host)
        return any((service.updated_at or "") > started for service in found)

    with process(words, log, PATH=config.path_variable(cloud.settings)):
        steps.until(f"nova-ext-compute reports, see {log}", reported, 90)
        server = boot("e2e-script", host=stock_host)
        steps.quiesce(tenant, server)
        assert steps.agent_says(cloud, server) == "frozen"
        steps.unquiesce(tenant, server)
    cloud.start(f"nova-compute-{stock_host}")

    def refused() -> bool:
        code, message = steps.refusal(tenant, server, {"quiesce": None})
        return code == 400 and "does not support quiesce" in message

    steps.until("the extension is gone from the host", refused, 90)
