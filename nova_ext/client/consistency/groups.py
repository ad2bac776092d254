# SPDX-License-Identifier: Apache-2.0
"""Finds, judges and deletes groups: what their members mean together."""

import datetime
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from nova_ext.client.consistency import errors, members, metadata, waiting
from nova_ext.client.consistency.members import Member


class Status(StrEnum):
    """What can be done with a group, or with one kind of its members.

    ``available``: servers can be made of it. ``creating``: it may become so. ``error``:
    it never will, because its creation failed, its client died or a member is gone.
    """

    AVAILABLE = "available"
    CREATING = "creating"
    ERROR = "error"


@dataclass(frozen=True)
class Group:
    """One consistency snapshot, as found in the cloud.

    :param disks: in their order, by number
    :param snapshots: snapshots and images by the number of their disk
    :param backups: backups by the number of their disk
    :param members: all of these, and any whose metadata is incomplete
    """

    header: metadata.Header
    disks: Mapping[int, metadata.Disk]
    snapshots: Mapping[int, Member]
    backups: Mapping[int, Member]
    members: tuple[Member, ...]

    @property
    def id(self) -> str:
        """The UUID of the group."""
        return self.header.id

    @property
    def name(self) -> str:
        """Its name, which need not be unique."""
        return self.header.name

    @property
    def servers(self) -> list[metadata.Server]:
        """Its servers, in the order in which they were frozen."""
        found = {disk.server.id: disk.server for disk in self.disks.values()}
        return list(found.values())

    @property
    def properties(self) -> dict[str, str]:
        """The metadata that its maker gave it."""
        return metadata.properties(self.members[0].metadata)

    @property
    def _proofs(self) -> list[Member]:
        return [p for p in self.members if p.metadata.get(metadata.PROVED) == self.id]

    @property
    def consistency(self) -> str | None:
        """``group``, ``partial`` (made with best effort), or None: not proved."""
        proofs = self._proofs
        return proofs[0].metadata.get(metadata.CONSISTENCY) if proofs else None

    @property
    def window_ms(self) -> int | None:
        """From the first request to freeze until all were thawed."""
        text = self._proofs[0].metadata.get(metadata.WINDOW, "") if self._proofs else ""
        return int(text) if text.isdecimal() else None

    @property
    def snapshot_status(self) -> Status:
        """Of the snapshots and images."""
        if self._proofs:
            return Status.AVAILABLE if self._whole(self.snapshots) else Status.ERROR
        return self._unfinished(self.snapshots)

    @property
    def backup_status(self) -> Status | None:
        """Of the backups, with the images of disks that have none; None: no backup.

        A group of images alone needs no backup to go to another cloud.
        """
        if not self.backups and any(disk.volume for disk in self.disks.values()):
            return None
        images = {
            number: member
            for number, member in self.snapshots.items()
            if member.kind is members.Kind.IMAGE
        }
        if self._proofs and self._whole({**images, **self.backups}):
            return Status.AVAILABLE
        return self._unfinished(self.backups)

    @property
    def status(self) -> Status:
        """Available if anything is that servers can be made of."""
        found = {self.snapshot_status, self.backup_status}
        return next(status for status in Status if status in found)

    def _whole(self, found: Mapping[int, Member]) -> bool:
        wanted = set(range(self.header.disks))
        return set(found) == wanted and all(member.ready for member in found.values())

    def _unfinished(self, found: Mapping[int, Member]) -> Status:
        if any(member.failed for member in found.values()):
            return Status.ERROR
        making = {member.kind for member in found.values() if not member.ready}
        if members.Kind.BACKUP in making:
            return Status.CREATING
        end = datetime.datetime.fromisoformat(self.header.deadline)
        if members.Kind.IMAGE in making:  # uploaded once the servers are thawed
            end += datetime.timedelta(seconds=members.UPLOAD_LIMIT)
        alive = datetime.datetime.now(datetime.UTC) < end
        return Status.CREATING if alive else Status.ERROR


def find_all(conn: Any) -> list[Group]:
    """Return all groups of the project, the oldest first."""
    with waiting.bounded_requests(conn) as once:
        return _group(members.find(once))


def find(conn: Any, id_or_name: str) -> Group:
    """Return one group.

    :raises errors.NotFound: there is none, or several have that name
    """
    every = find_all(conn)
    found = [group for group in every if group.id == id_or_name]
    found = found or [group for group in every if group.name == id_or_name]
    if not found:
        raise errors.NotFound(
            f"No consistency snapshot with the name or ID {id_or_name}: see "
            "'openstack consistency snapshot list'."
        )
    if len(found) > 1:
        raise errors.NotFound(
            f"More than one consistency snapshot has the name {id_or_name}: use its ID."
        )
    return found[0]


def delete(conn: Any, group: Group) -> None:
    """Delete all members of a group and wait until they are gone.

    :raises errors.PlanError: somebody may still be making it
    :raises errors.Leftovers: not all could be deleted; the others are
    """
    if group.snapshot_status is Status.CREATING:
        raise errors.PlanError(
            f"Consistency snapshot {group.name} is being made, or its client died a "
            f"moment ago: its servers thaw by {group.header.deadline}, try again then."
        )
    if any(member.needed for member in group.members):
        raise errors.PlanError(
            f"Later backups build on those of consistency snapshot {group.name}: "
            "delete them first, the newest first."
        )
    with waiting.bounded_requests(conn) as once:
        members.delete(once, group.members)


def _group(found: Iterable[Member]) -> list[Group]:
    by_id: dict[str, list[Member]] = defaultdict(list)
    for member in found:
        by_id[member.metadata[metadata.ID]].append(member)
    groups = [group for own in by_id.values() if (group := _make(own))]
    return sorted(groups, key=lambda group: group.header.created_at)


def _make(found: list[Member]) -> Group | None:
    header = None
    disks: dict[int, metadata.Disk] = {}
    snapshots: dict[int, Member] = {}
    backups: dict[int, Member] = {}
    for member in found:
        try:
            header, disk = metadata.decode(member.metadata)
        except ValueError:
            continue  # somebody changed its metadata: it counts as missing
        disks[disk.number] = disk
        own = backups if member.kind is members.Kind.BACKUP else snapshots
        own[disk.number] = member
    if header is None:
        return None
    return Group(header, dict(sorted(disks.items())), snapshots, backups, tuple(found))
