# SPDX-License-Identifier: Apache-2.0
"""Makes running servers of a consistency snapshot."""

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

from openstack import exceptions as sdk_exceptions

from nova_ext.client.consistency import (
    errors,
    groups,
    members,
    metadata,
    report,
    waiting,
)

#: Seconds that a server may take to boot, and a volume to be deleted.
_BOOT_LIMIT = 1800
_DELETE_LIMIT = 300
_INTERVAL = 1.0

#: Metadata of what a restore makes: the snapshot's ID, and that of the restore.
RESTORED_FROM = f"{metadata.PREFIX}restored_from"
_RESTORE = f"{metadata.PREFIX}restore"


@dataclass
class Restored:
    """A server that was made.

    :param disks: by device of the original, where the disk is now and what it is, as
        "/dev/vda: volume ID"
    """

    id: str
    name: str
    original: str
    disks: list[str] = field(default_factory=list)


def restore(
    conn: Any,
    group: groups.Group,
    *,
    new_addresses: bool = False,
    observe: report.Observer = report.nobody,
) -> list[Restored]:
    """Make servers of a group: volumes of its snapshots, or else of its backups.

    Servers get the name, flavor, networks, addresses and disks that they had, and are
    started in the order in which they were frozen. If one cannot be made, all that was
    made is removed again. While this runs in the main thread, SIGINT and SIGTERM end it
    cleanly.

    :param conn: ``openstack.connection.Connection`` to the cloud that has the group
    :param new_addresses: take other MAC and IP addresses on the same networks
    :raises errors.PlanError: the group cannot be restored here; nothing has been done
    :raises errors.GroupFailed: it failed, and what was made is removed
    """
    with waiting.bounded_requests(conn) as once, waiting.InterruptGuard() as guard:
        needs = _Needs(once, group)
        work = _Restore(once, group, needs, guard, observe, new_addresses)
        try:
            return work.run()
        except Exception as exc:
            left = work.undo()
            text = f"The servers were not restored. {members.reason(exc)}"
            raise errors.GroupFailed(text, left=left) from exc
        except BaseException:
            work.undo()
            raise


def _restore_id_of(one: Any) -> str | None:
    """Return the ID of the restore that made a server, a volume or a port."""
    metadata = getattr(one, "metadata", None)
    return one.description if metadata is None else metadata.get(_RESTORE)


class _Needs:
    """What the target cloud has to have; looked up before anything is made."""

    def __init__(self, conn: Any, group: groups.Group) -> None:
        if group.snapshot_status is groups.Status.AVAILABLE:
            self.sources = group.snapshots
        elif group.backup_status is groups.Status.AVAILABLE:
            self.sources = {**group.snapshots, **group.backups}
        else:
            raise errors.PlanError(
                f"Consistency snapshot {group.name} is not available: it is "
                f"{group.status}."
            )
        self._conn = conn
        self.flavors: dict[str, str] = {}
        self.networks: dict[str, str] = {}
        self.security_groups: dict[str, str] = {}
        for server in group.servers:
            self._look(
                self.flavors, server.flavor, conn.compute.find_flavor, "flavor", server
            )
            for port in server.ports:
                self._look(
                    self.networks,
                    port.network,
                    conn.network.find_network,
                    "network",
                    server,
                )
            for name in server.security_groups if server.ports else ():
                self._look(
                    self.security_groups,
                    name,
                    conn.network.find_security_group,
                    "security group",
                    server,
                )
        types = {kind.name for kind in conn.block_storage.types()}
        #: A type that the cloud does not have gives way to its default.
        self.volume_types = {
            disk.volume_type
            for disk in group.disks.values()
            if disk.volume_type in types
        }
        zones = conn.compute.availability_zones()
        self.zones = {zone.name for zone in zones}

    @staticmethod
    def _look(
        found: dict[str, str], name: str, find: Any, what: str, server: metadata.Server
    ) -> None:
        if name in found:
            return
        try:
            found[name] = find(name, ignore_missing=False).id
        except sdk_exceptions.DuplicateResource as exc:
            raise errors.PlanError(
                f"More than one {what} has the name {name}, which server {server.name} "
                "needs: rename all but one."
            ) from exc
        except sdk_exceptions.NotFoundException as exc:
            raise errors.PlanError(
                f"This cloud has no {what} {name}, which server {server.name} needs: "
                "make one of that name."
            ) from exc


