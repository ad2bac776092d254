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

"""Owns the client side of the extension: functions on an SDK connection.

It is no second client: every function takes an ``openstack.connection.Connection``
and sends what the API reference says. It does not print, and imports no nova.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from keystoneauth1 import discover
from keystoneauth1 import exceptions as ks_exceptions
from openstack import exceptions as sdk_exceptions
from openstack import utils as sdk_utils

#: The first compute API microversion that knows what is asked for here.
MICROVERSION = "2.105"

#: Longest wait for one server, in seconds.
WAIT_LIMIT = 300

#: A quiesce with a timeout of its own is waited for that long and this many seconds
#: more: a freeze that ends later has no window left.
WAIT_GRACE = 60

#: Seconds between two looks at a server. Windows are short, so this is too.
POLL_INTERVAL = 0.5

#: Seconds between two looks at a server that is moving, which takes minutes or hours.
MOVE_POLL_INTERVAL = 3

#: So many looks at a server that rests are given to the record of how its move ended.
MOVE_LAST_LOOKS = 10

QUIESCE_EVENT = "compute_quiesce_instance"
UNQUIESCE_EVENT = "compute_unquiesce_instance"
MOVED_EVENT = "compute_finish_resize"


class ClientError(Exception):
    """Base of all reasons; the text is one line and ends with what to do.

    ``may_be_frozen`` says whether a server that was to be quiesced can be frozen, now
    or a little later, although the call failed.
    """

    may_be_frozen = False


class MicroversionTooLow(ClientError):
    """The caller chose a compute API microversion below 2.105."""

    def __init__(self, asked: str) -> None:
        super().__init__(
            f"This needs compute API microversion {MICROVERSION} or higher, but "
            f"{asked} was asked for: use --os-compute-api-version {MICROVERSION}, or "
            "choose none."
        )


class MicroversionNotOffered(ClientError):
    """The compute API of the cloud has no microversion 2.105."""

    def __init__(self, wanted: str, maximum: str | None = None) -> None:
        highest = f" (its maximum is {maximum})" if maximum else ""
        super().__init__(
            f"This cloud's compute API does not offer microversion {wanted}"
            f"{highest}: ask its operator to enable nova_ext in the compute API."
        )


class ServerNotFound(ClientError):
    """No such server, or it is not the caller's."""

    def __init__(self, server: str) -> None:
        super().__init__(
            f"No server with the name or ID {server}: see 'openstack server list'."
        )


class ServerAmbiguous(ClientError):
    """Several servers have the same name."""

    def __init__(self, server: str) -> None:
        super().__init__(f"More than one server has the name {server}: use its ID.")


class RequestForbidden(ClientError):
    """Policy does not allow the action (HTTP 403)."""

    def __init__(self, server: str, action: str, reason: str) -> None:
        super().__init__(
            f"You may not {action} server {server}: {reason} Ask the cloud's operator "
            f"for the policy os_compute_api:os-quiesce-server:{action}."
        )


class RequestUnsupported(ClientError):
    """The request is malformed or this server cannot do it (HTTP 400)."""

    def __init__(self, server: str, action: str, reason: str) -> None:
        # The API's reason names the remedy: timeout, image property or host.
        super().__init__(f"Cannot {action} server {server}: {reason}")


class WrongState(ClientError):
    """The server is not in a state that allows the action (HTTP 409).

    Or its compute service did not answer, which is a 409 too: then an instance action
    of the request shows that the host took it up all the same (``may_be_frozen``).
    """

    def __init__(
        self, server: str, action: str, reason: str, taken_up: bool = False
    ) -> None:
        self.may_be_frozen = taken_up
        super().__init__(
            f"Cannot {action} server {server} in its present state: {reason} Look at "
            f"it with 'openstack --os-compute-api-version {MICROVERSION} server show "
            f"{server}' and try again."
        )


class RequestIdMissing(ClientError):
    """The request was accepted, but nobody can follow it."""

    may_be_frozen = True

    def __init__(self, server: str, action: str) -> None:
        super().__init__(
            f"The answer to {action} of server {server} has no x-openstack-request-id "
            "header: let the proxy in front of the compute API pass it on."
        )


