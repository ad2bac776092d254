# SPDX-License-Identifier: Apache-2.0
"""Owns how what is left of a copy is kept from writing, after nova-compute has died.

An ssh or a daxio outlives the nova-compute that started it. Before a device is zeroed,
nothing may write into it any more; and what a guest has open is not touched at all.
"""

import glob
import os
import pathlib
import shutil
import signal
import tempfile

import tenacity

from nova_ext.privsep import pmem as privileged
from nova_ext.virt import pmem as contract
from nova_ext.virt.libvirt.pmem import target

_PATIENCE = 10  # s; what the killed get to vanish


def end_copy(mark: str) -> None:
    """Kill every ssh of the copy ``mark`` on this host and remove its FIFOs."""
    wanted = f"{target.MARKER}={mark}".encode()
    for pid in _pids():
        try:
            variables = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            if wanted in variables:
                os.kill(pid, signal.SIGKILL)
        except OSError:
            continue  # it has ended, or belongs to somebody else
    begin = glob.escape(target.scratch(mark))
    for left in pathlib.Path(tempfile.gettempdir()).glob(f"{begin}*"):
        shutil.rmtree(left, ignore_errors=True)


def release(path: str) -> bool:
    """Kill every daxio at a device of this host and wait until it has gone.

    A shell that would run the next daxio is killed as well. What is just being started
    has no command line yet: to be sure, call it again after the device was zeroed.

    :returns: whether there was one, that may have written
    :raises: nova_ext.virt.pmem.CopyError when something stays at the device
    """
    killed = False

    def daxio_was_there() -> bool:
        """One look decides what is killed, what is refused and what is over."""
        nonlocal killed
        found = _at(path)
        for pid, line in found.items():
            if not privileged.runs_daxio(line, path):
                raise _in_use(path, pid, line)
            _kill(pid, path)
        killed = killed or bool(found)
        return bool(found)

    def refuse(state: tenacity.RetryCallState) -> None:
        for pid, line in _at(path).items():
            raise _in_use(path, pid, line)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_result(bool),
        stop=tenacity.stop_after_delay(_PATIENCE),
        wait=tenacity.wait_fixed(0.1),
        retry_error_callback=refuse,
    )
    retrying(daxio_was_there)
    return killed


def _kill(pid: int, path: str) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    except PermissionError:
        privileged.kill_daxio(pid, path)


def _in_use(path: str, pid: int, line: str) -> contract.CopyError:
    return contract.CopyError(f"{path} is in use by process {pid} ({line[:100]})")


def _at(path: str) -> dict[int, str]:
    """The command lines with the device on them by process, a guest's QEMU too."""
    found = {}
    for pid in _pids():
        line = privileged.command_line(pid)
        if (
            pid != os.getpid()
            and privileged.names_device(line, path)
            and _same_device(pid, path)
        ):
            found[pid] = line
    return found


def _same_device(pid: int, path: str) -> bool:
    """Whether a process means the same device, as far as one may look into it.

    A process in a container may see another device under the path.
    """
    try:
        here, there = os.stat(path), os.stat(f"/proc/{pid}/root{path}")
    except OSError:
        return True
    return os.path.samestat(here, there) or here.st_rdev == there.st_rdev != 0


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
