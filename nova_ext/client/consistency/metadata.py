# SPDX-License-Identifier: Apache-2.0
"""The metadata by which the members of a consistency snapshot are known again.

Each Cinder snapshot, Cinder backup and Glance image of a group carries all that a
restore of its server needs to know, so that there is no database to lose. A value has
at most 255 characters, the limit of Cinder and Nova.
"""

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nova_ext.client.consistency import errors

PREFIX = "consistency:"
LIMIT = 255

ID = f"{PREFIX}id"
NAME = f"{PREFIX}name"
MEMBER = f"{PREFIX}member"
#: On an image: empty, then its own ID. A server passes the properties of its image on
#: to what is made of it, which is no member of the group then.
IMAGE = f"{PREFIX}image"
#: Written last, on the first member of a group: its ID, once all windows were proved.
PROVED = f"{PREFIX}proved"
CONSISTENCY = f"{PREFIX}consistency"
WINDOW = f"{PREFIX}window_ms"


@dataclass(frozen=True)
class Port:
    """How a server was connected to one network.

    :param network: name, or ID if the name is too long
    """

    network: str
    mac: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Header:
    """What the members of a group have in common; times are ISO 8601, UTC.

    :param deadline: when a group that is not proved by then never will be
    :param disks: how many disks the group has
    """

    id: str
    name: str
    created_at: str
    deadline: str
    disks: int


@dataclass(frozen=True)
class Server:
    """What a restore needs to know of a server.

    :param stage: servers of a lower stage are frozen before, and started before
    :param flavor: the flavor's name
    :param availability_zone: the one that the user chose for it
    """

    id: str
    name: str
    stage: int
    flavor: str
    config_drive: bool = False
    availability_zone: str | None = None
    security_groups: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()


@dataclass(frozen=True)
class Disk:
    """One disk of a server.

    :param number: its place among all disks of the group
    :param volume: ID of its volume; None for a root disk that is none
    :param size: GiB
    """

    number: int
    server: Server
    device: str
    boot: bool
    volume: str | None
    size: int
    volume_type: str | None = None

    @property
    def title(self) -> str:
        """Server and device, for people."""
        return f"{self.server.name} {self.device}"


def encode(header: Header, disk: Disk, properties: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata of a member.

    :param properties: the user's own
    :raises errors.PlanError: a value is too long
    """
    server = disk.server
    own: dict[str, Any] = {
        "id": header.id,
        "name": header.name,
        "created_at": header.created_at,
        "deadline": header.deadline,
        "disks": header.disks,
        "member": disk.number,
        "server": server.id,
        "server_name": server.name,
        "stage": server.stage,
        "flavor": server.flavor,
        "config_drive": server.config_drive,
        "availability_zone": server.availability_zone,
        "security_groups": list(server.security_groups),
        "device": disk.device,
        "boot": disk.boot,
        "volume": disk.volume,
        "size": disk.size,
        "volume_type": disk.volume_type,
        "image": None,
    }
    own["ports"] = len(server.ports)
    for number, port in enumerate(server.ports):
        own[f"port.{number}"] = [port.network, port.mac, *port.addresses]
    metadata = {
        **properties,
        **{f"{PREFIX}{name}": _text(value) for name, value in own.items()},
    }
    for name, value in metadata.items():
        if len(value) > LIMIT or not 0 < len(name) <= LIMIT:
            raise errors.PlanError(
                f"{name} of {disk.title} has more than {LIMIT} characters, which "
                "Cinder cannot keep as metadata: choose shorter names."
            )
    return metadata


def decode(metadata: Mapping[str, str]) -> tuple[Header, Disk]:
    """Return what the metadata of a member says.

    :raises ValueError: somebody has changed it
    """
    own = {
        name.removeprefix(PREFIX): value
        for name, value in metadata.items()
        if name.startswith(PREFIX)
    }
    try:
        return _header(own), _disk(own)
    except KeyError as exc:
        raise ValueError(f"the metadata is incomplete: {exc}") from exc


def _header(own: Mapping[str, str]) -> Header:
    if datetime.datetime.fromisoformat(own["deadline"]).tzinfo is None:
        raise ValueError("the deadline has no time zone")
    return Header(
        own["id"], own["name"], own["created_at"], own["deadline"], int(own["disks"])
    )


def _disk(own: Mapping[str, str]) -> Disk:
    ports = []
    for number in range(int(own["ports"])):
        network, mac, *addresses = _texts(own[f"port.{number}"])
        ports.append(Port(network, mac, tuple(addresses)))
    server = Server(
        id=own["server"],
        name=own["server_name"],
        stage=int(own["stage"]),
        flavor=own["flavor"],
        config_drive=own["config_drive"] == "true",
        availability_zone=own["availability_zone"] or None,
        security_groups=tuple(_texts(own["security_groups"])),
        ports=tuple(ports),
    )
    return Disk(
        number=int(own["member"]),
        server=server,
        device=own["device"],
        boot=own["boot"] == "true",
        volume=own["volume"] or None,
        size=int(own["size"]),
        volume_type=own["volume_type"] or None,
    )


def _texts(text: str) -> list[str]:
    found = json.loads(text)
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ValueError(f"{text} is no list of texts")
    return found


def properties(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return what the user added to the metadata."""
    return {k: v for k, v in metadata.items() if not k.startswith(PREFIX)}


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
