# SPDX-License-Identifier: Apache-2.0
"""The volumes of a fake cloud, their snapshots and their backups, as in cinder 29."""

import ast
import base64
import dataclasses
import datetime
import json
import re

from tests.unit.client import refusal


@dataclasses.dataclass
class Volume:
    """One volume; the attributes say how it is and how it behaves.

    :ivar content: what it holds, which snapshots, backups and restores carry along
    :ivar snapshot_takes: see :meth:`FakeCloud.after`; so is backup_takes
    :ivar snapshot_ends: status in which its snapshots end; ``creating`` for never
    :ivar backup_ends: status in which its backups end
    :ivar snapshots_stay: its snapshots cannot be deleted
    :ivar backups_stay: its backups cannot be deleted
    """

    id: str
    name: str
    size: int = 1
    status: str = "available"
    bootable: bool = False
    type: str | None = "lvm"
    zone: str | None = "nova"
    content: str = ""
    metadata: dict = dataclasses.field(default_factory=dict)
    image_metadata: dict = dataclasses.field(default_factory=dict)
    servers: list = dataclasses.field(default_factory=list)
    snapshot_id: str | None = None
    snapshot_takes: float | tuple = 0
    snapshot_ends: str = "available"
    snapshots_stay: bool = False
    backup_takes: float | tuple = 0
    backup_ends: str = "available"
    backups_stay: bool = False


