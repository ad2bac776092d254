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

"""Steps that the e2e tests share: order something, wait, look at the guest."""

import subprocess
import time
from collections.abc import Callable
from typing import Any

from aiolib import evidence
from aiolib.bus import Listener
from aiolib.client import AgentError, Cloud

from nova_ext import client


def until(what: str, true: Callable[[], Any], seconds: float = 30) -> Any:
    """Wait until ``true()`` is true; its value.

    :raises AssertionError: it did not become true in time
    """
    end = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)
    return value


def openstack(*words: str, seconds: float = 180) -> "subprocess.CompletedProcess[str]":
    """Run the client, as the cloud's tenant unless the words name another cloud."""
    return subprocess.run(
        ["openstack", *words], capture_output=True, text=True, timeout=seconds
    )


def status(connection: Any, server: Any) -> str | None:
    """The server's ``quiesce_status``."""
    return client.get_state(connection, server.id).quiesce_status


def quiesce(connection: Any, server: Any, timeout: int = 120) -> client.ServerState:
    """Quiesce and wait until the guest is frozen."""
    request = client.quiesce(connection, server.id, timeout=timeout)
    return client.wait_quiesced(connection, server.id, request, interval=0.1)


def unquiesce(connection: Any, server: Any) -> None:
    """Unquiesce and wait for Success.

    :raises nova_ext.client.UnquiesceFailed: the window was broken
    """
    request = client.unquiesce(connection, server.id)
    client.wait_unquiesced(connection, server.id, request, interval=0.1)


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
