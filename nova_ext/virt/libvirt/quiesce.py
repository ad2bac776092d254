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

"""Owns the talk with libvirt and the QEMU guest agent that freezes and thaws a guest.

It knows one guest at a time and keeps nothing; when to thaw is not decided here.

What libvirt and the agent do was seen on libvirt 9.0 with QEMU 7.2:

* ``virDomainFSFreeze`` waits for ever for an agent that hangs, unless a response
  timeout is set; after it the freeze stays queued and runs when the agent wakes up.
* A frozen agent refuses everything but ping, status and thaw.
* ``virDomainFSThaw`` returns the number of file systems that it thawed: less than were
  frozen if the guest thawed some by itself, 0 after a reset.
* Frozen file systems send no write to the guest's disks, while a thaw and a freeze in
  between do (the journal is opened and closed), so that the write counters tell.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from lxml import etree
from nova import exception
from nova.virt.libvirt import guest as libvirt_guest
from oslo_utils import importutils

from nova_ext.virt import freezer

CHANNEL = "org.qemu.guest_agent.0"
SWAP_DISK = "disk.swap"

#: No connection to libvirt, no module for it, or an answer that makes no sense.
_UNUSABLE = (
    exception.HypervisorUnavailable,
    ImportError,
    LookupError,
    TypeError,
    ValueError,
)

_RESTARTED = "the guest was powered off and on"


class LibvirtGuestFreezer:
    """The :class:`nova_ext.virt.freezer.GuestFreezer` of libvirt's QEMU guests.

    :param lookup: finds the libvirt domain of an instance's UUID; raises libvirtError
    :param timeout: gives the seconds to wait for each answer of the agent
    """

    def __init__(
        self, lookup: Callable[[str], Any], timeout: Callable[[], int]
    ) -> None:
        self._lookup = lookup
        self._timeout = timeout

    def freeze(self, uuid: str) -> freezer.Evidence:
        """See :meth:`nova_ext.virt.freezer.GuestFreezer.freeze`."""
        libvirt = libvirt_guest.libvirt
        try:
            domain = self._lookup(uuid)
            _require_agent(domain)
            # A hung agent is found out here, before a freeze is queued for it.
            if self._status(domain) != "thawed":
                raise freezer.FreezeError(
                    "its file systems are frozen already, by an image that is being "
                    "created or by someone on the host",
                    maybe_frozen=False,
                )
        except (libvirt.libvirtError, *_UNUSABLE) as exc:
            raise freezer.FreezeError(_reason(exc), maybe_frozen=False) from exc
        try:
            with _bounded(domain, self._timeout()):
                frozen = domain.fsFreeze()
            if frozen < 1:
                raise freezer.FreezeError(
                    "the guest agent found no file system to freeze", maybe_frozen=True
                )
            return freezer.Evidence(domain.ID(), frozen, _written(domain))
        except libvirt.libvirtError as exc:
            raise freezer.FreezeError(_reason(exc), maybe_frozen=True) from exc

    def thaw(self, uuid: str, evidence: freezer.Evidence | None) -> str | None:
        """See :meth:`nova_ext.virt.freezer.GuestFreezer.thaw`."""
        libvirt = libvirt_guest.libvirt
        try:
            domain = self._lookup(uuid)
            if not domain.isActive():
                raise freezer.GuestGone("the guest is not running")
            restarted = evidence is not None and domain.ID() != evidence.domain_id
            if restarted and not _agent_connected(domain):
                raise freezer.GuestGone(_RESTARTED)
            try:
                written = _written(domain)
            except libvirt.libvirtError:
                written = -1  # no proof, but no reason to leave the guest frozen either
            with _bounded(domain, self._timeout()):
                thawed = domain.fsThaw()
            if self._status(domain) != "thawed":
                raise freezer.ThawError("the guest agent still says frozen")
        except _UNUSABLE as exc:
            raise freezer.ThawError(_reason(exc)) from exc
        except libvirt.libvirtError as exc:
            if exc.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                raise freezer.GuestGone("the guest is not running") from exc
            raise freezer.ThawError(_reason(exc)) from exc
        # A guest that was saved and restored runs anew and is frozen all the same.
        return _RESTARTED if restarted else _breach(evidence, thawed, written)

    def _status(self, domain: Any) -> str:
        """``frozen`` or ``thawed``, in the words of the agent."""
        # libvirt has no call of its own for the status of the file systems.
        libvirt_qemu = importutils.import_module("libvirt_qemu")
        answer = libvirt_qemu.qemuAgentCommand(
            domain, '{"execute": "guest-fsfreeze-status"}', self._timeout(), 0
        )
        return str(json.loads(answer)["return"])


def _breach(evidence: freezer.Evidence | None, thawed: int, written: int) -> str | None:
    if evidence is None:
        return "it is not known when the guest was frozen"
    if thawed < evidence.frozen:
        return (
            f"of {evidence.frozen} frozen file systems only {thawed} still were so: "
            "the guest rebooted or thawed them"
        )
    if written < 0:
        return "what the guest wrote could not be read"
    if written != evidence.written:
        return (
            f"the guest's disks changed ({written - evidence.written} bytes written): "
            "it was thawed in between, or writes below its file systems"
        )
    return None


def _channel(domain: Any) -> Any:
    """The target element of the guest's agent channel, or None."""
    root = etree.fromstring(domain.XMLDesc(0))
    return root.find(f"./devices/channel/target[@name='{CHANNEL}']")


