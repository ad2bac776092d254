# SPDX-License-Identifier: Apache-2.0
"""What a host remembers of devices that hold data of nobody."""

import errno
import pathlib
import signal
import subprocess
import threading

import pytest

from nova_ext.privsep import pmem as privileged
from nova_ext.virt import pmem as pmem_host
from nova_ext.virt.libvirt.pmem import copy as pmem
from nova_ext.virt.libvirt.pmem import fence
from nova_ext.virt.libvirt.pmem import tracker as pmem_tracker
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
        self.tracker = self.restart()

    def restart(self) -> pmem_tracker.PmemTracker:
        self.tracker = pmem_tracker.PmemTracker(
            self.directory, self.devices.get, lambda: TIMEOUT
        )
        return self.tracker

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
    assert host.tracker.pending_sanitize() == []
    host.tracker.forget(["a"])
    host.tracker.sanitize(["a", "b"])
    assert not host.directory.exists()
    assert not host.is_zero("a")


def test_entries_survive_a_restart(host: Host) -> None:
    host.tracker.expect_copy(["b", "a"], OWNER)
    host.restart()
    assert host.tracker.pending_sanitize() == ["a", "b"]
    host.tracker.adopt(["a", "b"], OWNER)
    assert host.restart().pending_sanitize() == []


@pytest.mark.parametrize(
    "name", ["a/b", "ä", "a b", "%2F", "..a", "-", "ns:1|2", "x" * 63]
)
def test_odd_names(host: Host, name: str) -> None:
    host.devices[name] = host.devices["a"]
    host.tracker.expect_copy([name], OWNER)
    assert host.restart().pending_sanitize() == [name]
    assert [each.parent for each in host.directory.iterdir()] == [host.directory]
    host.tracker.sanitize([name], OWNER)
    assert host.is_zero("a")
    assert host.restart().pending_sanitize() == []


# Held


def test_device_that_is_held_is_not_zeroed_for_others(host: Host) -> None:
    host.tracker.reserve(["a"], UUID)
    host.restart()
    assert host.tracker.reserved() == {"a": UUID}
    assert host.tracker.pending_sanitize() == []
    for owner in (OWNER, OTHER, "", UUID):
        host.tracker.sanitize(["a"], owner)
    with pytest.raises(
        pmem_host.CopyError, match=f"a still holds the data of server {UUID}, whose"
    ):
        host.tracker.sanitize(["b", "a"])
    with pytest.raises(pmem_host.CopyError, match="does not hold the data"):
        host.tracker.adopt(["a"], OWNER)
    host.tracker.sanitize_reserved(["a"], UUID[:-1])
    assert host.tracker.reserved() == {"a": UUID}
    assert not host.is_zero("a")


def test_unhold_leaves_the_data_alone(host: Host) -> None:
    host.tracker.reserve(["a"], UUID)
    host.tracker.reserve(["b"], OTHER)
    host.tracker.expect_copy(["c"], UUID)
    host.tracker.release(UUID)
    assert host.restart().reserved() == {"b": OTHER}
    assert host.tracker.pending_sanitize() == ["c"]
    host.tracker.sanitize(["a"])
    assert not host.is_zero("a")


def test_device_that_was_held_is_zeroed(host: Host) -> None:
    host.tracker.reserve(["a", "b"], UUID)
    host.tracker.sanitize_reserved(["a"], UUID)
    assert host.is_zero("a")
    assert not host.is_zero("b")
    assert host.tracker.reserved() == {"b": UUID}


def test_confirm_takes_the_place_of_the_hold(host: Host) -> None:
    host.tracker.reserve(["a"], UUID)
    host.tracker.expect_copy(["a"])
    host.tracker.release(UUID)
    assert host.tracker.pending_sanitize() == ["a"]


# Accept


def test_accept_leaves_the_data_alone(host: Host) -> None:
    host.tracker.expect_copy(["a"], OWNER)
    host.tracker.adopt(["a"], OWNER)
    assert host.tracker.pending_sanitize() == []
    assert not host.is_zero("a")


@pytest.mark.parametrize("owner", [OTHER, "", OWNER[:-1], OWNER + "1"])
def test_accept_of_the_data_of_another(host: Host, owner: str) -> None:
    host.tracker.expect_copy(["a"], OWNER)
    host.tracker.expect_copy(["b"], owner)
    with pytest.raises(pmem_host.CopyError, match="namespace b does not hold the data"):
        host.tracker.adopt(["a", "b"], OWNER)
    # Neither is handed over.
    assert host.tracker.pending_sanitize() == ["a", "b"]


def test_accept_without_entry(host: Host) -> None:
    """It was zeroed meanwhile, or another server has it."""
    with pytest.raises(pmem_host.CopyError, match="does not hold the data"):
        host.tracker.adopt(["a"], OWNER)


def test_nothing_is_accepted_twice(host: Host) -> None:
    host.tracker.expect_copy(["a"], OWNER)
    host.tracker.adopt(["a"], OWNER)
    with pytest.raises(pmem_host.CopyError):
        host.tracker.adopt(["a"], OWNER)


# Clean


def test_clean_zeroes_what_has_an_entry(host: Host) -> None:
    host.tracker.expect_copy(["a"], OWNER)
    host.tracker.sanitize(["a", "b"])
    assert host.is_zero("a")
    assert not host.is_zero("b")
    assert host.restart().pending_sanitize() == []


