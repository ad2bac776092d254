# SPDX-License-Identifier: Apache-2.0
"""Owns a host with persistent memory for unit tests: files, programs and sysfs.

A device is a plain file, ``daxio`` copies between them with the traps of the real one
(pmdk-tools 1.12.1: a short copy ends with status 0, a missing output is created), and
``ssh`` runs its last word in a shell that sees other programs. Like the real one it
takes its connection along when it is killed.
"""

import os
import pathlib
import re
import sys
import tempfile
import time

import pytest

from nova_ext.privsep import pmem
from nova_ext.virt import pmem as pmem_host

MIB = 1 << 20

_DAXIO = r"""#!/bin/sh
in= out= skip=0 seek=0 len= zero=
while getopts i:o:k:s:l:z option; do
    case $option in
    i) in=$OPTARG ;; o) out=$OPTARG ;; k) skip=$OPTARG ;; s) seek=$OPTARG ;;
    l) len=$OPTARG ;; z) zero=1 ;; *) exit 1 ;;
    esac
done
fail() { echo "daxio: failed to open '$1'" >&2; exit 1; }
limit() {
    room=$(($(stat -c %s "$1") - $2))
    [ "$room" -ge 0 ] || { echo "daxio: offset beyond device size" >&2; exit 1; }
    [ "$room" -ge "$len" ] || len=$room
}
[ -z "$out" ] || [ ! -e "$out" ] || limit "$out" "$seek"
if [ -n "$zero" ]; then
    in=/dev/zero skip=0
elif [ -n "$in" ]; then
    [ -e "$in" ] || fail "$in"
    limit "$in" "$skip"
fi
set -- dd bs=1M iflag=fullblock,count_bytes,skip_bytes oflag=seek_bytes conv=notrunc
set -- "$@" count="$len" skip="$skip"
[ -z "$in" ] || set -- "$@" if="$in"
[ -z "$out" ] || set -- "$@" of="$out" seek="$seek"
exec 3>&1
said=$(LC_ALL=C "$@" 2>&1 >&3 3>&-)
status=$?
[ "$status" = 0 ] || { echo "daxio: $said" >&2; exit "$status"; }
count=$(echo "$said" | sed -n 's/^\([0-9]*\) bytes.*/\1/p')
echo "daxio: copied $count bytes to device \"${out:-STDOUT}\"" >&2
"""

_SSH = """#!{python} -IS
import json, os, subprocess, sys, threading
with open({log!r}, "a") as log:
    mark = os.environ.get("NOVA_EXT_COPY_PMEM")
    log.write(json.dumps([os.getpid(), mark, sys.argv[1:]]) + "\\n")
far = dict(os.environ, PATH={remote!r} + os.pathsep + os.defpath)
far.pop("NOVA_EXT_COPY_PMEM", None)
there = subprocess.Popen(["sh", "-c", sys.argv[-1]], stdin=subprocess.PIPE, env=far)
def send():
    try:
        while data := os.read(0, 1 << 16):
            there.stdin.write(data)
            there.stdin.flush()
    except OSError:
        pass
    try:
        there.stdin.close()
    except OSError:
        pass
threading.Thread(target=send, daemon=True).start()
os._exit(there.wait() % 256)
"""


class Memory:
    """The persistent memory of a host, and of another one that ssh reaches.

    :ivar here: directory of this host's programs
    :ivar there: directory of the other host's programs
    """

    def __init__(self, root: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._root = root
        self._dev, self._sys = root / "dev", root / "sys"
        self.here, self.there, self.temporary = root / "h", root / "t", root / "tmp"
        for each in (self._dev, self._sys, self.here, self.there, self.temporary):
            each.mkdir()
        self._log = root / "ssh.log"
        self.program(self.here, "daxio", _DAXIO)
        self.program(self.there, "daxio", _DAXIO)
        ssh = {"log": str(self._log), "remote": str(self.there)}
        self.program(self.here, "ssh", _SSH.format(python=sys.executable, **ssh))
        monkeypatch.setenv("PATH", f"{self.here}{os.pathsep}{os.defpath}")
        monkeypatch.setattr(tempfile, "tempdir", str(self.temporary))
        monkeypatch.setattr(pmem, "_SYSFS", self._sys)
        # Two gaps that a name may have are looked into with the real pattern.
        pattern = re.escape(str(self._dev)) + r"/(dax[0-9]+\.[0-9]+)"
        monkeypatch.setattr(pmem, "_DEVICE", re.compile(pattern))

    def program(self, where: pathlib.Path, name: str, script: str) -> pathlib.Path:
        """Put a program where it is found by name; ``script`` begins with ``#!``."""
        path = where / name
        path.unlink(missing_ok=True)
        path.write_text(script)
        path.chmod(0o755)
        return path

    def device(
        self, node: str, content: bytes, label: str = "L", align: int = 2 * MIB
    ) -> pmem_host.Device:
        """A device with a content, as the kernel lists it."""
        path = self._dev / node
        path.write_bytes(content)
        entry = self._sys / node
        entry.mkdir()
        self.kernel_says(node, "dev", "0:0")  # as the number of a plain file
        self.kernel_says(node, "size", str(len(content)))
        self.kernel_says(node, "align", str(align))
        return pmem_host.Device(f"ns-{node}", label, str(path), len(content), align)

    def kernel_says(self, node: str, attribute: str, value: str) -> None:
        """Let the kernel say something about a device."""
        (self._sys / node / attribute).write_text(value + "\n")

    def calls(self) -> list[str]:
        """What ssh was told: its process, its mark and its words, as JSON."""
        return self._log.read_text().splitlines() if self._log.exists() else []

    def left(self) -> list[str]:
        """The processes and files that are still there after a while."""
        end = time.monotonic() + 10
        while (left := self._left()) and time.monotonic() < end:
            time.sleep(0.02)
        return left

    def _left(self) -> list[str]:
        found = os.listdir(self.temporary)
        for pid in (entry for entry in os.listdir("/proc") if entry.isdigit()):
            try:
                environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes()
            except OSError:
                continue
            if str(self._root).encode() in environment:
                found.append(f"{pid} {pmem.command_line(int(pid))}")
        return found


def content(device: pmem_host.Device) -> bytes:
    """What a device has in it."""
    return pathlib.Path(device.path).read_bytes()
