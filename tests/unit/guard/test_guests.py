# SPDX-License-Identifier: Apache-2.0
"""How guest agents are asked, and what is made of their answers and libvirt's."""

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from nova_ext.guard.guests import (
    AgentError,
    FileSystem,
    Guest,
    GuestAbsent,
    LibvirtGuests,
    Refused,
)
from tests.unit.guard.fake_libvirt import (
    CHANNEL,
    ERRORS,
    OTHER,
    REASONS,
    RUNNING_RESTORED,
    STATES,
    UUID,
    Connection,
    Domain,
    Libvirt,
    LibvirtError,
    Raw,
)

TIMEOUT = 7


class Options:
    """What an operator may change."""

    def __init__(self) -> None:
        self.timeout = TIMEOUT


@pytest.fixture
def options() -> Options:
    return Options()


@pytest.fixture
def libvirt(monkeypatch: pytest.MonkeyPatch) -> Libvirt:
    return Libvirt(monkeypatch)


@pytest.fixture
def domain(libvirt: Libvirt) -> Domain:
    return libvirt.domain


@pytest.fixture
def guests(libvirt: Libvirt, options: Options) -> LibvirtGuests:
    """Three places, one of them kept for thaws."""
    return LibvirtGuests(libvirt.uri, lambda: options.timeout, places=3, kept=1)


def ask(guests: LibvirtGuests, question: Callable[[Guest], Any]) -> Any:
    with guests.guest(UUID, urgent=False) as guest:
        return question(guest)


def failure(guests: LibvirtGuests, question: Callable[[Guest], Any]) -> AgentError:
    with pytest.raises(AgentError) as caught:
        ask(guests, question)
    return caught.value


def status(guest: Guest) -> str:
    return guest.status()


# Commands and their answers.


def test_each_command_carries_its_own_timeout(
    guests: LibvirtGuests, domain: Domain, options: Options
) -> None:
    """libvirt's own calls take it from the domain, which others set too."""
    domain.answers |= {"guest-fsfreeze-freeze": 2, "guest-fsfreeze-thaw": 3}
    assert ask(guests, lambda guest: guest.freeze()) == 2
    assert ask(guests, lambda guest: guest.thaw()) == 3
    options.timeout = 9
    assert ask(guests, status) == "thawed"
    assert domain.asked == [
        ("guest-fsfreeze-freeze", {}, TIMEOUT, 0),
        ("guest-fsfreeze-thaw", {}, TIMEOUT, 0),
        ("guest-fsfreeze-status", {}, 9, 0),
    ]


def test_the_commands_that_are_allowed(guests: LibvirtGuests, domain: Domain) -> None:
    listed = [
        {"name": "guest-ping", "enabled": True, "success-response": True},
        {"name": "guest-exec", "enabled": False, "success-response": True},
    ]
    domain.answers["guest-info"] = {"version": "7", "supported_commands": listed}
    assert ask(guests, lambda guest: guest.commands()) == {"guest-ping"}


def mounted(name: str, point: str, kind: str, disk: bool = True) -> dict[str, Any]:
    return {
        "name": name,
        "mountpoint": point,
        "type": kind,
        "disk": [{"bus-type": "virtio"}] if disk else [],
    }


def test_the_file_systems(guests: LibvirtGuests, domain: Domain) -> None:
    domain.answers["guest-get-fsinfo"] = [
        mounted("vda1", "/", "ext4"),
        mounted("vda15", "/boot/efi", "vfat"),
        mounted("vda15", "/efi", "vfat"),
        mounted("loop1", "/snap/core", "squashfs", disk=False),
    ]
    assert ask(guests, lambda guest: guest.file_systems()) == [
        FileSystem("vda1", "/", "ext4", True),
        FileSystem("vda15", "/boot/efi", "vfat", True),
        FileSystem("vda15", "/efi", "vfat", True),
        FileSystem("loop1", "/snap/core", "squashfs", False),
    ]


def read_only(guests: LibvirtGuests) -> set[str]:
    found: set[str] = ask(guests, lambda guest: guest.mounted_read_only())
    return found


