# SPDX-License-Identifier: Apache-2.0
"""Steps that the e2e tests share: order something, wait, look at the guest."""

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

from aiolib import command, config, evidence, waiting
from aiolib.bus import Listener
from aiolib.client import AgentError, Cloud

from nova_ext.client import compute, exceptions, resources


def until(what: str, true: Callable[[], Any], seconds: float = 90) -> Any:
    """Wait until ``true()`` is true; its value.

    :raises TimeoutError: it did not become true in time
    """
    return waiting.until(what, true, seconds)


def openstack(*words: str, seconds: float = 300) -> "subprocess.CompletedProcess[str]":
    """Run the client, as the cloud's tenant unless the words name another cloud."""
    return subprocess.run(
        ["openstack", *words], capture_output=True, text=True, timeout=seconds
    )


def status(connection: Any, server: Any) -> str | None:
    """The server's ``quiesce_status``."""
    return compute.get_server(connection, server.id).quiesce_status


def quiesce(connection: Any, server: Any, timeout: int = 120) -> resources.Server:
    """Quiesce and wait until the guest is frozen."""
    request = compute.quiesce(connection, server.id, timeout=timeout)
    compute.wait_quiesced(connection, server.id, request, interval=0.1)
    return compute.get_quiesced(connection, server.id)


def unquiesce(connection: Any, server: Any) -> None:
    """Unquiesce and wait for Success.

    :raises nova_ext.client.exceptions.UnquiesceFailed: the window was broken
    """
    request = compute.unquiesce(connection, server.id)
    compute.wait_unquiesced(connection, server.id, request, interval=0.1)


def told(listener: Listener, server_id: str, action: str) -> list[dict[str, Any]]:
    """The notifications of this server's actions with ``action`` in their name."""
    return [
        message.event
        for message in listener.messages()
        if action in message.event["event_type"]
        and message.event["payload"]["nova_object.data"]["uuid"] == server_id
    ]


def refusal(connection: Any, server: Any, body: dict[str, Any]) -> tuple[int, str]:
    """POST a server action; the status and the message of the refusal."""
    response = connection.compute.post(
        f"/servers/{server.id}/action", json=body, microversion="2.105"
    )
    assert response.status_code >= 400, f"{body} was accepted"
    return response.status_code, next(iter(response.json().values()))["message"]


def stock_order(
    cloud: Cloud, connection: Any, server: Any, body: dict[str, Any]
) -> tuple[int, str]:
    """POST a server action to the API that does not know the extension.

    :returns: the status of the answer and the ID of the request
    """
    answer = connection.session.post(
        f"{cloud.nova_api_stock_url}/servers/{server.id}/action",
        json=body,
        headers={"OpenStack-API-Version": "compute 2.90"},
        raise_exc=False,
    )
    return int(answer.status_code), str(answer.headers["x-openstack-request-id"])


def events_of(admin: Any, server: Any, request_id: str) -> list[dict[str, Any]]:
    """The events of a request's action; none if there is no such action yet."""
    if request_id not in known_actions(admin, server):
        return []
    found = admin.compute.get_server_action(request_id, server.id)
    return list(found.events or [])


def idle(connection: Any, server: Any, seconds: float = 120) -> Any:
    """Wait until no task of the server is under way; the server."""

    def look() -> Any:
        found = compute.get_server(connection, server.id)
        return found if found.task_state is None else None

    return until("an end of the server's task", look, seconds)


@contextlib.contextmanager
def configured(cloud: Cloud, admin: Any, host: str, options: str) -> Iterator[None]:
    """Let the nova-compute of a host run with more options."""
    service = f"nova-compute-{host}"
    path = cloud.settings.etc / f"nova-{host}.conf"
    before = path.read_text()

    def run_with(text: str) -> None:
        path.write_text(text)
        cloud.kill(service)
        cloud.start(service)

    try:
        run_with(before + options)
        cloud.wait_reported(admin, host, 60)
        yield
    finally:
        run_with(before)


#: With it a host puts a guest's memory away to make an image of it.
NO_LIVE_SNAPSHOTS = "\n[workarounds]\ndisable_libvirt_livesnapshot = true\n"


def known_actions(admin: Any, server: Any) -> set[str]:
    """The request ids of all actions that are recorded by now."""
    return {found.request_id for found in admin.compute.server_actions(server.id)}


def event(
    admin: Any,
    server: Any,
    action: str,
    seconds: float = 60,
    known: frozenset[str] | set[str] = frozenset(),
) -> Any:
    """The newest event of the newest action ``action``, once it has ended.

    :param known: request ids of actions that do not count
    """

    def ended() -> Any:
        for found in admin.compute.server_actions(server.id):
            if found.action == action and found.request_id not in known:
                detail = admin.compute.get_server_action(found.request_id, server.id)
                if detail.events and detail.events[0]["result"]:
                    return detail.events[0]
                return None
        return None

    return until(f"an ended {action}", ended, seconds)


def agent_says(cloud: Cloud, server: Any) -> str:
    """``frozen`` or ``thawed``, in the words of the guest's agent; else its error."""
    try:
        return str(cloud.agent(server.id, "guest-fsfreeze-status"))
    except AgentError as exc:
        return str(exc)


def writes(cloud: Cloud, server: Any, seconds: float = 1) -> int:
    """How many records the guest's writer finishes in ``seconds``."""
    before = evidence.records(cloud, server.id)
    time.sleep(seconds)
    return evidence.records(cloud, server.id) - before


def until_writing(cloud: Cloud, server: Any, seconds: float = 30) -> None:
    """Wait until the guest writes, so that it is thawed for sure."""
    before = evidence.records(cloud, server.id)
    until(
        "records of the writer",
        lambda: evidence.records(cloud, server.id) > before + 3,
        seconds,
    )


def manage(cloud: Cloud, program: str, *words: str, status: int = 0) -> str:
    """Run nova-manage or nova-ext-manage as the operator does; what it printed."""
    settings = cloud.settings
    done = subprocess.run(
        [
            str(settings.venv / "bin" / program),
            *("--config-file", str(settings.etc / "nova/nova.conf"), *words),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        env=command.clean_environment(PATH=config.path_variable(settings)),
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def sql(cloud: Cloud, statement: str) -> str:
    """What the cell's database server answers to its administrator."""
    socket_path = cloud.settings.state("mariadb") / "s"
    return command.run(
        ["mariadb", "--no-defaults", "-uroot", "-N", f"--socket={socket_path}"],
        timeout=60,
        input=statement,
    )


def leave_thawed(cloud: Cloud, tenant: Any, server: Any) -> None:
    """Leave a server thawed and writing, whatever a test has made of it."""
    with contextlib.suppress(exceptions.ClientError):
        unquiesce(tenant, server)
    until("not quiesced", lambda: status(tenant, server) is None, 60)
    cloud.wait_agent(server.id)
    until_writing(cloud, server)
