# SPDX-License-Identifier: Apache-2.0
"""Debian packages that the cloud needs; installs what is missing, starts nothing."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterator, Sequence

from aiolib import command, records
from aiolib.progress import say
from aiolib.settings import Failure, Settings

PACKAGES = (
    # services
    "mariadb-server",
    "rabbitmq-server",
    "libvirt-daemon",
    "libvirt-daemon-driver-qemu",
    "libvirt-clients",
    "qemu-system-x86",
    "qemu-utils",
    "qemu-block-extra",
    "seabios",
    "iproute2",
    "ceph-mon",
    "ceph-osd",
    "ceph-common",
    "python3-rados",
    "python3-rbd",
    "openssh-client",
    "openssh-server",
    # pbr asks it for the version of this project
    "git",
    # libvirt-python is built against Debian's libvirt
    "gcc",
    "libc6-dev",
    "libvirt-dev",
    "pkg-config",
    "python3-dev",
    "python3-venv",
    # guest image
    "cpio",
    "dosfstools",
    "e2fsprogs",
    "fdisk",
    "kmod",
    "mtools",
    "syslinux",
    "syslinux-common",
)
_POLICY = pathlib.Path("/usr/sbin/policy-rc.d")


def _missing(wanted: Sequence[str]) -> list[str]:
    listing = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *wanted],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,  # non-zero when one of them is unknown to dpkg
    ).stdout
    installed = {
        line.split()[0] for line in listing.splitlines() if line.endswith(" installed")
    }
    return [package for package in wanted if package not in installed]


@contextlib.contextmanager
def _no_service_starts() -> Iterator[None]:
    """Debian's way to keep a package from starting its daemon; an own one is kept."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()


def update_lists(settings: Settings) -> None:
    command.run(["apt-get", "update"], timeout=300, log=settings.log / "setup.log")


def install(settings: Settings, wanted: Sequence[str] = PACKAGES) -> None:
    """Install those that are missing."""
    missing = _missing(wanted)
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise Failure("apt-get is missing: this needs Debian 12")
    say(f"installing {len(missing)} Debian packages")
    if records.names(settings):
        # a new user replaces the file /etc/passwd, under the mounts of the hosts
        raise Failure(f"{' '.join(missing)} missing: run `tools/aio down`, then `up`")
    log = settings.log / "setup.log"
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    update_lists(settings)
    with _no_service_starts():
        command.run(
            ["apt-get", "install", "-y", "--no-install-recommends", *missing],
            timeout=900,
            log=log,
            env=environment,
        )
