#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

"""Owns what the parts of a group mean together: finds, judges and deletes groups."""

import datetime
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from nova_ext.consistency import errors, facts, parts, waiting


class Status(StrEnum):
    """What can be done with a group, or with one kind of its parts.

    ``available``: servers can be made of it. ``creating``: it may become so. ``error``:
    it never will, because its creation failed, its client died or a part is gone.
    """

    AVAILABLE = "available"
    CREATING = "creating"
    ERROR = "error"


@dataclass(frozen=True)
class Group:
    """One consistency snapshot, as found in the cloud.

    :param disks: in their order, by number
    :param cuts: snapshots and images by the number of their disk
    :param backups: backups by the number of their disk
    :param members: all of these, and any whose facts are not whole
    """

    header: facts.Header
    disks: Mapping[int, facts.Disk]
    cuts: Mapping[int, parts.Part]
    backups: Mapping[int, parts.Part]
    members: tuple[parts.Part, ...]

    @property
    def id(self) -> str:
        """The UUID of the group."""
        return self.header.id

    @property
    def name(self) -> str:
        """Its name, which need not be unique."""
        return self.header.name

    @property
    def servers(self) -> list[facts.Server]:
        """Its servers, in the order in which they were frozen."""
        found = {disk.server.id: disk.server for disk in self.disks.values()}
        return list(found.values())

    @property
    def properties(self) -> dict[str, str]:
        """The metadata that its maker gave it."""
        return facts.properties(self.members[0].metadata)

    @property
    def _proofs(self) -> list[parts.Part]:
        return [p for p in self.members if p.metadata.get(facts.PROVED) == self.id]

    @property
    def consistency(self) -> str | None:
        """``group``, ``partial`` (made with best effort), or None: not proved."""
        proofs = self._proofs
        return proofs[0].metadata.get(facts.CONSISTENCY) if proofs else None

    @property
    def window_ms(self) -> int | None:
        """From the first request to freeze until all were thawed."""
        text = self._proofs[0].metadata.get(facts.WINDOW, "") if self._proofs else ""
        return int(text) if text.isdecimal() else None

    @property
    def snapshot_status(self) -> Status:
        """Of the snapshots and images."""
        if self._proofs:
            return Status.AVAILABLE if self._whole(self.cuts) else Status.ERROR
        return self._unfinished(self.cuts)

    @property
    def backup_status(self) -> Status | None:
        """Of the backups, with the images of disks that have none; None: no backup.

        A group of images alone needs no backup to go to another cloud.
        """
        if not self.backups and any(disk.volume for disk in self.disks.values()):
            return None
        images = {
            number: part
            for number, part in self.cuts.items()
            if part.kind is parts.Kind.IMAGE
        }
        if self._proofs and self._whole({**images, **self.backups}):
            return Status.AVAILABLE
        return self._unfinished(self.backups)

    @property
    def status(self) -> Status:
        """Available if anything is that servers can be made of."""
        found = {self.snapshot_status, self.backup_status}
        return next(status for status in Status if status in found)

    def _whole(self, found: Mapping[int, parts.Part]) -> bool:
        wanted = set(range(self.header.disks))
        return set(found) == wanted and all(part.ready for part in found.values())

    def _unfinished(self, found: Mapping[int, parts.Part]) -> Status:
        if any(part.failed for part in found.values()):
            return Status.ERROR
        making = {part.kind for part in found.values() if not part.ready}
        if parts.Kind.BACKUP in making:
            return Status.CREATING
        end = datetime.datetime.fromisoformat(self.header.deadline)
        if parts.Kind.IMAGE in making:  # uploaded once the servers are thawed
            end += datetime.timedelta(seconds=parts.UPLOAD_LIMIT)
        alive = datetime.datetime.now(datetime.UTC) < end
        return Status.CREATING if alive else Status.ERROR


def find_all(conn: Any) -> list[Group]:
    """Return all groups of the project, the oldest first."""
    with waiting.bounded_requests(conn):
        return _group(parts.find(conn))


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
    """Delete all parts of a group and wait until they are gone.

    :raises errors.PlanError: somebody may still be making it
    :raises errors.Leftovers: not all could be deleted; the others are
    """
    if group.snapshot_status is Status.CREATING:
        raise errors.PlanError(
            f"Consistency snapshot {group.name} is being made, or its client died a "
            f"moment ago: its servers thaw by {group.header.deadline}, try again then."
        )
    if any(part.needed for part in group.members):
        raise errors.PlanError(
            f"Later backups build on those of consistency snapshot {group.name}: "
            "delete them first, the newest first."
        )
    with waiting.bounded_requests(conn):
        parts.delete(conn, group.members)


def _group(found: Iterable[parts.Part]) -> list[Group]:
    by_id: dict[str, list[parts.Part]] = defaultdict(list)
    for part in found:
        by_id[part.metadata[facts.ID]].append(part)
    groups = [group for own in by_id.values() if (group := _make(own))]
    return sorted(groups, key=lambda group: group.header.created_at)


def _make(found: list[parts.Part]) -> Group | None:
    header = None
    disks: dict[int, facts.Disk] = {}
    cuts: dict[int, parts.Part] = {}
    backups: dict[int, parts.Part] = {}
    for part in found:
        try:
            header, disk = facts.decode(part.metadata)
        except ValueError:
            continue  # somebody changed its metadata: it counts as missing
        disks[disk.number] = disk
        own = backups if part.kind is parts.Kind.BACKUP else cuts
        own[disk.number] = part
    if header is None:
        return None
    return Group(header, dict(sorted(disks.items())), cuts, backups, tuple(found))