class QuiesceFailed(ClientError):
    """The instance action of the quiesce ended with Error; the guest is thawed."""

    def __init__(self, server: str, reason: str) -> None:
        super().__init__(
            f"Server {server} was not quiesced: {reason} Check the guest agent in the "
            "guest and try again."
        )


class FreezeLost(ClientError):
    """The guest was frozen and is not any more."""

    def __init__(self, server: str) -> None:
        super().__init__(
            f"Server {server} was quiesced but is thawed already (deadline, reboot or "
            "somebody's unquiesce): quiesce it again, with a longer timeout."
        )


class UnquiesceFailed(ClientError):
    """The instance action of the unquiesce ended with Error."""

    def __init__(self, server: str, reason: str) -> None:
        super().__init__(
            f"Unquiesce of server {server} ended with an error: {reason} Do not rely "
            "on snapshots taken since it was quiesced."
        )


class MoveFailed(ClientError):
    """A resize or migration with a copy of PMEM did not get to its end."""

    def __init__(self, server: str, reason: str) -> None:
        super().__init__(
            f"The copy of the PMEM devices of server {server} or its move failed: "
            f"{reason} Look where it is and how with 'openstack server show {server}' "
            "before you try again."
        )


class WaitTimeout(ClientError):
    """The server did not get there in time; it still may."""

    may_be_frozen = True

    def __init__(self, server: str, action: str, limit: float, last: str) -> None:
        trouble = f" (last error: {last})" if last else ""
        super().__init__(
            f"The {action} of server {server} did not end within {limit:g} "
            f"seconds{trouble}: see 'openstack server event list {server}'."
        )


@dataclass(frozen=True)
class ServerState:
    """What the compute API says about the freeze of one server.

    Times are ISO 8601 or None. ``known`` is False when the answer does not have the
    fields: the API behind that microversion is not nova_ext's.
    """

    id: str
    name: str
    quiesce_status: str | None
    quiesced_at: str | None
    unquiesce_at: str | None
    known: bool = True


@dataclass(frozen=True)
class _Outcome:
    """How an instance action ended; ``error`` is None for Success."""

    error: str | None = None


def _is_enough(microversion: str) -> bool:
    return bool(
        discover.normalize_version_number(microversion)
        >= discover.normalize_version_number(MICROVERSION)
    )


def chosen_microversion(conn: Any) -> str | None:
    """Return the user's compute microversion if it knows quiesce, else None.

    :param conn: ``openstack.connection.Connection``
    """
    chosen = conn.compute.default_microversion
    return chosen if chosen and _is_enough(chosen) else None


def negotiate(conn: Any) -> str:
    """Return the microversion to send: the user's choice, or 2.105 without one.

    :param conn: ``openstack.connection.Connection``
    :raises MicroversionTooLow: the user's choice is below 2.105
    :raises MicroversionNotOffered: the cloud's maximum is lower
    """
    try:
        compute = conn.compute
    except sdk_exceptions.ConfigException as exc:
        # The SDK refuses a chosen microversion that the cloud lacks already here.
        asked = conn.config.get_default_microversion(
            "compute"
        ) or conn.config.get_api_version("compute")
        if not asked or "." not in asked:
            raise
        if not _is_enough(asked):
            raise MicroversionTooLow(asked) from exc
        raise MicroversionNotOffered(asked) from exc
    asked = compute.default_microversion
    if asked:
        if not _is_enough(asked):
            raise MicroversionTooLow(asked)
        return str(asked)
    if not sdk_utils.supports_microversion(compute, MICROVERSION):
        data = compute.get_endpoint_data()
        maximum = data.max_microversion if data else None
        raise MicroversionNotOffered(
            MICROVERSION, discover.version_to_string(maximum) if maximum else None
        )
    return MICROVERSION


