# SPDX-License-Identifier: Apache-2.0
"""What the cloud is: where its state lives, its ports, its hosts; starts nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import secrets
from typing import Any

TOOLS = pathlib.Path(__file__).resolve().parent.parent
REPO = TOOLS.parent
ADDRESS = "127.0.0.1"
REGION = "RegionOne"

# The usual port of each service; Settings.port() adds the offset. Below 32768 with
# the default offset, so that the kernel never hands one out to a client socket.
PORTS = {
    "mariadb": 3306,
    "epmd": 4369,
    "keystone": 5000,
    "rabbitmq": 5672,
    "rabbitmq-dist": 5673,
    "ceph-mon": 6789,  # and the twenty above it are the OSD's
    "s3": 7480,
    "nova-api": 8774,
    "nova-api-stock": 8775,
    "cinder-api": 8776,
    "placement": 8778,
    "glance": 9292,
    "network-stub": 9696,
}
STORAGE_HOST = "stor1"


class Failure(Exception):
    """Something that the user has to know, in one sentence that says what to do."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """The choices made at `up`; every later command reads them back from the state.

    :param beside: the home of the first site, if this is a second one that borrows from
        it what it can and does without what a restore does not need
    """

    home: pathlib.Path
    password: str
    port_offset: int = 20000
    computes: tuple[str, ...] = ("cmp1", "cmp2", "cmp3")
    stock_computes: tuple[str, ...] = ("cmp3",)
    guards: tuple[str, ...] = ("cmp4", "cmp5")
    stock: bool = False
    beside: str = ""

    @property
    def first(self) -> Settings:
        """The site that others borrow from: programs, guest image, S3 server."""
        return load(pathlib.Path(self.beside)) if self.beside else self

    @property
    def venv(self) -> pathlib.Path:
        return pathlib.Path(self.beside or self.home) / "venv"

    @property
    def etc(self) -> pathlib.Path:
        return self.home / "etc"

    @property
    def log(self) -> pathlib.Path:
        return self.home / "log"

    @property
    def run(self) -> pathlib.Path:
        return self.home / "run"

    @property
    def images(self) -> pathlib.Path:
        return pathlib.Path(self.beside or self.home) / "images"

    @property
    def instances(self) -> pathlib.Path:
        """The path that every compute host sees as its own (a mount in each host)."""
        return self.home / "instances"

    @property
    def hosts(self) -> tuple[str, ...]:
        return (*self.computes, STORAGE_HOST)

    @property
    def rabbit_url(self) -> str:
        port = self.port("rabbitmq")
        return f"rabbit://aio:{self.password}@{ADDRESS}:{port}/"

    def state(self, name: str) -> pathlib.Path:
        return self.home / "state" / name

    def host_dir(self, host: str) -> pathlib.Path:
        """Files of one host; short, for the sockets in it (108 bytes at most)."""
        return self.home / "h" / host

    @property
    def _network(self) -> str:
        """Of the range for tests of networks (RFC 2544), one for each port offset."""
        return f"198.18.{self.port_offset // 100 % 256}"

    def host_address(self, host: str) -> str:
        """Where the host's sshd listens; nothing else does."""
        return f"{self._network}.{11 + self.hosts.index(host)}"

    @property
    def link_address(self) -> str:
        """The machine's own address on the links to the hosts."""
        return f"{self._network}.1"

    def link_name(self, host: str) -> str:
        """The machine's end of the link to the host, 15 characters at most."""
        return f"aio{self.port_offset // 100 % 256}-{host}"

    def port(self, service: str) -> int:
        return PORTS[service] + self.port_offset

    def url(self, service: str, path: str = "") -> str:
        return f"http://{ADDRESS}:{self.port(service)}{path}"

    def database_url(self, database: str) -> str:
        port = self.port("mariadb")
        return (
            f"mysql+pymysql://aio:{self.password}@{ADDRESS}:{port}/{database}"
            "?charset=utf8mb4"
        )

    def extended(self, compute: str) -> bool:
        """Whether this compute service runs with the extension."""
        return not self.stock and compute not in self.stock_computes

    def guarded(self, compute: str) -> bool:
        """Whether nova-ext-guard runs beside this compute service."""
        return self.extended(compute) and compute in self.guards

    def guard_directory(self, compute: str) -> pathlib.Path:
        """The records of what is frozen on this host."""
        return self.state(f"nova-{compute}") / "guard"

    def save(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o700)
        values = dataclasses.asdict(self)
        del values["home"]
        path = self.home / "settings.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(values, indent=2) + "\n")


def home_from_environment() -> pathlib.Path:
    return pathlib.Path(os.environ.get("AIO_HOME", "/var/lib/nova-ext-aio")).resolve()


def _beside(first: pathlib.Path) -> dict[str, Any]:
    """What a second site chooses otherwise than the first one."""
    if not (first / "settings.json").exists():
        raise Failure(f"AIO_BESIDE: no cloud is in {first}: bring that one up before")
    return {
        "beside": str(first),
        "port_offset": load(first).port_offset + 1000,
        "computes": ("cmp1",),
        "stock_computes": (),
    }


def borrowers(s: Settings) -> list[Settings]:
    """The second sites beside a cloud, as far as they have their homes beside its."""
    found = []
    for path in s.home.parent.glob("*/settings.json"):
        if json.loads(path.read_text()).get("beside") == str(s.home):
            found.append(load(path.parent))
    return found


def load(home: pathlib.Path | None = None) -> Settings:
    """Read the settings of the cloud under `home`, defaults where it has none yet."""
    home = home or home_from_environment()
    try:
        values: dict[str, Any] = json.loads((home / "settings.json").read_text())
    except FileNotFoundError:
        values = {"password": secrets.token_hex(12)}
        if os.environ.get("AIO_BESIDE"):
            values |= _beside(pathlib.Path(os.environ["AIO_BESIDE"]).resolve())
        elif "AIO_PORT_OFFSET" in os.environ:
            values["port_offset"] = int(os.environ["AIO_PORT_OFFSET"])
    for name in ("computes", "stock_computes", "guards"):
        if name in values:
            values[name] = tuple(values[name])
    return Settings(home=home, **values)
