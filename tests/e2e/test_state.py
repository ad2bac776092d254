# SPDX-License-Identifier: Apache-2.0
"""The state in tables: what comes at the same moment, and the tools of stock nova."""

import concurrent.futures
import json
import os
import pathlib
import random
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiolib import command, config
from aiolib.client import Cloud

from nova_ext.client import compute, exceptions
from tests.e2e import steps

pytestmark = pytest.mark.xdist_group("servers")
HOST, OTHER = "cmp4", "cmp5"

#: Rounds of each race; AIO_ROUNDS=200 is as many as it takes to believe it.
ROUNDS = int(os.environ.get("AIO_ROUNDS", "8"))

API = {"OpenStack-API-Version": "compute 2.105"}


@pytest.fixture(scope="module")
def server(boot: Callable[..., Any]) -> Any:
    return boot("state", movable=True)


@pytest.fixture(scope="module")
def workers(cloud: Cloud) -> Iterator[list[str]]:
    """Two processes of the compute API with the extension: their addresses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = cloud.settings
    script = pathlib.Path(__file__).parents[2] / "tools/aiolib/serve_wsgi.py"
    words = [settings.venv / "bin/python", script, "nova.wsgi.osapi_compute", port]
    log = (settings.log / "nova-api-second.log").open("w")
    process = subprocess.Popen(
        [str(word) for word in words],
        env=command.clean_environment(
            PATH=config.path_variable(settings),
            OS_NOVA_CONFIG_DIR=str(settings.etc / "nova-api"),
        ),
        stdout=log,
        stderr=log,
    )
    try:
        steps.until("the second API worker", lambda: _listens(port), 120)
        yield [cloud.nova_api_url, f"http://127.0.0.1:{port}/v2.1"]
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def order(connection: Any, api: str, server: Any, body: dict[str, Any]) -> int:
    """POST a server action to one worker; the status of the answer."""
    url = f"{api.rstrip('/')}/servers/{server.id}/action"
    answer = connection.session.post(url, json=body, headers=API, raise_exc=False)
    return int(answer.status_code)


def settled(admin: Any, server: Any) -> Any:
    """Wait until no task is under way and the server is not quiesced; the server."""

    def idle() -> Any:
        found = compute.get_server(admin, server.id)
        return (
            found if found.task_state is None and found.quiesce_status is None else None
        )

    return steps.until("the server to settle", idle, 120)


def ready(cloud: Cloud, tenant: Any, admin: Any, server: Any) -> None:
    """Bring the server back to where a round begins."""
    if settled(admin, server).status == "SHUTOFF":
        tenant.compute.start_server(server.id)
    steps.until("ACTIVE", lambda: settled(admin, server).status == "ACTIVE", 120)
    cloud.wait_agent(server.id, 120)


RIVALS: dict[str, dict[str, Any]] = {
    "stop": {"os-stop": None},
    "soft reboot": {"reboot": {"type": "SOFT"}},
    "hard reboot": {"reboot": {"type": "HARD"}},
    "live migration": {},  # to the other host
}


def test_quiesce_and_what_it_forbids_in_the_same_moment(
    cloud: Cloud,
    tenant: Any,
    admin: Any,
    server: Any,
    workers: list[str],
    record_property: Callable[[str, object], None],
) -> None:
    """Never do both go through."""
    won = {"quiesce": 0, "rival": 0, "none": 0}
    for number in range(ROUNDS):
        name = list(RIVALS)[number % len(RIVALS)]
        ready(cloud, tenant, admin, server)
        start = threading.Barrier(2)

        def together(
            connection: Any, api: str, body: Any, start: threading.Barrier = start
        ) -> int:
            start.wait(30)
            return order(connection, api, server, body)

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            first, second = random.sample(workers, 2)
            frozen = pool.submit(together, tenant, first, {"quiesce": {"timeout": 30}})
            body = RIVALS[name]
            if name == "live migration":
                away = OTHER if cloud.find_host(server.id) == HOST else HOST
                body = {"os-migrateLive": {"host": away, "block_migration": "auto"}}
            rival = pool.submit(together, admin, second, body)
            answers = frozen.result(60), rival.result(60)
        assert set(answers) <= {202, 409}, (number, name, answers)
        assert answers != (202, 202), f"round {number}: both quiesce and {name}"
        if answers[0] == 202:
            won["quiesce"] += 1
            steps.until(
                "quiesced", lambda: steps.status(tenant, server) == "quiesced", 60
            )
            steps.unquiesce(tenant, server)  # Success: nothing has disturbed the guest
        else:
            won["rival" if answers[1] == 202 else "none"] += 1
    record_property("won", won)
    ready(cloud, tenant, admin, server)


def went_through(admin: Any, server: Any, answer: tuple[int, str]) -> bool:
    """Whether what a stock API was asked for was accepted and carried out."""
    status, request = answer
    if status != 202:
        return False
    results = [event["result"] for event in steps.events_of(admin, server, request)]
    return bool(results) and "Error" not in results


def whole_window(tenant: Any, admin: Any, server: Any, answer: Any) -> bool:
    """Whether the window of a request to quiesce began, and ended with Success.

    It ends after what came at the same moment, which may otherwise go on after it.
    """
    if answer.status_code != 202:
        return False
    request = answer.headers["x-openstack-request-id"]
    try:
        compute.wait_quiesced(tenant, server.id, request, interval=0.1)
        steps.idle(admin, server)
        steps.unquiesce(tenant, server)
    except (
        exceptions.QuiesceFailed,
        exceptions.UnquiesceFailed,
        exceptions.WrongState,
    ):
        return False
    return True


def test_quiesce_and_what_a_stock_api_lets_through_in_the_same_moment(
    cloud: Cloud,
    tenant: Any,
    admin: Any,
    server: Any,
    record_property: Callable[[str, object], None],
) -> None:
    """The host decides, and carries out one of them at most."""
    won = {"quiesce": 0, "rival": 0, "none": 0}
    chance = random.Random()  # noqa: S311 - moments, not secrets
    for number in range(ROUNDS):
        name = list(RIVALS)[number % len(RIVALS)]
        ready(cloud, tenant, admin, server)
        start = threading.Barrier(2)
        body = RIVALS[name]
        if name == "live migration":
            away = OTHER if cloud.find_host(server.id) == HOST else HOST
            body = {"os-migrateLive": {"host": away, "block_migration": "auto"}}

        def quiesce(start: threading.Barrier = start) -> Any:
            start.wait(30)
            time.sleep(chance.uniform(0, 0.15))
            return tenant.session.post(
                f"{cloud.nova_api_url}/servers/{server.id}/action",
                json={"quiesce": {"timeout": 60}},
                headers=API,
                raise_exc=False,
            )

        def rival(start: threading.Barrier = start, body: Any = body) -> Any:
            start.wait(30)
            time.sleep(chance.uniform(0, 0.15))
            return steps.stock_order(cloud, admin, server, body)

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            frozen, other = pool.submit(quiesce), pool.submit(rival)
            answers = frozen.result(60), other.result(60)
        whole = whole_window(tenant, admin, server, answers[0])
        settled(admin, server)
        done = went_through(admin, server, answers[1])
        told = (number, name, answers[0].status_code, answers[1][0])
        assert not (whole and done), told
        won["quiesce" if whole else "rival" if done else "none"] += 1
        if not done:
            assert settled(admin, server).status == "ACTIVE", told
    record_property("won", won)
    ready(cloud, tenant, admin, server)


def test_create_image_may_follow_and_neither_freezes_nor_thaws(
    cloud: Cloud, tenant: Any, admin: Any, server: Any
) -> None:
    steps.quiesce(tenant, server)
    image = tenant.compute.create_server_image(server.id, f"state-{uuid.uuid4()}")
    found = steps.until(
        "the image",
        lambda: (
            tenant.image.get_image(image.id).status == "active"
            and tenant.image.get_image(image.id)
        ),
        180,
    )
    assert steps.agent_says(cloud, server) == "frozen"
    steps.unquiesce(tenant, server)
    tenant.image.delete_image(found.id)


def test_lock_metadata_and_tags_at_any_moment(
    tenant: Any, server: Any, admin: Any
) -> None:
    """No state comes back, and no reason is lost.

    When state lay in the instance's system metadata, a save of that by anybody brought
    back what another had removed, or removed it.
    """
    chance = random.Random()  # noqa: S311 - moments, not secrets
    stop = threading.Event()
    failures: list[BaseException] = []

    def disturb(seed: int) -> None:
        try:  # an administrator may do it while the server is locked
            while not stop.is_set():
                tag, value = f"tag{seed}", str(chance.random())
                admin.compute.set_server_metadata(server.id, **{f"key{seed}": value})
                admin.compute.put(
                    f"/servers/{server.id}/tags/{tag}", microversion="2.105"
                )
                stop.wait(chance.random() / 5)
        except BaseException as exc:
            failures.append(exc)
            raise

    threads = [threading.Thread(target=disturb, args=[seed]) for seed in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(ROUNDS):
            reason = f"round {number}"
            request = compute.quiesce(tenant, server.id, timeout=60)
            stop.wait(chance.random() / 10)
            tenant.compute.lock_server(server.id, locked_reason=reason)
            compute.wait_quiesced(tenant, server.id, request, interval=0.1)
            assert compute.get_server(tenant, server.id).locked_reason == reason
            tenant.compute.unlock_server(server.id)
            request = compute.unquiesce(tenant, server.id)
            stop.wait(chance.random() / 5)
            tenant.compute.lock_server(server.id, locked_reason=reason)
            compute.wait_unquiesced(tenant, server.id, request, interval=0.1)
            settled(admin, server)
            shown = compute.get_server(tenant, server.id)
            assert shown.locked_reason == reason
            assert shown.quiesce_status is None
            tenant.compute.unlock_server(server.id)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert failures == []


# The tools of stock nova beside it.


ROW = (
    "insert into nova_cell1_nova_ext.quiesce_windows (instance_uuid, window_id, "
    "change_id, status, request_id, timeout, reason, partial, created_at, updated_at) "
    "values ('{uuid}', uuid(), uuid(), 'broken', 'req-1', 60, 'x', 0, now(), now());"
)


def rows(cloud: Cloud) -> set[str]:
    """The servers that have a freeze window."""
    return set(
        steps.sql(
            cloud, "select instance_uuid from nova_cell1_nova_ext.quiesce_windows"
        ).split()
    )


@pytest.mark.disturbs
def test_stock_nova_manage_works_beside_it(
    cloud: Cloud, tenant: Any, server: Any
) -> None:
    gone = tenant.compute.create_server(
        name="gone",
        image_id=server.image.id,
        flavor_id=next(iter(tenant.compute.flavors())).id,
        networks="none",
    )
    tenant.compute.wait_for_server(gone, wait=180)
    tenant.compute.delete_server(gone.id)
    tenant.compute.wait_for_delete(gone, wait=120)
    never = str(uuid.uuid4())
    steps.sql(cloud, ROW.format(uuid=gone.id) + ROW.format(uuid=never))
    steps.quiesce(tenant, server)
    try:
        steps.manage(cloud, "nova-manage", "db", "sync")
        printed = steps.manage(
            cloud,
            "nova-manage",
            *("db", "archive_deleted_rows", "--all-cells", "--until-complete"),
            *("--purge", "--verbose"),
            status=1,  # nova's way to say that rows were archived
        )
        assert "instances" in printed
        steps.manage(
            cloud, "nova-manage", "db", "purge", "--all", "--all-cells", status=3
        )
        assert "cell1" in steps.manage(cloud, "nova-manage", "cell_v2", "list_cells")
        steps.manage(cloud, "nova-ext-manage", "db", "archive")
        assert rows(cloud) == {server.id}
        assert steps.status(tenant, server) == "quiesced"
    finally:
        steps.unquiesce(tenant, server)


def test_purge_refuses_while_a_guest_is_frozen(
    cloud: Cloud, tenant: Any, server: Any
) -> None:
    steps.quiesce(tenant, server)
    try:
        printed = steps.manage(cloud, "nova-ext-manage", "db", "purge", status=1)
        assert server.id in printed
        assert rows(cloud) >= {server.id}
        steps.manage(cloud, "nova-ext-manage", "db", "version")
    finally:
        steps.unquiesce(tenant, server)


def test_status_tells_what_the_cloud_has(cloud: Cloud) -> None:
    settings = cloud.settings
    done = subprocess.run(
        [
            str(settings.venv / "bin/nova-ext-status"),
            *("--config-file", str(settings.etc / "nova/nova.conf")),
            *("upgrade", "check", "--json"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        env=command.clean_environment(PATH=config.path_variable(settings)),
    )
    checks = json.loads(done.stdout[done.stdout.index("{") :])
    assert checks["checks"], done.stdout
    # cmp3 is a stock compute host of this cloud.
    assert "cmp3" in done.stdout
