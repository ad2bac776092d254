# SPDX-License-Identifier: Apache-2.0
"""Quiesce and unquiesce of servers, and moves that copy PMEM, on an SDK connection.

It is no second client: every function takes an ``openstack.connection.Connection``
and sends what the API reference says. It does not print, and imports no nova.
"""

import uuid
from typing import Any

from keystoneauth1 import adapter, discover
from keystoneauth1 import exceptions as ks_exceptions
from openstack import exceptions as sdk_exceptions
from openstack import utils as sdk_utils
from openstack.compute.v2 import server_action

from nova_ext.client import exceptions, polling, resources

MICROVERSION = resources.MICROVERSION

#: Longest wait for one server, in seconds.
WAIT_LIMIT = 300

#: A quiesce with a timeout of its own is waited for that long and this many seconds
#: more: a freeze that ends later has no window left.
WAIT_GRACE = 60

#: Seconds between two looks at a server, at most. Windows are short, so this is too.
POLL_INTERVAL = 0.5

#: Seconds between the first two looks. Most guests are frozen or thawed by then, and
#: those that are frozen before them in the group wait.
FIRST_POLL_INTERVAL = 0.01

#: So many looks at the instance action of a quiesce come before one at the server,
#: which may have been deleted.
QUIESCE_LOOKS = 10

#: Seconds between two looks at a server that is moving, which takes minutes or hours.
MOVE_POLL_INTERVAL = 3

#: So many looks at a server that rests are given to the record of how its move ended.
MOVE_LAST_LOOKS = 10

QUIESCE_EVENT = "compute_quiesce_instance"
UNQUIESCE_EVENT = "compute_unquiesce_instance"
MOVED_EVENT = "compute_finish_resize"


def chosen_microversion(conn: Any) -> str | None:
    """Return the user's compute microversion if it knows quiesce, else None.

    :param conn: ``openstack.connection.Connection``
    """
    chosen = conn.compute.default_microversion
    return chosen if chosen and resources.is_enough(chosen) else None


