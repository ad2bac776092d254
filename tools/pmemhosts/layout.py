# SPDX-License-Identifier: Apache-2.0
"""Where the PMEM hosts keep their files, their names, addresses and devices."""

from __future__ import annotations

import os
import pathlib

from aiolib.settings import REPO as REPO
from aiolib.settings import Failure as Failure
from aiolib.settings import Settings

FILES = pathlib.Path(__file__).resolve().parent / "files"
HOME = pathlib.Path(
    os.environ.get("PMEM_HOSTS_HOME", "/var/lib/nova-ext-pmem")
).resolve()
LOG = HOME / "log"
KEY = HOME / "key"
KERNEL = HOME / "vmlinuz"
INITRD = HOME / "initrd.gz"
DISK = HOME / "root.ext4"

#: The network namespace that holds the bridge of the hosts and nothing else.
NETWORK = "nova-ext-pmem"
GATEWAY = "172.31.77.1"
ADDRESSES = {"pmem1": "172.31.77.21", "pmem2": "172.31.77.22"}

#: Name and size in MiB of each namespace; the kernel keeps 2 MiB of each for itself.
NAMESPACES = {
    "ns_30MB_0": 32,
    "ns_30MB_1": 32,
    "ns_30MB_2": 32,
    "ns_14MB_0": 16,
    "ns_14MB_1": 16,
}
LABEL_MIB = 2


def settings() -> Settings:
    """What the shared tools need to know of us: where to log."""
    return Settings(home=HOME, password="")
