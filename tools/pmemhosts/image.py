# SPDX-License-Identifier: Apache-2.0
"""Builds kernel, initrd and disk of the PMEM hosts, once; starts nothing.

The disk holds Debian 12 with ndctl, daxio, sshd, sudo and Python, a user nova, and
under /opt/python the packages that nova_ext needs. nova_ext itself is put there when a
host has started.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
import sys

from aiolib import command, initrd, packages
from aiolib import uv as uv_source
from aiolib.progress import say

from pmemhosts import layout

_MACHINE = (
    "cpio",
    "e2fsprogs",
    "iproute2",
    "mmdebstrap",
    "openssh-client",
    "python3-venv",
    "qemu-system-x86",
    "seabios",
)
_HOST = (
    "busybox-static",
    "daxctl",
    "iproute2",
    "kmod",
    "linux-image-cloud-amd64",
    "ndctl",
    "openssh-client",
    "openssh-server",
    "pmdk-tools",
    "procps",
    "python3",
    "strace",
    "sudo",
)
_BOOT_MODULES = (
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
)
_SUITES = ("bookworm", "bookworm-updates", "bookworm-security")
_DISK_MIB = 1500
_LOG = layout.LOG / "image.log"
# The key exchange that ssh takes by itself needs seconds in an emulated machine.
_SSH_CONFIG = """\
Host *
    KexAlgorithms curve25519-sha256
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    LogLevel ERROR
"""
# What a person may have there, and what must not get in the way of a copy.
_SHARED_CONNECTIONS = """\
    ControlMaster auto
    ControlPath ~/.ssh/%C
    ControlPersist yes
"""
_SSHD_CONFIG = """\
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
UseDNS no
UsePAM no
MaxSessions 100
"""


def _run(*words: str | pathlib.Path, timeout: float = 300) -> str:
    return command.run(words, timeout=timeout, log=_LOG)


def _digest(*parts: bytes | str) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(part.encode() if isinstance(part, str) else part)
    return total.hexdigest()


def build() -> None:
    """Make what is missing or made from another recipe."""
    packages.install(layout.settings(), _MACHINE)
    recipe = [pathlib.Path(__file__), pathlib.Path(initrd.__file__)]
    recipe += sorted(layout.FILES.iterdir())
    constraints = (layout.REPO / "constraints.txt").read_bytes()
    wanted = _digest(*(path.read_bytes() for path in recipe), constraints)
    stamp = layout.HOME / "built-from"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    stamp.unlink(missing_ok=True)
    work = layout.HOME / "work"
    work.mkdir(parents=True, exist_ok=True)
    layout.HOME.chmod(0o700)
    root = _unpack(_bootstrap(work), work)
    _install_python(root, work)
    _configure(root)
    _write_initrd(root, work)
    _write_disk(root)
    shutil.rmtree(root)
    stamp.write_text(wanted)


def _bootstrap(work: pathlib.Path) -> pathlib.Path:
    """The archive of a Debian with the packages, made from the machine's sources."""
    archive = work / f"debian-{_digest(*_HOST)[:12]}.tar"
    if archive.exists():
        return archive
    say("building Debian for the PMEM hosts")
    listing = _run(
        *("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(ORIGIN)"),
        *("Created-By: Packages", "Component: main"),
    )
    found = (line.split() for line in listing.splitlines())
    sources = [
        f"deb {words[0]} {words[1]} main"
        for words in found
        if len(words) == 3 and words[1] in _SUITES and words[2] == "Debian"
    ]
    draft = archive.with_suffix(".new")
    _run(
        *("mmdebstrap", "--variant=minbase", "--format=tar"),
        f"--include={','.join(_HOST)}",
        '--aptopt=APT::Install-Recommends "false"',
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "bookworm",
        draft,
        *sources,
        timeout=900,
    )
    draft.rename(archive)
    return archive


def _unpack(archive: pathlib.Path, work: pathlib.Path) -> pathlib.Path:
    root = work / "root"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    without = ("--exclude=./dev/*", "--exclude=./boot/initrd*")
    _run("tar", "-C", root, *without, "-xf", archive)
    return root


def _install_python(root: pathlib.Path, work: pathlib.Path) -> None:
    """Put nova and what it needs into the disk, compiled by its own Python."""
    say("installing the Python packages of the PMEM hosts")
    venv = work / "venv"
    python, uv = venv / "bin/python", venv / "bin/uv"
    if not uv.exists():
        base = pathlib.Path(getattr(sys, "_base_executable", sys.executable))
        _run(base, "-m", "venv", "--clear", venv)
        _run(python, "-m", "pip", "install", "--quiet", "uv")
    target = root / "opt/python"
    command.run(
        [
            *(uv, "pip", "install", "--quiet", "--target", target),
            *("--python", python, "--python-version", "3.11"),
            *("--constraint", layout.REPO / "constraints.txt", "nova"),
        ],
        timeout=900,
        log=_LOG,
        env=uv_source.environment([str(python), "-m", "pip"]),
    )
    for tests in [*target.glob("*/tests"), *target.glob("*/*/tests")]:
        shutil.rmtree(tests, ignore_errors=True)
    _run(
        *("chroot", root, "python3", "-m", "compileall", "-q", "/opt/python"),
        timeout=600,
    )
    (root / "usr/lib/python3/dist-packages/nova.pth").write_text("/opt/python\n")


def _configure(root: pathlib.Path) -> None:
    for name in ("host-init", "host-namespaces", "host-worker"):
        shutil.copy(layout.FILES / name, root / "usr/sbin")
    if not layout.KEY.exists():
        _make_key(layout.KEY)
    chroot = ("chroot", root)
    # A password of "!" would lock the account for sshd.
    _run(*chroot, "useradd", "-m", "-s", "/bin/bash", "-p", "*", "nova")
    for home, config in (
        ("root", _SSH_CONFIG),
        ("home/nova", _SSH_CONFIG + _SHARED_CONNECTIONS),
    ):
        ssh = root / home / ".ssh"
        ssh.mkdir(mode=0o700)
        shutil.copy(layout.KEY, ssh / "id_ed25519")
        shutil.copy(layout.KEY.with_suffix(".pub"), ssh / "authorized_keys")
        (ssh / "config").write_text(config)
    _run(*chroot, "chown", "-R", "nova:nova", "/home/nova")
    etc = root / "etc/ssh"
    for key in etc.glob("ssh_host_*"):
        key.unlink()
    _make_key(etc / "ssh_host_ed25519_key")
    (etc / "sshd_config").write_text(_SSHD_CONFIG)


def _make_key(path: pathlib.Path) -> None:
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path)


def _write_initrd(root: pathlib.Path, work: pathlib.Path) -> None:
    (modules,) = (root / "usr/lib/modules").iterdir()
    shutil.copy(root / "boot" / f"vmlinuz-{modules.name}", layout.KERNEL)
    initrd.build(
        layout.INITRD,
        work / "initrd",
        busybox=root / "bin/busybox",
        init=layout.FILES / "initrd-init",
        modules=modules,
        names=_BOOT_MODULES,
    )


def _write_disk(root: pathlib.Path) -> None:
    layout.DISK.unlink(missing_ok=True)
    with layout.DISK.open("wb") as file:
        os.truncate(file.fileno(), _DISK_MIB << 20)
    options = "root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1"
    _run(
        *("mke2fs", "-q", "-t", "ext4", "-L", "pmemroot", "-m", "0"),
        *("-E", options, "-d", root, layout.DISK),
    )
