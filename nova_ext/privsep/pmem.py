# SPDX-License-Identifier: Apache-2.0
"""Owns everything about persistent memory that runs as root; one short call at a time.

A call writes at most one piece of a device or reads at most one batch, so that it ends
within its timeout and no other work of nova-compute's privileged daemon waits long.
What touches a device is a program of its own: a bad block kills it, not the daemon.
Paths come from outside: each call checks that it touches nothing but a device that the
kernel lists as device-dax.

daxio opens both ends read-write, ends with status 0 after a short copy and creates a
missing output path as a plain file (pmdk 1.12.1): the number of bytes that it reports
is checked, and the device before it.
"""

import contextlib
import errno
import json
import os
import pathlib
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Sequence
from typing import IO, Any

import nova.privsep

_DEVICE = re.compile(r"/dev/(dax[0-9]+\.[0-9]+)")
_COPIED = re.compile(r"copied ([0-9]+) bytes")
_SYSFS = pathlib.Path("/sys/bus/dax/devices")

_READER = str(pathlib.Path(__file__).with_name("pmem_read.py"))

#: A run of zeros shorter than this, in bytes, is not worth a command of its own.
SHORTEST_ZEROS = 8 << 20


class DeviceError(Exception):
    """A path is not a device-dax, or cannot be read; the text says which and why."""


class DaxioError(Exception):
    """daxio failed, was too slow or copied less than it was told to."""


def check(path: str) -> tuple[int, int]:
    """Make sure that ``path`` is a device-dax of this host; needs no rights.

    :returns: its size and its alignment in bytes, as the kernel tells them
    :raises: DeviceError
    """
    match = _DEVICE.fullmatch(path)
    if match is None:
        raise DeviceError(f"{path} is not the path of a device-dax")
    entry = _SYSFS / match[1]
    try:
        number = os.stat(path, follow_symlinks=False).st_rdev
        listed = (entry / "dev").read_text().strip()
        if listed != f"{os.major(number)}:{os.minor(number)}":
            raise DeviceError(f"{path} is not the device {listed} that the kernel has")
        size = int((entry / "size").read_text())
        return size, int((entry / "align").read_text(), 0)
    except (OSError, ValueError) as exc:
        raise DeviceError(f"{path} is not usable: {exc}") from exc


def copied(stderr: str) -> list[int]:
    """The numbers of bytes that daxio commands report on their standard error."""
    return [int(number) for number in _COPIED.findall(stderr)]


@nova.privsep.sys_admin_pctxt.entrypoint
def feed(source: str, offset: int, length: int, fifo: str, timeout: float) -> None:
    """Write ``length`` bytes of a device from ``offset`` into a FIFO with a reader.

    :param timeout: seconds until the reader has to have taken all
    :raises: DeviceError, DaxioError
    """
    check(source)
    try:
        # Without a reader, an open that does not block fails at once.
        end = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as exc:
        raise DaxioError(f"nobody takes the data of {source}: {exc}") from exc
    with os.fdopen(end, "wb") as out:
        if not stat.S_ISFIFO(os.fstat(end).st_mode):
            raise DeviceError(f"{fifo} is not a FIFO")
        os.set_blocking(end, True)
        _daxio(["-i", source, "-k", offset, "-l", length], length, timeout, out)


@nova.privsep.sys_admin_pctxt.entrypoint
def copy(
    source: str, offset: int, target: str, seek: int, length: int, timeout: float
) -> None:
    """Copy ``length`` bytes between two devices of this host.

    :param offset: where to begin in ``source``
    :param seek: where to begin in ``target``
    :param timeout: seconds
    :raises: DeviceError, DaxioError
    """
    check(source)
    check(target)
    ends: list[str | int] = ["-i", source, "-k", offset, "-o", target, "-s", seek]
    _daxio([*ends, "-l", length], length, timeout)


