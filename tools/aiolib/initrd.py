# SPDX-License-Identifier: Apache-2.0
"""Builds the first root file system of a guest: busybox, drivers and an init."""

from __future__ import annotations

import gzip
import pathlib
import shutil
import subprocess
from collections.abc import Sequence

_DIRECTORIES = ("bin", "lib", "proc", "sys", "dev", "newroot")


def copy_modules(
    modules: pathlib.Path, names: Sequence[str], target: pathlib.Path
) -> None:
    """Copy drivers.

    :param modules: the kernel's own directory below ``lib/modules``
    :param names: of the files, without their suffix
    """
    by_name = {path.stem: path for path in modules.rglob("*.ko")}
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copy(by_name[name], target)


def build(
    path: pathlib.Path,
    work: pathlib.Path,
    *,
    busybox: pathlib.Path,
    init: pathlib.Path,
    modules: pathlib.Path,
    names: Sequence[str],
) -> None:
    """Write a compressed archive as a kernel takes it.

    :param path: of the archive
    :param work: a directory to make its tree in, which is removed
    :param busybox: a static one
    :param init: the first program; it finds the drivers' names in ``/modules``, and
        each in ``/lib``
    :param modules: see :func:`copy_modules`, as ``names``
    """
    shutil.rmtree(work, ignore_errors=True)
    for name in _DIRECTORIES:
        (work / name).mkdir(parents=True)
    shutil.copy(busybox, work / "bin/busybox")
    (work / "bin/sh").symlink_to("busybox")
    shutil.copy(init, work / "init")
    copy_modules(modules, names, work / "lib")
    (work / "modules").write_text("\n".join(names) + "\n")
    files = "\n".join(str(p.relative_to(work)) for p in sorted(work.rglob("*")))
    archive = subprocess.run(
        ["cpio", "--quiet", "-R", "0:0", "-o", "-H", "newc"],
        input=files.encode(),
        stdout=subprocess.PIPE,
        cwd=work,
        timeout=60,
        check=True,
    ).stdout
    path.write_bytes(gzip.compress(archive))
    shutil.rmtree(work)