def find(conn: Any, name_or_id: str) -> tuple[str, str]:
    """Return ID and name of a server.

    :raises ServerNotFound: there is none
    :raises ServerAmbiguous: the name is not unique
    """
    try:
        server = conn.compute.find_server(
            name_or_id, ignore_missing=False, details=False
        )
    except sdk_exceptions.DuplicateResource as exc:
        raise ServerAmbiguous(name_or_id) from exc
    except sdk_exceptions.NotFoundException as exc:
        raise ServerNotFound(name_or_id) from exc
    return str(server.id), str(server.name)


def quiesce(conn: Any, server_id: str, timeout: int | None = None) -> str:
    """Ask for a freeze of the guest's file systems; return the request ID.

    The answer comes before the freeze: follow with :func:`wait_quiesced`.

    :param conn: ``openstack.connection.Connection``
    :param timeout: seconds after which the compute host thaws by itself; None leaves
        it to the cloud
    :raises ClientError: one subclass per reason
    """
    body = None if timeout is None else {"timeout": timeout}
    return _post_action(conn, server_id, "quiesce", body)


def unquiesce(conn: Any, server_id: str) -> str:
    """Ask for the thaw of a quiesced server; return the request ID.

    Whether the freeze was whole is on the instance action: :func:`wait_unquiesced`.

    :param conn: ``openstack.connection.Connection``
    :raises ClientError: one subclass per reason
    """
    return _post_action(conn, server_id, "unquiesce", None)


def resize_copying_pmem(conn: Any, server_id: str, flavor_id: str) -> str:
    """Ask for a resize that copies the PMEM devices; return the request ID.

    :param conn: ``openstack.connection.Connection``
    :raises MicroversionTooLow: the user's choice is below 2.105
    :raises openstack.exceptions.HttpException: as with any resize
    """
    body = {"flavorRef": flavor_id, "copy_pmem_devices": True}
    return _order_move(conn, server_id, "resize", body)


def migrate_copying_pmem(conn: Any, server_id: str, host: str | None = None) -> str:
    """Ask for a cold migration that copies the PMEM devices; return the request ID.

    :param conn: ``openstack.connection.Connection``
    :param host: where to; None leaves it to the scheduler
    :raises: as :func:`resize_copying_pmem`
    """
    body: dict[str, Any] = {"copy_pmem_devices": True}
    if host:
        body["host"] = host
    return _order_move(conn, server_id, "migrate", body)


def wait_moved(
    conn: Any,
    server_id: str,
    request_id: str,
    *,
    interval: float = MOVE_POLL_INTERVAL,
) -> None:
    """Wait until a resize or migration is done, however long it takes.

    A server whose copy failed is ACTIVE or SHUTOFF where it was, so that its status
    alone does not tell.

    :param request_id: what :func:`resize_copying_pmem` or :func:`migrate_copying_pmem`
        returned
    :param interval: seconds between two looks
    :raises MoveFailed: it failed, or ended without a word
    :raises ServerNotFound: the server was deleted meanwhile
    """
    rested = 0
    for trouble in _polls(server_id, "move", None, interval):
        with trouble:
            # The server first: what it rests from is recorded soon after.
            status = get_server(conn, server_id)["status"]
            outcome = _move_outcome(conn, server_id, request_id)
            if outcome and outcome.error is not None:
                raise MoveFailed(server_id, outcome.error)
            if outcome or status == "VERIFY_RESIZE":
                return
            rested = 0 if status == "RESIZE" else rested + 1
            if rested > MOVE_LAST_LOOKS:
                raise MoveFailed(server_id, f"It is {status} and nobody says why.")


def get_server(conn: Any, server_id: str) -> dict[str, Any]:
    """Return a server as the compute API shows it at the negotiated microversion.

    :raises ServerNotFound: the server is gone
    """
    response = get(conn, f"/servers/{server_id}")
    if response is None:
        raise ServerNotFound(server_id)
    server: dict[str, Any] = response["server"]
    return server


