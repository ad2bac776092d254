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

"""Owns the parts of a group in the cloud: Cinder snapshots, backups, Glance images.

A part is made with its facts as metadata, found by them, marked and deleted; what the
parts mean together is not known here.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from openstack import exceptions as sdk_exceptions

from nova_ext import client
from nova_ext.consistency import errors, facts, waiting

#: Seconds between two looks at a snapshot that is being cut; a guest is frozen then.
CUT_INTERVAL = 0.1

#: Seconds between two looks at what takes minutes: backups, uploads, deletions.
INTERVAL = 1.0

#: Seconds that a deletion may take, and the upload of an image.
DELETE_LIMIT = 300
UPLOAD_LIMIT = 3600

#: Looks at a server that is no longer busy with an image that has not appeared.
_IMAGE_LOOKS = 20

_DELETING = "deleting"
_IMAGE_TASKS = ("image_snapshot", "image_snapshot_pending", "image_pending_upload")


class Kind(StrEnum):
    """What a part is."""

    SNAPSHOT = "snapshot"
    IMAGE = "image"
    BACKUP = "backup"


@dataclass(frozen=True)
class Part:
    """One part as its API shows it.

    :param ready: whether something can be made of it
    :param failed: whether it never will be ready
    :param needed: whether other parts build on it, so that it cannot be deleted
    """

    kind: Kind
    id: str
    status: str
    ready: bool
    failed: bool
    metadata: Mapping[str, str]
    needed: bool = False

    @property
    def title(self) -> str:
        """Kind and ID, as told to users."""
        return f"{self.kind} {self.id}"


def cut(conn: Any, disk: facts.Disk, metadata: Mapping[str, str]) -> Part:
    """Order the snapshot of a disk, or the image of a root that is no volume.

    :raises openstack.exceptions.SDKException: the API refused
    """
    name = _name(metadata)
    if disk.volume is None:
        answer = client.act(
            conn,
            disk.server.id,
            "createImage",
            {"name": name, "metadata": dict(metadata)},
        )
        image_id = answer.json()["image_id"]
        return Part(Kind.IMAGE, image_id, "queued", False, False, metadata)
    made = conn.block_storage.create_snapshot(
        volume_id=disk.volume, is_forced=True, name=name, metadata=dict(metadata)
    )
    return _snapshot(made)


def wait_cut(
    conn: Any, disk: facts.Disk, part: Part, limit: float, stop: threading.Event
) -> None:
    """Wait until what the guest writes from now on is not in a part.

    :param limit: seconds
    :param stop: see :func:`waiting.until`
    :raises errors.StepFailed: the snapshot or image failed, or took too long
    """
    what = f"The {part.kind} of {disk.title}"
    idle = 0

    def look() -> bool | None:
        nonlocal idle
        now = get(conn, part)
        if now is None or now.failed:
            raise errors.StepFailed(
                f"{what} failed ({now.status if now else 'it is gone'}): see its "
                "service's log, or ask the cloud's operator."
            )
        if now.ready:
            return True
        if part.kind is Kind.SNAPSHOT:
            return None if now.status == "creating" else True
        task = client.get_server(conn, disk.server.id).get("OS-EXT-STS:task_state")
        if task == "image_uploading":
            return True
        idle = 0 if task in _IMAGE_TASKS else idle + 1
        if idle > _IMAGE_LOOKS:
            raise errors.StepFailed(
                f"{what} was not made: look at the server's events."
            )
        return None

    waiting.until(look, limit, what, interval=CUT_INTERVAL, stop=stop)


def wait_ready(
    conn: Any, part: Part, limit: float | None, what: str, stop: threading.Event
) -> Part:
    """Wait until something can be made of a part.

    :param limit: seconds; None for as long as it takes
    :param stop: see :func:`waiting.until`
    :raises errors.StepFailed: it failed, or took too long
    """

    def look() -> Part | None:
        now = get(conn, part)
        if now is None or now.failed:
            status = now.status if now else "it is gone"
            raise errors.StepFailed(f"{what} failed ({part.title}: {status}).")
        return now if now.ready else None

    return waiting.until(look, limit, what, interval=INTERVAL, stop=stop)


def back_up(
    conn: Any,
    snapshot: Part,
    metadata: Mapping[str, str],
    volume: str,
    *,
    incremental: bool,
    zone: str | None,
) -> Part:
    """Order the backup of a snapshot, which carries the same facts.

    :param volume: ID of the volume that the snapshot is of
    :param incremental: only what the latest backup of the volume lacks
    :param zone: availability zone of the backup service; None leaves it to Cinder
    :raises openstack.exceptions.SDKException: the API refused
    """
    made = conn.block_storage.create_backup(
        volume_id=volume,
        snapshot_id=snapshot.id,
        name=_name(metadata),
        metadata=dict(metadata),
        is_incremental=incremental,
        force=True,
        **({"availability_zone": zone} if zone else {}),
    )
    return Part(Kind.BACKUP, made.id, "creating", False, False, metadata)


def mark(conn: Any, part: Part, values: Mapping[str, str]) -> None:
    """Add metadata to a snapshot or image, all or none of it."""
    if part.kind is Kind.IMAGE:
        conn.image.update_image(part.id, **values)
    else:
        conn.block_storage.set_snapshot_metadata(part.id, **values)


def get(conn: Any, part: Part) -> Part | None:
    """Return a part as it is now, or None if it is gone."""
    getters: dict[Kind, tuple[Callable[[str], Any], Callable[[Any], Part]]] = {
        Kind.SNAPSHOT: (conn.block_storage.get_snapshot, _snapshot),
        Kind.BACKUP: (conn.block_storage.get_backup, _backup),
        Kind.IMAGE: (conn.image.get_image, _image),
    }
    fetch, view = getters[part.kind]
    try:
        found = view(fetch(part.id))
    except sdk_exceptions.NotFoundException:
        return None
    return None if found.status == "deleted" else found


def find(conn: Any, group_id: str | None = None) -> Iterator[Part]:
    """Yield all parts of a group, or of all groups of the project."""
    storage = conn.block_storage
    every: list[Part] = [_snapshot(one) for one in storage.snapshots(details=True)]
    every += [_backup(one) for one in storage.backups(details=True)]
    # Nova marks what it makes of a server; a user's images are not looked at.
    wanted = {facts.ID: group_id} if group_id else {"image_type": "snapshot"}
    # An administrator sees those of every project.
    wanted["owner"] = conn.session.get_project_id()
    every += [_image(one) for one in conn.image.images(**wanted)]
    for part in every:
        own = part.metadata.get(facts.ID)
        if own and group_id in (None, own):
            yield part


def delete(conn: Any, wanted: Collection[Part], limit: float = DELETE_LIMIT) -> None:
    """Delete parts and wait until they are gone; those that are gone are no error.

    Backups go first, because Cinder keeps a snapshot that is being read. A part that is
    still being made is deleted once it is there.

    :raises errors.Leftovers: not all could be deleted; the others are
    """
    left: list[str] = []
    end = time.monotonic() + limit
    for kind in (Kind.BACKUP, Kind.IMAGE, Kind.SNAPSHOT):
        going = []
        for part in wanted:
            if part.kind is kind:
                try:
                    _order_deletion(conn, part, end - time.monotonic())
                    going.append(part)
                except Exception as exc:
                    left.append(f"{part.title}: {reason(exc)}")
        for part in going:
            try:
                _wait_gone(conn, part, end - time.monotonic())
            except Exception as exc:
                left.append(f"{part.title}: {reason(exc)}")
    if left:
        raise errors.Leftovers(left)


def reason(exc: BaseException) -> str:
    """Return what an exception says, on one line."""
    text = " ".join(str(getattr(exc, "details", None) or exc).split())
    return text or type(exc).__name__


def _order_deletion(conn: Any, part: Part, limit: float) -> None:
    deleters = {
        Kind.SNAPSHOT: conn.block_storage.delete_snapshot,
        Kind.BACKUP: conn.block_storage.delete_backup,
        Kind.IMAGE: conn.image.delete_image,
    }

    def look() -> bool | None:
        now = get(conn, part)
        if now is None or now.status == _DELETING:
            return True
        if part.kind is not Kind.IMAGE and not (now.ready or now.failed):
            return None
        deleters[part.kind](part.id)
        return True

    waiting.until(look, max(1, limit), f"Waiting for {part.title}", interval=INTERVAL)


def _wait_gone(conn: Any, part: Part, limit: float) -> None:
    def look() -> bool | None:
        now = get(conn, part)
        if now is not None and now.ready and part.kind is Kind.SNAPSHOT:
            raise errors.StepFailed("Cinder kept it: is there a volume made of it?")
        if now is not None and now.failed and now.status != _DELETING:
            raise errors.StepFailed(f"it is {now.status}.")
        return True if now is None else None

    waiting.until(
        look, max(1, limit), f"The deletion of {part.title}", interval=INTERVAL
    )


def _name(metadata: Mapping[str, str]) -> str:
    _header, disk = facts.decode(metadata)
    device = disk.device.rpartition("/")[2]
    return f"{metadata[facts.NAME]}-{disk.server.name}-{device}"[: facts.LIMIT]


def _snapshot(found: Any) -> Part:
    return _volume_part(Kind.SNAPSHOT, found)


def _backup(found: Any) -> Part:
    return _volume_part(Kind.BACKUP, found)


def _volume_part(kind: Kind, found: Any) -> Part:
    return Part(
        kind,
        found.id,
        found.status,
        found.status == "available",
        found.status.startswith("error") or found.status == _DELETING,
        found.metadata or {},
        bool(getattr(found, "has_dependent_backups", False)),
    )


def _image(found: Any) -> Part:
    metadata = {k: v for k, v in (found.properties or {}).items() if isinstance(v, str)}
    if metadata.get(facts.IMAGE) not in (None, "", found.id):
        metadata.pop(facts.ID, None)  # the facts are inherited
    return Part(
        Kind.IMAGE,
        found.id,
        found.status,
        found.status == "active",
        found.status in ("killed", "error", "pending_delete", "deactivated"),
        metadata,
    )
