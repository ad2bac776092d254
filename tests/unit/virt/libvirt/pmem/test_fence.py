# SPDX-License-Identifier: Apache-2.0
"""Who is kept from a device before it is zeroed, and who is not."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

import pytest

from nova_ext.privsep import pmem as privileged
from nova_ext.virt import pmem as pmem_host
from nova_ext.virt.libvirt.pmem import fence
from nova_ext.virt.libvirt.pmem import target as pmem_target
from tests.unit import pmem_hosts

STOPPED = "#!/bin/sh\nkill -STOP $$\n"
UUID = "0d4b1e9c-9f2f-4d2a-8b0c-6b0a3a4f7c11"

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(memory: pmem_hosts.Memory) -> Iterator[Start]:
    """Start a process that ends with the test at the latest."""
    with contextlib.ExitStack() as stack:

        def run(*argv: str, **variables: str) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(argv, env={**os.environ, **variables})
            stack.callback(process.wait)
            stack.callback(process.kill)
            # Both are empty for a moment after the start.
            for name in ("cmdline", "environ"):
                while not pathlib.Path(f"/proc/{process.pid}/{name}").read_bytes():
                    assert process.poll() is None
            return process

        yield run


@pytest.fixture
def device(memory: pmem_hosts.Memory, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(fence, "_PATIENCE", 5)
    memory.program(memory.here, "daxio", STOPPED)
    memory.program(memory.here, "qemu", STOPPED)
    memory.device("dax0.10", bytes(4096))
    memory.device("dax0.0", bytes(4096))
    return memory.device("dax0.1", bytes(4096)).path


def runs(process: subprocess.Popen[bytes]) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(0.2)
    return process.returncode is None


# The processes of a copy


def test_end_copy_kills_what_is_marked_with_this_copy(start: Start) -> None:
    marker = pmem_target.MARKER
    own = [start("sleep", "60", **{marker: UUID}) for _ in range(2)]
    others = [
        start("sleep", "60", **{marker: UUID + "1"}),
        start("sleep", "60", **{marker: UUID[:-1]}),
        start("sleep", "60", **{"X" + marker: UUID}),
        start("sleep", "60", SOME=f"{marker}={UUID}"),
        start("sleep", "60"),
    ]
    fence.end_copy(UUID)
    assert [each.wait(10) for each in own] == [-signal.SIGKILL] * 2
    assert all(runs(each) for each in others)


def test_end_copy_removes_the_fifos_of_this_copy(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made = [
        pathlib.Path(tempfile.mkdtemp(prefix=pmem_target.scratch(mark)))
        for mark in (UUID, UUID, UUID + "1")
    ]
    for each in made:
        os.mkfifo(each / "data")
    fence.end_copy(UUID)
    assert [each.exists() for each in made] == [False, False, True]


def test_end_copy_passes_over_what_vanishes_meanwhile(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    own = start("sleep", "60", **{pmem_target.MARKER: UUID})
    monkeypatch.setattr(fence, "_pids", lambda: [gone.pid, own.pid])
    fence.end_copy(UUID)
    assert own.wait(10) == -signal.SIGKILL


# The processes at a device


def test_release_kills_daxio_at_the_device_alone(start: Start, device: str) -> None:
    own = [
        start("daxio", "-z", "-o", device, "-s", "0"),
        start("daxio", "-i", device),
    ]
    others = [start("daxio", "-o", f"{device}0"), start("daxio", "-o", "/dev/dax0.1")]
    fence.release(device)
    assert [each.wait(10) for each in own] == [-signal.SIGKILL] * 2
    assert all(runs(each) for each in others)


def test_release_kills_the_shell_that_would_run_the_next_daxio(
    memory: pmem_hosts.Memory, start: Start, device: str
) -> None:
    shell = start("sh", "-c", f"daxio -o {device} -s 0 && daxio -o {device} -s 1")
    while len([line for line in memory._left() if "-s 0" in line]) < 2:
        assert shell.poll() is None
    fence.release(device)
    assert shell.wait(10) == -signal.SIGKILL
    assert memory.left() == []


def test_release_between_two_commands_of_a_chain(start: Start, device: str) -> None:
    """Then nobody but the shell knows of the device."""
    shell = start("sh", "-c", f"kill -STOP $$; daxio -o {device} && daxio -o {device}")
    assert fence.release(device)
    assert shell.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize("program", ["ssh", "/usr/bin/ssh"])
def test_release_spares_the_copy_to_a_device_of_that_name_elsewhere(
    device: str, program: str
) -> None:
    command = f"daxio -o {device} -s 0 && daxio -o {device} -s 1"
    # A script would have its interpreter as the first word.
    words = [program, "-c", "import time; time.sleep(60)", command]
    with subprocess.Popen(words, executable=sys.executable) as copy:
        assert not fence.release(device)
        assert runs(copy)
        copy.kill()


def test_release_of_a_device_that_nobody_has(device: str) -> None:
    assert not fence.release(device)


@pytest.mark.parametrize("form", ["{}", "mem-path={},size=4096", '{{"mem-path":"{}"}}'])
def test_release_refuses_a_device_that_a_guest_has(
    start: Start, device: str, form: str
) -> None:
    guest = start("qemu", "-object", form.format(device))
    with pytest.raises(
        pmem_host.CopyError, match=rf"{device} is in use by process {guest.pid} .*qemu"
    ):
        fence.release(device)
    assert runs(guest)


def test_guest_at_another_device_is_no_hindrance(start: Start, device: str) -> None:
    guest = start("qemu", "-object", f"mem-path={device}0,size=4096")
    fence.release(device)
    assert runs(guest)


def test_release_decides_by_one_look(
    start: Start, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has no command line at one look and a daxio's at the next is no guest."""
    daxio = start("daxio", "-o", device)
    looks: list[int] = []

    def command_line(pid: int) -> str:
        looks.append(pid)
        return "" if looks.count(pid) == 1 else read(pid)

    read = privileged.command_line
    monkeypatch.setattr(privileged, "command_line", command_line)
    assert not fence.release(device)
    assert fence.release(device)
    assert daxio.wait(10) == -signal.SIGKILL


def test_release_refuses_a_daxio_that_does_not_go(
    start: Start, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    daxio = start("daxio", "-o", device)
    monkeypatch.setattr(os, "kill", lambda pid, number: None)
    with pytest.raises(pmem_host.CopyError, match=f"in use by process {daxio.pid}"):
        fence.release(device)
    monkeypatch.undo()


def test_daxio_of_another_user_is_left_to_root(
    start: Start, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    daxio = start("daxio", "-o", device)
    kill = os.kill

    def deny(pid: int, number: int) -> None:
        raise PermissionError

    def as_root(pid: int, path: str) -> None:
        assert path == device
        kill(pid, signal.SIGKILL)

    monkeypatch.setattr(os, "kill", deny)
    monkeypatch.setattr(privileged, "kill_daxio", as_root)
    try:
        fence.release(device)
    finally:
        monkeypatch.undo()
    assert daxio.wait(10) == -signal.SIGKILL


def test_daxio_that_root_may_not_kill_either(
    start: Start, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root without CAP_KILL kills processes of root alone."""
    daxio = start("daxio", "-o", device)

    def deny(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", deny)
    try:
        with pytest.raises(pmem_host.CopyError, match=f"by process {daxio.pid}"):
            fence.release(device)
    finally:
        monkeypatch.undo()
