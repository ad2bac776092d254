# SPDX-License-Identifier: Apache-2.0
"""Owns the talk with libvirt and the guest agents: one guest, one command, one answer.

It keeps nothing about a guest; when to freeze and to thaw is not decided here.

What libvirt and the agent do was seen on libvirt 9.0 with QEMU 7.2:

* libvirtd works on five requests of a connection at a time and on twenty in all, and an
  agent that hangs keeps one of these busy. So the calls go over connections of their
  own, each with one call at a time, and there are few of them.
* A command carries its own timeout. After it the command stays queued and runs when the
  agent wakes up; before it libvirt waits for its own job, up to 30 s.
* A frozen agent refuses everything but ping, status and thaw.
* Frozen file systems send no write to the guest's disks, while a thaw and a freeze in
  between do (the journal is opened and closed), so that the write counters tell.
"""

import base64
import contextlib
import dataclasses
import json
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from lxml import etree
from oslo_log import log as logging
from oslo_utils import importutils

LOG = logging.getLogger(__name__)

CHANNEL = "org.qemu.guest_agent.0"
SWAP_DISK = "disk.swap"

#: Seconds that libvirt waits for its own job before it sends a command to an agent.
LIBVIRT_JOB_WAIT = 30

#: How the kernel writes a space, for example, in a list of mounts.
_ESCAPED = re.compile(r"\\([0-7]{3})")

_KEEPALIVE_INTERVAL = 5  # s
_KEEPALIVE_COUNT = 3

FREEZE = "guest-fsfreeze-freeze"
THAW = "guest-fsfreeze-thaw"
STATUS = "guest-fsfreeze-status"
FSINFO = "guest-get-fsinfo"


class AgentError(Exception):
    """A command whose outcome is not known; the text is the reason, for a person."""


class Refused(AgentError):
    """A command that was not carried out, for certain."""


class GuestAbsent(Exception):
    """The guest does not run on this host.

    :ivar memory_lost: nothing can bring its memory back
    """

    def __init__(self, reason: str, memory_lost: bool) -> None:
        super().__init__(reason)
        self.memory_lost = memory_lost


@dataclasses.dataclass(frozen=True)
class FileSystem:
    """A mount of a file system that the agent lists.

    :ivar device: what is mounted
    :ivar mountpoint: where, in the guest
    :ivar type: as the guest's kernel names it
    :ivar writable: it lies on a disk and can be written, as far as is known
    """

    device: str
    mountpoint: str
    type: str
    writable: bool = True


class Guest(Protocol):
    """A guest that runs on this host.

    Each method raises :class:`AgentError`, :class:`Refused` or :class:`GuestAbsent`.
    """

    def domain_id(self) -> int:
        """The hypervisor's ID of the running guest, new at each start."""

    def require_agent(self) -> None:
        """Raise :class:`Refused` unless the guest has an agent that is running."""

    def commands(self) -> set[str]:
        """The commands that the agent allows."""

    def status(self) -> str:
        """``frozen`` or ``thawed``, in the words of the agent."""

    def freeze(self) -> int:
        """Freeze all file systems; how many."""

    def thaw(self) -> int:
        """Thaw all file systems; how many."""

    def file_systems(self) -> list[FileSystem]:
        """All that a freeze tries to freeze; a device may be mounted twice."""

    def mounted_read_only(self) -> set[str]:
        """Mount points that nobody can write below."""

    def written(self) -> int:
        """Bytes that the guest has written to the disks of its file systems."""


class Guests(Protocol):
    """The guests of this host."""

    def guest(
        self, uuid: str, urgent: bool
    ) -> contextlib.AbstractContextManager[Guest]:
        """The running guest of an instance.

        :param urgent: to thaw it: places are kept for that
        :raises: AgentError or GuestAbsent
        """


