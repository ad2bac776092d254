# SPDX-License-Identifier: Apache-2.0
"""What can be seen of a guest from outside: its writes and the state of an image."""

from __future__ import annotations

import json
import pathlib
import subprocess
from typing import Any

from aiolib.client import Cloud

_SECTOR = 512


def records(cloud: Cloud, server_id: str) -> int:
    """How many records the guest's writer has synced to its disk, by its console."""
    text = cloud.console_log(server_id).read_text(errors="replace")
    return sum(line.startswith("W ") for line in text.splitlines())


def bytes_written(cloud: Cloud, server_id: str) -> int:
    """Bytes that the guest has written to its first disk, by the hypervisor."""
    words = [*cloud.virsh(cloud.find_host(server_id)), "domblkstat", server_id, "vda"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
    for line in done.stdout.splitlines():
        name, value = line.split()[-2:]
        if name == "wr_bytes":
            return int(value)
    raise ValueError(f"no wr_bytes in {done.stdout!r}")


def download(connection: Any, image_id: str, path: pathlib.Path) -> pathlib.Path:
    """Wait for an image and write its data to ``path``."""
    image = connection.image.get_image(image_id)
    connection.image.wait_for_status(
        image, "active", ["killed", "deleted"], interval=0.2, wait=120
    )
    with path.open("wb") as output:
        connection.image.download_image(image_id, output=output)
    return path


def needs_recovery(image: pathlib.Path) -> bool:
    """Whether dumpe2fs says that the root file system in a disk image is unclean."""
    raw = image.with_suffix(".raw")
    _run("qemu-img", "convert", "-O", "raw", str(image), str(raw))
    table = json.loads(_run("sfdisk", "--json", str(raw)))["partitiontable"]
    part = table["partitions"][-1]
    root = image.with_suffix(".ext4")
    with raw.open("rb") as disk, root.open("wb") as output:
        disk.seek(part["start"] * _SECTOR)
        output.write(disk.read(part["size"] * _SECTOR))
    try:
        return has_feature(root, "needs_recovery")
    finally:
        raw.unlink()
        root.unlink()


def has_feature(root: pathlib.Path, name: str) -> bool:
    """Whether dumpe2fs names a feature of an ext4 file system.

    :raises ValueError: it is none
    """
    features = [
        line
        for line in _run("dumpe2fs", "-h", str(root)).splitlines()
        if line.startswith("Filesystem features:")
    ]
    if len(features) != 1:
        raise ValueError(f"{root} has no ext4 file system")
    return name in features[0].split()


def _run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} failed: {done.stderr.strip()}")
    return done.stdout
