# SPDX-License-Identifier: Apache-2.0
"""Compute and storage "hosts": own mount, host name and IPC namespaces; no services.

A host's namespaces live as long as its holder process. They share the machine's
network, except for the sshd of each (aiolib.ssh).
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import sys
import uuid
from typing import Any

from aiolib import ceph, devices, processes, records, ssh
from aiolib.settings import TOOLS, Settings

# libvirt's directories and the name of each host's private one, short for sockets
_LIBVIRT = {
    "/run/libvirt": "run",
    "/var/lib/libvirt": "lib",
    "/etc/libvirt": "etc",
    "/var/cache/libvirt": "cache",
    "/var/log/libvirt": "log",
}
# Guests migrate over the loopback device, of which libvirt refuses the first address.
_QEMU_CONF = """\
security_driver = "none"
user = "root"
group = "root"
dynamic_ownership = 1
remember_owner = 0
namespaces = [ ]
cgroup_controllers = [ ]
stdio_handler = "file"
max_core = 0
migration_address = "127.0.0.2"
migration_host = "127.0.0.2"
"""
_LIBVIRTD_CONF = """\
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_group = "root"
unix_sock_rw_perms = "0700"
host_uuid = "{uuid}"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""
_CEPH_KEY = """\
<secret ephemeral='no' private='yes'>
  <uuid>{uuid}</uuid>
  <usage type='ceph'><name>client.{user}</name></usage>
</secret>
"""


def record_name(host: str) -> str:
    return f"host-{host}"


def join(settings: Settings, host: str) -> list[str]:
    """The words that run what follows them inside the host."""
    holder = records.read(settings, record_name(host))
    if holder is None:
        raise LookupError(f"host {host} is not up")
    return ["nsenter", "-t", str(holder.pid), "-m", "-u", "-i", "--"]


def members(settings: Settings) -> list[processes.Process]:
    """All processes inside any host that was ever started, guests too.

    The private /etc/hosts tells, because namespace numbers are used again.
    """
    found = []
    for path in (settings.home / "h").glob("*/hosts"):
        found += processes.seeing(path, "/etc/hosts")
    return found


def libvirt_socket(settings: Settings, host: str) -> pathlib.Path:
    return settings.host_dir(host) / "run" / "libvirt-sock"


def _accounts(
    directory: pathlib.Path, root_home: pathlib.Path | None
) -> dict[str, str]:
    """libvirtd looks up its user before it reads that it is to use root.

    :param root_home: the home directory of root, if it is to be another one
    """
    added = {
        "/etc/passwd": "libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin",
        "/etc/group": "libvirt-qemu:x:64055:\nlibvirt:x:64056:",
    }
    binds = {}
    for path, lines in added.items():
        text = pathlib.Path(path).read_text()
        if "libvirt-qemu:" not in text:
            text = text.rstrip("\n") + f"\n{lines}\n"
        if path == "/etc/passwd" and root_home:
            pattern = re.compile(r"^(root(:[^:]*){4}):[^:]*", re.MULTILINE)
            text = pattern.sub(rf"\1:{root_home}", text)
        copy = directory / pathlib.Path(path).name
        copy.write_text(text)
        binds[str(copy)] = path
    # sshd lets nobody in whose password is locked, not even by a key
    shadow = directory / "shadow"
    shadow.touch(mode=0o600)
    shadow.write_text("root:*:19000:0:99999:7:::\n")
    binds[str(shadow)] = "/etc/shadow"
    return binds


def _names(settings: Settings, directory: pathlib.Path) -> dict[str, str]:
    """A host name that does not resolve costs libvirtd 20 seconds at its start."""
    lines = ["127.0.0.1 localhost"]
    lines += [f"{settings.host_address(host)} {host}" for host in settings.hosts]
    path = directory / "hosts"
    path.write_text("\n".join(lines) + "\n")
    return {str(path): "/etc/hosts"}


def _libvirt(settings: Settings, directory: pathlib.Path) -> dict[str, str]:
    binds = {}
    for target, name in _LIBVIRT.items():
        (directory / name).mkdir(exist_ok=True)
        pathlib.Path(target).mkdir(parents=True, exist_ok=True)
        binds[str(directory / name)] = target
    # sockets and pid files of an earlier life
    shutil.rmtree(directory / "run")
    (directory / "run").mkdir()
    identity = directory / "uuid"
    if not identity.exists():
        identity.write_text(str(uuid.uuid4()))
    (directory / "etc" / "qemu.conf").write_text(_QEMU_CONF)
    (directory / "etc" / "libvirtd.conf").write_text(
        _LIBVIRTD_CONF.format(uuid=identity.read_text())
    )
    (directory / "instances").mkdir(exist_ok=True)
    settings.instances.mkdir(parents=True, exist_ok=True)
    binds[str(directory / "instances")] = str(settings.instances)
    return binds


def _libvirt_secret(settings: Settings, directory: pathlib.Path) -> None:
    """What libvirt hands to a guest's disk on Ceph; it reads this when it starts."""
    name, value = ceph.secret(settings)
    secrets = directory / "etc" / "secrets"
    secrets.mkdir(mode=0o700, exist_ok=True)
    (secrets / f"{name}.xml").write_text(_CEPH_KEY.format(uuid=name, user=ceph.USER))
    path = secrets / f"{name}.base64"
    path.touch(mode=0o600)
    path.write_text(value)


def start(settings: Settings, host: str) -> bool:
    """Make the host's namespaces; False if they are there already."""
    if records.read(settings, record_name(host)):
        return False
    directory = settings.host_dir(host)
    directory.mkdir(parents=True, exist_ok=True)
    if (directory / "hosts").exists():  # who outlived the namespaces' holder
        processes.end(processes.seeing(directory / "hosts", "/etc/hosts"), 5)
    computes = host in settings.computes
    binds = _accounts(directory, ssh.home(settings, host) if computes else None)
    binds |= _names(settings, directory)
    plan: dict[str, Any] = {"name": host, "devices": []}
    pathlib.Path("/etc/ceph").mkdir(exist_ok=True)
    # os-brick looks for keys nowhere else
    binds[str(ceph.directory(settings))] = "/etc/ceph"
    if computes:
        devices.prepare(settings, host)
        plan |= devices.plan(settings, host)
        binds |= _libvirt(settings, directory) | plan["binds"]
        _libvirt_secret(settings, directory)
    ready = directory / "ready"
    ready.unlink(missing_ok=True)
    plan |= {
        "binds": binds,
        "ready": str(ready),
        "scratch": str(directory / "scratch"),
    }
    plan_path = directory / "plan.json"
    plan_path.write_text(json.dumps(plan))
    flags = ["--mount", "--uts", "--ipc", "--propagation", "private"]
    holder = [sys.executable, "-m", "aiolib.host_holder", plan_path]
    records.spawn(
        settings,
        record_name(host),
        ["unshare", *flags, "--", *holder],
        env={"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(TOOLS)},
    )
    records.wait(settings, record_name(host), ready.exists, timeout=20)
    return True
