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

"""What LibvirtGuestFreezer makes of the answers of libvirt and the guest agent."""

import json
import sys
import types
from typing import Any

import pytest
from nova import exception
from nova.virt.libvirt import guest

from nova_ext.virt import freezer
from nova_ext.virt.libvirt import quiesce

UUID = "0d4b1e9c-9f2f-4d2a-8b0c-6b0a3a4f7c11"
TIMEOUT = 7
BLOCK = -2  # libvirt's default: wait for ever

CHANNEL = """
<channel type='unix'>
  <target type='virtio' name='org.qemu.guest_agent.0' {state}/>
</channel>
"""
DISKS = """
<disk type='file' device='disk'>
  <source file='/instances/x/disk'/><target dev='vda' bus='virtio'/>
</disk>
<disk type='network' device='disk'>
  <source protocol='rbd' name='volumes/volume-1'/><target dev='vdb' bus='virtio'/>
</disk>
<disk type='file' device='disk'>
  <source file='/instances/x/disk.swap'/><target dev='vdc' bus='virtio'/>
</disk>
<disk type='network' device='disk'>
  <source protocol='rbd' name='vms/x_disk.swap'/><target dev='vdd' bus='virtio'/>
</disk>
<disk type='file' device='disk'>
  <source file='/instances/x/disk.config'/><target dev='vde' bus='virtio'/>
  <readonly/>
</disk>
<disk type='file' device='cdrom'>
  <source file='/images/cd'/><target dev='hda' bus='ide'/>
</disk>
<disk type='block' device='lun'>
  <source dev='/dev/sdx'/><target dev='sda' bus='scsi'/>
</disk>
"""


class FakeLibvirtError(Exception):
    def __init__(self, code: int, text: str = "libvirt says so") -> None:
        super().__init__(text)
        self._code = code

    def get_error_code(self) -> int:
        return self._code


FAKE_LIBVIRT = types.SimpleNamespace(
    libvirtError=FakeLibvirtError,
    VIR_ERR_NO_DOMAIN=42,
    VIR_ERR_OPERATION_INVALID=55,
    VIR_ERR_AGENT_UNRESPONSIVE=86,
    VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK=BLOCK,
)
NO_DOMAIN = FakeLibvirtError(42, "no domain")
PAUSED = FakeLibvirtError(55, "domain is not running")
HUNG = FakeLibvirtError(86, "agent not connected")
INTERNAL = FakeLibvirtError(1, "internal error")


class FakeDomain:
    """A guest with an agent and two file systems.

    :ivar errors: what is raised by the method of that name, every time
    :ivar calls: the calls that reached the agent, and the response timeouts
    """

    def __init__(self) -> None:
        self.id = 3
        self.active = True
        self.state = "state='connected'"
        self.channel = True
        self.filesystems = 2
        self.frozen = 0
        self.stuck = False  # the agent says frozen whatever it did
        self.written = {"vda": 1000, "vdb": 200, "vdc": 7, "vdd": 7, "vde": 7, "hda": 7}
        self.errors: dict[str, Exception] = {}
        self.calls: list[Any] = []

    def _raise(self, name: str) -> None:
        if name in self.errors:
            raise self.errors[name]

    def XMLDesc(self, flags: int) -> str:
        self._raise("XMLDesc")
        channel = CHANNEL.format(state=self.state) if self.channel else ""
        return f"<domain><devices>{DISKS}{channel}</devices></domain>"

    def ID(self) -> int:
        self._raise("ID")
        return self.id

    def isActive(self) -> int:
        return int(self.active)

    def blockStats(self, dev: str) -> tuple[int, ...]:
        self._raise("blockStats")
        return (1, 2, 3, self.written[dev], 0)

    def agentSetResponseTimeout(self, seconds: int, flags: int) -> int:
        self._raise("agentSetResponseTimeout")
        self.calls.append(("timeout", seconds))
        return 0

    def fsFreeze(self) -> int:
        self.calls.append("freeze")
        self._raise("fsFreeze")
        self.frozen = self.filesystems
        return self.frozen

    def fsThaw(self) -> int:
        self.calls.append("thaw")
        self._raise("fsThaw")
        thawed, self.frozen = self.frozen, 0
        return thawed

    def agent_command(self, command: str, timeout: int, flags: int) -> str:
        assert json.loads(command) == {"execute": "guest-fsfreeze-status"}
        self.calls.append(("status", timeout))
        self._raise("status")
        answer = "frozen" if self.frozen or self.stuck else "thawed"
        return json.dumps({"return": answer})