@nova.privsep.sys_admin_pctxt.entrypoint
def zero(target: str, seek: int, length: int, timeout: float) -> None:
    """Zero ``length`` bytes of a device.

    :param seek: where to begin
    :param timeout: seconds
    :raises: DeviceError, DaxioError
    """
    check(target)
    _daxio(["-z", "-o", target, "-s", seek, "-l", length], length, timeout)


@nova.privsep.sys_admin_pctxt.entrypoint
def scan(
    source: str, offset: int, length: int, timeout: float
) -> list[tuple[int, int]]:
    """Where a range of a device has data.

    :param timeout: seconds
    :returns: offset and length of each run of data, in order; zeros between two of them
        that are shorter than :data:`SHORTEST_ZEROS` count as data
    :raises: DeviceError
    """
    zeros = f"--zeros={SHORTEST_ZEROS}"
    runs = _read("scan", source, offset, length, timeout, zeros)
    return [(at, count) for at, count in runs]


@nova.privsep.sys_admin_pctxt.entrypoint
def digest(path: str, offset: int, length: int, timeout: float) -> str:
    """The BLAKE2b digest of a range of a device, as 64 hexadecimal digits.

    :param timeout: seconds
    :raises: DeviceError
    """
    return str(_read("digest", path, offset, length, timeout))


@nova.privsep.sys_admin_pctxt.entrypoint
def kill_daxio(pid: int, device: str) -> None:
    """Kill process ``pid`` if it is, or waits for, a daxio at ``device``."""
    if runs_daxio(command_line(pid), device):
        # nova's context has no CAP_KILL: that of a third user stays, and is seen.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def runs_daxio(line: str, device: str) -> bool:
    """Whether a command line runs daxio at ``device``.

    Between two commands of a chain that is true of the shell alone.
    """
    return "daxio" in line and names_device(line, device)


def names_device(line: str, device: str) -> bool:
    """Whether a command line has ``device`` in it, and not just a longer name.

    An ssh means a device of another host, which may well have the same name.
    """
    if os.path.basename(line.partition(" ")[0]) == "ssh":
        return False
    return re.search(re.escape(device) + r"(?![0-9])", line) is not None


def command_line(pid: int) -> str:
    """The words of the command line of a process; empty once it has ended."""
    try:
        line = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    return line.replace(b"\0", b" ").decode(errors="replace")


def _read(
    what: str, path: str, offset: int, length: int, timeout: float, *options: str
) -> Any:
    """What the program that reads devices says of a range."""
    size, _align = check(path)
    if offset < 0 or offset + length > size:
        raise DeviceError(f"{path} ends at {size}, before {offset + length}")
    numbers = [str(number) for number in (size, offset, length)]
    try:
        done = subprocess.run(
            [sys.executable, "-IS", _READER, *options, what, path, *numbers],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise DeviceError(f"{path} could not be read within {timeout} s") from exc
    except OSError as exc:
        raise DeviceError(f"{path} cannot be read: {exc}") from exc
    if done.returncode == -signal.SIGBUS:
        raise DeviceError(f"{path} cannot be read, it seems to have a bad block")
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()[-300:]
        raise DeviceError(f"{path} cannot be read: {done.returncode} {said}")
    return json.loads(done.stdout)


def _daxio(
    words: Sequence[str | int],
    length: int,
    timeout: float,
    stdout: IO[bytes] | int = subprocess.DEVNULL,
) -> None:
    argv = ["daxio", *map(str, words)]
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise DaxioError(f"{' '.join(argv)} took more than {timeout} s") from exc
    except OSError as exc:
        reason = "install pmdk-tools" if exc.errno == errno.ENOENT else str(exc)
        raise DaxioError(f"daxio cannot be run: {reason}") from exc
    if done.returncode == -signal.SIGBUS:
        raise DaxioError(f"a device seems to have a bad block: {' '.join(argv)}")
    said = done.stderr.decode(errors="replace").strip()
    if done.returncode != 0 or copied(said) != [length]:
        raise DaxioError(
            f"{' '.join(argv)} ended with {done.returncode}: {said[-300:]}"
        )
