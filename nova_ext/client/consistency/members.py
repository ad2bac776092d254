# SPDX-License-Identifier: Apache-2.0
"""The members of a group in the cloud: Cinder snapshots and backups, Glance images.

A member is what was made of one disk. It is made with metadata, found by it, gets more
of it, and is deleted; what the members mean together is not known here.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from openstack import exceptions as sdk_exceptions

from nova_ext.client import compute
from nova_ext.client.consistency import errors, metadata, waiting

#: Seconds between two looks at a snapshot that is being taken; a guest is frozen then.
SNAPSHOT_INTERVAL = 0.1

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
    """What a member is."""

    SNAPSHOT = "snapshot"
    IMAGE = "image"
    BACKUP = "backup"


@dataclass(frozen=True)
class Member:
    """One member as its API shows it.

    :param ready: whether something can be made of it
    :param failed: whether it never will be ready
    :param needed: whether other members build on it, so that it cannot be deleted
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


def snapshot(conn: Any, disk: metadata.Disk, values: Mapping[str, str]) -> Member:
    """Ask for the snapshot of a disk, or the image of a root that is no volume.

    :param values: the metadata of the member

    :raises openstack.exceptions.SDKException: the API refused
    """
    name = _name(values)
    if disk.volume is None:
        image_id = compute.create_image(conn, disk.server.id, name, dict(values))
        return Member(Kind.IMAGE, image_id, "queued", False, False, values)
    made = conn.block_storage.create_snapshot(
        volume_id=disk.volume, is_forced=True, name=name, metadata=dict(values)
    )
    return _from_snapshot(made)


def wait_snapshot(
    conn: Any, disk: metadata.Disk, member: Member, limit: float, stop: threading.Event
) -> None:
    """Wait until what the guest writes from now on is not in a member.

    :param limit: seconds
    :param stop: see :func:`waiting.until`
    :raises errors.StepFailed: the snapshot or image failed, or took too long
    """
    what = f"The {member.kind} of {disk.title}"
    idle = 0

    def look() -> bool | None:
        nonlocal idle
        now = get(conn, member)
        if now is None or now.failed:
            raise errors.StepFailed(
                f"{what} failed ({now.status if now else 'it is gone'}): see its "
                "service's log, or ask the cloud's operator."
            )
        if now.ready:
            return True
        if member.kind is Kind.SNAPSHOT:
            return None if now.status == "creating" else True
        task = compute.get_server(conn, disk.server.id).task_state
        if task == "image_uploading":
            return True
        idle = 0 if task in _IMAGE_TASKS else idle + 1
        if idle > _IMAGE_LOOKS:
            raise errors.StepFailed(
                f"{what} was not made: look at the server's events."
            )
        return None

    waiting.until(look, limit, what, interval=SNAPSHOT_INTERVAL, stop=stop)


def wait_ready(
    conn: Any, member: Member, limit: float | None, what: str, stop: threading.Event
) -> Member:
    """Wait until something can be made of a member.

    :param limit: seconds; None for as long as it takes
    :param stop: see :func:`waiting.until`
    :raises errors.StepFailed: it failed, or took too long
    """

    def look() -> Member | None:
        now = get(conn, member)
        if now is None or now.failed:
            status = now.status if now else "it is gone"
            raise errors.StepFailed(f"{what} failed ({member.title}: {status}).")
        return now if now.ready else None

    return waiting.until(look, limit, what, interval=INTERVAL, stop=stop)


def back_up(
    conn: Any,
    snapshot: Member,
    values: Mapping[str, str],
    volume: str,
    *,
    incremental: bool,
    zone: str | None,
) -> Member:
    """Ask for the backup of a snapshot.

    :param values: the metadata of the member
    :param volume: ID of the volume that the snapshot is of
    :param incremental: only what the latest backup of the volume lacks
    :param zone: availability zone of the backup service; None leaves it to Cinder
    :raises openstack.exceptions.SDKException: the API refused
    """
    made = conn.block_storage.create_backup(
        volume_id=volume,
        snapshot_id=snapshot.id,
        name=_name(values),
        metadata=dict(values),
        is_incremental=incremental,
        force=True,
        **({"availability_zone": zone} if zone else {}),
    )
    return Member(Kind.BACKUP, made.id, "creating", False, False, values)


def add_metadata(conn: Any, member: Member, values: Mapping[str, str]) -> None:
    """Add metadata to a snapshot or image, all or none of it."""
    if member.kind is Kind.IMAGE:
        conn.image.update_image(member.id, **values)
    else:
        conn.block_storage.set_snapshot_metadata(member.id, **values)