def get_state(conn: Any, server_id: str) -> ServerState:
    """Return the freeze of a server as the compute API shows it.

    :raises ServerNotFound: the server is gone
    """
    server = get_server(conn, server_id)
    return ServerState(
        id=server["id"],
        name=server["name"],
        quiesce_status=server.get("quiesce_status"),
        quiesced_at=server.get("quiesced_at"),
        unquiesce_at=server.get("unquiesce_at"),
        known="quiesce_status" in server,
    )


def quiesce_wait_limit(timeout: int | None) -> float:
    """Return how long to wait for a quiesce with that timeout, in seconds."""
    return WAIT_LIMIT if timeout is None else min(WAIT_LIMIT, timeout + WAIT_GRACE)


def wait_quiesced(
    conn: Any,
    server_id: str,
    request_id: str,
    *,
    limit: float = WAIT_LIMIT,
    interval: float = POLL_INTERVAL,
) -> ServerState:
    """Wait until the server is quiesced and return its state.

    :param request_id: what :func:`quiesce` returned
    :param limit: seconds to wait at most
    :param interval: seconds between two looks
    :raises QuiesceFailed: the instance action ended with Error
    :raises FreezeLost: it was quiesced, and thawed before anybody saw it
    :raises ServerNotFound: the server was deleted meanwhile
    :raises WaitTimeout: neither happened within the limit
    """
    for trouble in _polls(server_id, "quiesce", limit, interval):
        with trouble:
            # The action first: a server read after Success is at least quiesced.
            outcome = _outcome(conn, server_id, request_id, QUIESCE_EVENT)
            if outcome and outcome.error is not None:
                raise QuiesceFailed(server_id, outcome.error)
            state = get_state(conn, server_id)
            if state.quiesce_status == "quiesced":
                return state
            if outcome and state.quiesce_status != "quiescing":
                raise FreezeLost(server_id)
    raise AssertionError("the polls end with an exception")


def wait_unquiesced(
    conn: Any,
    server_id: str,
    request_id: str,
    *,
    limit: float = WAIT_LIMIT,
    interval: float = POLL_INTERVAL,
) -> None:
    """Wait until the unquiesce ended; returning means the freeze had no gap.

    :param request_id: what :func:`unquiesce` returned
    :param limit: seconds to wait at most
    :param interval: seconds between two looks
    :raises UnquiesceFailed: the instance action ended with Error
    :raises WaitTimeout: it did not end within the limit
    """
    for trouble in _polls(server_id, "unquiesce", limit, interval):
        with trouble:
            outcome = _outcome(conn, server_id, request_id, UNQUIESCE_EVENT)
            if outcome and outcome.error is not None:
                raise UnquiesceFailed(server_id, outcome.error)
            if outcome:
                return


class Trouble:
    """Keeps a look that failed for a passing reason from ending the wait."""

    def __init__(self) -> None:
        self.last = ""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: Any, exc: BaseException | None, _tb: Any) -> bool:
        # An API restart or a lost connection says nothing about the guest.
        passing = isinstance(exc, ks_exceptions.ConnectFailure) or (
            isinstance(exc, sdk_exceptions.HttpException)
            and (exc.status_code or 0) >= HTTPStatus.INTERNAL_SERVER_ERROR
        )
        self.last = _one_line(str(exc)) if passing else ""
        return passing


def _polls(
    server_id: str, action: str, limit: float | None, interval: float
) -> Iterator[Trouble]:
    """Yield once per look, with the pause between; at the limit raise WaitTimeout."""
    trouble = Trouble()
    try:
        for _count in sdk_utils.iterate_timeout(limit, "", wait=interval):
            yield trouble
    except sdk_exceptions.ResourceTimeout as exc:
        raise WaitTimeout(server_id, action, limit or 0, trouble.last) from exc


def _outcome(
    conn: Any, server_id: str, request_id: str, event_name: str
) -> _Outcome | None:
    """Return how the instance action of a request ended; None: not yet."""
    answer = _get_action(conn, server_id, request_id)
    if answer is None:
        return None
    action = answer["instanceAction"]
    events = [e for e in action.get("events") or () if e["event"] == event_name]
    failed = [e for e in events if e["result"] == "Error"]
    # The message without an event: it ended before a compute host took it up.
    if failed or (action.get("message") and not events):
        details = failed[-1].get("details") if failed else None
        return _Outcome(error=_reason(server_id, request_id, action, details))
    if events and all(e["result"] for e in events):
        return _Outcome()
    return None


