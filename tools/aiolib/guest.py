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

"""The guest image and whether KVM boots it; the recipe is in tools/guest."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from aiolib import command, packages
from aiolib.progress import say
from aiolib.settings import TOOLS, Failure, Settings

_BUILD = TOOLS / "guest" / "build.py"
_KVM_SECONDS = 15.0  # a working KVM needs two or three


def image(s: Settings) -> pathlib.Path:
    return s.images / "guest.qcow2"


def fingerprint(s: Settings) -> str:
    return (s.images / "guest.built-from").read_text()


def build(s: Settings) -> None:
    """Build the image unless it is there, from the recipe as it is now."""
    sys.path.insert(0, str(_BUILD.parent))
    try:
        import build as recipe
    finally:
        sys.path.pop(0)
    wanted = recipe.fingerprint()
    stamp = s.images / "guest.built-from"
    if image(s).exists() and stamp.exists() and stamp.read_text() == wanted:
        return
    say("building the guest image")
    words = [sys.executable, str(_BUILD), str(s.images / "work"), str(image(s))]
    log = s.log / "guest-build.log"
    try:
        command.run(words, timeout=600, log=log)
    except Failure:  # apt may know no packages, or ones that are gone
        packages.update_lists(s)
        command.run(words, timeout=600, log=log)
    stamp.write_text(wanted)


def virt_type(s: Settings) -> str:
    """`kvm` if the guest really comes up with it within a bound, `qemu` if not."""
    answer = s.first.home / "virt-type"
    if not answer.exists():
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            answer.write_text("qemu")
        else:
            say("trying whether KVM boots the guest")
            answer.write_text("kvm" if _kvm_boots(image(s)) else "qemu")
        say(f"guests run with virt_type {answer.read_text()}")
    return answer.read_text()


def _kvm_boots(path: pathlib.Path) -> bool:
    with tempfile.TemporaryDirectory() as directory:
        console = pathlib.Path(directory) / "console"
        guest = subprocess.Popen(
            [
                *("qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-m", "128"),
                *("-display", "none", "-no-reboot", "-nic", "none"),
                *("-drive", f"file={path},if=virtio,snapshot=on"),
                *("-serial", f"file:{console}"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _KVM_SECONDS
        try:
            while guest.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(FileNotFoundError):
                    if b"AIO-GUEST-UP" in console.read_bytes():
                        return True
                time.sleep(0.1)
            return False
        finally:
            guest.kill()
            guest.wait()