@pytest.fixture(autouse=True)
def _libvirt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest, "libvirt", FAKE_LIBVIRT)
    module = types.ModuleType("libvirt_qemu")
    module.__dict__["qemuAgentCommand"] = FakeDomain.agent_command
    monkeypatch.setitem(sys.modules, "libvirt_qemu", module)


@pytest.fixture
def domain() -> FakeDomain:
    return FakeDomain()


@pytest.fixture
def guests(domain: FakeDomain) -> quiesce.LibvirtGuestFreezer:
    def lookup(uuid: str) -> FakeDomain:
        assert uuid == UUID
        domain._raise("lookup")
        return domain

    return quiesce.LibvirtGuestFreezer(lookup, lambda: TIMEOUT)


def refused(guests: quiesce.LibvirtGuestFreezer) -> freezer.FreezeError:
    with pytest.raises(freezer.FreezeError) as caught:
        guests.freeze(UUID)
    return caught.value


# Freeze


def test_freeze_returns_evidence(
    guests: quiesce.LibvirtGuestFreezer, domain: FakeDomain
) -> None:
    assert guests.freeze(UUID) == freezer.Evidence(
        domain_id=3, frozen=2, written=1000 + 200
    )
    assert domain.calls == [
        ("status", TIMEOUT),
        ("timeout", TIMEOUT),
        "freeze",
        ("timeout", BLOCK),
    ]


def test_freeze_of_a_channel_whose_state_is_not_known(
    guests: quiesce.LibvirtGuestFreezer, domain: FakeDomain
) -> None:
    domain.state = ""  # libvirt tells the state of running guests only
    assert guests.freeze(UUID).frozen == 2


def test_freeze_without_channel(
    guests: quiesce.LibvirtGuestFreezer, domain: FakeDomain
) -> None:
    domain.channel = False
    error = refused(guests)
    assert "hw_qemu_guest_agent=yes" in str(error)
    assert not error.maybe_frozen
    assert domain.calls == []


def test_freeze_without_agent_in_the_guest(
    guests: quiesce.LibvirtGuestFreezer, domain: FakeDomain
) -> None:
    domain.state = "state='disconnected'"
    error = refused(guests)
    assert "not running" in str(error)
    assert not error.maybe_frozen
    assert domain.calls == []


def test_freeze_queues_nothing_for_an_agent_that_hangs(
    guests: quiesce.LibvirtGuestFreezer, domain: FakeDomain
) -> None:
    domain.errors["status"] = HUNG
    error = refused(guests)
    assert "the guest agent does not answer" in str(error)
    assert not error.maybe_frozen
    assert domain.calls == [("status", TIMEOUT)]


def test_freeze_of_a_guest_that_is_frozen_leaves_it_alone(
    guests: quiesce.LibvirtGuestFreezer, domain: FakeDomain
) -> None:
    domain.frozen = 2
    error = refused(guests)
    assert "frozen already" in str(error)
    assert not error.maybe_frozen
    assert domain.frozen == 2
    assert "freeze" not in domain.calls
    assert "thaw" not in domain.calls


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (NO_DOMAIN, "the guest is not running"),
        (exception.HypervisorUnavailable(), "Connection to the hypervisor is broken"),
        (INTERNAL, "internal error"),
    ],
)
def test_freeze_when_the_guest_cannot_be_found(
    guests: quiesce.LibvirtGuestFreezer,
    domain: FakeDomain,
    raised: Exception,
    reason: str,
) -> None:
    domain.errors["lookup"] = raised
    error = refused(guests)
    assert reason in str(error)
    assert not error.maybe_frozen


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (HUNG, "the guest agent does not answer"),
        (PAUSED, "the guest is paused or not running"),
        (INTERNAL, "internal error"),
    ],
)
def test_freeze_that_fails_half_way(
    guests: quiesce.LibvirtGuestFreezer,
    domain: FakeDomain,
    raised: Exception,
    reason: str,
) -> None:
    domain.errors["fsFreeze"] = raised
    error = refused(guests)
    assert reason in str(error)
    assert error.maybe_frozen
    assert domain.calls[-1] == ("timeout", BLOCK)


