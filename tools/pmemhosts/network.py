# SPDX-License-Identifier: Apache-2.0
"""The network of the PMEM hosts: a namespace with a bridge, and cuts of its links.

The namespace has no link to the machine's own network, so nothing can leave it, and
removing it removes the bridge and the taps.
"""

from __future__ import annotations

import pathlib

from aiolib import command, processes

from pmemhosts import layout

_PATH = pathlib.Path("/run/netns") / layout.NETWORK
#: The words that put a command into the namespace.
INSIDE = ("nsenter", f"--net={_PATH}")


def tap(host: str) -> str:
    return f"t-{host}"


def _run(*words: str) -> None:
    command.run(words, timeout=30, log=layout.LOG / "network.log")


def up() -> None:
    """Make the namespace with the bridge and a tap for each host."""
    _run("ip", "netns", "add", layout.NETWORK)
    _run(*INSIDE, "ip", "link", "set", "lo", "up")
    _run(*INSIDE, "ip", "link", "add", "br0", "type", "bridge")
    _run(*INSIDE, "ip", "addr", "add", f"{layout.GATEWAY}/24", "dev", "br0")
    _run(*INSIDE, "ip", "link", "set", "br0", "up")
    for host in layout.ADDRESSES:
        _run(*INSIDE, "ip", "tuntap", "add", tap(host), "mode", "tap")
        _run(*INSIDE, "ip", "link", "set", tap(host), "master", "br0", "up")


def inside() -> list[processes.Process]:
    """What runs in the namespace: the hosts, and each ssh to them."""
    return processes.in_network(_PATH) if _PATH.exists() else []


def down() -> None:
    """End what runs in the namespace and remove it."""
    processes.end(inside(), grace=3)
    if _PATH.exists():
        _run("ip", "netns", "delete", layout.NETWORK)


def cut() -> None:
    """Drop what the hosts send to each other; the bridge still reaches both."""
    _isolate("on")


def mend() -> None:
    """Let the hosts reach each other again."""
    _isolate("off")


def _isolate(state: str) -> None:
    for host in layout.ADDRESSES:
        _run(*INSIDE, "bridge", "link", "set", "dev", tap(host), "isolated", state)
