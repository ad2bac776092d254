# SPDX-License-Identifier: Apache-2.0
"""What root does to persistent memory, and what it refuses."""

import hashlib
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from nova_ext.privsep import pmem
from tests.unit import pmem_hosts
from tests.unit.pmem_hosts import MIB, content

SIZE = 24 * MIB + 5
TIMEOUT = 20

HANG = "#!/bin/sh\nexec sleep 60\n"
SHORT = '#!/bin/sh\necho "daxio: copied 4095 bytes to device" >&2\n'
SILENT = "#!/bin/sh\n"
TWICE = '#!/bin/sh\necho "copied 4096 bytes"; echo "copied 4096 bytes" >&2\n' * 2
FAILING = '#!/bin/sh\necho "copied 4096 bytes, but no more" >&2\nexit 1\n'


DATA = random.Random(1).randbytes(SIZE)  # noqa: S311 - no secret


class Reader:
    """Takes all that comes out of a FIFO."""

    def __init__(self, fifo: pathlib.Path) -> None:
        os.mkfifo(fifo)
        self._fifo, self.got = fifo, b""
        self._end = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(self._end, True)
        self._thread = threading.Thread(target=self._read)

    def _read(self) -> None:
        with os.fdopen(self._end, "rb") as file:
            self.got = file.read()

    def __enter__(self) -> "Reader":
        # Until it is left, the FIFO does not end.
        self._writer = os.open(self._fifo, os.O_WRONLY)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._writer)
        self._thread.join()


# Which paths are devices


@pytest.mark.parametrize(
    "path",
    [
        "/dev/dax0.0/../sda",
        "/dev/../dev/dax0.0",
        "/dev/dax0.0\n",
        "/dev/dax0",
        "/dev/dax0.0p1",
        "/dev/daxa.0",
        "/dev/dax\u0660.\u0660",  # digits, but of another script
        "dax0.0",
        "/tmp/dax0.0",
        "-o",
        "",
    ],
)
def test_other_paths_are_refused_by_name(path: str) -> None:
    with pytest.raises(pmem.DeviceError, match="is not the path of a device-dax"):
        pmem.check(path)


def test_check_tells_size_and_alignment(memory: pmem_hosts.Memory) -> None:
    device = memory.device("dax1.0", bytes(SIZE))
    assert pmem.check(device.path) == (SIZE, 2 * MIB)
    memory.kernel_says("dax1.0", "align", "0x40000000")  # some kernels say it so
    assert pmem.check(device.path) == (SIZE, 1 << 30)


def test_plain_file_in_place_of_a_device(memory: pmem_hosts.Memory) -> None:
    """That is what daxio leaves when it writes to a device that is not there."""
    device = memory.device("dax1.0", bytes(SIZE))
    memory.kernel_says("dax1.0", "dev", "252:5")
    with pytest.raises(pmem.DeviceError, match="is not the device 252:5"):
        pmem.check(device.path)


def test_symlink_in_place_of_a_device(
    memory: pmem_hosts.Memory, tmp_path: pathlib.Path
) -> None:
    device = memory.device("dax1.0", bytes(SIZE))
    node = pathlib.Path(device.path)
    node.unlink()
    node.symlink_to("/dev/null")
    memory.kernel_says("dax1.0", "dev", "1:3")
    with pytest.raises(pmem.DeviceError, match="is not the device 1:3"):
        pmem.check(device.path)


@pytest.mark.parametrize("attribute", ["dev", "size", "align"])
def test_device_that_the_kernel_does_not_list(
    memory: pmem_hosts.Memory, tmp_path: pathlib.Path, attribute: str
) -> None:
    device = memory.device("dax1.0", bytes(SIZE))
    (tmp_path / "sys" / "dax1.0" / attribute).unlink()
    with pytest.raises(pmem.DeviceError, match="is not usable"):
        pmem.check(device.path)


def test_node_that_is_missing(memory: pmem_hosts.Memory) -> None:
    device = memory.device("dax1.0", bytes(SIZE))
    os.unlink(device.path)
    with pytest.raises(pmem.DeviceError, match="is not usable"):
        pmem.check(device.path)


