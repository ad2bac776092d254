# SPDX-License-Identifier: Apache-2.0
"""What the cloud's tables hold from the start: users, endpoints, flavors, images.

Runs with the environment's own Python: python -m aiolib.bootstrap TASK, one of TASKS.
"""

from __future__ import annotations

import sys
from typing import Any

from openstack.connection import Connection

from aiolib import config, guest, reports, settings, waiting
from aiolib.client import Cloud
from aiolib.settings import Failure, Settings

ENDPOINTS = {
    "placement": ("placement", "placement", ""),
    "glance": ("image", "glance", ""),
    "nova": ("compute", "nova-api", "/v2.1"),
    "cinder": ("block-storage", "cinder-api", "/v3"),
    "neutron": ("network", "network-stub", ""),
}
ROLES = ("service", "admin", "member", "reader")
# name: memory in MiB, extra specs
FLAVORS: dict[str, tuple[int, dict[str, str]]] = {
    "tiny": (128, {}),
    "small": (192, {}),
    "pmem.small": (128, {"hw:pmem": "SMALL"}),
    "pmem.small.big": (128, {"hw:pmem": "BIG,SMALL"}),
}
IMAGES = {
    "guest": {"hw_qemu_guest_agent": "yes"},
    "guest-noagent": {},
    "guest-require": {"hw_qemu_guest_agent": "yes", "os_require_quiesce": "yes"},
}


def identity(s: Settings, c: Connection) -> None:
    api: Any = c.identity
    domain = api.find_domain("Default", ignore_missing=False)
    for name in ROLES:
        api.find_role(name) or api.create_role(name=name)
    roles = {role.name: role for role in api.roles()}

    def user(name: str, project: str, *role_names: str) -> None:
        home = api.find_project(project) or api.create_project(
            name=project, domain_id=domain.id
        )
        person = api.find_user(name) or api.create_user(
            name=name,
            password=s.password,
            domain_id=domain.id,
            default_project_id=home.id,
        )
        for role in role_names:
            api.assign_project_role_to_user(home, person, roles[role])

    known = {service.name for service in api.services()}
    for name, (kind, service_name, path) in ENDPOINTS.items():
        user(name, "service", "admin", "service")
        if name in known:
            continue
        service = api.create_service(name=name, type=kind)
        for interface in ("public", "internal", "admin"):
            api.create_endpoint(
                service_id=service.id,
                interface=interface,
                url=s.url(service_name, path),
                region_id=settings.REGION,
            )
    user("demo", "demo", "member")
    # so that an administrator chooses the host of a server of this project
    demo, admin = api.find_project("demo"), api.find_user("admin")
    api.assign_project_role_to_user(demo, admin, roles["admin"])


def resources(s: Settings, c: Connection) -> None:
    volumes: Any = c.block_storage
    for name in config.back_ends(s):
        if not volumes.find_type(name):
            kind = volumes.create_type(name=name)
            volumes.update_type_extra_specs(kind, volume_backend_name=name)
    c.set_volume_quotas("demo", volumes=100, snapshots=100)
    c.set_compute_quotas("demo", instances=100, cores=100)
    for name, (memory, specs) in FLAVORS.items():
        if not c.compute.find_flavor(name):
            flavor = c.compute.create_flavor(name=name, ram=memory, vcpus=1, disk=1)
            c.compute.create_flavor_extra_specs(flavor, specs)
    api: Any = c.image
    built_from = guest.fingerprint(s)
    for name, properties in IMAGES.items():
        for image in list(api.images(name=name)):
            if image.properties.get("built_from") == built_from:
                break
            api.delete_image(image)
        else:
            c.create_image(
                name,
                filename=str(guest.image(s)),
                disk_format="qcow2",
                container_format="bare",
                visibility="public",
                wait=True,
                meta={"built_from": built_from, **properties},
            )


def zones(s: Settings, c: Connection) -> None:
    """An availability zone per host: so a user without admin rights chooses one."""
    for host in s.computes:
        group = c.compute.find_aggregate(host) or c.compute.create_aggregate(
            name=host, availability_zone=host
        )
        if host not in (group.hosts or []):
            c.compute.add_host_to_aggregate(group, host)


def ready(s: Settings, c: Connection) -> None:
    missing: list[str] = []

    def all_have() -> bool:
        missing[:] = reports.late(s, c)
        return not missing

    try:
        waiting.until("reports", all_have, 120, 0.3)
    except TimeoutError:
        text = f"{', '.join(missing)} did not report: see `tools/aio logs SERVICE`"
        raise Failure(text) from None


TASKS = {
    "identity": identity,
    "ready": ready,
    "resources": resources,
    "zones": zones,
}


def main(task: str) -> int:
    cloud = Cloud()
    try:
        connection = cloud.connect("admin")
        TASKS[task](cloud.settings, connection)
    except Failure as failure:
        print(failure)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