def test_freeze_of_nothing_is_no_freeze(
    guests: quiesce.LibvirtGuestFreezer, domain: FakeDomain
) -> None:
    domain.filesystems = 0
    error = refused(guests)
    assert "no file system" in str(error)
    assert error.maybe_frozen


@pytest.mark.parametrize("method", ["blockStats", "ID"])
def test_freeze_without_evidence_is_taken_back(
    guests: quiesce.LibvirtGuestFreezer, domain: FakeDomain, method: str
) -> None:
    domain.errors[method] = INTERNAL
    error = refused(guests)
    assert error.maybe_frozen
    assert domain.frozen


# Thaw


def frozen(guests: quiesce.LibvirtGuestFreezer, domain: FakeDomain) -> freezer.Evidence:
    evidence = guests.freeze(UUID)
    domain.calls.clear()
    return evidence


def test_thaw_of_an_unbroken_window(
    guests: quiesce.LibvirtGuestFreezer, domain: FakeDomain
) -> None:
    evidence = frozen(guests, domain)
    assert guests.thaw(UUID, evidence) is None
    assert not domain.frozen
    assert domain.calls == [
        ("timeout", TIMEOUT),
        "thaw",
        ("timeout", BLOCK),
        ("status", TIMEOUT),
    ]


def test_thaw_without_evidence_proves_nothing(
    guests: quiesce.LibvirtGuestFreezer, domain: FakeDomain
) -> None:
    frozen(guests, domain)
    assert guests.thaw(UUID, None) == "it is not known when the guest was frozen"
    assert not domain.frozen


def test_thaw_is_believed_only_when_the_agent_says_thawed(
    guests: quiesce.LibvirtGuestFreezer, domain: FakeDomain
) -> None:
    evidence = frozen(guests, domain)
    domain.stuck = True
    with pytest.raises(freezer.ThawError, match="still says frozen"):
        guests.thaw(UUID, evidence)


@pytest.mark.parametrize("left", [0, 1])
def test_thaw_of_fewer_file_systems_than_were_frozen(
    guests: quiesce.LibvirtGuestFreezer, domain: FakeDomain, left: int
) -> None:
    evidence = frozen(guests, domain)
    domain.frozen = left
    breach = guests.thaw(UUID, evidence)
    assert breach is not None
    assert f"of 2 frozen file systems only {left}" in breach


@pytest.mark.parametrize("disk", ["vda", "vdb"])
def test_thaw_after_the_guest_wrote(
    guests: quiesce.LibvirtGuestFreezer, domain: FakeDomain, disk: str
) -> None:
    evidence = frozen(guests, domain)
    domain.written[disk] += 512
    breach = guests.thaw(UUID, evidence)
    assert breach is not None
    assert "512 bytes written" in breach


def test_writes_of_the_thaw_itself_do_not_count(
    guests: quiesce.LibvirtGuestFreezer, domain: FakeDomain
) -> None:
    evidence = frozen(guests, domain)
    thaw = domain.fsThaw

    def thaw_and_write() -> int:
        domain.written["vda"] += 4096
        return thaw()

    domain.fsThaw = thaw_and_write  # type: ignore[method-assign]
    assert guests.thaw(UUID, evidence) is None


@pytest.mark.parametrize("disk", ["vdc", "vdd", "vde", "hda"])
def test_swap_read_only_disks_and_cdroms_do_not_count(
    guests: quiesce.LibvirtGuestFreezer, domain: FakeDomain, disk: str
) -> None:
    evidence = frozen(guests, domain)
    domain.written[disk] += 512
    assert guests.thaw(UUID, evidence) is None


def test_thaw_does_not_wait_for_counters(
    guests: quiesce.LibvirtGuestFreezer, domain: FakeDomain
) -> None:
    evidence = frozen(guests, domain)
    domain.errors["blockStats"] = INTERNAL
    breach = guests.thaw(UUID, evidence)
    assert breach == "what the guest wrote could not be read"
    assert not domain.frozen


