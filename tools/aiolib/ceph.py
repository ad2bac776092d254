# SPDX-License-Identifier: Apache-2.0
"""A Ceph of one monitor and one OSD for volumes and backups; starts no process.

All of it is in userspace: librbd and a file in the place of a disk. There is no manager
daemon, so Ceph tells nobody how much space is free.
"""

from __future__ import annotations

import pathlib
import re
import shutil
import uuid

from aiolib import command, ini
from aiolib.settings import ADDRESS, Settings

POOLS = ("volumes", "backups")
USER = "cinder"
_CAPS = {
    "mon.": {"mon": "allow *"},
    "client.admin": {"mon": "allow *", "osd": "allow *"},
    "osd.0": {"mon": "allow profile osd", "osd": "allow *"},
    f"client.{USER}": {"mon": "profile rbd", "osd": "profile rbd"},
}
_DEBIAN = pathlib.Path("/usr/lib/python3/dist-packages")
_BLOCK_SIZE = 8 << 30  # bytes; sparse


def directory(s: Settings) -> pathlib.Path:
    """What its clients know as /etc/ceph."""
    return s.etc / "ceph"


def config_path(s: Settings) -> pathlib.Path:
    return directory(s) / "ceph.conf"


def keyring(s: Settings, name: str) -> pathlib.Path:
    return directory(s) / f"ceph.{name}.keyring"


def secret(s: Settings) -> tuple[str, str]:
    """The name and the value by which a guest's disk is opened.

    The name is what cinder calls it unless it is told another one.
    """
    text = keyring(s, f"client.{USER}").read_text()
    (key,) = re.findall("^key = (.*)$", text, re.MULTILINE)
    return (s.state("ceph") / "fsid").read_text(), key


def modules(s: Settings) -> pathlib.Path:
    """Where Python finds what Debian has for Ceph, and nothing else of Debian."""
    return s.state("ceph-python")


def mon(s: Settings) -> tuple[str, ...]:
    """The command of the monitor."""
    return ("/usr/bin/ceph-mon", "-f", "-i", "a", "-c", str(config_path(s)))


def osd(s: Settings) -> tuple[str, ...]:
    """The command of the OSD."""
    return ("/usr/bin/ceph-osd", "-f", "-i", "0", "-c", str(config_path(s)))


def client(s: Settings, *words: str, timeout: float = 60) -> str:
    """What a command of the ceph client says, as an administrator."""
    admin = ["--keyring", keyring(s, "client.admin"), "--connect-timeout", "30"]
    return command.run(
        ["ceph", "-c", config_path(s), *admin, *words],
        timeout=timeout,
        log=s.log / "ceph-client.log",
    )


def _write_config(s: Settings, fsid: str) -> None:
    state, port = s.state("ceph"), s.port("ceph-mon")
    ini.write(
        config_path(s),
        {
            "global": {
                "fsid": fsid,
                "mon_host": f"v1:{ADDRESS}:{port}/0",
                "public_addr": ADDRESS,
                "ms_bind_msgr2": "false",
                "ms_bind_port_min": port + 1,
                "ms_bind_port_max": port + 20,
                **dict.fromkeys(
                    (f"auth_{name}_required" for name in ("cluster", "service")),
                    "cephx",
                ),
                "auth_client_required": "cephx",
                "osd_pool_default_size": 1,
                "osd_pool_default_min_size": 1,
                "osd_pool_default_pg_num": 8,
                "osd_crush_chooseleaf_type": 0,
                "mon_allow_pool_size_one": "true",
                "run_dir": state / "run",
                "admin_socket": "",
                "crash_dir": state / "crash",
                "log_file": "",
                "log_to_stderr": "true",
                "err_to_stderr": "true",
            },
            "mon": {"mon_data": state / "mon", "mon_cluster_log_file": ""},
            "osd": {
                "osd_data": state / "osd",
                "osd_objectstore": "bluestore",
                "bluestore_block_size": _BLOCK_SIZE,
                "osd_memory_target": 1 << 30,
            },
        },
    )


def _write_keys(s: Settings) -> None:
    """One keyring for the monitor's start, and one for each that shows its own."""
    every = []
    for name, caps in _CAPS.items():
        key = command.run(["ceph-authtool", "--gen-print-key"], timeout=30).strip()
        lines = [f"[{name}]", f"key = {key}"]
        lines += [f'caps {what} = "{allowed}"' for what, allowed in caps.items()]
        every += lines
        path = s.state("ceph") / "osd/keyring" if name == "osd.0" else keyring(s, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text("\n".join(lines) + "\n")
    first = s.state("ceph") / "keyring"
    first.touch(mode=0o600)
    first.write_text("\n".join(every) + "\n")


def prepare(s: Settings) -> None:
    """Before the first start of the monitor."""
    modules(s).mkdir(parents=True, exist_ok=True)
    for name in ("rados", "rbd"):
        (found,) = _DEBIAN.glob(f"{name}.cpython-*.so")
        link = modules(s) / found.name
        link.unlink(missing_ok=True)
        link.symlink_to(found)
    state = s.state("ceph")
    stamp = state / "fsid"
    if stamp.exists():
        _write_config(s, stamp.read_text())
        return
    shutil.rmtree(state, ignore_errors=True)
    for name in ("run", "crash", "mon", "osd"):
        (state / name).mkdir(parents=True)
    directory(s).mkdir(parents=True, exist_ok=True)
    fsid = str(uuid.uuid4())
    _write_config(s, fsid)
    _write_keys(s)
    log, monmap = s.log / "setup.log", state / "monmap"
    address = f"[v1:{ADDRESS}:{s.port('ceph-mon')}]"
    words = ["monmaptool", "--create", "--addv", "a", address, "--fsid", fsid, monmap]
    command.run(words, timeout=30, log=log)
    first = ["--monmap", monmap, "--keyring", state / "keyring"]
    command.run([*mon(s), "--mkfs", *first], timeout=60, log=log)
    fresh = ["--mkfs", "--osd-uuid", fsid, "--no-mon-config"]
    command.run([*osd(s), *fresh], timeout=120, log=log)
    stamp.write_text(fsid)


def admit_osd(s: Settings) -> None:
    """Between the first start of the monitor and that of the OSD."""
    stamp = s.state("ceph") / "osd-admitted"
    if stamp.exists():
        return
    client(s, "osd", "create", s.state("ceph").joinpath("fsid").read_text(), "0")
    stamp.touch()


def make_pools(s: Settings) -> None:
    """Once both run."""
    stamp = s.state("ceph") / "pools-made"
    if stamp.exists():
        return
    there = client(s, "osd", "pool", "ls").split()
    for pool in POOLS:
        if pool not in there:
            client(s, "osd", "pool", "create", pool, "8")
        client(s, "osd", "pool", "application", "enable", pool, "rbd")
    stamp.touch()
