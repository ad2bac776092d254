# SPDX-License-Identifier: Apache-2.0
"""The servers of a fake cloud: quiesce with its deadline, images, moves, life."""

import dataclasses
import datetime
import math
import re

from tests.unit.client import fake_images, refusal

TASKS = ("image_snapshot", "image_pending_upload", "image_uploading")


#: What a host does at the end of a move that went well.
MOVED = "compute_finish_resize"


@dataclasses.dataclass(frozen=True)
class Looks:
    """A delay by the clock of who waits: so many looks at it.

    A look is a GET of the instance action or, while it is being quiesced, the server.
    """

    number: float


NEVER = Looks(math.inf)


@dataclasses.dataclass
class Window:
    """A quiesce; ``broken`` is why it ended without an order."""

    status: str
    timeout: int
    request_id: str
    frozen: datetime.datetime | None = None
    broken: str | None = None
    partial: bool = False


@dataclasses.dataclass
class Server:
    """One server; the attributes say how it is and how it behaves.

    :ivar image: ID of the image that it boots from, None for a volume
    :ivar image_properties: what images made of it inherit
    :ivar disks: (volume ID, whether it goes with the server) in the order of devices
    :ivar freeze_takes: see :meth:`FakeCloud.after`, or :class:`Looks`; so are
        thaw_takes and move_takes
    :ivar copy_takes: see :meth:`FakeCloud.after`; so is upload_takes
    :ivar freeze_fails: why a quiesce ends with Error; so is move_fails for a move
    :ivar unfreezable: mount point of a writable file system that cannot be frozen
    :ivar says_why: whether the events have the reason of an Error
    :ivar has_events: whether a host took an action up at all
    :ivar statuses: its status at each look after a move was asked for; the last stays
    :ivar unfit: why every unquiesce ends with Error
    :ivar image_fails: an image of it fails when it is cut
    """

    id: str
    name: str
    flavor: str = "small"
    image: str | None = None
    image_properties: dict = dataclasses.field(default_factory=dict)
    disks: list = dataclasses.field(default_factory=list)
    devices: dict = dataclasses.field(default_factory=dict)
    security_groups: list = dataclasses.field(default_factory=lambda: ["default"])
    config_drive: bool = False
    zone: str | None = None
    metadata: dict = dataclasses.field(default_factory=dict)
    status: str = "ACTIVE"
    task: str | None = None
    locked: bool = False
    window: Window | None = None
    actions: dict = dataclasses.field(default_factory=dict)
    freeze_takes: float | tuple = 0
    thaw_takes: float | tuple = 0
    copy_takes: float | tuple = 0
    upload_takes: float | tuple = 0
    freeze_fails: str | None = None
    unfreezable: str | None = None
    unfit: str | None = None
    image_fails: bool = False
    move_takes: float | tuple = 0
    move_fails: str | None = None
    says_why: bool = True
    has_events: bool = True
    statuses: list = dataclasses.field(
        default_factory=lambda: ["RESIZE", "VERIFY_RESIZE"]
    )
    moving: bool = False
    awaited: list = dataclasses.field(default_factory=list)

    @property
    def quiesce_status(self):
        return self.window.status if self.window and not self.window.broken else None