def test_nothing_is_done_to_what_is_no_device(
    memory: pmem_hosts.Memory, tmp_path: pathlib.Path
) -> None:
    good = memory.device("dax1.0", DATA).path
    bad = str(tmp_path / "dev" / "dax1.1")
    with Reader(tmp_path / "fifo") as reader:
        for refused in (
            lambda: pmem.feed(bad, 0, 1, str(tmp_path / "fifo"), TIMEOUT),
            lambda: pmem.copy(bad, 0, good, 0, 1, TIMEOUT),
            lambda: pmem.copy(good, 0, bad, 0, 1, TIMEOUT),
            lambda: pmem.zero(bad, 0, 1, TIMEOUT),
            lambda: pmem.scan(bad, 0, 1, TIMEOUT),
            lambda: pmem.digest(bad, 0, 1, TIMEOUT),
        ):
            with pytest.raises(pmem.DeviceError):
                refused()
    assert reader.got == b""
    assert not os.path.exists(bad)  # daxio would have made it
    assert pathlib.Path(good).read_bytes() == DATA


# Copy and zero


def test_copy(memory: pmem_hosts.Memory) -> None:
    source = memory.device("dax1.0", DATA)
    target = memory.device("dax1.1", b"t" * SIZE)
    pmem.copy(source.path, 3, target.path, 7, 4096, TIMEOUT)
    assert content(target) == b"t" * 7 + DATA[3:4099] + b"t" * (SIZE - 4103)
    assert content(source) == DATA


def test_zero(memory: pmem_hosts.Memory) -> None:
    target = memory.device("dax1.0", b"t" * SIZE)
    pmem.zero(target.path, 5, 4096, TIMEOUT)
    assert content(target) == b"t" * 5 + bytes(4096) + b"t" * (SIZE - 4101)


def test_copy_beyond_the_end_of_the_target_is_no_success(
    memory: pmem_hosts.Memory,
) -> None:
    source = memory.device("dax1.0", DATA)
    target = memory.device("dax1.1", bytes(4096))
    with pytest.raises(pmem.DaxioError, match=r"ended with 0: .*copied 4095 bytes"):
        pmem.copy(source.path, 0, target.path, 1, 4096, TIMEOUT)


def test_zero_beyond_the_end_is_no_success(memory: pmem_hosts.Memory) -> None:
    target = memory.device("dax1.0", DATA[:4096])
    with pytest.raises(pmem.DaxioError):
        pmem.zero(target.path, 1, 4096, TIMEOUT)


@pytest.mark.parametrize("script", [SHORT, SILENT, TWICE, FAILING])
def test_success_is_status_0_and_all_bytes_once(
    memory: pmem_hosts.Memory, script: str
) -> None:
    target = memory.device("dax1.0", DATA)
    memory.program(memory.here, "daxio", script)
    with pytest.raises(pmem.DaxioError, match=r"daxio -z -o .* ended with"):
        pmem.zero(target.path, 0, 4096, TIMEOUT)


def test_the_end_of_what_daxio_says_is_the_reason(memory: pmem_hosts.Memory) -> None:
    target = memory.device("dax1.0", DATA)
    script = "#!/bin/sh\nseq 1000 >&2\necho the last word >&2\nexit 1\n"
    memory.program(memory.here, "daxio", script)
    with pytest.raises(pmem.DaxioError) as caught:
        pmem.zero(target.path, 0, 4096, TIMEOUT)
    assert str(caught.value).endswith("the last word")
    assert len(str(caught.value)) < 500


def test_daxio_that_is_missing(memory: pmem_hosts.Memory) -> None:
    target = memory.device("dax1.0", DATA)
    (memory.here / "daxio").unlink()
    with pytest.raises(pmem.DaxioError, match="install pmdk-tools"):
        pmem.zero(target.path, 0, 4096, TIMEOUT)


def test_daxio_that_cannot_be_run(memory: pmem_hosts.Memory) -> None:
    target = memory.device("dax1.0", DATA)
    memory.program(memory.here, "daxio", "no program").write_bytes(b"\x7fELF")
    with pytest.raises(pmem.DaxioError, match=r"cannot be run: .*format"):
        pmem.zero(target.path, 0, 4096, TIMEOUT)


def test_daxio_that_meets_a_bad_block(memory: pmem_hosts.Memory) -> None:
    target = memory.device("dax1.0", DATA)
    memory.program(memory.here, "daxio", "#!/bin/sh\nkill -BUS $$\n")
    with pytest.raises(pmem.DaxioError, match=r"bad block: daxio -z -o .*dax1\.0"):
        pmem.zero(target.path, 0, 4096, TIMEOUT)


def test_daxio_that_hangs_is_killed(memory: pmem_hosts.Memory) -> None:
    target = memory.device("dax1.0", DATA)
    memory.program(memory.here, "daxio", HANG)
    began = time.monotonic()
    with pytest.raises(pmem.DaxioError, match=r"took more than 0.2 s"):
        pmem.zero(target.path, 0, 4096, 0.2)
    assert time.monotonic() - began < 10
    assert memory.left() == []


