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

"""What a host remembers of devices that hold data of nobody."""

import pathlib
import signal
import subprocess
import threading

import pytest

from nova_ext.privsep import pmem as privileged
from nova_ext.virt import pmem_host
from nova_ext.virt.libvirt import pmem, pmem_fence, pmem_ledger
from tests.unit import pmem_hosts
from tests.unit.pmem_hosts import MIB, content

UUID = "0d4b1e9c-9f2f-4d2a-8b0c-6b0a3a4f7c11"
OWNER = "0d4b1e9c-9f2f-4d2a-8b0c-6b0a3a4f7c11 7"
OTHER = "0d4b1e9c-9f2f-4d2a-8b0c-6b0a3a4f7c11 8"
TIMEOUT = 20
SIZE = 3 * MIB + 5


class Host:
    """A host with two devices, whose nova-compute may be started again."""

    def __init__(self, memory: pmem_hosts.Memory, root: pathlib.Path) -> None:
        self.directory = root / "state" / "nova_ext" / "pmem"
        self.devices = {
            name: memory.device(node, b"x" * SIZE)
            for name, node in (("a", "dax0.0"), ("b", "dax0.1"))
        }
        self.ledger = self.restart()

    def restart(self) -> pmem_ledger.Ledger:
        self.ledger = pmem_ledger.Ledger(
            self.directory, self.devices.get, lambda: TIMEOUT
        )
        return self.ledger

    def is_zero(self, name: str) -> bool:
        data = content(self.devices[name])
        if any(data):
            assert data == b"x" * SIZE
        return not any(data)


