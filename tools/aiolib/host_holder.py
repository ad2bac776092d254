# SPDX-License-Identifier: Apache-2.0
"""First process of a host's namespaces: sets them up and keeps them; nothing else."""

from __future__ import annotations

import json
import pathlib
import signal
import socket
import subprocess
import sys
from typing import Any

DEV, BUS = pathlib.Path("/dev"), pathlib.Path("/sys/bus")


def run(*words: str | pathlib.Path) -> None:
    subprocess.run([str(word) for word in words], check=True, timeout=10)


def own_dev(scratch: pathlib.Path, devices: list[dict[str, Any]]) -> None:
    """A /dev with the machine's device nodes, and plain files for the devices."""
    run("mount", "-t", "tmpfs", "-o", "mode=755", "dev", scratch)
    run("cp", "--archive", "--one-file-system", f"{DEV}/.", scratch)
    for entry in DEV.iterdir():
        if entry.is_mount():
            run("mount", "--rbind", entry, scratch / entry.name)
    for device in devices:
        node = scratch / device["node"]
        node.touch(mode=0o600)
        run("mount", "--bind", device["path"], node)
    run("mount", "--move", scratch, DEV)


def own_bus(scratch: pathlib.Path, devices: list[dict[str, Any]]) -> None:
    """A /sys/bus with the machine's buses, but with these devices on the dax bus."""
    run("mount", "-t", "tmpfs", "-o", "mode=755", "bus", scratch)
    for entry in BUS.iterdir():
        if entry.name != "dax":
            (scratch / entry.name).mkdir()
            run("mount", "--bind", entry, scratch / entry.name)
    for device in devices:
        directory = scratch / "dax" / "devices" / device["node"]
        directory.mkdir(parents=True)
        for name, value in device["sysfs"].items():
            (directory / name).write_text(f"{value}\n")
    run("mount", "--move", scratch, BUS)


def main(plan_path: str) -> None:
    plan = json.loads(pathlib.Path(plan_path).read_text())
    socket.sethostname(plan["name"])
    for source, target in plan["binds"].items():
        run("mount", "--bind", source, target)
    if plan["devices"]:
        scratch = pathlib.Path(plan["scratch"])
        scratch.mkdir(exist_ok=True)
        own_bus(scratch, plan["devices"])
        own_dev(scratch, plan["devices"])
    pathlib.Path(plan["ready"]).touch()
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1])