def get(conn: Any, member: Member) -> Member | None:
    """Return a member as it is now, or None if it is gone."""
    getters: dict[Kind, tuple[Callable[[str], Any], Callable[[Any], Member]]] = {
        Kind.SNAPSHOT: (conn.block_storage.get_snapshot, _from_snapshot),
        Kind.BACKUP: (conn.block_storage.get_backup, _from_backup),
        Kind.IMAGE: (conn.image.get_image, _from_image),
    }
    fetch, view = getters[member.kind]
    try:
        found = view(fetch(member.id))
    except sdk_exceptions.NotFoundException:
        return None
    return None if found.status == "deleted" else found


def find(conn: Any, group_id: str | None = None) -> Iterator[Member]:
    """Yield all members of a group, or of all groups of the project."""
    storage = conn.block_storage
    every = [_from_snapshot(one) for one in storage.snapshots(details=True)]
    every += [_from_backup(one) for one in storage.backups(details=True)]
    # Nova marks what it makes of a server; a user's images are not looked at.
    wanted = {metadata.ID: group_id} if group_id else {"image_type": "snapshot"}
    # An administrator sees those of every project.
    wanted["owner"] = conn.session.get_project_id()
    every += [_from_image(one) for one in conn.image.images(**wanted)]
    for member in every:
        own = member.metadata.get(metadata.ID)
        if own and group_id in (None, own):
            yield member


def delete(conn: Any, wanted: Collection[Member], limit: float = DELETE_LIMIT) -> None:
    """Delete members and wait until they are gone; those that are gone are no error.

    Backups go first, because Cinder keeps a snapshot that is being read. A member
    that is still being made is deleted once it is there.

    :raises errors.Leftovers: not all could be deleted; the others are
    """
    left: list[str] = []
    end = time.monotonic() + limit
    for kind in (Kind.BACKUP, Kind.IMAGE, Kind.SNAPSHOT):
        going = []
        for member in wanted:
            if member.kind is kind:
                try:
                    _request_deletion(conn, member, end - time.monotonic())
                    going.append(member)
                except Exception as exc:
                    left.append(f"{member.title}: {reason(exc)}")
        for member in going:
            try:
                _wait_gone(conn, member, end - time.monotonic())
            except Exception as exc:
                left.append(f"{member.title}: {reason(exc)}")
    if left:
        raise errors.Leftovers(left)


def reason(exc: BaseException) -> str:
    """Return what an exception says, on one line."""
    text = " ".join(str(getattr(exc, "details", None) or exc).split())
    return text or type(exc).__name__


def _request_deletion(conn: Any, member: Member, limit: float) -> None:
    deleters = {
        Kind.SNAPSHOT: conn.block_storage.delete_snapshot,
        Kind.BACKUP: conn.block_storage.delete_backup,
        Kind.IMAGE: conn.image.delete_image,
    }

    def look() -> bool | None:
        now = get(conn, member)
        if now is None or now.status == _DELETING:
            return True
        if member.kind is not Kind.IMAGE and not (now.ready or now.failed):
            return None
        deleters[member.kind](member.id)
        return True

    waiting.until(look, max(1, limit), f"Waiting for {member.title}", interval=INTERVAL)


def _wait_gone(conn: Any, member: Member, limit: float) -> None:
    def look() -> bool | None:
        now = get(conn, member)
        if now is not None and now.ready and member.kind is Kind.SNAPSHOT:
            raise errors.StepFailed("Cinder kept it: is there a volume made of it?")
        if now is not None and now.failed and now.status != _DELETING:
            raise errors.StepFailed(f"it is {now.status}.")
        return True if now is None else None

    waiting.until(
        look, max(1, limit), f"The deletion of {member.title}", interval=INTERVAL
    )


def _name(values: Mapping[str, str]) -> str:
    _header, disk = metadata.decode(values)
    device = disk.device.rpartition("/")[2]
    return f"{values[metadata.NAME]}-{disk.server.name}-{device}"[: metadata.LIMIT]


def _from_snapshot(found: Any) -> Member:
    return _from_cinder(Kind.SNAPSHOT, found)


def _from_backup(found: Any) -> Member:
    return _from_cinder(Kind.BACKUP, found)


def _from_cinder(kind: Kind, found: Any) -> Member:
    return Member(
        kind,
        found.id,
        found.status,
        found.status == "available",
        found.status.startswith("error") or found.status == _DELETING,
        found.metadata or {},
        bool(getattr(found, "has_dependent_backups", False)),
    )


def _from_image(found: Any) -> Member:
    values = {k: v for k, v in (found.properties or {}).items() if isinstance(v, str)}
    if values.get(metadata.IMAGE) not in (None, "", found.id):
        values.pop(metadata.ID, None)  # inherited from the server's own image
    return Member(
        Kind.IMAGE,
        found.id,
        found.status,
        found.status == "active",
        found.status in ("killed", "error", "pending_delete", "deactivated"),
        values,
    )