# Feed


def test_feed(memory: pmem_hosts.Memory, tmp_path: pathlib.Path) -> None:
    source = memory.device("dax1.0", DATA)
    with Reader(tmp_path / "fifo") as reader:
        # More than a FIFO holds, and two pieces one after the other.
        pmem.feed(source.path, 3, MIB, str(tmp_path / "fifo"), TIMEOUT)
        pmem.feed(source.path, 0, 5, str(tmp_path / "fifo"), TIMEOUT)
    assert reader.got == DATA[3 : 3 + MIB] + DATA[:5]


def test_feed_without_a_reader_does_not_wait(
    memory: pmem_hosts.Memory, tmp_path: pathlib.Path
) -> None:
    source = memory.device("dax1.0", DATA)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(pmem.DaxioError, match="nobody takes the data"):
        pmem.feed(source.path, 0, 4096, str(tmp_path / "fifo"), TIMEOUT)


def test_feed_whose_reader_goes_fails_soon(
    memory: pmem_hosts.Memory, tmp_path: pathlib.Path
) -> None:
    source = memory.device("dax1.0", DATA)
    os.mkfifo(tmp_path / "fifo")
    end = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    failures: list[Exception] = []

    def feed() -> None:
        try:
            pmem.feed(source.path, 0, SIZE, str(tmp_path / "fifo"), TIMEOUT)
        except pmem.DaxioError as exc:
            failures.append(exc)

    thread = threading.Thread(target=feed)
    thread.start()
    while True:
        try:
            if os.read(end, 10):
                break
        except BlockingIOError:
            time.sleep(0.01)
    os.close(end)
    thread.join(10)
    assert len(failures) == 1
    assert "took more" not in str(failures[0])


def test_feed_whose_reader_takes_nothing_is_bounded(
    memory: pmem_hosts.Memory, tmp_path: pathlib.Path
) -> None:
    source = memory.device("dax1.0", DATA)
    os.mkfifo(tmp_path / "fifo")
    end = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(pmem.DaxioError, match=r"took more than 0.3 s"):
            pmem.feed(source.path, 0, SIZE, str(tmp_path / "fifo"), 0.3)
    finally:
        os.close(end)


def test_feed_beyond_the_end(memory: pmem_hosts.Memory, tmp_path: pathlib.Path) -> None:
    source = memory.device("dax1.0", DATA)
    with (
        Reader(tmp_path / "fifo"),
        pytest.raises(pmem.DaxioError, match="copied 4095 bytes"),
    ):
        pmem.feed(source.path, SIZE - 4095, 4096, str(tmp_path / "fifo"), TIMEOUT)


def test_feed_writes_into_nothing_but_a_fifo(
    memory: pmem_hosts.Memory, tmp_path: pathlib.Path
) -> None:
    source = memory.device("dax1.0", DATA)
    file = tmp_path / "file"
    file.write_text("kept")
    with pytest.raises(pmem.DeviceError, match="is not a FIFO"):
        pmem.feed(source.path, 0, 4096, str(file), TIMEOUT)
    assert file.read_text() == "kept"


def test_feed_follows_no_link(
    memory: pmem_hosts.Memory, tmp_path: pathlib.Path
) -> None:
    source = memory.device("dax1.0", DATA)
    (tmp_path / "link").symlink_to(tmp_path / "fifo")
    with Reader(tmp_path / "fifo") as reader, pytest.raises(pmem.DaxioError):
        pmem.feed(source.path, 0, 4096, str(tmp_path / "link"), TIMEOUT)
    assert reader.got == b""


# Scan and digest

BLOCK = MIB
GAP = pmem.SHORTEST_ZEROS


