# SPDX-License-Identifier: Apache-2.0
"""Takes a consistency snapshot to another cloud that shares the backup store.

The data of backups is in the backup store that both clouds have; what goes over is the
record of each backup, with the metadata in it. Images of root disks that are no volumes
are copied from Glance to Glance through this machine.
"""

import tempfile
from collections.abc import Iterator, Mapping
from http import HTTPStatus
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

_POLICIES = {"export": "backup:export-import", "import": "backup:backup-import"}

#: What has to be told of an image that is to be read elsewhere.
_FORMAT = ("name", "disk_format", "container_format", "min_disk", "min_ram")

#: What Glance itself says of an image, and does not take from others.
_NO_PROPERTIES = frozenset(
    {
        *("checksum", "created_at", "direct_url", "file", "id", "os_hash_algo"),
        *("os_glance_failed_import", "os_glance_importing_to_stores", "os_hash_value"),
        *("owner", "schema", "self", "status", "stores", "updated_at", "visibility"),
    }
)


def replicate(
    source: Any,
    target: Any,
    group: groups.Group,
    *,
    observe: report.Observer = report.nobody,
) -> groups.Group:
    """Make a group known to another cloud, and return it as found there.

    What is there already is not brought again, so that it can be repeated after a
    failure. Nothing is removed then: records are small, and the data is not theirs.

    :param source: ``openstack.connection.Connection`` to the cloud that has the group
    :param target: to the cloud that is to have it, as a user who may import backup
        records into the project that is to own them
    :raises errors.PlanError: the group has no backups; nothing has been done
    :raises errors.StepFailed: a record or image could not be brought over
    """
    with (
        waiting.bounded_requests(source) as here,
        waiting.bounded_requests(target) as there,
    ):
        return _replicate(here, there, group, observe)


def _replicate(
    source: Any, target: Any, group: groups.Group, observe: report.Observer
) -> groups.Group:
    if group.backup_status is not groups.Status.AVAILABLE:
        state = group.backup_status or "there is none"
        raise errors.PlanError(
            f"Consistency snapshot {group.name} has no backup that is available "
            f"({state}): make one with --backup."
        )
    chains = {
        number: list(_chain(source, backup.id))
        for number, backup in group.backups.items()
    }
    images = [p for p in group.snapshots.values() if p.kind is members.Kind.IMAGE]
    tell = report.Progress(observe, len(chains) + len(images))
    for number, chain in chains.items():
        title = group.disks[number].title
        tell(report.Kind.COPYING, title)
        for backup_id in chain:
            _bring_record(source, target, backup_id)
        tell(report.Kind.COPIED, title)
    there = _images_there(target, group.id) if images else set()
    for image in images:
        tell(report.Kind.COPYING, image.id)
        if image.metadata[metadata.MEMBER] not in there:
            _bring_image(source, target, image)
        tell(report.Kind.COPIED, image.id)
    return groups.find(target, group.id)


def _chain(conn: Any, backup_id: str) -> Iterator[str]:
    """Yield the backups that an incremental one builds on, the full one first."""
    backup = conn.block_storage.get_backup(backup_id)
    if backup.is_incremental:
        older = [
            other
            for other in conn.block_storage.backups(
                details=True, volume_id=backup.volume_id
            )
            if other.data_timestamp < backup.data_timestamp
            and other.status == "available"
        ]
        latest = max(older, key=lambda other: other.data_timestamp)
        yield from _chain(conn, latest.id)
    yield backup.id


def _bring_record(source: Any, target: Any, backup_id: str) -> None:
    member = members.Member(members.Kind.BACKUP, backup_id, "", False, False, {})
    what = f"The import of backup {backup_id}"
    if members.get(target, member):
        _wait_imported(target, member, what)
        return
    record = _allowed(source, "export", f"/backups/{backup_id}/export_record")
    # openstacksdk 4.22 sends an import to the path of the export.
    _allowed(target, "import", "/backups/import_record", record)
    _wait_imported(target, member, what)


def _wait_imported(target: Any, member: members.Member, what: str) -> None:
    waiting.until(
        lambda: _imported(target, member, what),
        members.UPLOAD_LIMIT,
        what,
        interval=members.INTERVAL,
    )


def _imported(target: Any, member: members.Member, what: str) -> bool | None:
    now = members.get(target, member)
    if now is None or now.failed:
        raise errors.StepFailed(
            f"{what} failed: does the other cloud have a backup service of the same "
            "driver, with access to the same store? Ask its operator, who also has to "
            "remove the record without its data before it can be tried again."
        )
    return True if now.ready else None


def _allowed(
    conn: Any, what: str, path: str, body: Mapping[str, Any] | None = None
) -> Any:
    """Send one of the two requests that only administrators may, by default."""
    storage = conn.block_storage
    answer = storage.post(path, json=body) if body else storage.get(path)
    if answer.status_code == HTTPStatus.FORBIDDEN:
        raise errors.StepFailed(
            f"You may not {what} backup records in {conn.name or 'this cloud'}: ask "
            f"its operator for the policy {_POLICIES[what]}."
        )
    return _sent(answer).json()


def _images_there(target: Any, group_id: str) -> set[str]:
    """Return which images are there, and remove what an earlier try left half."""
    there = set()
    half = []
    for member in members.find(target, group_id):
        if member.kind is members.Kind.IMAGE:
            if member.ready and member.metadata.get(metadata.IMAGE) == member.id:
                there.add(member.metadata[metadata.MEMBER])
            else:
                half.append(member)
    members.delete(target, half)
    return there


def _bring_image(source: Any, target: Any, image: members.Member) -> None:
    view = source.image.get(f"/images/{image.id}").json()
    properties = {
        name: value
        for name, value in view.items()
        if isinstance(value, str) and name not in _NO_PROPERTIES
    }
    # Not by openstacksdk's own class: that takes Nova's property owner_id, the project
    # in the other cloud, for the owner.
    made = _sent(
        target.image.post(
            "/images",
            json={
                **properties,
                **{name: view[name] for name in _FORMAT},
                "visibility": "private",
                metadata.IMAGE: "",
            },
        )
    ).json()["id"]
    with tempfile.TemporaryFile() as file:
        source.image.download_image(image.id, output=file)
        file.seek(0)
        _sent(
            target.image.put(
                f"/images/{made}/file",
                data=file,
                headers={"Content-Type": "application/octet-stream"},
                timeout=members.UPLOAD_LIMIT,
            )
        )
    target.image.update_image(made, **{metadata.IMAGE: made})
    if target.image.get_image(made).status != "active":
        raise errors.StepFailed(
            f"The copy of image {image.id} is not active: delete {made} in "
            f"{target.name or 'the other cloud'} and try again."
        )


def _sent(response: Any) -> Any:
    sdk_exceptions.raise_from_response(response)
    return response