def _agent_connected(domain: Any) -> bool:
    """Whether something in the guest has opened the agent channel."""
    channel = _channel(domain)
    return channel is not None and channel.get("state", "connected") == "connected"


def _require_agent(domain: Any) -> None:
    """Fail unless the guest has an agent channel that something in it has opened."""
    if _channel(domain) is None:
        raise freezer.FreezeError(
            "it has no guest agent channel: set hw_qemu_guest_agent=yes on its image "
            "and rebuild it",
            maybe_frozen=False,
        )
    if not _agent_connected(domain):
        raise freezer.FreezeError(
            "the guest agent is not running in it", maybe_frozen=False
        )


def _written(domain: Any) -> int:
    """Bytes written by the guest to the disks that may hold its file systems.

    The flavor's swap disk does not count: a frozen guest may go on swapping.
    """
    total = 0
    root = etree.fromstring(domain.XMLDesc(0))
    for disk in root.iterfind("./devices/disk[@device='disk']"):
        target, source = disk.find("target"), disk.find("source")
        if target is None or disk.find("readonly") is not None:
            continue
        if source is not None and any(
            value.endswith(SWAP_DISK) for value in source.attrib.values()
        ):
            continue
        total += domain.blockStats(target.get("dev"))[3]
    return total


@contextlib.contextmanager
def _bounded(domain: Any, seconds: int) -> Iterator[None]:
    """Let the agent calls of this domain fail after ``seconds`` instead of never."""
    libvirt = libvirt_guest.libvirt
    domain.agentSetResponseTimeout(seconds, 0)
    try:
        yield
    finally:
        # Other agent calls of nova rely on libvirt's default, to wait.
        with contextlib.suppress(libvirt.libvirtError):
            domain.agentSetResponseTimeout(
                libvirt.VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK, 0
            )


def _reason(exc: Any) -> str:
    """The reason of an error of the hypervisor, for a person."""
    libvirt = libvirt_guest.libvirt
    if isinstance(exc, LookupError | TypeError | ValueError):
        return f"the guest agent's answer makes no sense ({exc!r})"
    if not isinstance(exc, libvirt.libvirtError):
        return str(exc)
    known = {
        libvirt.VIR_ERR_AGENT_UNRESPONSIVE: "the guest agent does not answer",
        libvirt.VIR_ERR_OPERATION_INVALID: "the guest is paused or not running",
        libvirt.VIR_ERR_NO_DOMAIN: "the guest is not running",
    }
    reason = known.get(exc.get_error_code())
    return f"{reason} ({exc})" if reason else str(exc)