@pytest.mark.parametrize(
    ("layout", "runs"),
    [
        ([(SIZE, 0)], []),
        ([(SIZE, 1)], [(0, SIZE)]),
        ([(GAP, 0), (SIZE - GAP, 1)], [(GAP, SIZE - GAP)]),
        ([(BLOCK, 1), (SIZE - BLOCK, 0)], [(0, BLOCK)]),
        ([(SIZE - 5, 0), (5, 1)], [(SIZE - 5, 5)]),
        ([(1, 1), (SIZE - 1, 0)], [(0, BLOCK)]),
        ([(3 * BLOCK, 1), (GAP, 0), (SIZE - GAP - 3 * BLOCK, 1)], "gap"),
        ([(3 * BLOCK, 1), (GAP - 1, 0), (SIZE - GAP - 3 * BLOCK + 1, 1)], "one"),
        ([(3 * BLOCK, 1), (GAP - BLOCK, 0), (BLOCK, 1), (GAP - 5, 0), (5, 1)], "end"),
    ],
    ids=["zeros", "data", "front", "back", "tail", "byte", "gap", "short", "twice"],
)
def test_scan(
    memory: pmem_hosts.Memory,
    layout: list[tuple[int, int]],
    runs: list[tuple[int, int]] | str,
) -> None:
    filled = b"".join(bytes([byte]) * length for length, byte in layout)
    source = memory.device("dax1.0", filled)
    expected = {
        "gap": [(0, 3 * BLOCK), (3 * BLOCK + GAP, SIZE - GAP - 3 * BLOCK)],
        "one": [(0, SIZE)],
        # A gap that is one block too short, one that is five bytes too short.
        "end": [(0, len(filled))],
    }
    found = pmem.scan(source.path, 0, len(filled), TIMEOUT)
    assert found == (expected[runs] if isinstance(runs, str) else runs)


def test_scan_of_a_part(memory: pmem_hosts.Memory) -> None:
    begin, end = 2 * MIB, 13 * MIB
    filled = b"x" * begin + bytes(GAP) + b"x" + bytes(end - begin - GAP - 1) + b"x"
    source = memory.device("dax1.0", filled)
    # What lies before and behind is not looked at.
    assert pmem.scan(source.path, begin, end - begin, TIMEOUT) == [(begin + GAP, MIB)]
    assert pmem.scan(source.path, begin, GAP, TIMEOUT) == []


def test_scan_tells_all_data(memory: pmem_hosts.Memory) -> None:
    """Whatever the place of a byte is, it lies in a run, and runs do not overlap."""
    size = 3 * GAP + 12345
    for places in ([0], [size - 1], [GAP - 1, GAP], [5, 2 * GAP + 5], [MIB, 2 * GAP]):
        filled = bytearray(size)
        for place in places:
            filled[place] = 1
        path = memory.device(f"dax2.{sum(places)}", bytes(filled)).path
        found = pmem.scan(path, 0, size, TIMEOUT)
        at = 0
        for offset, length in found:
            assert offset >= at
            assert not any(filled[at:offset])
            assert length > 0
            at = offset + length
        assert at <= size
        assert not any(filled[at:])


def test_digest(memory: pmem_hosts.Memory) -> None:
    source = memory.device("dax1.0", DATA)
    expected = hashlib.blake2b(DATA[7 : 3 * MIB], digest_size=32).hexdigest()
    assert pmem.digest(source.path, 7, 3 * MIB - 7, TIMEOUT) == expected
    assert re.fullmatch("[0-9a-f]{64}", expected)


@pytest.mark.parametrize(("offset", "length"), [(-1, 5), (0, SIZE + 1), (SIZE, 1)])
def test_nothing_is_read_beyond_the_ends(
    memory: pmem_hosts.Memory, offset: int, length: int
) -> None:
    source = memory.device("dax1.0", DATA)
    with pytest.raises(pmem.DeviceError, match=f"ends at {SIZE}"):
        pmem.digest(source.path, offset, length, TIMEOUT)
    with pytest.raises(pmem.DeviceError, match=f"ends at {SIZE}"):
        pmem.scan(source.path, offset, length, TIMEOUT)


def test_device_that_cannot_be_read(memory: pmem_hosts.Memory) -> None:
    source = memory.device("dax1.0", DATA)
    os.unlink(source.path)
    os.mkdir(source.path)
    with pytest.raises(pmem.DeviceError, match="cannot be read"):
        pmem.digest(source.path, 0, 1, TIMEOUT)


def test_device_that_is_smaller_than_the_kernel_says(
    memory: pmem_hosts.Memory,
) -> None:
    source = memory.device("dax1.0", DATA)
    memory.kernel_says("dax1.0", "size", str(SIZE + 4096))
    with pytest.raises(pmem.DeviceError, match="cannot be read"):
        pmem.scan(source.path, 0, SIZE, TIMEOUT)