class LibvirtGuests:
    """The :class:`Guests` of a libvirt.

    :param uri: of libvirt
    :param timeout: gives the seconds to wait for each answer of an agent
    :param places: how many calls are made at the same time
    :param kept: how many of these are kept for what is urgent
    """

    def __init__(
        self, uri: str, timeout: Callable[[], int], places: int, kept: int
    ) -> None:
        self._uri = uri
        self._timeout = timeout
        self._places = threading.BoundedSemaphore(places)
        self._usual = threading.BoundedSemaphore(places - kept)
        self._idle: list[Any] = []

    @contextlib.contextmanager
    def guest(self, uuid: str, urgent: bool) -> Iterator[Guest]:
        """See :meth:`Guests.guest`."""
        with contextlib.ExitStack() as stack:
            if not urgent:
                stack.enter_context(self._taken(self._usual))
            stack.enter_context(self._taken(self._places))
            connection = stack.enter_context(self._connection())
            with _failures():
                domain = connection.lookupByUUIDString(uuid)
                _require_running(domain)
            yield LibvirtGuest(domain, self._timeout())

    @contextlib.contextmanager
    def _taken(self, places: threading.BoundedSemaphore) -> Iterator[None]:
        if not places.acquire(timeout=self._timeout()):
            raise AgentError("too many guest agents of this host do not answer")
        try:
            yield
        finally:
            places.release()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Any]:
        """A connection that nobody else uses meanwhile; the places limit how many."""
        connection = None
        with contextlib.suppress(IndexError):
            connection = self._idle.pop()
        with _failures():
            if connection is not None and not _is_alive(connection):
                connection = None
            if connection is None:
                connection = _connect(self._uri)
        try:
            yield connection
        finally:
            self._idle.append(connection)


class LibvirtGuest:
    """The :class:`Guest` of a domain of libvirt.

    :param timeout: seconds to wait for each answer of the agent
    """

    def __init__(self, domain: Any, timeout: int) -> None:
        self._domain = domain
        self._timeout = timeout

    def domain_id(self) -> int:
        """See :meth:`Guest.domain_id`."""
        with _failures():
            return int(self._domain.ID())

    def require_agent(self) -> None:
        """See :meth:`Guest.require_agent`."""
        channel = self._xml().find(f"./devices/channel/target[@name='{CHANNEL}']")
        if channel is None:
            raise Refused(
                "it has no guest agent channel: set hw_qemu_guest_agent=yes on its "
                "image and rebuild it"
            )
        if channel.get("state", "connected") != "connected":
            raise Refused("the guest agent is not running in it")

    def commands(self) -> set[str]:
        """See :meth:`Guest.commands`."""
        with _failures():
            listed = self._call("guest-info")["supported_commands"]
            return {each["name"] for each in listed if each["enabled"]}

    def status(self) -> str:
        """See :meth:`Guest.status`."""
        return str(self._call(STATUS))

    def freeze(self) -> int:
        """See :meth:`Guest.freeze`."""
        with _failures():
            return int(self._call(FREEZE))

    def thaw(self) -> int:
        """See :meth:`Guest.thaw`."""
        with _failures():
            return int(self._call(THAW))

    def file_systems(self) -> list[FileSystem]:
        """See :meth:`Guest.file_systems`."""
        with _failures():
            return [
                FileSystem(
                    device=each["name"],
                    mountpoint=each["mountpoint"],
                    type=each["type"],
                    # A loop device or a RAM disk has none; it is frozen all the same.
                    writable=bool(each["disk"]),
                )
                for each in self._call(FSINFO)
            ]

    def mounted_read_only(self) -> set[str]:
        """See :meth:`Guest.mounted_read_only`.

        The agent lists no mount options; the file that has them may be read if the
        guest's administrator did not forbid it.
        """
        handle = self._call("guest-file-open", path="/proc/self/mounts", mode="r")
        try:
            answer = self._call("guest-file-read", handle=handle, count=1 << 18)
        finally:
            self._call("guest-file-close", handle=handle)
        with _failures():
            return _read_only(answer["buf-b64"])

    def written(self) -> int:
        """See :meth:`Guest.written`.

        The flavor's swap disk does not count: a frozen guest may go on swapping.
        """
        total = 0
        for disk in self._xml().iterfind("./devices/disk[@device='disk']"):
            target, source = disk.find("target"), disk.find("source")
            if target is None or disk.find("readonly") is not None:
                continue
            if source is not None and any(
                value.endswith(SWAP_DISK) for value in source.attrib.values()
            ):
                continue
            with _failures():
                total += self._domain.blockStats(target.get("dev"))[3]
        return total

    def _xml(self) -> Any:
        with _failures():
            return etree.fromstring(self._domain.XMLDesc(0))

    def _call(self, command: str, **arguments: Any) -> Any:
        words: dict[str, Any] = {"execute": command}
        if arguments:
            words["arguments"] = arguments
        # libvirt's own calls take the timeout from the domain, which others set too.
        with _failures():
            libvirt_qemu = importutils.import_module("libvirt_qemu")
            answer = libvirt_qemu.qemuAgentCommand(
                self._domain, json.dumps(words), self._timeout, 0
            )
            return json.loads(answer)["return"]


