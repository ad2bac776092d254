# SPDX-License-Identifier: Apache-2.0
"""The persistent memory of compute hosts: plain files in the place of device DAX.

Hosts have the same namespaces, numbered differently, but from the fourth host on only
the small ones, so that a server which needs a big one stays among the first three. A
host's own /dev and /sys/bus show them to nova, and stand-ins for ndctl and daxio
(standins/) know how to treat them.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil

from aiolib.settings import TOOLS, Settings

MIB = 1 << 20
ALIGN = 2 * MIB
# what nova sets aside at the end of each device for labels; the guest does not see it
LABEL_AREA = 2 * MIB
# Name: resource label of nova, size. There are more small ones than servers need: nova
# has the one that a failed move has claimed in use until its next periodic task.
NAMESPACES = {
    "ns_small_0": ("SMALL", 32 * MIB),
    "ns_small_1": ("SMALL", 32 * MIB),
    "ns_small_2": ("SMALL", 32 * MIB),
    "ns_small_3": ("SMALL", 32 * MIB),
    "ns_big_0": ("BIG", 64 * MIB),
    "ns_big_1": ("BIG", 64 * MIB),
}
_WITH_BIG = 3  # hosts
# on the PATH of everything in a host, ssh sessions too
_PROGRAMS = "/usr/local/sbin"


@dataclasses.dataclass(frozen=True)
class Device:
    """One namespace of one host.

    :param name: of the namespace
    :param node: as dax0.1, its name in the host's /dev
    :param path: the file that holds its bytes
    """

    name: str
    node: str
    size: int
    path: pathlib.Path


def of_host(s: Settings, host: str) -> dict[str, Device]:
    """The devices of a compute host by the name of their namespace."""
    shift = s.computes.index(host)
    names = [
        name
        for name, (label, _size) in NAMESPACES.items()
        if label != "BIG" or shift < _WITH_BIG
    ]
    found = {}
    for number in range(len(names)):
        name = names[(number + shift) % len(names)]
        path = s.host_dir(host) / "pmem" / name
        found[name] = Device(name, f"dax0.{number}", NAMESPACES[name][1], path)
    return found


def option(s: Settings, host: str) -> str:
    """The value of nova's pmem_namespaces on a compute host."""
    labels: dict[str, list[str]] = {}
    there = of_host(s, host)
    for name, (label, _size) in NAMESPACES.items():
        if name in there:
            labels.setdefault(label, []).append(name)
    return ",".join(f"{label}:{'|'.join(names)}" for label, names in labels.items())


def fault_path(s: Settings, host: str) -> pathlib.Path:
    """The file that makes the host's daxio fail; standins/daxio tells its lines."""
    return s.host_dir(host) / "sbin" / "daxio-fault"


def _listing(device: Device, number: int) -> dict[str, object]:
    """One namespace in the answer of `ndctl list -X`."""
    chardev = {
        "chardev": device.node,
        "size": device.size,
        "target_node": 0,
        "align": ALIGN,
        "mode": "devdax",
    }
    return {
        "dev": f"namespace0.{number}",
        "mode": "devdax",
        "map": "mem",
        "size": device.size,
        "uuid": f"00000000-0000-4000-8000-{number:012}",
        "daxregion": {
            "id": 0,
            "size": device.size,
            "align": ALIGN,
            "devices": [chardev],
        },
        "align": ALIGN,
        "name": device.name,
    }


def prepare(s: Settings, host: str) -> None:
    """Write the stand-ins and, zeroed, the devices that are not there yet."""
    programs = s.host_dir(host) / "sbin"
    shutil.copytree(TOOLS / "aiolib/standins", programs, dirs_exist_ok=True)
    found = list(of_host(s, host).values())
    listing = [_listing(device, number) for number, device in enumerate(found)]
    # ndctl does not sort them either
    text = json.dumps(listing[::-1], indent=2) + "\n"
    (programs / "namespaces.json").write_text(text)
    for device in found:
        if not device.path.exists():
            device.path.parent.mkdir(exist_ok=True)
            device.path.touch(mode=0o600)
            with device.path.open("wb") as file:
                file.truncate(device.size)


def plan(s: Settings, host: str) -> dict[str, object]:
    """What host_holder needs to know of them."""
    return {
        "binds": {str(s.host_dir(host) / "sbin"): _PROGRAMS},
        "devices": [
            {
                "node": device.node,
                "path": str(device.path),
                # a plain file has the device number 0:0
                "sysfs": {"dev": "0:0", "size": device.size, "align": ALIGN},
            }
            for device in of_host(s, host).values()
        ],
    }