BAD_BLOCK = """#!{python} -IS
import mmap, os, runpy, sys
real = mmap.mmap
def broken(*args):
    view = real(*args)
    os.truncate({path!r}, {size})
    return view
mmap.mmap = broken
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_device_with_a_bad_block_kills_its_reader_alone(
    memory: pmem_hosts.Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the end of its file, a mapping is as broken as at a bad block."""
    script = {"python": sys.executable, "size": 4 * MIB}
    for number, read in enumerate((pmem.scan, pmem.digest)):
        path = memory.device(f"dax1.{number}", DATA).path
        program = BAD_BLOCK.format(**script, path=path)
        reader = memory.program(memory.here, "python", program)
        monkeypatch.setattr(sys, "executable", str(reader))
        with pytest.raises(pmem.DeviceError, match="seems to have a bad block"):
            read(path, 0, SIZE, TIMEOUT)
        # In front of it, the device can be read.
        os.truncate(path, SIZE)
        read(path, 0, 4 * MIB, TIMEOUT)


def test_reader_that_is_killed(
    memory: pmem_hosts.Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = memory.device("dax1.0", DATA)
    killed = memory.program(memory.here, "python", "#!/bin/sh\nkill -KILL $$\n")
    monkeypatch.setattr(sys, "executable", str(killed))
    with pytest.raises(pmem.DeviceError, match=r"dax1.0 cannot be read: -9"):
        pmem.digest(source.path, 0, SIZE, TIMEOUT)


def test_reader_that_hangs_is_killed(
    memory: pmem_hosts.Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = memory.device("dax1.0", DATA)
    slow = memory.program(memory.here, "python", HANG)
    monkeypatch.setattr(sys, "executable", str(slow))
    with pytest.raises(pmem.DeviceError, match=r"not be read within 0.2 s"):
        pmem.scan(source.path, 0, SIZE, 0.2)
    assert memory.left() == []


def test_reader_that_cannot_be_run(
    memory: pmem_hosts.Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = memory.device("dax1.0", DATA)
    monkeypatch.setattr(sys, "executable", str(memory.here / "nopython"))
    with pytest.raises(pmem.DeviceError, match=r"cannot be read: .*nopython"):
        pmem.scan(source.path, 0, SIZE, TIMEOUT)


# Processes


@pytest.fixture
def sleeper(memory: pmem_hosts.Memory) -> Iterator[subprocess.Popen[bytes]]:
    """A daxio at a device that does not end."""
    device = memory.device("dax0.1", DATA[:4096])
    memory.program(memory.here, "daxio", "#!/bin/sh\nsleep 60 &\necho $!\nwait\n")
    argv = [str(memory.here / "daxio"), "-o", device.path]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        yield process
        process.kill()
        os.kill(child, signal.SIGKILL)


def test_kill_spares_others(
    sleeper: subprocess.Popen[bytes], tmp_path: pathlib.Path
) -> None:
    device = tmp_path / "dev" / "dax0.1"
    for other in (f"{device}0", f"{tmp_path}/dev/dax0.0"):
        pmem.kill_daxio(sleeper.pid, other)
    with subprocess.Popen(["tail", "-f", str(device)]) as other_program:
        pmem.kill_daxio(other_program.pid, str(device))
        with pytest.raises(subprocess.TimeoutExpired):
            other_program.wait(0.2)
        other_program.kill()
    with pytest.raises(subprocess.TimeoutExpired):
        sleeper.wait(0.2)


def test_kill_daxio_kills_the_shell_that_runs_it(
    sleeper: subprocess.Popen[bytes], tmp_path: pathlib.Path
) -> None:
    """Else the shell would run the next command of its chain."""
    pmem.kill_daxio(sleeper.pid, f"{tmp_path}/dev/dax0.1")
    assert sleeper.wait(10) == -signal.SIGKILL


def test_kill_of_a_process_that_has_ended(memory: pmem_hosts.Memory) -> None:
    with subprocess.Popen(["true", "daxio", "/dev/dax0.1"]) as process:
        process.wait()
    pmem.kill_daxio(process.pid, "/dev/dax0.1")


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("daxio -z -o /dev/dax0.1 -s 0", True),
        ("qemu -object {mem-path:/dev/dax0.1,size:5}", True),
        ("daxio -o /dev/dax0.1", True),
        ("daxio -o /dev/dax0.10 -s 0", False),
        ("daxio -o /dev/dax0x1", False),
        ("daxio -o /dev/dax1.0 -s 0", False),
        ("sh -c daxio -o /dev/dax0.1 -s 0 && daxio -o /dev/dax0.1 -s 1", True),
        ("sshd: daxio -o /dev/dax0.1", True),
        ("/usr/bin/ssh -T other daxio -o /dev/dax0.1 -s 0", False),
        ("ssh other daxio -o /dev/dax0.1 -s 0", False),
    ],
)
def test_names_device(line: str, named: bool) -> None:
    assert pmem.names_device(line, "/dev/dax0.1") == named