def negotiate(conn: Any) -> str:
    """Return the microversion to send: the user's choice, or 2.105 without one.

    :param conn: ``openstack.connection.Connection``
    :raises exceptions.MicroversionTooLow: the user's choice is below 2.105
    :raises exceptions.MicroversionNotOffered: the cloud does not have it
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
        if not resources.is_enough(asked):
            raise exceptions.MicroversionTooLow(asked) from exc
        raise exceptions.MicroversionNotOffered(asked, _maximum(conn)) from exc
    asked = compute.default_microversion
    if asked:
        if not resources.is_enough(asked):
            raise exceptions.MicroversionTooLow(asked)
        return str(asked)
    if not sdk_utils.supports_microversion(compute, MICROVERSION):
        raise exceptions.MicroversionNotOffered(MICROVERSION, _maximum(conn))
    return MICROVERSION


def _maximum(conn: Any) -> str | None:
    """Return the highest microversion of the cloud, if that can be found out.

    Not from ``conn.compute``, which may have refused the user's choice.
    """
    config = conn.config
    compute = adapter.Adapter(
        conn.session,
        service_type=config.get_service_type("compute"),
        service_name=config.get_service_name("compute"),
        interface=config.get_interface("compute"),
        region_name=config.get_region_name("compute"),
        endpoint_override=config.get_endpoint("compute"),
    )
    data = compute.get_endpoint_data()
    maximum = data.max_microversion if data else None
    return discover.version_to_string(maximum) if maximum else None


def find(conn: Any, name_or_id: str) -> tuple[str, str]:
    """Return ID and name of a server, after one request if that is enough.

    :raises exceptions.ServerNotFound: there is none
    :raises exceptions.ServerAmbiguous: the name is not unique
    """
    if not _is_uuid(name_or_id):
        return _find_name(conn, name_or_id)
    try:
        server = conn.compute.find_server(
            name_or_id, ignore_missing=False, details=False
        )
    except sdk_exceptions.DuplicateResource as exc:
        raise exceptions.ServerAmbiguous(name_or_id) from exc
    except sdk_exceptions.NotFoundException as exc:
        raise exceptions.ServerNotFound(name_or_id) from exc
    return str(server.id), str(server.name)


def _find_name(conn: Any, name: str) -> tuple[str, str]:
    listed = conn.compute.servers(details=False, name=name)
    # The API lists all that have the name in theirs.
    found = [server for server in listed if server.name == name]
    if not found:
        raise exceptions.ServerNotFound(name)
    if found[1:]:
        raise exceptions.ServerAmbiguous(name)
    return str(found[0].id), name


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def get_server(conn: Any, server_id: str) -> resources.Server:
    """Return a server as the compute API shows it at the negotiated microversion.

    :raises exceptions.ServerNotFound: the server is gone
    """
    server = resources.Server.new(id=server_id)
    try:
        return server.fetch(conn.compute, microversion=negotiate(conn))
    except sdk_exceptions.NotFoundException as exc:
        raise exceptions.ServerNotFound(server_id) from exc


def quiesce(
    conn: Any, server_id: str, timeout: int | None = None, *, partial: bool = False
) -> str:
    """Ask for a freeze of the guest's file systems; return the request ID.

    The answer comes before the freeze: follow with :func:`wait_quiesced`.

    :param conn: ``openstack.connection.Connection``
    :param timeout: seconds after which the compute host thaws by itself; None leaves
        it to the cloud
    :param partial: go on if a writable file system cannot be frozen; without it such a
        quiesce fails
    :raises exceptions.ClientError: one subclass per reason
    """
    return _request(conn, server_id, "quiesce", timeout=timeout, partial=partial)


def unquiesce(conn: Any, server_id: str) -> str:
    """Ask for the thaw of a quiesced server; return the request ID.

    Whether the freeze was whole is on the instance action: :func:`wait_unquiesced`.

    :param conn: ``openstack.connection.Connection``
    :raises exceptions.ClientError: one subclass per reason
    """
    return _request(conn, server_id, "unquiesce")


def resize_copying_pmem(conn: Any, server_id: str, flavor_id: str) -> str:
    """Ask for a resize that copies the PMEM devices; return the request ID.

    :param conn: ``openstack.connection.Connection``
    :raises exceptions.MicroversionTooLow: the user's choice is below 2.105
    :raises openstack.exceptions.HttpException: as with any resize
    """
    microversion = negotiate(conn)
    response = resources.Server.new(id=server_id).resize_copying_pmem(
        conn.compute, flavor_id, microversion=microversion
    )
    return _request_id(response, server_id, "resize")


def migrate_copying_pmem(conn: Any, server_id: str, host: str | None = None) -> str:
    """Ask for a cold migration that copies the PMEM devices; return the request ID.

    :param conn: ``openstack.connection.Connection``
    :param host: where to; None leaves it to the scheduler
    :raises: as :func:`resize_copying_pmem`
    """
    microversion = negotiate(conn)
    response = resources.Server.new(id=server_id).migrate_copying_pmem(
        conn.compute, host, microversion=microversion
    )
    return _request_id(response, server_id, "migrate")


def create_image(conn: Any, server_id: str, name: str, metadata: dict[str, str]) -> str:
    """Ask for an image of a server's root disk; return the image's ID.

    :param metadata: properties for the image, besides those that nova passes on
    :raises openstack.exceptions.HttpException: the API refused
    """
    server = resources.Server.new(id=server_id)
    return str(server.create_image(conn.compute, name, metadata))


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
) -> None:
    """Wait until the quiesce ended; returning means that the guest was frozen.

    It asks for the instance action, which costs the API half of what the server does.
    The deadline is on the server: :func:`get_quiesced`.

    :param request_id: what :func:`quiesce` returned
    :param limit: seconds to wait at most
    :param interval: seconds between two looks, at most; the first are closer together
    :raises exceptions.QuiesceFailed: the instance action ended with Error
    :raises exceptions.ServerNotFound: the server was deleted in the meantime
    :raises exceptions.WaitTimeout: it did not end within the limit
    """
    looks = 0

    def look() -> bool | None:
        nonlocal looks
        looks += 1
        ended = _has_ended(
            conn, server_id, request_id, QUIESCE_EVENT, exceptions.QuiesceFailed
        )
        if not ended and looks % QUIESCE_LOOKS == 0:
            get_server(conn, server_id)  # a deleted one has its actions still
        return ended or None

    try:
        polling.until(look, limit, interval=interval, first=FIRST_POLL_INTERVAL)
    except polling.Expired as exc:
        raise exceptions.WaitTimeout(server_id, "quiesce", limit, exc.last) from exc


def get_quiesced(conn: Any, server_id: str) -> resources.Server:
    """Return a server that was quiesced, with its deadline in ``unquiesce_at``.

    :raises exceptions.FreezeLost: it is thawed already
    :raises exceptions.ServerNotFound: the server was deleted in the meantime
    """
    server = get_server(conn, server_id)
    if server.quiesce_status != "quiesced":
        raise exceptions.FreezeLost(server_id)
    return server


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
    :param interval: seconds between two looks, at most; the first are closer together
    :raises exceptions.UnquiesceFailed: the instance action ended with Error
    :raises exceptions.WaitTimeout: it did not end within the limit
    """

    def look() -> bool | None:
        ended = _has_ended(
            conn, server_id, request_id, UNQUIESCE_EVENT, exceptions.UnquiesceFailed
        )
        return ended or None

    try:
        polling.until(look, limit, interval=interval, first=FIRST_POLL_INTERVAL)
    except polling.Expired as exc:
        raise exceptions.WaitTimeout(server_id, "unquiesce", limit, exc.last) from exc


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
    :raises exceptions.MoveFailed: it failed, or ended without a word
    :raises exceptions.ServerNotFound: the server was deleted in the meantime
    """
    rested = 0

    def look() -> bool | None:
        nonlocal rested
        # The server first: what it rests from is recorded soon after.
        status = get_server(conn, server_id).status
        moved = _has_moved(conn, server_id, request_id)
        if moved or status == "VERIFY_RESIZE":
            return True
        rested = 0 if status == "RESIZE" else rested + 1
        if rested > MOVE_LAST_LOOKS:
            raise exceptions.MoveFailed(
                server_id, f"It is {status} and nobody says why."
            )
        return None

    polling.until(look, None, interval=interval)


def _has_ended(
    conn: Any,
    server_id: str,
    request_id: str,
    event_name: str,
    failure: type[exceptions.QuiesceFailed | exceptions.UnquiesceFailed],
) -> bool:
    """Return whether the instance action of a request ended, with success.

    :param failure: is raised if it ended with Error
    """
    action = _get_action(conn, server_id, request_id)
    if action is None:
        return False
    events = [e for e in action.events or () if e.event == event_name]
    failed = [e for e in events if e.result == "Error"]
    # The message without an event: it ended before a compute host took it up.
    if failed or (action.message and not events):
        details = failed[-1].details if failed else None
        raise failure(server_id, _reason(server_id, request_id, action, details))
    return bool(events) and all(e.result for e in events)


def _has_moved(conn: Any, server_id: str, request_id: str) -> bool:
    """Return whether a resize or migration ended, with success.

    :raises exceptions.MoveFailed: it ended with Error
    """
    action = _get_action(conn, server_id, request_id)
    if action is None:
        return False
    events = action.events or ()
    failed = [e for e in events if e.result == "Error"]
    if failed or action.message:
        details = next((e.details for e in failed if e.details), None)
        raise exceptions.MoveFailed(
            server_id, _reason(server_id, request_id, action, details)
        )
    return any(e.event == MOVED_EVENT and e.result == "Success" for e in events)


def _reason(server_id: str, request_id: str, action: Any, details: str | None) -> str:
    if details:
        return _sentence(details)
    return (
        f"{_sentence(action.message or 'Error')} An administrator sees the reason with "
        "'openstack --os-compute-api-version 2.84 server event show "
        f"{server_id} {request_id}'."
    )


def _request(conn: Any, server_id: str, action: str, **options: Any) -> str:
    """Ask for a quiesce or unquiesce; return the request ID."""
    microversion = negotiate(conn)
    send = getattr(resources.Server.new(id=server_id), action)
    try:
        response = send(conn.compute, **options, microversion=microversion)
    except sdk_exceptions.NotFoundException as exc:
        raise exceptions.ServerNotFound(server_id) from exc
    except sdk_exceptions.ForbiddenException as exc:
        raise exceptions.RequestForbidden(server_id, action, _said(exc)) from exc
    except sdk_exceptions.BadRequestException as exc:
        raise exceptions.RequestUnsupported(server_id, action, _said(exc)) from exc
    except sdk_exceptions.ConflictException as exc:
        request_id = exc.response.headers.get("x-openstack-request-id")
        # Only what a quiesce leaves behind matters: an unquiesce freezes nothing.
        taken_up = (
            action == "quiesce"
            and bool(request_id)
            and _has_action(conn, server_id, request_id)
        )
        raise exceptions.WrongState(server_id, action, _said(exc), taken_up) from exc
    return _request_id(response, server_id, action)


def _request_id(response: Any, server_id: str, action: str) -> str:
    request_id = response.headers.get("x-openstack-request-id")
    if not request_id:
        raise exceptions.RequestIdMissing(server_id, action)
    return str(request_id)


def _get_action(conn: Any, server_id: str, request_id: str) -> Any:
    """Return the instance action of a request; None: there is none yet."""
    action = server_action.ServerAction.new(server_id=server_id, request_id=request_id)
    try:
        return action.fetch(conn.compute, microversion=negotiate(conn))
    except sdk_exceptions.NotFoundException:
        return None


def _has_action(conn: Any, server_id: str, request_id: str) -> bool:
    try:
        return _get_action(conn, server_id, request_id) is not None
    except (ks_exceptions.ClientException, sdk_exceptions.SDKException):
        return True  # not known: the careful answer


def _said(exc: sdk_exceptions.HttpException) -> str:
    return _sentence(exc.details or str(exc))


def _sentence(text: str) -> str:
    line = " ".join(text.split())
    return line if line.endswith((".", "!", "?")) else f"{line}."
