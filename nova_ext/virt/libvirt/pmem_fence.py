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
from nova_ext.virt import pmem_host
from nova_ext.virt.libvirt import pmem_target

_PATIENCE = 10  # s; what the killed get to vanish


def end_copy(mark: str) -> None:
    """Kill every ssh of the copy ``mark`` on this host and remove its FIFOs."""
    wanted = f"{pmem_target.MARKER}={mark}".encode()
    for pid in _pids():
        try:
            variables = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            if wanted in variables:
                os.kill(pid, signal.SIGKILL)
        except OSError:
            continue  # it has ended, or belongs to somebody else
    begin = glob.escape(pmem_target.scratch(mark))
    for left in pathlib.Path(tempfile.gettempdir()).glob(f"{begin}*"):
        shutil.rmtree(left, ignore_errors=True)


def release(path: str) -> bool:
    """Kill every daxio at a device of this host and wait until it has gone.

    A shell that would run the next daxio is killed as well. What is just being started
    has no command line yet: to be sure, call it again after the device was zeroed.

    :returns: whether there was one, that may have written
    :raises: nova_ext.virt.pmem_host.CopyError when something stays at the device
    """
    killed = False

    def kill() -> bool:
        nonlocal killed
        found = _kill_at(path)
        killed = killed or found
        return found

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_result(bool),
        stop=tenacity.stop_after_delay(_PATIENCE),
        wait=tenacity.wait_fixed(0.1),
        retry_error_callback=lambda state: None,
    )
    retrying(kill)
    if left := _at(path):
        words = privileged.command_line(left[0])[:100]
        raise pmem_host.CopyError(f"{path} is in use by process {left[0]} ({words})")
    return killed


def _kill_at(path: str) -> bool:
    """Kill each daxio at the device; whether there was one."""
    found = [pid for pid in _at(path) if privileged.names_daxio(pid, path)]
    for pid in found:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        except PermissionError:
            privileged.kill_daxio(pid, path)
    return bool(found)


def _at(path: str) -> list[int]:
    """The processes with the device on their command line, a guest's QEMU too."""
    return [
        pid
        for pid in _pids()
        if pid != os.getpid()
        and privileged.names_device(privileged.command_line(pid), path)
        and _same_device(pid, path)
    ]


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
