# SPDX-License-Identifier: Apache-2.0
"""What is asked and checked before the first server is frozen; changes nothing."""

import datetime
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openstack import exceptions as sdk_exceptions

from nova_ext.client import compute, resources
from nova_ext.client.consistency import errors
from nova_ext.client.consistency.metadata import (
    PREFIX,
    Disk,
    Header,
    Port,
    Server,
    encode,
)

#: Seconds after which the compute hosts thaw a group, unless another time is asked for.
TIMEOUT = 60

_ROOT = "/dev/vda"

_GRACE = 20

#: What Nova and Cinder both take for the name of metadata.
_PROPERTY = re.compile(r"[a-zA-Z0-9_:. -]{1,255}")


@dataclass(frozen=True)
class Plan:
    """What is to be frozen and snapshotted, in which order.

    :param stages: servers of a stage are frozen at the same time
    :param timeout: seconds from the first freeze to the last thaw
    :param refusals: by server ID, why a server cannot be frozen
    :param metadata: of each disk, in the order of ``disks``
    """

    header: Header
    stages: tuple[tuple[Server, ...], ...]
    disks: tuple[Disk, ...]
    metadata: tuple[Mapping[str, str], ...]
    refusals: Mapping[str, str]
    timeout: int

    @property
    def servers(self) -> Iterator[Server]:
        """All servers, in their order."""
        return (server for stage in self.stages for server in stage)


def iso(when: datetime.datetime) -> str:
    """Return a time as it is written in metadata."""
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def make(
    conn: Any,
    stages: Sequence[Sequence[str]],
    *,
    name: str | None = None,
    timeout: int = TIMEOUT,
    properties: Mapping[str, str] | None = None,
    best_effort: bool = False,
    incremental: bool = False,
) -> Plan:
    """Look at the servers and their disks, and refuse what cannot become a snapshot.

    :param stages: names or IDs of servers
    :param timeout: seconds from the first freeze to the last thaw
    :raises errors.PlanError: it cannot
    :raises nova_ext.client.exceptions.ClientError: a server is not there, or the
        cloud cannot
    """
    compute.negotiate(conn)
    if timeout < 1:
        raise errors.PlanError("The timeout has to be a whole number from 1 up.")
    own = dict(properties or {})
    if reserved := [key for key in own if key.startswith(PREFIX)]:
        raise errors.PlanError(
            f"A property must not begin with {PREFIX}: choose another name for "
            f"{', '.join(reserved)}."
        )
    if odd := [key for key in own if not _PROPERTY.fullmatch(key)]:
        raise errors.PlanError(
            f"{odd[0]!r} cannot be the name of a property: use 1 to 255 letters, "
            "digits, blanks and the characters - _ : . only."
        )
    if not stages or not all(stage and all(stage) for stage in stages):
        raise errors.PlanError("A group needs a server in each place: name servers.")
    found = [[compute.find(conn, server)[0] for server in stage] for stage in stages]
    ids = [server for stage in found for server in stage]
    if len(set(ids)) < len(ids):
        raise errors.PlanError("A server is given more than once: name each once.")
    planned = [
        [_server(conn, server, number) for server in stage]
        for number, stage in enumerate(found)
    ]
    refusals = {server.id: why for stage in planned for server, _, why in stage if why}
    if refusals and not best_effort:
        names = {server.id: server.name for stage in planned for server, _, _ in stage}
        told = "; ".join(f"{names[server]}: {why}" for server, why in refusals.items())
        raise errors.PlanError(f"Not all servers can be quiesced. {told}")
    disks: list[Disk] = []
    for stage in planned:
        for server, view, _why in stage:
            disks += _disks(conn, server, view, len(disks))
    _check_disks(conn, disks, incremental)
    _ = conn.image  # its discovery takes time that a frozen server does not have
    now = datetime.datetime.now(datetime.UTC)
    snapshot_id = str(uuid.uuid4())
    header = Header(
        id=snapshot_id,
        name=name or f"group-{snapshot_id[:8]}",
        created_at=iso(now),
        # The time of the group begins with its first freeze, a moment later, and what
        # is proved within it is recorded a moment after its end.
        deadline=iso(now + datetime.timedelta(seconds=timeout + _GRACE)),
        disks=len(disks),
    )
    return Plan(
        header=header,
        stages=tuple(tuple(server for server, _, _ in stage) for stage in planned),
        disks=tuple(disks),
        metadata=tuple(encode(header, disk, own) for disk in disks),
        refusals=refusals,
        timeout=timeout,
    )