@pytest.fixture
def host(
    memory: pmem_hosts.Memory, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Host:
    monkeypatch.setattr(pmem, "PIECE", MIB)
    return Host(memory, tmp_path)


def test_nothing_is_written_before_it_is_needed(host: Host) -> None:
    assert host.ledger.dirty() == []
    host.ledger.remove(["a"])
    host.ledger.clean(["a", "b"])
    assert not host.directory.exists()
    assert not host.is_zero("a")


def test_entries_survive_a_restart(host: Host) -> None:
    host.ledger.add(["b", "a"], OWNER)
    host.restart()
    assert host.ledger.dirty() == ["a", "b"]
    host.ledger.accept(["a", "b"], OWNER)
    assert host.restart().dirty() == []


@pytest.mark.parametrize(
    "name", ["a/b", "ä", "a b", "%2F", "..a", "-", "ns:1|2", "x" * 63]
)
def test_odd_names(host: Host, name: str) -> None:
    host.devices[name] = host.devices["a"]
    host.ledger.add([name], OWNER)
    assert host.restart().dirty() == [name]
    assert [each.parent for each in host.directory.iterdir()] == [host.directory]
    host.ledger.clean([name], OWNER)
    assert host.is_zero("a")
    assert host.restart().dirty() == []


# Held


def test_device_that_is_held_is_not_zeroed_for_others(host: Host) -> None:
    host.ledger.hold(["a"], UUID)
    host.restart()
    assert host.ledger.held() == {"a": UUID}
    assert host.ledger.dirty() == []
    for owner in (OWNER, OTHER, "", UUID):
        host.ledger.clean(["a"], owner)
    with pytest.raises(
        pmem_host.CopyError, match=f"a still holds the data of server {UUID}, whose"
    ):
        host.ledger.clean(["b", "a"])
    with pytest.raises(pmem_host.CopyError, match="does not hold the data"):
        host.ledger.accept(["a"], OWNER)
    host.ledger.clean_held(["a"], UUID[:-1])
    assert host.ledger.held() == {"a": UUID}
    assert not host.is_zero("a")


def test_unhold_leaves_the_data_alone(host: Host) -> None:
    host.ledger.hold(["a"], UUID)
    host.ledger.hold(["b"], OTHER)
    host.ledger.add(["c"], UUID)
    host.ledger.unhold(UUID)
    assert host.restart().held() == {"b": OTHER}
    assert host.ledger.dirty() == ["c"]
    host.ledger.clean(["a"])
    assert not host.is_zero("a")


def test_device_that_was_held_is_zeroed(host: Host) -> None:
    host.ledger.hold(["a", "b"], UUID)
    host.ledger.clean_held(["a"], UUID)
    assert host.is_zero("a")
    assert not host.is_zero("b")
    assert host.ledger.held() == {"b": UUID}


def test_confirm_takes_the_place_of_the_hold(host: Host) -> None:
    host.ledger.hold(["a"], UUID)
    host.ledger.add(["a"])
    host.ledger.unhold(UUID)
    assert host.ledger.dirty() == ["a"]


# Accept


def test_accept_leaves_the_data_alone(host: Host) -> None:
    host.ledger.add(["a"], OWNER)
    host.ledger.accept(["a"], OWNER)
    assert host.ledger.dirty() == []
    assert not host.is_zero("a")


@pytest.mark.parametrize("owner", [OTHER, "", OWNER[:-1], OWNER + "1"])
def test_accept_of_the_data_of_another(host: Host, owner: str) -> None:
    host.ledger.add(["a"], OWNER)
    host.ledger.add(["b"], owner)
    with pytest.raises(pmem_host.CopyError, match="namespace b does not hold the data"):
        host.ledger.accept(["a", "b"], OWNER)
    # Neither is handed over.
    assert host.ledger.dirty() == ["a", "b"]


def test_accept_without_entry(host: Host) -> None:
    """It was zeroed meanwhile, or another server has it."""
    with pytest.raises(pmem_host.CopyError, match="does not hold the data"):
        host.ledger.accept(["a"], OWNER)


def test_nothing_is_accepted_twice(host: Host) -> None:
    host.ledger.add(["a"], OWNER)
    host.ledger.accept(["a"], OWNER)
    with pytest.raises(pmem_host.CopyError):
        host.ledger.accept(["a"], OWNER)


# Clean


def test_clean_zeroes_what_has_an_entry(host: Host) -> None:
    host.ledger.add(["a"], OWNER)
    host.ledger.clean(["a", "b"])
    assert host.is_zero("a")
    assert not host.is_zero("b")
    assert host.restart().dirty() == []


@pytest.mark.parametrize(
    ("owner", "zeroed"), [(OWNER, True), (OTHER, False), ("", False)]
)
def test_clean_for_an_owner_leaves_others_alone(
    host: Host, owner: str, zeroed: bool
) -> None:
    host.ledger.add(["a"], OWNER)
    host.ledger.clean(["a"], owner)
    assert host.is_zero("a") == zeroed
    assert host.ledger.dirty() == ([] if zeroed else ["a"])


def test_later_owner_takes_the_place_of_the_first(host: Host) -> None:
    host.ledger.add(["a"], OTHER)
    host.ledger.add(["a"], OWNER)
    host.ledger.clean(["a"], OTHER)
    assert not host.is_zero("a")
    host.ledger.accept(["a"], OWNER)


def test_entry_stays_when_the_device_cannot_be_zeroed(
    host: Host, memory: pmem_hosts.Memory
) -> None:
    host.ledger.add(["a"], OWNER)
    script = (memory.here / "daxio").read_text()
    memory.program(memory.here, "daxio", "#!/bin/sh\necho no >&2\nexit 1\n")
    with pytest.raises(pmem_host.CopyError, match="ended with 1: no"):
        host.ledger.clean(["a"])
    assert host.restart().dirty() == ["a"]
    memory.program(memory.here, "daxio", script)
    host.ledger.clean(["a"])
    assert host.is_zero("a")
    assert host.ledger.dirty() == []


def test_entry_stays_when_one_piece_of_many_is_not_zeroed(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    zero, seen = privileged.zero, []

    def fail_late(path: str, at: int, length: int, timeout: float) -> None:
        assert timeout == TIMEOUT
        seen.append((at, length))
        if at == 3 * MIB:
            raise privileged.DaxioError("late")
        zero(path, at, length, timeout)

    monkeypatch.setattr(privileged, "zero", fail_late)
    host.ledger.add(["a"])
    with pytest.raises(pmem_host.CopyError, match="late"):
        host.ledger.clean(["a"])
    assert seen == [(0, MIB), (MIB, MIB), (2 * MIB, MIB), (3 * MIB, 5)]
    assert host.ledger.dirty() == ["a"]


def test_entry_stays_when_the_device_is_no_longer_what_it_was(
    host: Host, memory: pmem_hosts.Memory
) -> None:
    """Numbers of devices shift when a host starts again."""
    host.ledger.add(["a"])
    memory.kernel_says("dax0.0", "align", "4096")
    with pytest.raises(pmem_host.CopyError, match="restart nova-compute"):
        host.ledger.clean(["a"])
    assert not host.is_zero("a")
    assert host.ledger.dirty() == ["a"]


def test_namespace_that_the_host_has_no_more(host: Host) -> None:
    host.ledger.add(["c"])
    with pytest.raises(
        pmem_host.CopyError, match=r"namespace c .* not have it any more"
    ):
        host.ledger.clean(["c"])
    assert host.ledger.dirty() == ["c"]


def test_device_of_a_guest_is_not_zeroed(
    host: Host, memory: pmem_hosts.Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pmem_fence, "_PATIENCE", 0.5)
    qemu = memory.program(memory.here, "qemu", "#!/bin/sh\nkill -STOP $$\n")
    host.ledger.add(["a"])
    argv = [str(qemu), "-object", f"mem-path={host.devices['a'].path}"]
    with subprocess.Popen(argv) as guest:
        with pytest.raises(pmem_host.CopyError, match="in use by process"):
            host.ledger.clean(["a"])
        guest.kill()
    assert not host.is_zero("a")
    assert host.ledger.dirty() == ["a"]


def test_device_is_zeroed_again_if_a_daxio_was_there_meanwhile(
    host: Host, memory: pmem_hosts.Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was just being started at the first look has no command line yet."""
    late = memory.program(memory.here, "late", "#!/bin/sh\nkill -STOP $$\n")
    zero, started = privileged.zero, []
    path = host.devices["a"].path

    def write(device: str, at: int, length: int, timeout: float) -> None:
        zero(device, at, length, timeout)
        if at == 3 * MIB and not started:
            pathlib.Path(path).write_bytes(b"x" * SIZE)
            started.append(subprocess.Popen([str(late), "daxio", "-o", path]))

    monkeypatch.setattr(privileged, "zero", write)
    host.ledger.add(["a"])
    host.ledger.clean(["a"])
    assert started[0].wait(10) == -signal.SIGKILL
    assert host.is_zero("a")
    assert host.ledger.dirty() == []


def test_device_is_not_handed_over_while_it_is_zeroed(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes second finds it clean, or does not get it."""
    began, go_on = threading.Event(), threading.Event()

    def zero(path: str, at: int, length: int, timeout: float) -> None:
        began.set()
        assert go_on.wait(10)

    monkeypatch.setattr(privileged, "zero", zero)
    host.ledger.add(["a"], OWNER)
    refused: list[Exception] = []

    def accept() -> None:
        try:
            host.ledger.accept(["a"], OWNER)
        except pmem_host.CopyError as exc:
            refused.append(exc)

    cleaner = threading.Thread(target=host.ledger.clean, args=[["a"]])
    accepter = threading.Thread(target=accept)
    cleaner.start()
    assert began.wait(10)
    accepter.start()
    accepter.join(0.3)
    assert accepter.is_alive()
    go_on.set()
    cleaner.join(10)
    accepter.join(10)
    assert len(refused) == 1
    assert host.ledger.dirty() == []
