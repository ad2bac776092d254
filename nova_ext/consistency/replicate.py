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

"""Owns the way of a consistency snapshot to another cloud, whose store is shared.

The data of backups is in the backup store that both clouds have; what goes over is the
record of each backup, with the facts in it. Images of root disks that are no volumes
are copied from Glance to Glance through this machine.
"""

import tempfile
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from openstack import exceptions as sdk_exceptions

from nova_ext.consistency import catalog, errors, facts, parts, report, waiting

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
    group: catalog.Group,
    *,
    observe: report.Observer = report.nobody,
) -> catalog.Group:
    """Make a group known to another cloud, and return it as found there.

    What is there already is not brought again, so that it can be repeated after a
    failure. Nothing is removed then: records are small, and the data is not theirs.

    :param source: ``openstack.connection.Connection`` to the cloud that has the group
    :param target: to the cloud that is to have it, as a user who may import backup
        records into the project that is to own them
    :raises errors.PlanError: the group has no backups; nothing has been done
    :raises errors.StepFailed: a record or image could not be brought over
    """
    with waiting.bounded_requests(source), waiting.bounded_requests(target):
        return _replicate(source, target, group, observe)


def _replicate(
    source: Any, target: Any, group: catalog.Group, observe: report.Observer
) -> catalog.Group:
    if group.backup_status is not catalog.Status.AVAILABLE:
        state = group.backup_status or "there is none"
        raise errors.PlanError(
            f"Consistency snapshot {group.name} has no backup that is available "
            f"({state}): make one with --backup."
        )
    chains = {
        number: list(_chain(source, backup.id))
        for number, backup in group.backups.items()
    }
    images = [p for p in group.cuts.values() if p.kind is parts.Kind.IMAGE]
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
        if image.metadata[facts.MEMBER] not in there:
            _bring_image(source, target, image)
        tell(report.Kind.COPIED, image.id)
    return catalog.find(target, group.id)


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
    part = parts.Part(parts.Kind.BACKUP, backup_id, "", False, False, {})
    what = f"The import of backup {backup_id}"
    if parts.get(target, part):
        _wait_imported(target, part, what)
        return
    record = _allowed(source, "export", f"/backups/{backup_id}/export_record")
    # openstacksdk 4.22 sends an import to the path of the export.
    _allowed(target, "import", "/backups/import_record", record)
    _wait_imported(target, part, what)


def _wait_imported(target: Any, part: parts.Part, what: str) -> None:
    waiting.until(
        lambda: _imported(target, part, what),
        parts.UPLOAD_LIMIT,
        what,
        interval=parts.INTERVAL,
    )


def _imported(target: Any, part: parts.Part, what: str) -> bool | None:
    now = parts.get(target, part)
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
    for part in parts.find(target, group_id):
        if part.kind is parts.Kind.IMAGE:
            if part.ready and part.metadata.get(facts.IMAGE) == part.id:
                there.add(part.metadata[facts.MEMBER])
            else:
                half.append(part)
    parts.delete(target, half)
    return there


def _bring_image(source: Any, target: Any, image: parts.Part) -> None:
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
                facts.IMAGE: "",
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
                timeout=parts.UPLOAD_LIMIT,
            )
        )
    target.image.update_image(made, **{facts.IMAGE: made})
    if target.image.get_image(made).status != "active":
        raise errors.StepFailed(
            f"The copy of image {image.id} is not active: delete {made} in "
            f"{target.name or 'the other cloud'} and try again."
        )


def _sent(response: Any) -> Any:
    sdk_exceptions.raise_from_response(response)
    return response
