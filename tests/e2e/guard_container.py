# SPDX-License-Identifier: Apache-2.0
"""Owns a guard in a container, with an account that is not root's.

It has namespaces of its own. Of its host it shares libvirt's socket and the directory
of records, besides the files of the program; it has no network.
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator

from aiolib import hosts, services
from aiolib.settings import REPO, Settings

#: nobody's and nogroup's: libvirt wants to find the account.
USER = GROUP = 65534

#: Arguments: what is hidden, "--", what is kept (its path, or that outside and inside
#: with a colon), "--", the program. What is kept may lie below what is hidden.
_SCRIPT = """
mount -t tmpfs kept /mnt
hidden=
while [ "$1" != -- ]; do hidden="$hidden $1"; shift; done
shift
kept=
while [ "$1" != -- ]; do
    number=$((number + 1)) kept="$kept ${1#*:}"
    if [ -d "${1%:*}" ]; then mkdir /mnt/$number; else : >/mnt/$number; fi
    mount --bind "${1%:*}" /mnt/$number
    shift
done
shift
for path in $hidden; do mount -t tmpfs -o mode=755 hidden "$path"; done
number=0
for path in $kept; do
    number=$((number + 1))
    mkdir -p "$(dirname "$path")"
    if [ -d /mnt/$number ]; then mkdir -p "$path"; else : >>"$path"; fi
    mount --move /mnt/$number "$path"
done
mount -t proc proc /proc
exec "$@"
"""


@contextlib.contextmanager
def running(settings: Settings, host: str) -> Iterator[None]:
    """Have it run; what was recorded before becomes its account's."""
    records = settings.guard_directory(host)
    for path in (records, *records.iterdir()):
        os.chown(path, USER, GROUP)
    socket = hosts.libvirt_socket(settings, host)
    os.chown(socket, 0, GROUP)
    socket.chmod(0o770)
    guard = services.get(settings, services.guard_name(host))
    python = pathlib.Path(sys.base_prefix).resolve()
    kept = (settings.venv, python, REPO, records, *guard.configs)
    words = [
        *("unshare", "--mount", "--pid", "--ipc", "--uts", "--net", "--fork"),
        *("sh", "-e", "-c", _SCRIPT, "sh"),
        *(str(settings.home), str(pathlib.Path.home()), "/run", "--"),
        *(*map(str, kept), f"{socket.parent}:/run/libvirt", "--"),
        *("setpriv", f"--reuid={USER}", f"--regid={GROUP}", "--clear-groups"),
        *("--bounding-set=-all", "--no-new-privs", *guard.command),
    ]
    with (settings.log / "guard-container.log").open("w") as log:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        )
    try:
        yield
        assert process.poll() is None, "it has ended"
    finally:
        # The first process of the container, with which all others of it end. It does
        # not end with its parent: that is forgotten when a program changes its account.
        parent = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
        for child in parent.read_text().split():
            os.kill(int(child), signal.SIGKILL)
        process.wait(30)
        os.chown(socket, 0, 0)
        socket.chmod(0o700)