class Volumes:
    """cinder, microversions 3.0 to 3.71.

    ``snapshots`` and ``backups`` are as its API shows them, with a few keys more.

    :ivar may_import: whether the policy lets this project export and import records
    :ivar import_ends: status in which imported records end
    :ivar restore_takes: seconds; restore_ends is the status of the volume then
    :ivar create_ends: status in which new volumes end, by name; else ``available``
    """

    path = "volume"

    def __init__(self, cloud):
        self.cloud = cloud
        self.volumes = {}
        self.snapshots = {}
        self.backups = {}
        self.types = ["lvm"]
        self.quota = 100
        self.may_import = True
        self.import_ends = "available"
        self.restore_takes = 0
        self.restore_ends = "available"
        self.create_ends = {}

    def add(self, name, **behaviour):
        """Add a volume."""
        with self.cloud.lock:
            made = Volume(self.cloud.new_id(name), name, **behaviour)
            made.content = made.content or f"data of {name}"
            self.volumes[made.id] = made
            return made

    def remove(self, volume):
        """Remove a volume."""
        del self.volumes[volume.id]
        self.cloud.tell("delete volume", volume.name)

    # Requests.

    def answer(self, request, parts, _request_id):
        if parts in ([], ["v3"]):
            return 200, {"versions": [self._version()]}
        version = tuple(map(int, request.microversion("3.0").split(".")))
        kind, rest = parts[1], parts[2:]
        if kind == "os-quota-sets":
            used = {"limit": self.quota, "in_use": len(self.snapshots), "reserved": 0}
            return 200, {"quota_set": {"id": "p", "snapshots": used}}
        if kind == "types":
            types = [{"id": name, "name": name} for name in self.types]
            return 200, {"volume_types": types}
        handlers = {
            "volumes": self._on_volumes,
            "snapshots": self._on_snapshots,
            "backups": self._on_backups,
        }
        return handlers[kind](request, rest, version) if kind in handlers else None

    def _version(self):
        return {
            "id": "v3.0",
            "status": "CURRENT",
            "version": "3.71",
            "min_version": "3.0",
            "links": [{"rel": "self", "href": f"{self.cloud.url}/volume/v3/"}],
        }

    def _list(self, kind, views, request, *, filters):
        query = dict(request.query)
        for key in filters & query.keys():
            wanted = query.pop(key)
            if key == "metadata":
                pairs = ast.literal_eval(wanted).items()
                views = [v for v in views if pairs <= v["metadata"].items()]
            else:
                views = [view for view in views if view[key] == wanted]
        # The latest first, as cinder sorts by default.
        answer, marker = self.cloud.page(kind, list(reversed(views)), query)
        if marker:
            href = f"{self.cloud.url}{request.path}?marker={marker}"
            answer[f"{kind}_links"] = [{"rel": "next", "href": href}]
        return 200, answer

    # Volumes.

    def _on_volumes(self, request, rest, _version):
        if not rest and request.method == "POST":
            return 202, {"volume": self._create(request.json["volume"])}
        if rest in ([], ["detail"]):
            views = [self._view(v) for v in self.volumes.values()]
            filters = {"name", "status", "metadata"}
            return self._list("volumes", views, request, filters=filters)
        volume = self._volume(rest[0])
        match request.method, rest[1:]:
            case "GET", []:
                return 200, {"volume": self._view(volume)}
            case "DELETE", []:
                return self._delete(volume)
            case "POST", ["action"]:
                ((verb, value),) = request.json.items()
                if verb == "os-set_bootable":
                    volume.bootable = value["bootable"] in (True, "True", "true")
                    return 200, None
                if verb == "os-set_image_metadata":
                    volume.image_metadata.update(value["metadata"])
                    return 200, {"metadata": volume.image_metadata}
        return None

    def _volume(self, volume_id):
        if volume_id not in self.volumes:
            raise refusal.not_found(f"Volume {volume_id}")
        return self.volumes[volume_id]

    @staticmethod
    def _view(volume):
        view = {
            "id": volume.id,
            "name": volume.name,
            "status": volume.status,
            "size": volume.size,
            "bootable": str(volume.bootable).lower(),
            "volume_type": volume.type,
            "availability_zone": volume.zone,
            "encrypted": False,
            "multiattach": False,
            "metadata": volume.metadata,
            "snapshot_id": volume.snapshot_id,
            "attachments": [
                {"server_id": server, "volume_id": volume.id, "device": "/dev/vdx"}
                for server in volume.servers
            ],
        }
        if volume.image_metadata:
            view["volume_image_metadata"] = volume.image_metadata
        return view

    def _create(self, body):
        _check_metadata(body.get("metadata"))
        size = body.get("size")
        image_metadata, content, bootable = {}, "", False
        if source := body.get("snapshot_id"):
            snapshot = self._snapshot(source)
            if snapshot["status"] != "available":
                raise refusal.Refusal(400, f"Snapshot is {snapshot['status']}.")
            size = size or snapshot["size"]
            if size < snapshot["size"]:
                raise refusal.Refusal(400, "The volume is smaller than its snapshot.")
            content, bootable = snapshot["content"], snapshot["bootable"]
            image_metadata = dict(snapshot["image_metadata"])
        name = body.get("name") or ""
        volume = self.add(
            name,
            size=size,
            status="creating",
            bootable=bootable,
            type=body.get("volume_type") or "lvm",
            metadata=body.get("metadata") or {},
            image_metadata=image_metadata,
            snapshot_id=source,
        )
        volume.content = content
        view = self._view(volume)
        self.cloud.tell("volume", name)
        self.cloud.after(0, self._set_status, volume, self.create_ends.get(name))
        return view

    @staticmethod
    def _set_status(volume, status):
        volume.status = status or "available"

    def _delete(self, volume):
        if volume.status not in ("available", "error", "error_restoring"):
            raise refusal.Refusal(400, f"Volume is {volume.status}.")
        if any(s["volume_id"] == volume.id for s in self.snapshots.values()):
            raise refusal.Refusal(400, "Volume has snapshots.")
        self.remove(volume)
        return 202, None

    # Snapshots.

    def _on_snapshots(self, request, rest, version):
        if not rest and request.method == "POST":
            body = request.json["snapshot"]
            return 202, {"snapshot": self._create_snapshot(body, version)}
        if rest in ([], ["detail"]):
            filters = {"name", "status", "volume_id"}
            filters |= {"metadata"} if version >= (3, 22) else set()
            views = [_public(s) for s in self.snapshots.values()]
            return self._list("snapshots", views, request, filters=filters)
        snapshot = self._snapshot(rest[0])
        match request.method, rest[1:]:
            case "GET", []:
                return 200, {"snapshot": _public(snapshot)}
            case "DELETE", []:
                return self._delete_snapshot(snapshot)
            case "GET", ["metadata"]:
                return 200, {"metadata": snapshot["metadata"]}
            case "POST" | "PUT", ["metadata"]:
                metadata = request.json["metadata"]
                _check_metadata(metadata)
                if request.method == "PUT":
                    snapshot["metadata"] = {}
                snapshot["metadata"] |= metadata
                self.cloud.tell("mark", self.cloud.label(snapshot["id"]))
                return 200, {"metadata": snapshot["metadata"]}
        return None

    def _snapshot(self, snapshot_id):
        if snapshot_id not in self.snapshots:
            raise refusal.not_found(f"Snapshot {snapshot_id}")
        return self.snapshots[snapshot_id]

    def _create_snapshot(self, body, version):
        volume = self._volume(body["volume_id"])
        _check_metadata(body.get("metadata"))
        if body.get("force") is False and version >= (3, 66):
            raise refusal.Refusal(400, "Since microversion 3.66 'force' is invalid.")
        in_use_too = version >= (3, 66) or body.get("force")
        if volume.status not in ("available", *(["in-use"] if in_use_too else [])):
            raise refusal.Refusal(400, f"Volume status is {volume.status}.")
        if len(self.snapshots) >= self.quota:
            raise refusal.Refusal(413, "SnapshotLimitExceeded")
        made = {
            "id": self.cloud.new_id(volume.name),
            "name": body.get("name"),
            "description": body.get("description"),
            "volume_id": volume.id,
            "status": "creating",
            "size": volume.size,
            "created_at": _now(),
            "metadata": dict(body.get("metadata") or {}),
            # Not shown:
            "content": volume.content,
            "bootable": volume.bootable,
            "image_metadata": dict(volume.image_metadata),
        }
        self.snapshots[made["id"]] = made
        view = _public(made)
        self.cloud.tell("snapshot", volume.name)
        if volume.snapshot_ends != "creating":
            self.cloud.after(volume.snapshot_takes, self._cut, made, volume)
        return view

    def _cut(self, snapshot, volume):
        snapshot["status"] = volume.snapshot_ends
        self.cloud.tell(f"snapshot {volume.snapshot_ends}", volume.name)

    def _delete_snapshot(self, snapshot):
        if snapshot["status"] not in ("available", "error"):
            raise refusal.Refusal(400, f"Snapshot status is {snapshot['status']}.")
        volume = self.volumes.get(snapshot["volume_id"])
        if volume and volume.snapshots_stay:
            snapshot["status"] = "error_deleting"
        else:
            del self.snapshots[snapshot["id"]]
            self.cloud.tell("delete snapshot", self.cloud.label(snapshot["id"]))
        return 202, None

    # Backups.

    def _on_backups(self, request, rest, version):
        if not rest and request.method == "POST":
            return 202, {"backup": self._create_backup(request.json["backup"], version)}
        if rest in ([], ["detail"]):
            views = [self._backup_view(b, version) for b in self.backups.values()]
            filters = {"name", "status", "volume_id"}
            return self._list("backups", views, request, filters=filters)
        if rest == ["import_record"]:
            return 201, {"backup": self._import(request.json["backup-record"])}
        if rest[0] not in self.backups:
            raise refusal.not_found(f"Backup {rest[0]}")
        backup = self.backups[rest[0]]
        match request.method, rest[1:]:
            case "GET", []:
                return 200, {"backup": self._backup_view(backup, version)}
            case "PUT", []:
                return 200, {"backup": self._update_backup(backup, request.json)}
            case "DELETE", []:
                return self._delete_backup(backup)
            case "GET", ["export_record"]:
                return 200, {"backup-record": self._export(backup)}
            case "POST", ["restore"]:
                return 202, {"restore": self._restore(backup, request.json["restore"])}
        return None

    def _backup_view(self, backup, version):
        view = _public(backup)
        if version < (3, 43):
            del view["metadata"]
        view["is_incremental"] = bool(backup["parent_id"])
        view["has_dependent_backups"] = bool(self._children(backup))
        return view

    def _children(self, backup):
        return [b for b in self.backups.values() if b["parent_id"] == backup["id"]]

    def _create_backup(self, body, version):
        volume = self._volume(body["volume_id"])
        if "metadata" in body and version < (3, 43):
            raise refusal.Refusal(400, "Additional properties are not allowed.")
        if "availability_zone" in body and version < (3, 51):
            raise refusal.Refusal(400, "Additional properties are not allowed.")
        _check_metadata(body.get("metadata"))
        snapshot = None
        if body.get("snapshot_id"):
            snapshot = self._snapshot(body["snapshot_id"])
            if snapshot["status"] != "available":
                raise refusal.Refusal(400, f"Snapshot is {snapshot['status']}.")
        elif volume.status != "available" and not body.get("force"):
            raise refusal.Refusal(400, f"Volume is {volume.status}.")
        taken = snapshot["created_at"] if snapshot else _now()
        parent = self._parent(volume, taken) if body.get("incremental") else None
        source = snapshot or dataclasses.asdict(volume)
        made = {
            "id": self.cloud.new_id(volume.name),
            "name": body.get("name"),
            "description": body.get("description"),
            "volume_id": volume.id,
            "snapshot_id": snapshot and snapshot["id"],
            "status": "creating",
            "size": volume.size,
            "created_at": _now(),
            "data_timestamp": taken,
            "availability_zone": body.get("availability_zone"),
            "fail_reason": None,
            "metadata": dict(body.get("metadata") or {}),
            # Not shown:
            "parent_id": parent and parent["id"],
            "content": source["content"],
            "image_metadata": dict(source["image_metadata"]),
        }
        self.backups[made["id"]] = made
        if snapshot:
            snapshot["status"] = "backing-up"
        self.cloud.tell("backup", volume.name)
        self.cloud.after(volume.backup_takes, self._saved, made, snapshot, volume)
        return {"id": made["id"], "name": made["name"]}

    def _parent(self, volume, before):
        earlier = [
            backup
            for backup in self.backups.values()
            if backup["volume_id"] == volume.id
            and backup["status"] == "available"
            and backup["data_timestamp"] < before
        ]
        if not earlier:
            raise refusal.Refusal(400, "No backups available to do an incremental one.")
        return max(earlier, key=lambda backup: backup["data_timestamp"])

    def _saved(self, backup, snapshot, volume):
        backup["status"] = volume.backup_ends
        if volume.backup_ends == "error":
            backup["fail_reason"] = "No space left on device"
        if snapshot:
            snapshot["status"] = "available"
        self.cloud.tell(f"backup {volume.backup_ends}", volume.name)

    @staticmethod
    def _update_backup(backup, body):
        _check_metadata(body["backup"].get("metadata"))
        backup.update(body["backup"])
        return {"id": backup["id"], "name": backup["name"]}

    def _delete_backup(self, backup):
        if backup["status"] not in ("available", "error"):
            raise refusal.Refusal(400, "Backup status must be available or error")
        if self._children(backup):
            raise refusal.Refusal(400, "Incremental backups exist for this backup.")
        volume = self.volumes.get(backup["volume_id"])
        if volume and volume.backups_stay:
            backup["status"] = "error_deleting"
        else:
            del self.backups[backup["id"]]
            self.cloud.tell("delete backup", self.cloud.label(backup["id"]))
        return 202, None

    def _check_records(self):
        if not self.may_import:
            raise refusal.Refusal(403, "Policy doesn't allow backup:export-import.")

    def _export(self, backup):
        self._check_records()
        if backup["status"] != "available":
            raise refusal.Refusal(400, f"Backup is {backup['status']}.")
        record = {**backup, "label": self.cloud.label(backup["id"])}
        url = base64.b64encode(json.dumps(record).encode()).decode()
        return {"backup_service": "posix", "backup_url": url}

    def _import(self, body):
        self._check_records()
        record = json.loads(base64.b64decode(body["backup_url"]))
        if record["id"] in self.backups:
            raise refusal.Refusal(400, "Backup already exists in database.")
        self.cloud.name_id(record["id"], record.pop("label"))
        record["status"] = self.import_ends
        self.backups[record["id"]] = record
        self.cloud.tell("import", self.cloud.label(record["id"]))
        return {"id": record["id"], "name": record["name"]}

    def _restore(self, backup, body):
        if backup["status"] != "available":
            raise refusal.Refusal(400, "Backup status must be available")
        if not body.get("volume_id"):
            raise refusal.Refusal(400, "Only into a volume in these tests.")
        volume = self._volume(body["volume_id"])
        if volume.status != "available":
            raise refusal.Refusal(400, "Volume to be restored to must be available")
        if backup["size"] > volume.size:
            raise refusal.Refusal(400, "volume size is too small to restore backup")
        backup["status"], volume.status = "restoring", "restoring-backup"
        self.cloud.tell("restore", volume.name)
        self.cloud.after(self.restore_takes, self._restored, backup, volume)
        return {"backup_id": backup["id"], "volume_id": volume.id}

    def _restored(self, backup, volume):
        backup["status"] = "available"
        volume.status = self.restore_ends
        if self.restore_ends == "available":
            volume.content = backup["content"]
            volume.metadata["src_backup_id"] = backup["id"]
            if backup["image_metadata"]:
                volume.image_metadata = dict(backup["image_metadata"])
                volume.bootable = True
        self.cloud.tell("restored", volume.name)


def _check_metadata(metadata):
    for key, value in (metadata or {}).items():
        fits = re.fullmatch(r"[a-zA-Z0-9\-_:. /]{1,255}", key)
        if not fits or not isinstance(value, str) or len(value) > 255:
            raise refusal.Refusal(400, f"Invalid input for field/attribute {key}.")


def _public(thing):
    hidden = ("content", "bootable", "image_metadata", "parent_id")
    return {key: value for key, value in thing.items() if key not in hidden}


def _now():
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None).isoformat()
