# SPDX-License-Identifier: Apache-2.0
"""The reasons for which a request of the client library fails; each is one line."""

from nova_ext.client import resources

MICROVERSION = resources.MICROVERSION


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
    """The compute API of the cloud does not have the microversion.

    :param maximum: of the cloud, if that is known
    """

    def __init__(self, wanted: str, maximum: str | None = None) -> None:
        highest = f"its maximum is {maximum}" if maximum else "its maximum is not known"
        remedy = "ask its operator to enable nova_ext in the compute API"
        if maximum is None:
            remedy = f"try again, and if that does not help {remedy}"
        elif resources.is_enough(maximum):
            remedy = f"use --os-compute-api-version {MICROVERSION}, or choose none"
        super().__init__(
            f"This cloud's compute API does not offer microversion {wanted} "
            f"({highest}): {remedy}."
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
