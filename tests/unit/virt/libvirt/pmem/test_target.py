# SPDX-License-Identifier: Apache-2.0
"""How pieces reach their target, and every way in which they do not."""

import contextlib
import dataclasses
import json
import os
import pathlib
import random
import shlex
import signal
import threading
import time
from collections.abc import Sequence

import pytest

from nova_ext.privsep import pmem as privileged
from nova_ext.virt import pmem as pmem_host
from nova_ext.virt.libvirt.pmem import copy as pmem
from nova_ext.virt.libvirt.pmem import fence
from nova_ext.virt.libvirt.pmem import target as pmem_target
from tests.unit import pmem_hosts
from tests.unit.pmem_hosts import MIB, content

TIMEOUT = 20
MARK = "0d4b1e9c-9f2f-4d2a-8b0c-6b0a3a4f7c11"
SSH = ["ssh", "-o", "BatchMode=yes", "other"]

#: Data, zeros that are worth a piece, data; and more data at the end.
RANDOM = random.Random(3)  # noqa: S311 - no secret
LAYOUT = (
    RANDOM.randbytes(3 * MIB + 7)
    + bytes(5 * MIB)
    + RANDOM.randbytes(MIB)
    + bytes(9 * MIB)
    + RANDOM.randbytes(2 * MIB)
)
LABEL = pmem.LABEL
SIZE = len(LAYOUT)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pmem, "BATCH", 6 * MIB)
    monkeypatch.setattr(pmem, "PIECE", MIB)
    monkeypatch.setattr(privileged, "SHORTEST_ZEROS", MIB)
    monkeypatch.setattr(pmem_target, "_LAST_WORDS", 1)


Pair = tuple[pmem_host.Device, pmem_host.Device]


