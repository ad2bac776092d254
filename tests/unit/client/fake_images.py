# SPDX-License-Identifier: Apache-2.0
"""The images of a fake cloud: what glance's API v2 keeps, and their bytes."""

import hashlib

from tests.unit.client import refusal

#: What an image has besides its properties.
BASE = frozenset(
    (
        *("id", "name", "status", "visibility", "owner", "size", "checksum"),
        *("os_hash_algo", "os_hash_value", "disk_format", "container_format"),
        *("min_disk", "min_ram", "protected", "tags", "created_at", "updated_at"),
        "virtual_size",
    )
)


def properties(image):
    """Return the properties of an image."""
    return {key: value for key, value in image.items() if key not in BASE}


class Images:
    """glance; ``images`` are as its API shows them.

    :ivar delete_fails: names of images that cannot be deleted
    """

    path = "image"

    def __init__(self, cloud):
        self.cloud = cloud
        self.images = {}
        self.data = {}
        self.delete_fails = set()

    def add(self, name, properties=(), *, status="active"):
        """Add an image; only one that is active has bytes."""
        with self.cloud.lock:
            made = {
                "id": self.cloud.new_id(name),
                "name": name,
                "status": "queued",
                "visibility": "private",
                "owner": "p",
                "size": None,
                "checksum": None,
                "disk_format": "qcow2",
                "container_format": "bare",
                "min_disk": 0,
                "min_ram": 0,
                "protected": False,
                "tags": [],
                "created_at": "2026-11-21T09:00:00Z",
                **dict(properties),
            }
            self.images[made["id"]] = made
            if status == "active":
                self.fill(made, b"disk")
            return made

    def fill(self, image, data):
        """Give an image its bytes."""
        self.data[image["id"]] = data
        image.update(
            status="active",
            size=len(data),
            checksum=hashlib.md5(data, usedforsecurity=False).hexdigest(),
            os_hash_algo="sha512",
            os_hash_value=hashlib.sha512(data).hexdigest(),
        )

    def with_property(self, key):
        """Return the images that have a property."""
        with self.cloud.lock:
            return [image for image in self.images.values() if key in image]

    # Requests.

    def answer(self, request, parts, _request_id):
        if parts in ([], ["v2"]):
            link = {"rel": "self", "href": f"{self.cloud.url}/image/v2/"}
            version = {"id": "v2.17", "status": "CURRENT", "links": [link]}
            return 200, {"versions": [version]}
        if parts[:2] != ["v2", "images"]:
            return None
        if parts[2:] == []:
            if request.method == "POST":
                return 201, self._create(request.json)
            return 200, self._list(request.query)
        image = self.images.get(parts[2])
        if image is None:
            raise refusal.not_found(f"Image {parts[2]}")
        match request.method, parts[3:]:
            case "GET", []:
                return 200, image
            case "DELETE", []:
                return self._delete(image)
            case "PATCH", []:
                return 200, self._update(image, request.json)
            case "GET", ["file"]:
                if image["status"] != "active":
                    return 204, None
                return 200, self.data[image["id"]]
            case "PUT", ["file"]:
                if image["status"] != "queued":
                    raise refusal.Refusal(409, f"Image is {image['status']}")
                self.fill(image, request.body)
                self.cloud.tell("upload", image["name"])
                return 204, None
        return None

    def _list(self, query):
        filters = {k: v for k, v in query.items() if k not in ("limit", "marker")}
        # The latest first, as glance sorts by default.
        found = [
            image
            for image in reversed(self.images.values())
            if all(str(image.get(key)) == value for key, value in filters.items())
        ]
        answer, marker = self.cloud.page("images", found, query)
        if marker:
            answer["next"] = f"/v2/images?marker={marker}"
        return answer

    def _create(self, body):
        name = body.pop("name", None)
        wanted = body.get("id")
        if wanted in self.images:
            raise refusal.Refusal(409, f"Image ID {wanted} already exists!")
        image = self.add(name, body, status="queued")
        if wanted:
            self.images[wanted] = self.images.pop(image["id"])
        self.cloud.tell("create image", name)
        return image

    @staticmethod
    def _update(image, changes):
        for change in changes:
            # JSON pointers escape these two.
            key = change["path"][1:].replace("~1", "/").replace("~0", "~")
            if change["op"] == "remove":
                if key not in image:
                    raise refusal.Refusal(409, f"Property {key} does not exist.")
                del image[key]
            elif change["op"] == "replace" and key not in image:
                raise refusal.Refusal(409, f"Property {key} does not exist.")
            else:
                image[key] = change["value"]
        return image

    def _delete(self, image):
        if image["protected"]:
            raise refusal.Refusal(403, f"Image {image['id']} is protected.")
        if image["name"] in self.delete_fails:
            raise refusal.Refusal(409, f"Image {image['id']} is in use.")
        del self.images[image["id"]]
        self.cloud.tell("delete image", image["name"])
        return 204, None