@pytest.mark.parametrize(
    ("owner", "zeroed"), [(OWNER, True), (OTHER, False), ("", False)]
)
def test_clean_for_an_owner_leaves_others_alone(
    host: Host, owner: str, zeroed: bool
) -> None:
    host.tracker.expect_copy(["a"], OWNER)
    host.tracker.sanitize(["a"], owner)
    assert host.is_zero("a") == zeroed
    assert host.tracker.pending_sanitize() == ([] if zeroed else ["a"])


def test_later_owner_takes_the_place_of_the_first(host: Host) -> None:
    host.tracker.expect_copy(["a"], OTHER)
    host.tracker.expect_copy(["a"], OWNER)
    host.tracker.sanitize(["a"], OTHER)
    assert not host.is_zero("a")
    host.tracker.adopt(["a"], OWNER)


def test_entry_stays_when_the_device_cannot_be_zeroed(
    host: Host, memory: pmem_hosts.Memory
) -> None:
    host.tracker.expect_copy(["a"], OWNER)
    script = (memory.here / "daxio").read_text()
    memory.program(memory.here, "daxio", "#!/bin/sh\necho no >&2\nexit 1\n")
    with pytest.raises(pmem_host.CopyError, match="ended with 1: no"):
        host.tracker.sanitize(["a"])
    assert host.restart().pending_sanitize() == ["a"]
    memory.program(memory.here, "daxio", script)
    host.tracker.sanitize(["a"])
    assert host.is_zero("a")
    assert host.tracker.pending_sanitize() == []


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
    host.tracker.expect_copy(["a"])
    with pytest.raises(pmem_host.CopyError, match="late"):
        host.tracker.sanitize(["a"])
    assert seen == [(0, MIB), (MIB, MIB), (2 * MIB, MIB), (3 * MIB, 5)]
    assert host.tracker.pending_sanitize() == ["a"]


def test_entry_stays_when_the_device_is_no_longer_what_it_was(
    host: Host, memory: pmem_hosts.Memory
) -> None:
    """Numbers of devices shift when a host starts again."""
    host.tracker.expect_copy(["a"])
    memory.kernel_says("dax0.0", "align", "4096")
    with pytest.raises(pmem_host.CopyError, match="restart nova-compute"):
        host.tracker.sanitize(["a"])
    assert not host.is_zero("a")
    assert host.tracker.pending_sanitize() == ["a"]


def test_namespace_that_the_host_has_no_more(host: Host) -> None:
    host.tracker.expect_copy(["c"])
    with pytest.raises(
        pmem_host.CopyError, match=r"namespace c .* not have it any more"
    ):
        host.tracker.sanitize(["c"])
    assert host.tracker.pending_sanitize() == ["c"]


def test_device_of_a_guest_is_not_zeroed(
    host: Host, memory: pmem_hosts.Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fence, "_PATIENCE", 0.5)
    qemu = memory.program(memory.here, "qemu", "#!/bin/sh\nkill -STOP $$\n")
    host.tracker.expect_copy(["a"])
    argv = [str(qemu), "-object", f"mem-path={host.devices['a'].path}"]
    with subprocess.Popen(argv) as guest:
        with pytest.raises(pmem_host.CopyError, match="in use by process"):
            host.tracker.sanitize(["a"])
        guest.kill()
    assert not host.is_zero("a")
    assert host.tracker.pending_sanitize() == ["a"]


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
    host.tracker.expect_copy(["a"])
    host.tracker.sanitize(["a"])
    assert started[0].wait(10) == -signal.SIGKILL
    assert host.is_zero("a")
    assert host.tracker.pending_sanitize() == []


def test_device_is_not_handed_over_while_it_is_zeroed(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes second finds it clean, or does not get it."""
    began, go_on = threading.Event(), threading.Event()

    def zero(path: str, at: int, length: int, timeout: float) -> None:
        began.set()
        assert go_on.wait(10)

    monkeypatch.setattr(privileged, "zero", zero)
    host.tracker.expect_copy(["a"], OWNER)
    refused: list[Exception] = []

    def accept() -> None:
        try:
            host.tracker.adopt(["a"], OWNER)
        except pmem_host.CopyError as exc:
            refused.append(exc)

    cleaner = threading.Thread(target=host.tracker.sanitize, args=[["a"]])
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
    assert host.tracker.pending_sanitize() == []


def test_an_entry_that_cannot_be_written_changes_nothing(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk must neither free a reserved device nor have it zeroed."""
    host.tracker.reserve(["a"], OWNER)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            host.tracker.expect_copy(["a", "b"], OWNER)
    assert host.restart().reserved() == {"a": OWNER}
    assert host.tracker.pending_sanitize() == []


@pytest.mark.parametrize("text", [b"", b"\xff", b"reserve"])
def test_a_device_whose_entry_cannot_be_read_goes_to_nobody(
    host: Host, text: bytes
) -> None:
    host.tracker.expect_copy(["a"])
    (entry,) = host.directory.iterdir()
    entry.write_bytes(text)
    with pytest.raises(pmem_host.CopyError, match="cannot be read"):
        host.tracker.sanitize(["a"])
    with pytest.raises(pmem_host.CopyError):
        host.tracker.adopt(["a"], OWNER)
    assert host.tracker.pending_sanitize() == []
    assert host.tracker.reserved() == {}
    assert not host.is_zero("a")


def test_an_administrator_may_order_it_by_hand(host: Host) -> None:
    host.directory.mkdir(parents=True)
    (host.directory / "a").write_text("sanitize\n")
    assert host.tracker.pending_sanitize() == ["a"]
    host.tracker.sanitize(["a"])
    assert host.is_zero("a")
    assert host.tracker.pending_sanitize() == []
