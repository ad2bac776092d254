# SPDX-License-Identifier: Apache-2.0
"""The guest image and whether KVM boots it; the recipe is in tools/guest."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tempfile

from aiolib import command, packages, waiting
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

        def is_up() -> bool:
            return console.exists() and b"AIO-GUEST-UP" in console.read_bytes()

        try:
            waiting.until(
                "the guest", lambda: is_up() or guest.poll() is not None, _KVM_SECONDS
            )
            return is_up()
        except TimeoutError:
            return False
        finally:
            guest.kill()
            guest.wait()