def _connect(uri: str) -> Any:
    libvirt = importutils.import_module("libvirt")
    connection = libvirt.open(uri)
    # A libvirtd that hangs is found out, if somebody runs libvirt's event loop.
    with contextlib.suppress(libvirt.libvirtError):
        connection.setKeepAlive(_KEEPALIVE_INTERVAL, _KEEPALIVE_COUNT)
    return connection


def _is_alive(connection: Any) -> bool:
    libvirt = importutils.import_module("libvirt")
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False


def _require_running(domain: Any) -> None:
    """Raise :class:`GuestAbsent` unless the domain runs or is paused."""
    libvirt = importutils.import_module("libvirt")
    if domain.isActive():
        return
    # In this order: one that is restored in between has no image, and runs.
    saved = domain.hasManagedSaveImage()
    state, reason = domain.state()
    if state != libvirt.VIR_DOMAIN_SHUTOFF:
        return
    # What was saved comes back, frozen as it was; and after a restart of libvirtd
    # nobody knows any more how a guest ended.
    lost = not saved and reason in (
        libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN,
        libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED,
        libvirt.VIR_DOMAIN_SHUTOFF_CRASHED,
        libvirt.VIR_DOMAIN_SHUTOFF_FAILED,
    )
    raise GuestAbsent("the guest is not running", memory_lost=lost)


def _read_only(encoded: str) -> set[str]:
    text = base64.b64decode(encoded).decode(errors="replace")
    found: dict[str, bool] = {}
    for line in text.split("\n"):
        words = line.split(" ")
        if len(words) > 3:
            point = _ESCAPED.sub(lambda each: chr(int(each[1], 8)), words[1])
            read_only = words[3].split(",")[0] == "ro"
            # What lies below another mount may still be written, by who has it open.
            found[point] = found.get(point, True) and read_only
    return {point for point, read_only in found.items() if read_only}


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    """Turn what libvirt raises into what this module does."""
    try:
        libvirt = importutils.import_module("libvirt")
    except ImportError as exc:
        raise AgentError(str(exc)) from exc
    try:
        yield
    except libvirt.libvirtError as exc:
        code = exc.get_error_code()
        if code == libvirt.VIR_ERR_NO_DOMAIN:
            # Undefined: deleted, or gone to another host.
            raise GuestAbsent("the guest is not on this host", False) from exc
        known = {
            libvirt.VIR_ERR_AGENT_UNRESPONSIVE: "the guest agent does not answer",
            libvirt.VIR_ERR_OPERATION_INVALID: "the guest is paused or not running",
        }
        reason = f"{known[code]} ({exc})" if code in known else str(exc)
        # The agent has answered, or libvirt has sent it nothing.
        refusals = (
            libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
            libvirt.VIR_ERR_INTERNAL_ERROR,
            libvirt.VIR_ERR_OPERATION_INVALID,
            libvirt.VIR_ERR_OPERATION_TIMEOUT,
        )
        raise (Refused if code in refusals else AgentError)(reason) from exc
    except (ImportError, LookupError, TypeError, ValueError) as exc:
        raise AgentError(f"the guest agent's answer makes no sense ({exc!r})") from exc