def test_what_is_mounted_read_only(guests: LibvirtGuests, domain: Domain) -> None:
    domain.mount(
        "/dev/vda1 / ext4 rw,relatime,errors=remount-ro 0 0\n"
        "/dev/vda15 /boot/efi vfat ro,relatime,fmask=0022 0 0\n"
        "/dev/vdb /a\\040long\\134name vfat ro 0 0\n"
        "/dev/vdc /data xfs rw,ro_is_no_option 0 0\n"
        "nonsense\n"
        "\n"
    )
    assert read_only(guests) == {"/boot/efi", "/a long\\name"}
    assert [(name, arguments) for name, arguments, *_ in domain.asked] == [
        ("guest-file-open", {"path": "/proc/self/mounts", "mode": "r"}),
        ("guest-file-read", {"handle": 1000, "count": 1 << 18}),
        ("guest-file-close", {"handle": 1000}),
    ]


@pytest.mark.parametrize(
    "point", ["/grün", "/x\x0by", "/x\u2028y", "/x\xa0y", "/漢字"], ids=ascii
)
def test_mount_points_in_all_scripts(
    guests: LibvirtGuests, domain: Domain, point: str
) -> None:
    domain.mount(f"/dev/vdb {point} vfat ro,relatime 0 0\n/dev/vda1 / ext4 rw 0 0\n")
    assert read_only(guests) == {point}


@pytest.mark.parametrize("flags", ["rw,ro", "rw,ro,x"])
def test_a_mount_is_read_only_by_its_first_option(
    guests: LibvirtGuests, domain: Domain, flags: str
) -> None:
    """The list may be cut in the middle of a word."""
    domain.mount(f"/dev/vdb /data vfat {flags}")
    assert read_only(guests) == set()


@pytest.mark.parametrize("order", [["ro", "rw"], ["rw", "ro"]])
def test_what_lies_below_another_mount(
    guests: LibvirtGuests, domain: Domain, order: list[str]
) -> None:
    lines = [f"/dev/vdb /data vfat {option} 0 0\n" for option in order]
    domain.mount("".join(lines))
    assert read_only(guests) == set()
    domain.mount(2 * "/dev/vdb /data vfat ro 0 0\n")
    assert read_only(guests) == {"/data"}


@pytest.mark.parametrize("error", [ERRORS["VIR_ERR_INTERNAL_ERROR"], 86])
def test_the_mounts_are_closed_also_when_they_cannot_be_read(
    guests: LibvirtGuests, domain: Domain, error: int
) -> None:
    domain.mount("")
    domain.errors["guest-file-read"] = LibvirtError(error)
    failure(guests, lambda guest: guest.mounted_read_only())
    assert domain.asked[-1][0] == "guest-file-close"


# The domain.


def test_the_domain_id(guests: LibvirtGuests, domain: Domain) -> None:
    assert ask(guests, lambda guest: guest.domain_id()) == 3
    domain.id = 4
    assert ask(guests, lambda guest: guest.domain_id()) == 4


def test_what_is_written_to_the_disks_of_file_systems(
    guests: LibvirtGuests, domain: Domain
) -> None:
    """Not to swap, and not to what cannot be written; luns have no counters."""
    assert ask(guests, lambda guest: guest.written()) == 1000 + 200 + 30
    domain.written["vdb"] += 512
    assert ask(guests, lambda guest: guest.written()) == 1742


@pytest.mark.parametrize("state", ["state='connected'", ""])
def test_an_agent_that_is_running(
    guests: LibvirtGuests, domain: Domain, state: str
) -> None:
    domain.channel = CHANNEL.format(state=state)
    ask(guests, lambda guest: guest.require_agent())
    assert domain.asked == []


def test_an_agent_that_is_not_running(guests: LibvirtGuests, domain: Domain) -> None:
    domain.channel = CHANNEL.format(state="state='disconnected'")
    error = failure(guests, lambda guest: guest.require_agent())
    assert isinstance(error, Refused)
    assert str(error) == "the guest agent is not running in it"


def test_a_guest_without_a_channel(guests: LibvirtGuests, domain: Domain) -> None:
    domain.channel = ""
    error = failure(guests, lambda guest: guest.require_agent())
    assert isinstance(error, Refused)
    assert "hw_qemu_guest_agent=yes" in str(error)


# Errors.


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        ("VIR_ERR_AGENT_UNRESPONSIVE", AgentError, "the guest agent does not answer ("),
        ("VIR_ERR_SYSTEM_ERROR", AgentError, "libvirt says so"),
        ("VIR_ERR_OPERATION_INVALID", Refused, "the guest is paused or not running ("),
        ("VIR_ERR_ARGUMENT_UNSUPPORTED", Refused, "libvirt says so"),
        ("VIR_ERR_INTERNAL_ERROR", Refused, "libvirt says so"),
        ("VIR_ERR_OPERATION_TIMEOUT", Refused, "libvirt says so"),
    ],
)
def test_what_libvirt_raises(
    guests: LibvirtGuests, domain: Domain, code: str, kind: type, reason: str
) -> None:
    domain.errors["guest-fsfreeze-freeze"] = LibvirtError(ERRORS[code])
    error = failure(guests, lambda guest: guest.freeze())
    assert type(error) is kind
    assert str(error).startswith(reason)
    assert "libvirt says so" in str(error)