class _Restore:
    def __init__(
        self,
        conn: Any,
        group: groups.Group,
        needs: _Needs,
        guard: waiting.InterruptGuard,
        observe: report.Observer,
        new_addresses: bool,
    ) -> None:
        self._conn = conn
        self._group = group
        self._needs = needs
        self._guard = guard
        self._new_addresses = new_addresses
        self._id = str(uuid.uuid4())
        self._metadata = {RESTORED_FROM: group.id, _RESTORE: self._id}
        self._volumes: dict[int, str] = {}
        self._ports: list[str] = []
        self._servers: dict[str, str] = {}
        self._workers = waiting.Workers()
        built = sum(bool(disk.volume) for disk in group.disks.values())
        self._tell = report.Progress(observe, built + len(group.servers))

    def run(self) -> list[Restored]:
        """Do it all; if it raises, :meth:`undo` has to follow."""
        pending: dict[futures.Future[Any], metadata.Disk] = {}
        for disk in self._group.disks.values():
            if disk.volume:
                self._tell(report.Kind.BUILDING, disk.title)
                pending[self._workers.submit(self._build, disk)] = disk
        for future in self._guard.results(pending):
            future.result()
            self._tell(report.Kind.BUILT, pending[future].title)
        for stage in self._stages():
            booting: dict[futures.Future[Any], metadata.Server] = {}
            for server in stage:
                self._tell(report.Kind.BOOTING, server.name)
                booting[self._workers.submit(self._boot, server)] = server
            for future in self._guard.results(booting):
                future.result()
                self._tell(report.Kind.BOOTED, booting[future].name)
        return [self._restored(server) for server in self._group.servers]

    def _stages(self) -> Iterator[Sequence[metadata.Server]]:
        servers = self._group.servers
        for number in sorted({server.stage for server in servers}):
            yield [server for server in servers if server.stage == number]

    def _disks(self, server: metadata.Server) -> list[metadata.Disk]:
        disks = self._group.disks.values()
        own = [disk for disk in disks if disk.server.id == server.id]
        return sorted(own, key=lambda disk: disk.number)

    # -- volumes --

    def _build(self, disk: metadata.Disk) -> None:
        source = self._needs.sources[disk.number]
        storage = self._conn.block_storage
        wanted: dict[str, Any] = {
            "name": f"{self._group.name}-{disk.title.replace(' /dev/', '-')}"[:255],
            "size": disk.size,
            "metadata": self._metadata,
        }
        if source.kind is members.Kind.SNAPSHOT:
            wanted["snapshot_id"] = source.id
        elif disk.volume_type in self._needs.volume_types:
            wanted["volume_type"] = disk.volume_type
        volume = storage.create_volume(**wanted)
        self._volumes[disk.number] = volume.id
        self._wait_volume(volume.id, disk)
        if source.kind is members.Kind.BACKUP:
            storage.restore_backup(source.id, volume_id=volume.id)
            self._wait_volume(volume.id, disk)
        if disk.boot:
            storage.set_volume_bootable_status(volume.id, True)

    def _wait_volume(self, volume_id: str, disk: metadata.Disk) -> None:
        what = f"The volume for {disk.title}"

        def look() -> bool | None:
            status = self._conn.block_storage.get_volume(volume_id).status
            if status.startswith("error"):
                raise errors.StepFailed(f"{what} ({volume_id}) is {status}.")
            return True if status == "available" else None

        waiting.until(look, None, what, interval=_INTERVAL, stop=self._workers.stop)

    # -- servers --

    def _boot(self, server: metadata.Server) -> None:
        compute = self._conn.compute
        wanted: dict[str, Any] = {
            "name": server.name,
            "flavor_id": self._needs.flavors[server.flavor],
            "networks": [{"port": port} for port in self._make_ports(server)] or "none",
            "block_device_mapping": list(self._mapping(server)),
            "config_drive": server.config_drive,
            "metadata": self._metadata,
        }
        root = self._disks(server)[0]
        if root.volume is None:
            wanted["image_id"] = self._needs.sources[root.number].id
        if server.availability_zone in self._needs.zones:
            wanted["availability_zone"] = server.availability_zone
        made = compute.create_server(**wanted)
        self._servers[server.id] = made.id
        what = f"Server {server.name}"

        def look() -> bool | None:
            found = compute.get_server(made.id)
            if found.status == "ERROR":
                why = (found.fault or {}).get("message", "no reason is given")
                raise errors.StepFailed(f"{what} ({made.id}) is in error: {why}")
            return True if found.status == "ACTIVE" else None

        waiting.until(
            look, _BOOT_LIMIT, what, interval=_INTERVAL, stop=self._workers.stop
        )

    def _mapping(self, server: metadata.Server) -> Iterator[dict[str, Any]]:
        for disk in self._disks(server):
            kind = "volume" if disk.volume else "image"
            source = self._volumes.get(disk.number)
            yield {
                "uuid": source or self._needs.sources[disk.number].id,
                "source_type": kind,
                "destination_type": "volume" if disk.volume else "local",
                "boot_index": 0 if disk.boot else -1,
                "device_name": disk.device or None,
                "delete_on_termination": not disk.volume,
            }

    def _make_ports(self, server: metadata.Server) -> Iterator[str]:
        for port in server.ports:
            wanted: dict[str, Any] = {
                "network_id": self._needs.networks[port.network],
                "description": self._id,
                "security_groups": [
                    self._needs.security_groups[name] for name in server.security_groups
                ],
            }
            if not self._new_addresses:
                wanted["mac_address"] = port.mac
                wanted["fixed_ips"] = [{"ip_address": one} for one in port.addresses]
            try:
                made = self._conn.network.create_port(**wanted)
            except sdk_exceptions.ConflictException as exc:
                raise errors.StepFailed(
                    f"An address of {server.name} on {port.network} is in use: restore "
                    "with --new-addresses, or free it."
                ) from exc
            self._ports.append(made.id)
            yield made.id

    def _restored(self, server: metadata.Server) -> Restored:
        return Restored(
            id=self._servers[server.id],
            name=server.name,
            original=server.id,
            disks=[
                f"{disk.device}: volume {self._volumes[disk.number]}"
                if disk.volume
                else f"{disk.device}: local"
                for disk in self._disks(server)
            ],
        )

    # -- the way back --

    def undo(self) -> list[str]:
        """Remove what was made; return what could not be removed.

        It is looked for, because an answer may have got lost.
        """
        self._workers.give_up()
        if not self._workers.submitted:
            return []
        compute, storage = self._conn.compute, self._conn.block_storage
        left: list[str] = []
        known = list(self._servers.values())
        servers = self._with_our_id("server", lambda: compute.servers(), known, left)
        self._remove("server", servers, compute.delete_server, compute.get_server, left)
        if any(server.ports for server in self._group.servers):
            network = self._conn.network
            ports = self._with_our_id(
                "port", lambda: network.ports(description=self._id), self._ports, left
            )
            self._remove("port", ports, network.delete_port, network.get_port, left)
        known = list(self._volumes.values())
        volumes = self._with_our_id("volume", lambda: storage.volumes(), known, left)
        end = time.monotonic() + _DELETE_LIMIT
        self._remove(
            "volume",
            volumes,
            lambda volume: self._delete_volume(volume, end),
            storage.get_volume,
            left,
        )
        return left

    def _with_our_id(
        self,
        what: str,
        find: Callable[[], Iterable[Any]],
        known: Sequence[str],
        left: list[str],
    ) -> list[str]:
        """Return the IDs that are known, and those of what bears this restore's ID."""

        def look() -> list[str]:
            return [one.id for one in find() if self._id == _restore_id_of(one)]

        title = f"Looking for each {what} of this restore"
        found: list[str] = []
        try:
            found = waiting.until(look, _DELETE_LIMIT, title, interval=_INTERVAL)
        except Exception as exc:
            left.append(f"{what}s with {_RESTORE}={self._id}: {members.reason(exc)}")
        return list(dict.fromkeys((*known, *found)))

    def _delete_volume(self, volume_id: str, end: float) -> None:
        # One that is being made, restored or detached cannot be deleted yet.
        def look() -> bool | None:
            status = self._conn.block_storage.get_volume(volume_id).status
            return True if status == "available" or "error" in status else None

        left = max(1.0, end - time.monotonic())
        waiting.until(look, left, f"Volume {volume_id}", interval=_INTERVAL)
        self._conn.block_storage.delete_volume(volume_id)

    @staticmethod
    def _remove(
        what: str, ids: Sequence[str], delete: Any, get: Any, left: list[str]
    ) -> None:
        going = []
        for one in ids:
            try:
                delete(one)
                going.append(one)
            except sdk_exceptions.NotFoundException:
                continue
            except Exception as exc:
                left.append(f"{what} {one}: {members.reason(exc)}")
        for one in going:

            def look(one: str = one) -> bool | None:
                try:
                    get(one)
                except sdk_exceptions.NotFoundException:
                    return True
                return None

            try:
                waiting.until(look, _DELETE_LIMIT, "Its deletion", interval=_INTERVAL)
            except Exception as exc:
                left.append(f"{what} {one}: {members.reason(exc)}")
