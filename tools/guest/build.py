#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Builds the small guest: Debian kernel, busybox, QEMU guest agent; boots nothing.

It needs neither a mount nor a loop device. The result is a self-booting qcow2 disk:
a FAT partition with syslinux and an ext4 root file system labelled `aioroot`.

usage: build.py WORK_DIRECTORY IMAGE
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
import struct
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from aiolib import initrd

FILES = pathlib.Path(__file__).resolve().parent / "files"
BOOT_MIB, ROOT_MIB = 24, 64
MIB = 1 << 20
SECTORS = 2048  # per MiB
PACKAGES = (
    "busybox-static",
    "qemu-guest-agent",
    "libc6",
    "libglib2.0-0",
    "libpcre2-8-0",
    "libnuma1",
    "libudev1",
    "liburing2",
)
LIBRARIES = (
    "ld-linux-x86-64.so.2",
    "libc.so.6",
    "libm.so.6",
    "libglib-2.0.so.0",
    "libgmodule-2.0.so.0",
    "libnuma.so.1",
    "libpcre2-8.so.0",
    "libudev.so.1",
    "liburing.so.2",
)
BOOT_MODULES = (
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "scsi_common",
    "scsi_mod",
    "virtio_scsi",
    "sd_mod",
)
ROOT_MODULES = (
    "virtio_console",
    "virtio-rng",
    "button",
    "evdev",
    "libnvdimm",
    "nfit",
    "nd_btt",
    "nd_pmem",
    "dax_pmem",
    "device_dax",
    "fat",
    "vfat",
    "nls_cp437",
    "nls_ascii",
)
ROOT_DIRECTORIES = (
    "bin",
    "sbin",
    "usr/bin",
    "usr/sbin",
    "etc",
    "proc",
    "sys",
    "dev",
    "run",
    "tmp",
    "var",
    "root",
    "data",
    "mnt",
    "lib/x86_64-linux-gnu",
    "lib64",
)


def fingerprint() -> str:
    """Changes whenever the recipe or a file of the guest does."""
    digest = hashlib.sha256()
    for source in (__file__, initrd.__file__):
        digest.update(pathlib.Path(source).read_bytes())
    for path in sorted(FILES.rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(FILES)).encode() + path.read_bytes())
    return digest.hexdigest()


def run(*words: str | pathlib.Path, cwd: pathlib.Path, timeout: float = 120) -> str:
    """Run a tool in `cwd` and return what it printed."""
    return subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


def download(work: pathlib.Path) -> tuple[pathlib.Path, str]:
    """Unpack the packages under `work`; return where, and the kernel's version."""
    depends = run("apt-cache", "depends", "linux-image-cloud-amd64", cwd=work)
    kernel = next(
        line.split()[1] for line in depends.splitlines() if "Depends: linux-im" in line
    )
    debs, tree = work / "debs", work / "tree"
    debs.mkdir(exist_ok=True)
    missing = [p for p in (kernel, *PACKAGES) if not list(debs.glob(f"{p}_*.deb"))]
    if missing:
        run("apt-get", "download", "-q", *missing, cwd=debs, timeout=600)
    shutil.rmtree(tree, ignore_errors=True)
    for package in (kernel, *PACKAGES):
        run("dpkg", "-x", next(debs.glob(f"{package}_*.deb")), tree, cwd=work)
    return tree, kernel.removeprefix("linux-image-")


def build_initrd(tree: pathlib.Path, version: str, work: pathlib.Path) -> pathlib.Path:
    path = work / "initrd.gz"
    initrd.build(
        path,
        work / "initrd.d",
        busybox=tree / "bin/busybox",
        init=FILES / "init",
        modules=tree / "lib/modules" / version,
        names=BOOT_MODULES,
    )
    return path