def _move_outcome(conn: Any, server_id: str, request_id: str) -> _Outcome | None:
    """Return how a resize or migration ended; None: not yet."""
    answer = _get_action(conn, server_id, request_id)
    if answer is None:
        return None
    action = answer["instanceAction"]
    events = action.get("events") or ()
    failed = [e for e in events if e["result"] == "Error"]
    if failed or action.get("message"):
        details = next((e["details"] for e in failed if e.get("details")), None)
        return _Outcome(error=_reason(server_id, request_id, action, details))
    if any(e["event"] == MOVED_EVENT and e["result"] == "Success" for e in events):
        return _Outcome()
    return None


def _reason(
    server_id: str, request_id: str, action: dict[str, Any], details: str | None
) -> str:
    if details:
        return _sentence(details)
    message = _sentence(action.get("message") or "Error")
    return (
        f"{message} An administrator sees the reason with 'openstack "
        f"--os-compute-api-version 2.84 server event show {server_id} {request_id}'."
    )


def act(conn: Any, server_id: str, action: str, body: Any) -> Any:
    """Send a server action and return the response; errors as openstacksdk's."""
    response = _send_action(conn, server_id, action, body)
    sdk_exceptions.raise_from_response(response)
    return response


def _send_action(conn: Any, server_id: str, action: str, body: Any) -> Any:
    return conn.compute.post(
        f"/servers/{server_id}/action",
        json={action: body},
        headers={"Accept": ""},
        microversion=negotiate(conn),
    )


def _request_id(response: Any, server_id: str, action: str) -> str:
    request_id = response.headers.get("x-openstack-request-id")
    if not request_id:
        raise RequestIdMissing(server_id, action)
    return str(request_id)


def _order_move(conn: Any, server_id: str, action: str, body: Any) -> str:
    """Ask for a move as openstacksdk would, with errors as it raises them."""
    return _request_id(act(conn, server_id, action, body), server_id, action)


def _post_action(
    conn: Any, server_id: str, action: str, body: dict[str, int] | None
) -> str:
    response = _send_action(conn, server_id, action, body)
    try:
        sdk_exceptions.raise_from_response(response)
    except sdk_exceptions.NotFoundException as exc:
        raise ServerNotFound(server_id) from exc
    except sdk_exceptions.ForbiddenException as exc:
        raise RequestForbidden(server_id, action, _said(exc)) from exc
    except sdk_exceptions.BadRequestException as exc:
        raise RequestUnsupported(server_id, action, _said(exc)) from exc
    except sdk_exceptions.ConflictException as exc:
        request_id = response.headers.get("x-openstack-request-id")
        taken_up = bool(request_id) and _has_action(conn, server_id, request_id)
        raise WrongState(server_id, action, _said(exc), taken_up) from exc
    return _request_id(response, server_id, action)


def _get_action(conn: Any, server_id: str, request_id: str) -> Any:
    return get(conn, f"/servers/{server_id}/os-instance-actions/{request_id}")


def _has_action(conn: Any, server_id: str, request_id: str) -> bool:
    try:
        return _get_action(conn, server_id, request_id) is not None
    except (ks_exceptions.ClientException, sdk_exceptions.SDKException):
        return True  # not known: the careful answer


def get(conn: Any, path: str) -> Any:
    """Return the decoded answer of the compute API, or None for 404."""
    response = conn.compute.get(path, microversion=negotiate(conn))
    if response.status_code == HTTPStatus.NOT_FOUND:
        return None
    sdk_exceptions.raise_from_response(response)
    return response.json()


def _said(exc: sdk_exceptions.HttpException) -> str:
    return _sentence(exc.details or str(exc))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _sentence(text: str) -> str:
    line = _one_line(text)
    return line if line.endswith((".", "!", "?")) else f"{line}."