def absent(guests: LibvirtGuests, question: Callable[[Guest], Any]) -> GuestAbsent:
    with pytest.raises(GuestAbsent) as caught:
        ask(guests, question)
    return caught.value


def test_a_guest_that_leaves_while_it_is_asked(
    guests: LibvirtGuests, domain: Domain
) -> None:
    gone = LibvirtError(ERRORS["VIR_ERR_NO_DOMAIN"])
    domain.errors["guest-fsfreeze-thaw"] = gone
    assert not absent(guests, lambda guest: guest.thaw()).memory_lost


def test_a_guest_that_is_not_defined_here(
    guests: LibvirtGuests, libvirt: Libvirt
) -> None:
    """It may run on another host."""
    del libvirt.domains[UUID]
    error = absent(guests, status)
    assert str(error) == "the guest is not on this host"
    assert not error.memory_lost


METHODS: list[tuple[str, Callable[[Guest], Any]]] = [
    ("ID", lambda guest: guest.domain_id()),
    ("XMLDesc", lambda guest: guest.written()),
    ("XMLDesc", lambda guest: guest.require_agent()),
    ("blockStats", lambda guest: guest.written()),
    ("isActive", status),
]


@pytest.mark.parametrize(("method", "question"), METHODS)
def test_libvirts_errors_do_not_leave_here(
    guests: LibvirtGuests,
    domain: Domain,
    method: str,
    question: Callable[[Guest], Any],
) -> None:
    domain.errors[method] = LibvirtError(ERRORS["VIR_ERR_SYSTEM_ERROR"])
    assert str(failure(guests, question)) == "libvirt says so"


NONSENSE = ["", "{", "{}", "[]", "null", '"x"']


@pytest.mark.parametrize("answer", NONSENSE)
def test_an_answer_that_makes_no_sense(
    guests: LibvirtGuests, domain: Domain, answer: str
) -> None:
    domain.answers["guest-fsfreeze-status"] = Raw(answer)
    error = failure(guests, status)
    assert type(error) is AgentError
    assert "makes no sense" in str(error)


QUESTIONS: list[tuple[str, Callable[[Guest], Any]]] = [
    ("guest-info", lambda guest: guest.commands()),
    ("guest-fsfreeze-freeze", lambda guest: guest.freeze()),
    ("guest-fsfreeze-thaw", lambda guest: guest.thaw()),
    ("guest-get-fsinfo", lambda guest: guest.file_systems()),
    ("guest-file-read", lambda guest: guest.mounted_read_only()),
]


@pytest.mark.parametrize("value", ["null", "[1]", '{"x": 1}', '{"buf-b64": "x"}'])
@pytest.mark.parametrize(("command", "question"), QUESTIONS)
def test_a_value_that_makes_no_sense(
    guests: LibvirtGuests,
    domain: Domain,
    command: str,
    question: Callable[[Guest], Any],
    value: str,
) -> None:
    domain.mount("")
    domain.answers[command] = Raw(f'{{"return": {value}}}')
    error = failure(guests, question)
    assert type(error) is AgentError
    assert "makes no sense" in str(error)