class Compute:
    """nova with the extension; microversions from 2.1 up to ``maximum``.

    :ivar knows_quiesce: whether 2.105 is that of the extension
    :ivar now: the time of day of the hosts
    :ivar timeouts: that of the last quiesce, by the server's name
    :ivar fails_to_boot: names of servers that end in ERROR
    :ivar boot_takes: see :meth:`FakeCloud.after`, by the server's name
    """

    path = "compute"

    def __init__(self, cloud):
        self.cloud = cloud
        self.servers = {}
        self.maximum = "2.105"
        self.flavors = {
            "small": {"id": "f1", "vcpus": 1, "ram": 512, "disk": 1},
            "big": {"id": "f2", "vcpus": 2, "ram": 4096, "disk": 20},
        }
        self.zones = ["nova"]
        self.timeouts = {}
        self.knows_quiesce = True
        self.now = lambda: datetime.datetime.now(datetime.UTC)
        self.fails_to_boot = set()
        self.boot_takes = {}

    def add(self, name, **behaviour):
        """Add a server whose root disk is made of an image."""
        with self.cloud.lock:
            image = self.cloud.images.add("cirros", {"hw_qemu_guest_agent": "yes"})
            server = Server(self.cloud.new_id(name), name, **behaviour)
            server.image = image["id"]
            server.image_properties = {"hw_qemu_guest_agent": "yes"}
            self.servers[server.id] = server
            return server

    def add_on_volume(self, name, **behaviour):
        """Add a server whose root disk is a volume."""
        with self.cloud.lock:
            server = Server(self.cloud.new_id(name), name, **behaviour)
            self.servers[server.id] = server
            self.attach(
                server,
                bootable=True,
                image_metadata={"hw_qemu_guest_agent": "yes", "image_id": "x"},
            )
            return server

    def attach(self, server, *, device=None, **volume):
        """Attach a new volume to a server, named after server and device."""
        with self.cloud.lock:
            device = device or self.next_device(server)
            made = self.cloud.volumes.add(f"{server.name}-{device[5:]}", **volume)
            self.connect(server, made, device)
            return made

    def next_device(self, server):
        taken = set(server.devices.values()) | ({"/dev/vda"} if server.image else set())
        return next(d for d in (f"/dev/vd{c}" for c in "abcdefgh") if d not in taken)

    def connect(self, server, volume, device, goes_too=False):
        server.disks.append((volume.id, goes_too))
        server.devices[volume.id] = device
        volume.status = "in-use"
        volume.servers.append(server.id)

    def by_name(self, name):
        """Return the servers of that name."""
        with self.cloud.lock:
            return [s for s in self.servers.values() if s.name == name]

    def break_window(self, server, reason):
        """End the window of a server as its host does, or somebody with the right."""
        with self.cloud.lock:
            self._break(server, server.window, reason)

    def freeze(self, *servers):
        """Let servers be frozen, for a minute, by a request of another client."""
        with self.cloud.lock:
            for server in servers:
                server.window = Window("quiesced", 60, "req-other", self.now())

    def frozen(self):
        """Return the names of the servers that are frozen, or are about to be."""
        with self.cloud.lock:
            return [s.name for s in self.servers.values() if s.quiesce_status]

    # Requests.

    def answer(self, request, parts, request_id):
        method, parts = request.method, [part for part in parts if part != "v2.1"]
        version = tuple(map(int, request.microversion("2.1").split(".")))
        if not parts:
            return 200, {"version": self._version()}
        if parts[0] == "flavors":
            return self._flavors(parts[1:], request.query)
        if parts == ["os-availability-zone"]:
            state = {"available": True}
            zones = [{"zoneName": z, "zoneState": state} for z in self.zones]
            return 200, {"availabilityZoneInfo": zones}
        if parts[0] != "servers":
            return None
        if parts == ["servers"] and method == "POST":
            return self._create(request.json["server"])
        if parts[1:] in ([], ["detail"]):
            wanted = request.query.get("name", "")
            found = [s for s in self.servers.values() if re.search(wanted, s.name)]
            views = [self._view(server, version) for server in found]
            answer, marker = self.cloud.page("servers", views, request.query)
            if marker:
                href = f"{self.cloud.url}{request.path}?marker={marker}"
                answer["servers_links"] = [{"rel": "next", "href": href}]
            return 200, answer
        server = self.servers.get(parts[1])
        if server is None:
            raise refusal.not_found(f"Instance {parts[1]}")
        match method, parts[2:]:
            case "GET", []:
                if server.quiesce_status == "quiescing":
                    self._look(server)
                view = self._view(server, version)
                if server.moving and server.statuses[1:]:
                    server.statuses.pop(0)
                return 200, {"server": view}
            case "DELETE", []:
                return self._delete(server)
            case "POST", ["action"]:
                ((verb, value),) = request.json.items()
                return self._action(server, verb, value, request_id)
            case "GET", ["os-volume_attachments"]:
                return 200, {"volumeAttachments": self._attachments(server)}
            case "GET", ["os-interface"]:
                # In an order that says nothing about the NICs.
                ports = reversed(self.cloud.network.of_device(server.id))
                views = [_interface(port) for port in ports]
                return 200, {"interfaceAttachments": views}
            case "GET", ["os-instance-actions"]:
                return 200, {"instanceActions": list(server.actions.values())}
            case "GET", ["os-instance-actions", wanted]:
                if wanted not in server.actions:
                    raise refusal.not_found(f"Action {wanted}")
                self._look(server)
                return 200, {"instanceAction": server.actions[wanted]}
        return None

    def _version(self):
        return {
            "id": "v2.1",
            "status": "CURRENT",
            "version": self.maximum,
            "min_version": "2.1",
            "links": [{"rel": "self", "href": f"{self.cloud.url}/compute/v2.1/"}],
        }

    def _flavors(self, parts, query):
        views = [{"name": name, **f} for name, f in self.flavors.items()]
        if parts in ([], ["detail"]):
            return 200, self.cloud.page("flavors", views, query)[0]
        found = next((view for view in views if view["id"] == parts[0]), None)
        if found is None:
            raise refusal.not_found(f"Flavor {parts[0]}")
        return 200, {"flavor": found}

    def _view(self, server, version):
        window = server.window if server.quiesce_status else None
        ports = self.cloud.network.of_device(server.id)
        flavor = self.flavors[server.flavor]
        view = {
            "id": server.id,
            "name": server.name,
            "status": server.statuses[0] if server.moving else server.status,
            "OS-EXT-STS:task_state": server.task,
            "metadata": server.metadata,
            "image": {"id": server.image, "links": []} if server.image else "",
            "flavor": {"id": flavor["id"], "links": []},
            "addresses": self._addresses(ports),
            "created": "2026-11-21T09:00:00Z",
            # nova tells them once for each port.
            "security_groups": [
                {"name": name} for name in server.security_groups * max(1, len(ports))
            ],
            "config_drive": "True" if server.config_drive else "",
            "OS-EXT-AZ:availability_zone": server.zone or "nova",
            "os-extended-volumes:volumes_attached": [
                {"id": volume, "delete_on_termination": goes_too}
                for volume, goes_too in server.disks
            ],
        }
        if version >= (2, 9):
            view["locked"] = server.locked
        if version >= (2, 47):
            view["flavor"] = {
                "original_name": server.flavor,
                **{k: flavor[k] for k in ("vcpus", "ram", "disk")},
                **{"ephemeral": 0, "swap": 0, "extra_specs": {}},
            }
        if version >= (2, 96):
            view["pinned_availability_zone"] = server.zone
        if version >= (2, 105) and self.knows_quiesce:
            frozen = window.frozen if window else None
            until = frozen and frozen + datetime.timedelta(seconds=window.timeout)
            view |= {
                "quiesce_status": server.quiesce_status,
                "quiesced_at": f"{frozen:%Y-%m-%dT%H:%M:%SZ}" if frozen else None,
                "unquiesce_at": f"{until:%Y-%m-%dT%H:%M:%SZ}" if until else None,
            }
        return view

    def _addresses(self, ports):
        addresses = {}
        for port in ports:
            network = self.cloud.network.networks[port["network_id"]]["name"]
            addresses.setdefault(network, []).extend(
                {
                    "addr": fixed["ip_address"],
                    "version": 4,
                    "OS-EXT-IPS:type": "fixed",
                    "OS-EXT-IPS-MAC:mac_addr": port["mac_address"],
                }
                for fixed in port["fixed_ips"]
            )
        return addresses

    @staticmethod
    def _attachments(server):
        return [
            {
                "serverId": server.id,
                "volumeId": volume,
                "device": server.devices[volume],
                "tag": None,
                "delete_on_termination": goes_too,
                "attachment_id": volume,
                "bdm_uuid": volume,
            }
            for volume, goes_too in server.disks
        ]

    def _action(self, server, verb, value, request_id):
        if verb == "quiesce":
            self._quiesce(server, value or {}, request_id)
            return 202, None
        if verb == "unquiesce":
            self._unquiesce(server, request_id)
            return 202, None
        if verb == "createImage":
            return 202, {"image_id": self._create_image(server, value)}
        if verb in ("resize", "migrate"):
            self._move(server, verb, request_id)
            return 202, None
        if verb in ("confirmResize", "revertResize", "os-migrateLive"):
            return 202, None
        return None

    def _move(self, server, verb, request_id):
        server.moving = True
        self._begin(server, verb, request_id, MOVED)
        fails = server.move_fails
        self._after(server, server.move_takes, self._end, server, request_id, fails)

    def _after(self, server, delay, function, *args):
        if isinstance(delay, Looks):
            server.awaited.append((delay.number, function, args))
        else:
            self.cloud.after(delay, function, *args)

    @staticmethod
    def _look(server):
        """Count a look, and let happen what waited for it."""
        awaited, server.awaited = server.awaited, []
        for left, function, args in awaited:
            if left > 0:
                server.awaited.append((left - 1, function, args))
            else:
                function(*args)

    # The window.

    def _quiesce(self, server, options, request_id):
        self._check_active(server, "quiesce")
        self._check_not_quiesced(server, "quiesce")
        timeout = options.get("timeout", 60)
        server.window = window = Window("quiescing", timeout, request_id)
        window.partial = options.get("partial", False)
        self.timeouts[server.name] = timeout
        self.cloud.tell("quiesce", server.name)
        self._begin(server, "quiesce", request_id)
        self._after(server, server.freeze_takes, self._frozen, server, window)

    def _frozen(self, server, window):
        reason = server.freeze_fails
        if server.unfreezable and not window.partial:
            reason = f"could not be frozen: {server.unfreezable}"
        if reason:
            self.cloud.tell("freeze failed", server.name)
            self._end(server, window.request_id, reason)
            server.window = None
            return
        window.status = "quiesced"
        window.frozen = self.now()
        self.cloud.tell("freeze", server.name)
        self._end(server, window.request_id, None)
        reason = "it was not unquiesced in time"
        self.cloud.after(window.timeout, self._break, server, window, reason)

    def _break(self, server, window, reason):
        ours = server.window is window and window.status == "quiesced"
        if ours and not window.broken:
            window.broken = reason
            self.cloud.tell("thaw by itself", server.name)
            own = f"req-own-{self.cloud.count()}"
            self._begin(server, "unquiesce", own)
            self._end(server, own, reason)

    def _unquiesce(self, server, request_id):
        window = server.window
        if window is None or window.status != "quiesced" or server.locked:
            state = server.quiesce_status or "null"
            raise _conflict(server, "unquiesce", "quiesce_status", state)
        window.status = "unquiescing"
        self.cloud.tell("unquiesce", server.name)
        self._begin(server, "unquiesce", request_id)
        takes = 0 if window.broken else server.thaw_takes
        self._after(server, takes, self._thawed, server, window, request_id)

    def _thawed(self, server, window, request_id):
        if not window.broken:
            self.cloud.tell("thaw", server.name)
        if server.window is window:
            server.window = None
        self._end(server, request_id, window.broken or server.unfit)

    def _begin(self, server, verb, request_id, event=None):
        event = event or f"compute_{verb}_instance"
        self.cloud.name_id(request_id, f"req-{verb}-{server.name}")
        server.actions[request_id] = {
            "action": verb,
            "instance_uuid": server.id,
            "request_id": request_id,
            "message": None,
            "events": [{"event": event, "result": None, "details": None}]
            if server.has_events
            else [],
        }

    @staticmethod
    def _end(server, request_id, error):
        action = server.actions[request_id]
        action["message"] = "Error" if error else None
        for event in action["events"]:
            event["result"] = "Error" if error else "Success"
            event["details"] = error if server.says_why else None

    # Images.

    def _create_image(self, server, value):
        self._check_active(server, "createImage")
        if server.window and server.window.status == "quiescing":
            raise refusal.Refusal(409, "the server is being quiesced")
        if not server.image:
            raise refusal.Refusal(400, "Not for servers on volumes in these tests.")
        for name, text in (value.get("metadata") or {}).items():
            if not re.fullmatch(r"[a-zA-Z0-9\-_:. ]{1,255}", name) or len(text) > 255:
                raise refusal.Refusal(400, f"Invalid input for {name}.")
        # Like nova, it passes on all that the server's own image has.
        properties = {
            **server.image_properties,
            "base_image_ref": server.image,
            "instance_uuid": server.id,
            "image_type": "snapshot",
            **(value.get("metadata") or {}),
        }
        image = self.cloud.images.add(value["name"], properties, status="queued")
        self.cloud.tell("image", server.name)
        self._step_image(server, image, list(TASKS))
        return image["id"]

    def _step_image(self, server, image, tasks):
        gone = image["id"] not in self.cloud.images.images
        if server.task == "image_snapshot" and (server.image_fails or gone):
            self.cloud.images.images.pop(image["id"], None)
            self.cloud.tell("image failed", server.name)
            tasks = []
        elif server.task == "image_snapshot":
            self.cloud.tell("image cut", server.name)
            image["status"] = "saving"
        elif server.task == "image_uploading" and not gone:
            self.cloud.images.fill(image, f"disk of {server.name}".encode())
            self.cloud.tell("image saved", server.name)
        server.task = tasks[0] if tasks else None
        takes = {
            "image_snapshot": server.copy_takes,
            "image_uploading": server.upload_takes,
        }
        if server.task:
            delay = takes.get(server.task, 0)
            self.cloud.after(delay, self._step_image, server, image, tasks[1:])

    # Boot and delete.

    def _create(self, body):
        flavors = {f["id"]: name for name, f in self.flavors.items()}
        if body["flavorRef"] not in flavors:
            raise refusal.Refusal(400, f"Flavor {body['flavorRef']} not found.")
        server = Server(
            self.cloud.new_id(body["name"]),
            body["name"],
            flavor=flavors[body["flavorRef"]],
            config_drive=bool(body.get("config_drive")),
            zone=body.get("availability_zone"),
            metadata=body.get("metadata") or {},
            security_groups=[g["name"] for g in body.get("security_groups") or ()],
            status="BUILD",
        )
        if "networks" not in body:
            raise refusal.Refusal(400, "'networks' is a required property")
        mapping = body.get("block_device_mapping_v2") or []
        _check_boot_order(mapping)
        self._take_image(server, body.get("imageRef"), mapping)
        volumes = [(self._volume(bdm["uuid"]), bdm) for bdm in _of_volumes(mapping)]
        if not server.image and not (volumes and volumes[0][0].bootable):
            raise refusal.Refusal(400, "Block Device is not bootable.")
        self.servers[server.id] = server
        # libvirt's driver ignores the device names that are asked for.
        for volume, bdm in volumes:
            goes_too = bool(bdm.get("delete_on_termination"))
            self.connect(server, volume, self.next_device(server), goes_too)
        self.cloud.network.plug(server.id, body.get("networks"))
        self.cloud.tell("boot", server.name)
        self.cloud.after(self.boot_takes.get(server.name, 0), self._booted, server)
        return 202, {"server": {"id": server.id, "links": [], "adminPass": "x"}}

    def _take_image(self, server, reference, mapping):
        local = (bdm for bdm in mapping if bdm["source_type"] == "image")
        for bdm in local:
            if bdm.get("destination_type") != "local":
                raise refusal.Refusal(400, "No volumes of images in these tests.")
            reference = bdm["uuid"]
        if reference:
            image = self.cloud.images.images.get(reference)
            if image is None or image["status"] != "active":
                raise refusal.Refusal(400, f"Image {reference} is not active.")
            server.image = reference
            server.image_properties = fake_images.properties(image)

    def _volume(self, volume_id):
        volume = self.cloud.volumes.volumes.get(volume_id)
        if volume is None or volume.status != "available":
            raise refusal.Refusal(400, f"Volume {volume_id} is not available.")
        return volume

    def _booted(self, server):
        if server.id in self.servers:
            fails = server.name in self.fails_to_boot
            server.status = "ERROR" if fails else "ACTIVE"
            self.cloud.tell("boot failed" if fails else "booted", server.name)

    def _delete(self, server):
        del self.servers[server.id]
        self.cloud.tell("delete server", server.name)
        for volume_id, goes_too in server.disks:
            volume = self.cloud.volumes.volumes[volume_id]
            volume.servers.remove(server.id)
            volume.status = "available"
            if goes_too:
                self.cloud.volumes.remove(volume)
        self.cloud.network.unplug(server.id)
        return 204, None

    # Refusals.

    @staticmethod
    def _check_active(server, verb):
        if server.status != "ACTIVE":
            raise _conflict(server, verb, "vm_state", server.status.lower())
        if server.task:
            raise _conflict(server, verb, "task_state", server.task)
        if server.locked:
            raise refusal.Refusal(409, f"Instance {server.id} is locked")

    @staticmethod
    def _check_not_quiesced(server, verb):
        if server.quiesce_status:
            raise _conflict(server, verb, "quiesce_status", server.quiesce_status)


def _check_boot_order(mapping):
    order = sorted(
        int(bdm["boot_index"])
        for bdm in mapping
        if bdm.get("boot_index") is not None and int(bdm["boot_index"]) >= 0
    )
    if mapping and (not order or order != list(range(len(order)))):
        raise refusal.Refusal(400, "Boot sequence for the instance is not valid.")


def _of_volumes(mapping):
    """Return what maps volumes, that of the root first."""
    return sorted(
        (bdm for bdm in mapping if bdm["source_type"] == "volume"),
        key=lambda bdm: bdm.get("boot_index") not in (0, "0"),
    )


def _conflict(server, verb, attribute, state):
    return refusal.Refusal(
        409, f"Cannot '{verb}' instance {server.id} while it is in {attribute} {state}"
    )


def _interface(port):
    return {
        "port_state": "ACTIVE",
        "port_id": port["id"],
        "net_id": port["network_id"],
        "mac_addr": port["mac_address"],
        "fixed_ips": port["fixed_ips"],
        "tag": None,
    }