@pytest.fixture
def pair(memory: pmem_hosts.Memory) -> Pair:
    return (
        memory.device("dax0.1", LAYOUT),
        memory.device("dax0.10", b"old" * (SIZE // 3) + bytes(SIZE % 3)),
    )


def remote(
    timeout: float = TIMEOUT, ssh: Sequence[str] = SSH, prefix: Sequence[str] = ()
) -> pmem_target.Remote:
    return pmem_target.Remote(ssh, prefix, timeout, MARK)


def copied(target: pmem.Target, pair: Pair, streams: int = 2) -> pmem.Copy:
    return pmem.Copy([pair], target, streams, lambda done: None)


def refused(
    target: pmem.Target, pair: Pair, memory: pmem_hosts.Memory, streams: int = 2
) -> str:
    """Why a copy fails, which takes no time and leaves nothing."""
    began = time.monotonic()
    with pytest.raises(pmem_host.CopyError) as caught:
        copied(target, pair, streams).run()
    assert time.monotonic() - began < TIMEOUT - 5
    assert memory.left() == []
    assert content(pair[0]) == LAYOUT
    return str(caught.value)


# Whole copies


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize("kind", ["local", "remote"])
def test_copy(memory: pmem_hosts.Memory, pair: Pair, kind: str, streams: int) -> None:
    target = remote() if kind == "remote" else pmem_target.Local(TIMEOUT)
    the_copy = copied(target, pair, streams)
    the_copy.probe()
    the_copy.run()
    assert content(pair[1]) == LAYOUT
    assert content(pair[0]) == LAYOUT
    assert memory.left() == []


@pytest.mark.parametrize("kind", ["local", "remote"])
def test_copy_to_a_bigger_device(memory: pmem_hosts.Memory, kind: str) -> None:
    pair = memory.device("dax0.0", LAYOUT), memory.device("dax0.1", b"o" * (SIZE + 99))
    target = remote() if kind == "remote" else pmem_target.Local(TIMEOUT)
    the_copy = copied(target, pair)
    the_copy.run()
    assert content(pair[1]) == LAYOUT[:-LABEL] + bytes(99) + LAYOUT[-LABEL:]


@pytest.mark.parametrize(
    "filled", [bytes(SIZE), RANDOM.randbytes(SIZE)], ids=["zeros", "data"]
)
def test_copy_of_zeros_or_data_alone(memory: pmem_hosts.Memory, filled: bytes) -> None:
    pair = memory.device("dax0.0", filled), memory.device("dax0.1", b"o" * SIZE)
    copied(remote(), pair).run()
    assert content(pair[1]) == filled


def test_zeros_do_not_travel(memory: pmem_hosts.Memory, tmp_path: pathlib.Path) -> None:
    pair = memory.device("dax0.0", bytes(SIZE)), memory.device("dax0.1", b"o" * SIZE)
    (memory.here / "daxio").unlink()  # nothing is read here but by the scan
    copied(remote(), pair).run()
    assert content(pair[1]) == bytes(SIZE)


# What ssh is told


def test_ssh_is_marked_and_told_words(memory: pmem_hosts.Memory, pair: Pair) -> None:
    prefix = ["env", "--", "A=b c", "B='$(touch x);"]
    target = remote(prefix=prefix)
    for _length in target.write(*pair, [pmem.Piece(0, 5, 7), pmem.Piece(None, 1, 3)]):
        pass
    (call,) = memory.calls()
    _pid, mark, words = json.loads(call)
    assert mark == MARK
    assert words[:-1] == SSH[1:]
    first, second = words[-1].split(" && ")
    daxio = [*prefix, "daxio"]
    path = pair[1].path
    assert shlex.split(first) == [*daxio, "-o", path, "-s", "5", "-l", "7"]
    assert shlex.split(second) == [*daxio, "-z", "-o", path, "-s", "1", "-l", "3"]
    assert content(pair[1])[5:12] == LAYOUT[:7]
    assert content(pair[1])[1:4] == bytes(3)


def test_longest_command_fits_into_one_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux runs no program with a word of more than 128 KiB."""
    monkeypatch.undo()
    gap = privileged.SHORTEST_ZEROS
    step = gap + MIB

    def scan(
        path: str, offset: int, length: int, limit: float
    ) -> list[tuple[int, int]]:
        return [(at, MIB) for at in range(offset, offset + length, step)]

    monkeypatch.setattr(privileged, "scan", scan)
    begin = 6 << 40  # where offsets are long
    pieces = pmem.split("/dev/dax0.0", pmem.Piece(begin, begin, pmem.BATCH), TIMEOUT)
    target = pmem_host.Device("n", "L", "/dev/dax10.10", begin * 2, 2 * MIB)
    asked: list[str] = []
    where = remote(prefix=["sudo", "-n", "--"])

    def link(command: str) -> None:
        asked.append(command)
        raise pmem_host.CopyError("seen")

    monkeypatch.setattr(where, "_link", link)
    with pytest.raises(pmem_host.CopyError, match="seen"):
        next(iter(where.write(target, target, pieces)))
    assert len(pieces) > 900
    assert len(asked[0]) < 100_000


# Probe


def test_probe_writes_a_little(memory: pmem_hosts.Memory, pair: Pair) -> None:
    old = content(pair[1])
    for target in (remote(), pmem_target.Local(TIMEOUT)):
        pathlib.Path(pair[1].path).write_bytes(old)
        target.probe([pair[1]])
        assert content(pair[1]) == bytes(4096) + old[4096:]


@pytest.mark.parametrize("kind", ["local", "remote"])
def test_probe_of_a_destination_without_daxio(
    memory: pmem_hosts.Memory, pair: Pair, kind: str
) -> None:
    target = remote() if kind == "remote" else pmem_target.Local(TIMEOUT)
    (memory.here / "daxio").unlink()
    (memory.there / "daxio").unlink()
    with pytest.raises(
        pmem_host.CopyError, match=r"ssh ended with 127|install pmdk-tools"
    ):
        target.probe([pair[1]])


def test_probe_of_a_device_that_is_refused(
    memory: pmem_hosts.Memory, pair: Pair
) -> None:
    memory.kernel_says("dax0.10", "dev", "252:0")
    with pytest.raises(pmem_host.CopyError, match="252:0"):
        pmem_target.Local(TIMEOUT).probe([pair[1]])


# Failures


def test_destination_without_daxio(memory: pmem_hosts.Memory, pair: Pair) -> None:
    (memory.there / "daxio").unlink()
    assert "ssh ended with 127" in refused(remote(), pair, memory)


def test_host_that_ssh_does_not_reach(memory: pmem_hosts.Memory, pair: Pair) -> None:
    script = "#!/bin/sh\necho 'ssh: connect to host other: no route' >&2\nexit 255\n"
    memory.program(memory.here, "ssh", script)
    reason = refused(remote(), pair, memory)
    assert "ssh ended with 255" in reason
    assert "no route" in reason


def test_ssh_that_is_missing(memory: pmem_hosts.Memory, pair: Pair) -> None:
    (memory.here / "ssh").rename(memory.here / "other")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        assert "ssh cannot be run" in refused(remote(ssh=["nossh"]), pair, memory)
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_file_descriptors_are_left(memory: pmem_hosts.Memory, pair: Pair) -> None:
    before = len(os.listdir("/proc/self/fd"))
    copied(remote(), pair).run()
    assert len(os.listdir("/proc/self/fd")) == before


def test_ssh_that_dies_in_the_middle(memory: pmem_hosts.Memory, pair: Pair) -> None:
    """The daxio there sees the end of its data and ends with status 0."""
    slow = '#!/bin/sh\nsleep 0.3\nexec "${0%/*}/real" "$@"\n'
    (memory.there / "daxio").rename(memory.there / "real")
    memory.program(memory.there, "daxio", slow)

    def kill() -> None:
        while not memory.calls():
            time.sleep(0.01)
        time.sleep(0.4)
        os.kill(json.loads(memory.calls()[0])[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    reason = refused(remote(), pair, memory, streams=1)
    killer.join()
    assert "ssh ended with -9" in reason


@pytest.mark.parametrize("kind", ["data", "zeros"])
def test_destination_that_copies_less_with_status_0(
    memory: pmem_hosts.Memory, kind: str
) -> None:
    filled = RANDOM.randbytes(SIZE) if kind == "data" else bytes(SIZE)
    source = memory.device("dax0.0", filled)
    short = memory.device("dax0.1", bytes(SIZE - 1))
    target = dataclasses.replace(short, size=SIZE)
    with pytest.raises(pmem_host.CopyError, match="the destination was sent pieces"):
        copied(remote(), (source, target), 1).run()


@pytest.mark.parametrize(
    "words",
    [
        "exit 0",  # it says nothing
        'for word; do :; done; echo "copied $word bytes"',  # on the wrong stream
        'echo "copied $((word - 1)) bytes" >&2',
        'echo "copied $word bytes" >&2; echo "copied $word bytes" >&2',
    ],
)
def test_destination_that_does_not_confirm_what_it_took(
    memory: pmem_hosts.Memory, pair: Pair, words: str
) -> None:
    script = f"#!/bin/sh\nfor word; do :; done\ncat > /dev/null\n{words}\n"
    memory.program(memory.there, "daxio", script)
    target = remote()
    with pytest.raises(pmem_host.CopyError, match="the destination was sent pieces"):
        for _length in target.write(*pair, [pmem.Piece(0, 0, MIB)]):
            pass


def test_destination_that_hangs_and_takes_nothing(
    memory: pmem_hosts.Memory, pair: Pair
) -> None:
    memory.program(memory.there, "daxio", "#!/bin/sh\nkill -STOP $$\n")
    try:
        with pytest.raises(pmem_host.CopyError, match=r"took more than .* s"):
            copied(remote(0.5), pair).run()
    finally:
        # What is left there is ended before the device is zeroed.
        fence.release(pair[1].path)


def test_destination_that_hangs_after_it_took_all(
    memory: pmem_hosts.Memory, pair: Pair
) -> None:
    memory.program(memory.there, "daxio", "#!/bin/sh\ncat >/dev/null\nkill -STOP $$\n")
    target = remote(0.5)
    try:
        with pytest.raises(pmem_host.CopyError, match=r"did not end within .* s"):
            for _length in target.write(*pair, [pmem.Piece(0, 0, MIB)]):
                pass
    finally:
        # What is left there is ended before the device is zeroed.
        fence.release(pair[1].path)


def test_zeros_get_time_of_their_own(memory: pmem_hosts.Memory, pair: Pair) -> None:
    """While the destination makes zeros, the data behind them waits."""
    script = '#!/bin/sh\n[ "$1" != -z ] || sleep 1.1\nexec "${0%/*}/real" "$@"\n'
    (memory.there / "daxio").rename(memory.there / "real")
    memory.program(memory.there, "daxio", script)
    zeros = [pmem.Piece(None, at * MIB, MIB) for at in range(1, 4)]
    pieces = [pmem.Piece(0, 0, MIB), *zeros, pmem.Piece(0, 4 * MIB, MIB), zeros[0]]
    for _length in remote(2).write(*pair, pieces):
        pass


def test_patience_does_not_pile_up(monkeypatch: pytest.MonkeyPatch, pair: Pair) -> None:
    given: list[float] = []

    class Link:
        def feed(self, path: str, at: int, length: int, timeout: float) -> None:
            given.append(timeout)

        def finish(self, lengths: list[int], timeout: float) -> None:
            given.append(timeout)

    target = remote()
    monkeypatch.setattr(target, "_link", lambda command: contextlib.nullcontext(Link()))
    big, small = pmem_target._UNDERWAY + 1, pmem_target._UNDERWAY
    data = [pmem.Piece(0, 0, length) for length in (big, big, small, big)]
    zeros = pmem.Piece(None, 0, big)
    for _length in target.write(*pair, [*data, zeros, data[2], zeros]):
        pass
    assert given == [each * TIMEOUT for each in (1, 1, 1, 2, 2, 4)]


def test_source_that_breaks(memory: pmem_hosts.Memory, pair: Pair) -> None:
    memory.program(memory.here, "daxio", "#!/bin/sh\necho broken >&2\nexit 5\n")
    assert "ended with 5: broken" in refused(remote(), pair, memory)


def test_source_that_is_shorter_than_believed(
    memory: pmem_hosts.Memory, pair: Pair
) -> None:
    """daxio ends with status 0 here too, and the destination waits for the rest."""
    target = remote()
    pieces = [pmem.Piece(SIZE - MIB + 1, 0, MIB)]
    with pytest.raises(pmem_host.CopyError, match=f"copied {MIB - 1} bytes"):
        for _length in target.write(*pair, pieces):
            pass


@pytest.mark.parametrize("kind", ["local", "remote"])
def test_stop(memory: pmem_hosts.Memory, pair: Pair, kind: str) -> None:
    slow = '#!/bin/sh\nsleep 0.2\nexec "${0%/*}/real" "$@"\n'
    for where in (memory.here, memory.there):
        (where / "daxio").rename(where / "real")
        memory.program(where, "daxio", slow)
    target = remote() if kind == "remote" else pmem_target.Local(TIMEOUT)
    the_copy = copied(target, pair)
    stopper = threading.Timer(0.5, the_copy.stop, ["the guest was destroyed"])
    stopper.start()
    began = time.monotonic()
    with pytest.raises(pmem_host.CopyError, match="the guest was destroyed"):
        the_copy.run()
    assert time.monotonic() - began < 5
    stopper.join()
    assert memory.left() == []
    with pytest.raises(pmem_host.CopyError, match="the guest was destroyed"):
        the_copy.run()  # nothing starts any more


def test_remote_that_was_stopped_starts_nothing(
    memory: pmem_hosts.Memory, pair: Pair
) -> None:
    target = remote()
    target.stop()
    with pytest.raises(pmem_host.CopyError, match="the copy was stopped"):
        target.probe([pair[1]])
    assert memory.calls() == []


def test_stop_does_not_wait_for_a_destination_that_hangs(
    memory: pmem_hosts.Memory, pair: Pair
) -> None:
    memory.program(memory.there, "daxio", "#!/bin/sh\nkill -STOP $$\n")
    the_copy = copied(remote(), pair)
    stopper = threading.Timer(0.5, the_copy.stop, ["the guest was destroyed"])
    stopper.start()
    began = time.monotonic()
    try:
        with pytest.raises(pmem_host.CopyError, match="the guest was destroyed"):
            the_copy.run()
    finally:
        fence.release(pair[1].path)
    assert time.monotonic() - began < TIMEOUT - 5
    stopper.join()