def test_thaw_of_a_guest_that_was_started_anew(
    guests: quiesce.LibvirtGuestFreezer, domain: FakeDomain
) -> None:
    evidence = frozen(guests, domain)
    domain.id += 1
    domain.state = "state='disconnected'"
    with pytest.raises(freezer.GuestGone, match="powered off and on"):
        guests.thaw(UUID, evidence)
    assert "thaw" not in domain.calls


def test_thaw_of_a_guest_that_was_saved_and_restored_frozen(
    guests: quiesce.LibvirtGuestFreezer, domain: FakeDomain
) -> None:
    evidence = frozen(guests, domain)
    domain.id += 1
    assert guests.thaw(UUID, evidence) == "the guest was powered off and on"
    assert not domain.frozen


def test_thaw_of_a_guest_that_is_off(
    guests: quiesce.LibvirtGuestFreezer, domain: FakeDomain
) -> None:
    evidence = frozen(guests, domain)
    domain.active = False
    with pytest.raises(freezer.GuestGone, match="not running"):
        guests.thaw(UUID, evidence)
    assert domain.calls == []


@pytest.mark.parametrize("method", ["lookup", "fsThaw"])
def test_thaw_of_a_guest_that_is_gone(
    guests: quiesce.LibvirtGuestFreezer, domain: FakeDomain, method: str
) -> None:
    evidence = frozen(guests, domain)
    domain.errors[method] = NO_DOMAIN
    with pytest.raises(freezer.GuestGone, match="not running"):
        guests.thaw(UUID, evidence)


@pytest.mark.parametrize(
    ("method", "raised", "reason"),
    [
        ("fsThaw", PAUSED, "paused or not running"),
        ("fsThaw", HUNG, "does not answer"),
        ("status", HUNG, "does not answer"),
        ("lookup", exception.HypervisorUnavailable(), "hypervisor is broken"),
        ("lookup", INTERNAL, "internal error"),
    ],
)
def test_thaw_that_has_to_be_repeated(
    guests: quiesce.LibvirtGuestFreezer,
    domain: FakeDomain,
    method: str,
    raised: Exception,
    reason: str,
) -> None:
    evidence = frozen(guests, domain)
    domain.errors[method] = raised
    with pytest.raises(freezer.ThawError, match=reason):
        guests.thaw(UUID, evidence)


@pytest.mark.parametrize("raised", [HUNG, NO_DOMAIN])
def test_response_timeout_is_restored_when_the_thaw_fails(
    guests: quiesce.LibvirtGuestFreezer, domain: FakeDomain, raised: Exception
) -> None:
    evidence = frozen(guests, domain)
    domain.errors["fsThaw"] = raised
    with pytest.raises((freezer.ThawError, freezer.GuestGone)):
        guests.thaw(UUID, evidence)
    assert domain.calls == [("timeout", TIMEOUT), "thaw", ("timeout", BLOCK)]


def test_restoring_the_response_timeout_may_fail(
    guests: quiesce.LibvirtGuestFreezer,
    domain: FakeDomain,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def set_timeout(seconds: int, flags: int) -> int:
        if seconds == BLOCK:
            raise INTERNAL
        return 0

    monkeypatch.setattr(domain, "agentSetResponseTimeout", set_timeout)
    assert guests.freeze(UUID).frozen == 2


@pytest.mark.parametrize("answer", ["", "{}", '{"return": null}'])
def test_thaw_never_takes_an_unknown_answer_for_thawed(
    guests: quiesce.LibvirtGuestFreezer,
    domain: FakeDomain,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
) -> None:
    evidence = frozen(guests, domain)
    monkeypatch.setattr(
        sys.modules["libvirt_qemu"], "qemuAgentCommand", lambda *args: answer
    )
    # Whatever is raised, the window's thread thaws again.
    with pytest.raises((freezer.ThawError, ValueError, KeyError)):
        guests.thaw(UUID, evidence)


@pytest.mark.parametrize("answer", ["", "{}"])
def test_freeze_refuses_an_agent_that_talks_nonsense(
    guests: quiesce.LibvirtGuestFreezer,
    domain: FakeDomain,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
) -> None:
    monkeypatch.setattr(
        sys.modules["libvirt_qemu"], "qemuAgentCommand", lambda *args: answer
    )
    assert not refused(guests).maybe_frozen
    assert "freeze" not in domain.calls