def _server(
    conn: Any, server_id: str, stage: int
) -> tuple[Server, resources.Server, str | None]:
    """Return a server, the API's view of it, and why it cannot be frozen."""
    view = compute.get_server(conn, server_id)
    why = None
    if view.status != "ACTIVE":
        why = f"it is {view.status}, not ACTIVE."
    elif view.task_state:
        why = f"it is busy ({view.task_state})."
    elif view.quiesce_status:
        why = f"it is {view.quiesce_status} already: unquiesce it first."
    elif view.is_locked:
        why = "it is locked: unlock it first."
    server = Server(
        id=view.id,
        name=view.name,
        stage=stage,
        flavor=view.flavor.original_name,
        config_drive=bool(view.has_config_drive),
        availability_zone=view.pinned_availability_zone,
        security_groups=tuple(
            dict.fromkeys(group["name"] for group in view.security_groups or ())
        ),
        ports=tuple(_ports(conn, view)),
    )
    return server, view, why


def _ports(conn: Any, view: resources.Server) -> Iterator[Port]:
    """Yield the ports of a server in the order in which its guest has them."""
    order = [
        address.get("OS-EXT-IPS-MAC:mac_addr")
        for addresses in (view.addresses or {}).values()
        for address in addresses
    ]
    interfaces = sorted(
        conn.compute.server_interfaces(view),
        key=lambda one: (
            order.index(one.mac_addr) if one.mac_addr in order else len(order)
        ),
    )
    for interface in interfaces:
        network = conn.network.get_network(interface.net_id)
        name = network.name if len(network.name or "") in range(1, 100) else network.id
        addresses = [fixed["ip_address"] for fixed in interface.fixed_ips or ()]
        yield Port(name, interface.mac_addr, tuple(addresses))


def _disks(
    conn: Any, server: Server, view: resources.Server, number: int
) -> list[Disk]:
    """Return the disks of a server by device, its root first."""
    attached = sorted(
        conn.compute.volume_attachments(view),
        key=lambda one: (len(one.device or ""), one.device or ""),
    )
    volumes = [conn.block_storage.get_volume(one.volume_id) for one in attached]
    for volume in volumes:
        if len(volume.attachments or ()) > 1:
            raise errors.PlanError(
                f"Volume {volume.id} of {server.name} is attached to several servers, "
                "which would have to be frozen as one: detach it from all but one."
            )
    disks = []
    boots = next((v.id for v in volumes if v.is_bootable), None)
    if view.image:
        boots = None
        disks.append(Disk(number, server, _ROOT, True, None, view.flavor.disk))
    elif boots is None:
        raise errors.PlanError(
            f"None of the volumes of {server.name} is bootable: set that of its root "
            "with 'openstack volume set --bootable'."
        )
    for one, volume in zip(attached, volumes, strict=True):
        disks.append(
            Disk(
                number=number + len(disks),
                server=server,
                device=one.device or "",
                boot=volume.id == boots,
                volume=volume.id,
                size=volume.size,
                volume_type=volume.volume_type,
            )
        )
    return disks


def _check_disks(conn: Any, disks: Sequence[Disk], incremental: bool) -> None:
    """Refuse what Cinder would refuse when all is frozen, or when it is too late."""
    if incremental:
        full = {
            backup.volume_id
            for backup in conn.block_storage.backups(details=True)
            if backup.status == "available"
        }
        lacking = [d.title for d in disks if d.volume and d.volume not in full]
        if lacking:
            raise errors.PlanError(
                f"No earlier backup of {', '.join(lacking)}, which an incremental one "
                "builds on: leave out --incremental this time."
            )
    try:
        _check_quota(conn, sum(bool(disk.volume) for disk in disks))
    except sdk_exceptions.SDKException:
        return  # not everybody may look at quotas; Cinder will say it


def _check_quota(conn: Any, wanted: int) -> None:
    project = conn.session.get_project_id()
    quota = conn.block_storage.get_quota_set(project, usage=True)
    limit, used = quota.snapshots, (quota.usage or {}).get("snapshots", 0)
    if 0 <= limit < used + wanted:
        raise errors.PlanError(
            f"The quota of snapshots is {limit}, {used} are used and {wanted} more are "
            "needed: delete some or ask for more."
        )