@pytest.mark.parametrize("module", ["libvirt", "libvirt_qemu"])
def test_there_is_no_libvirt(
    guests: LibvirtGuests, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert module in str(failure(guests, status))


# A guest that does not run.


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("reason", REASONS)
def test_a_guest_that_does_not_run(
    guests: LibvirtGuests, domain: Domain, reason: str, saved: bool
) -> None:
    domain.shut_off(reason, saved)
    error = absent(guests, status)
    assert str(error) == "the guest is not running"
    lost = reason.rpartition("_")[2] in ("SHUTDOWN", "DESTROYED", "CRASHED", "FAILED")
    assert error.memory_lost == (lost and not saved)
    assert domain.asked == []


@pytest.mark.parametrize(
    ("moment", "runs"),
    [("isActive", True), ("hasManagedSaveImage", True), ("state", False)],
)
def test_a_guest_that_is_restored_while_it_is_looked_at(
    guests: LibvirtGuests,
    domain: Domain,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    runs: bool,
) -> None:
    """A running guest's state has reasons too, with the numbers of other things."""
    domain.shut_off("VIR_DOMAIN_SHUTOFF_FAILED", saved=True)
    real = getattr(domain, moment)

    def restore() -> Any:
        before = real()
        domain.active, domain.saved = True, False
        domain.running = (STATES["VIR_DOMAIN_RUNNING"], RUNNING_RESTORED)
        return before

    monkeypatch.setattr(domain, moment, restore)
    if runs:
        assert ask(guests, status) == "thawed"
    else:
        assert not absent(guests, status).memory_lost


# Connections and places.


def test_a_connection_is_used_again(guests: LibvirtGuests, libvirt: Libvirt) -> None:
    for _ in range(3):
        ask(guests, status)
    assert len(libvirt.opened) == 1


def test_a_connection_has_one_call_at_a_time(
    guests: LibvirtGuests, libvirt: Libvirt
) -> None:
    for _ in range(2):
        with guests.guest(UUID, urgent=True), guests.guest(OTHER, urgent=True):
            pass
    assert [connection.used for connection in libvirt.opened] == [2, 2]


def test_a_connection_finds_out_that_libvirtd_hangs(
    guests: LibvirtGuests, libvirt: Libvirt
) -> None:
    ask(guests, status)
    assert libvirt.opened[0].keep_alive == (5, 3)


def test_a_libvirt_without_keepalive(
    guests: LibvirtGuests, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise LibvirtError(ERRORS["VIR_ERR_INTERNAL_ERROR"])

    monkeypatch.setattr(Connection, "setKeepAlive", fail)
    assert ask(guests, status) == "thawed"


def broken() -> int:
    raise LibvirtError(ERRORS["VIR_ERR_INTERNAL_ERROR"])


@pytest.mark.parametrize("alive", [lambda: 0, broken])
def test_a_connection_that_is_lost_is_replaced(
    guests: LibvirtGuests, libvirt: Libvirt, alive: Callable[[], int]
) -> None:
    ask(guests, status)
    libvirt.opened[0].alive = alive
    for _ in range(2):
        assert ask(guests, status) == "thawed"
    assert len(libvirt.opened) == 2


def test_a_connection_is_kept_after_an_error(
    guests: LibvirtGuests, libvirt: Libvirt, domain: Domain
) -> None:
    domain.errors["guest-fsfreeze-status"] = LibvirtError(86)
    for _ in range(5):
        failure(guests, status)
    assert len(libvirt.opened) == 1


def test_no_place_is_lost_when_libvirtd_is_down(
    guests: LibvirtGuests, libvirt: Libvirt, options: Options
) -> None:
    options.timeout = 0
    libvirt.error = LibvirtError(ERRORS["VIR_ERR_SYSTEM_ERROR"], "refused")
    for _ in range(5):
        assert str(failure(guests, status)) == "refused"
    libvirt.error = None
    assert ask(guests, status) == "thawed"


FULL = "too many guest agents of this host do not answer"


def test_agents_that_hang_leave_the_places_that_are_kept_for_thaws(
    guests: LibvirtGuests, options: Options
) -> None:
    options.timeout = 0
    with guests.guest(UUID, urgent=False), guests.guest(UUID, urgent=False):
        assert str(failure(guests, status)) == FULL
        with guests.guest(OTHER, urgent=True) as guest:
            assert guest.status() == "thawed"
            with (
                pytest.raises(AgentError, match=FULL),
                guests.guest(OTHER, urgent=True),
            ):
                pass
    assert ask(guests, status) == "thawed"


def test_thaws_may_take_all_places(guests: LibvirtGuests, options: Options) -> None:
    options.timeout = 0
    with (
        guests.guest(UUID, urgent=True),
        guests.guest(UUID, urgent=True),
        guests.guest(UUID, urgent=True),
    ):
        assert str(failure(guests, status)) == FULL
    for _ in range(5):
        assert ask(guests, status) == "thawed"


def test_a_place_is_waited_for(guests: LibvirtGuests, options: Options) -> None:
    options.timeout = 20
    answers: list[str] = []
    waiter = threading.Thread(target=lambda: answers.append(ask(guests, status)))
    with guests.guest(UUID, urgent=False), guests.guest(UUID, urgent=False):
        waiter.start()
        waiter.join(0.05)
        assert answers == []
    waiter.join(20)
    assert answers == ["thawed"]