def build_root(tree: pathlib.Path, version: str, work: pathlib.Path) -> pathlib.Path:
    root = work / "root.d"
    shutil.rmtree(root, ignore_errors=True)
    for name in ROOT_DIRECTORIES:
        (root / name).mkdir(parents=True)
    (root / "var/run").symlink_to("../run")
    shutil.copy(tree / "bin/busybox", root / "bin")
    for applet in run(tree / "bin/busybox", "--list-full", cwd=work).split():
        link = root / applet
        link.parent.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(link):
            link.symlink_to("/bin/busybox")
    shutil.copy(tree / "usr/sbin/qemu-ga", root / "usr/sbin")
    for name in LIBRARIES:
        for folder in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"):
            if (tree / folder / name).exists():
                shutil.copy(tree / folder / name, root / "lib/x86_64-linux-gnu")
                break
        else:
            raise FileNotFoundError(f"{name} is in none of the packages")
    (root / "lib64/ld-linux-x86-64.so.2").symlink_to(
        "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
    )
    modules = root / "lib/modules" / version
    source = tree / "lib/modules" / version
    initrd.copy_modules(source, BOOT_MODULES + ROOT_MODULES, modules / "kernel")
    for index in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        shutil.copy(source / index, modules)
    run("depmod", "-b", root, version, cwd=work)
    (root / "etc/passwd").write_text("root::0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    for path in FILES.rglob("*"):
        relative = path.relative_to(FILES)
        if path.is_file() and len(relative.parts) > 1:
            target = root / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            shutil.copy(path, target)
    disk = work / "root.ext4"
    disk.unlink(missing_ok=True)
    with disk.open("wb") as file:
        file.truncate(ROOT_MIB * MIB)
    options = "root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0"
    run(
        *("mke2fs", "-q", "-t", "ext4", "-L", "aioroot", "-m", "0", "-J", "size=4"),
        *("-E", options, "-d", root, disk),
        cwd=work,
    )
    return disk


def build_boot(
    kernel: pathlib.Path, first: pathlib.Path, work: pathlib.Path
) -> pathlib.Path:
    disk = work / "boot.fat"
    disk.unlink(missing_ok=True)
    with disk.open("wb") as file:
        file.truncate(BOOT_MIB * MIB)
    run("mkfs.fat", "-F", "16", "-n", "BOOT", disk, cwd=work)
    contents = {
        "vmlinuz": kernel,
        "initrd": first,
        "syslinux.cfg": FILES / "syslinux.cfg",
    }
    for name, path in contents.items():
        run("mcopy", "-i", disk, path, f"::{name}", cwd=work)
    run("syslinux", "--install", disk, cwd=work)
    with disk.open("r+b") as file:
        # "hidden sectors" says where the partition begins; syslinux finds itself by it
        file.seek(28)
        file.write(struct.pack("<I", SECTORS))
    return disk


def build_disk(boot: pathlib.Path, root: pathlib.Path, work: pathlib.Path) -> None:
    disk = work / "disk.raw"
    disk.unlink(missing_ok=True)
    with disk.open("wb") as file:
        file.truncate((1 + BOOT_MIB + ROOT_MIB) * MIB)
    first, second = SECTORS, SECTORS * (1 + BOOT_MIB)
    table = (
        "label: dos\n"
        f"start={first}, size={BOOT_MIB * SECTORS}, type=6, bootable\n"
        f"start={second}, size={ROOT_MIB * SECTORS}, type=83\n"
    )
    words = ["sfdisk", "-q", str(disk)]
    subprocess.run(words, input=table, text=True, timeout=60, check=True)
    loader = pathlib.Path("/usr/lib/syslinux/mbr/mbr.bin").read_bytes()
    with disk.open("r+b") as file:
        file.write(loader[:440])
        file.seek(MIB)
        file.write(boot.read_bytes())
        file.write(root.read_bytes())


def build(work: pathlib.Path, image: pathlib.Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    image.parent.mkdir(parents=True, exist_ok=True)
    tree, version = download(work)
    first = build_initrd(tree, version, work)
    root = build_root(tree, version, work)
    boot = build_boot(tree / "boot" / f"vmlinuz-{version}", first, work)
    build_disk(boot, root, work)
    draft = image.with_suffix(".new")
    words = ("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c")
    run(*words, work / "disk.raw", draft, cwd=work)
    draft.rename(image)
    for name in ("tree", "root.d"):
        shutil.rmtree(work / name)


if __name__ == "__main__":
    build(pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve())
