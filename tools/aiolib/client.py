# SPDX-License-Identifier: Apache-2.0
"""What tests and demos need of the running cloud; changes none of its settings.

Only `connect` needs openstacksdk, so the rest works with any Python 3.11.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import json
import pathlib
import re
import signal
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from aiolib import (
    devices,
    hosts,
    processes,
    records,
    reports,
    services,
    settings,
    ssh,
    waiting,
)
from aiolib.settings import Failure, Settings

# s; a service that lost an answer with the bus waits for it before it deletes.
GONE = 180

if TYPE_CHECKING:
    from openstack.compute.v2.server import Server
    from openstack.connection import Connection


class AgentError(Exception):
    """The guest agent did not do it; the text is virsh's."""


class GuestError(Exception):
    """A program in the guest did not do it."""


class Cloud:
    """The cloud under AIO_HOME."""

    def __init__(self, chosen: Settings | None = None) -> None:
        self.settings = chosen or settings.load()

    # -- addresses --

    @property
    def nova_api_url(self) -> str:
        """Root of the compute API with the extension, as in the catalog."""
        return self.settings.url("nova-api", "/v2.1")

    @property
    def nova_api_stock_url(self) -> str:
        """Root of the stock compute API on the same database."""
        return self.settings.url("nova-api-stock", "/v2.1")

    @property
    def auth_url(self) -> str:
        return self.settings.url("keystone", "/v3")

    @property
    def rabbit_url(self) -> str:
        return self.settings.rabbit_url

    def connect(
        self, user: str = "demo", project: str | None = None, **options: Any
    ) -> Connection:
        """An openstacksdk connection as `demo` (member) or `admin`.

        :param project: `demo` for an administrator in the tenant's project
        :param options: more for openstack.connect, as compute_api_version="2.105"
        """
        import openstack

        return openstack.connect(
            load_yaml_config=False,
            load_envvars=False,
            auth_type="password",
            auth={
                "auth_url": self.auth_url,
                "username": user,
                "password": self.settings.password,
                "project_name": project or user,
                "user_domain_name": "Default",
                "project_domain_name": "Default",
            },
            region_name=settings.REGION,
            **options,
        )

    @functools.cached_property
    def tenant(self) -> Connection:
        """A member of a project, at the extension's microversion."""
        return self.connect("demo", compute_api_version="2.105")

    @functools.cached_property
    def admin(self) -> Connection:
        """An administrator, at the extension's microversion."""
        return self.connect("admin", compute_api_version="2.105")

    # -- services --

    def running(self, service: str) -> bool:
        return services.running(self.settings, service)

    def process(self, service: str) -> processes.Process | None:
        return records.read(self.settings, service)

    def start(self, service: str) -> None:
        """Start a service and wait until it answers (see also wait_reported)."""
        services.start(self.settings, service)

    def stop(self, service: str) -> None:
        services.stop(self.settings, service)

    def restart(self, service: str) -> None:
        self.stop(service)
        self.start(service)

    def kill(self, service: str, number: int = signal.SIGKILL) -> None:
        services.kill(self.settings, service, number)

    def service_log(self, service: str) -> pathlib.Path:
        return records.log_path(self.settings, service)

    def wait_reported(self, connection: Connection, host: str, timeout: float) -> None:
        """Wait until the nova-compute of `host` reports since its last start.

        :param connection: one of the admin
        :raises TimeoutError: it did not within `timeout` seconds
        """
        wanted = f"nova-compute on {host}"
        waiting.until(
            f"a report of {wanted}",
            lambda: wanted not in reports.late(self.settings, connection),
            timeout,
            0.2,
        )

    # -- guests --

    def boot(
        self,
        connection: Connection,
        name: str,
        *,
        host: str = "cmp1",
        image: str = "guest",
        flavor: str = "tiny",
        agent: bool = True,
        movable: bool = False,
        boot_from: str = "",
        volume: str = "",
        data: int = 0,
    ) -> Server:
        """Boot a server without a network on a compute host; wait until it works.

        One that does not come to work is deleted.

        :param image: guest, guest-noagent or guest-require
        :param agent: also wait until the guest agent answers
        :param movable: an administrator chooses the host; else the tenant does by its
            availability zone, which the server then cannot leave
        :param boot_from: the type of the volumes to make for this server, first one
            from the image to boot from; they are deleted with it
        :param data: so many more of them, empty ones of 1 GiB
        :param volume: the ID of a volume to boot from in the place of an image
        """
        compute = connection.compute
        creator, place = compute, {"availability_zone": host}
        if movable:
            creator = self.connect("admin", "demo", compute_api_version="2.74").compute
            place = {"host": host}
        image_id = connection.image.find_image(image, ignore_missing=False).id
        disk: dict[str, Any] = {"image_id": image_id}
        if boot_from:
            new = {"destination_type": "volume", "delete_on_termination": True}
            new |= {"volume_size": 1, "volume_type": boot_from}
            root = {"source_type": "image", "uuid": image_id, "boot_index": 0}
            blank = {"source_type": "blank", "boot_index": -1}
            disk = {"block_device_mapping": [root | new, *[blank | new] * data]}
        elif volume:
            root = {"source_type": "volume", "uuid": volume, "boot_index": 0}
            disk = {"block_device_mapping": [root | {"destination_type": "volume"}]}
        server = creator.create_server(
            name=name,
            **disk,
            flavor_id=compute.find_flavor(flavor, ignore_missing=False).id,
            networks="none",
            **place,
        )
        try:
            ready = compute.wait_for_server(server, wait=120, interval=0.5)
            if agent:
                self.wait_agent(server.id)
        except Exception as exc:
            try:
                exc.add_note(f"nova says: {compute.get_server(server.id).fault}")
            finally:
                compute.delete_server(server, force=True, ignore_missing=True)
            compute.wait_for_delete(server, wait=GONE)
            raise
        return ready

    def virsh(self, host: str) -> list[str]:
        """The words before a virsh command for the libvirt of a compute host."""
        socket = hosts.libvirt_socket(self.settings, host)
        return ["virsh", "-q", "-c", f"qemu+unix:///system?socket={socket}"]

    def in_host(self, host: str) -> list[str]:
        """The words before a command that is to run inside a host."""
        return hosts.join(self.settings, host)

    def find_host(self, server_id: str) -> str:
        """The compute host where the server runs, or else one that knows it.

        libvirt's own files tell: a virsh for each host would cost more than what is
        waited for.
        """
        wanted = f"<uuid>{server_id}</uuid>"
        for folder in ("run/qemu", "etc/qemu"):
            for host in self.settings.computes:
                for path in self.settings.host_dir(host).joinpath(folder).glob("*.xml"):
                    with contextlib.suppress(FileNotFoundError):
                        if wanted in path.read_text():
                            return host
        raise LookupError(f"no compute host has a guest {server_id}")

    def console_log(self, server_id: str) -> pathlib.Path:
        """The file that the guest's serial console is written to."""
        directory = self.settings.host_dir(self.find_host(server_id))
        return directory / "instances" / server_id / "console.log"

    def agent(
        self, server_id: str, execute: str, *, timeout: int = 5, **arguments: Any
    ) -> Any:
        """Run a guest agent command and return its `return` value.

        :param timeout: seconds that libvirt waits for the agent
        :raises AgentError: libvirt or the agent said no
        """
        message: dict[str, Any] = {"execute": execute}
        if arguments:
            message["arguments"] = {
                name.replace("_", "-"): value for name, value in arguments.items()
            }
        words = [*self.virsh(self.find_host(server_id)), "qemu-agent-command"]
        words += ["--timeout", str(timeout), server_id, json.dumps(message)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise AgentError(done.stderr.strip())
        return json.loads(done.stdout)["return"]

    def guest_run(self, server_id: str, path: str, *arguments: str) -> int:
        """Start a program in the guest through its agent; returns its pid there."""
        answer = self.agent(server_id, "guest-exec", path=path, arg=list(arguments))
        return int(answer["pid"])

    def guest_output(
        self, server_id: str, path: str, *arguments: str, timeout: float = 60
    ) -> str:
        """Run a program in the guest to its end; what it printed.

        :raises GuestError: it failed
        :raises TimeoutError: it did not end within `timeout` seconds
        """
        pid = self.agent(
            server_id,
            "guest-exec",
            path=path,
            arg=list(arguments),
            capture_output=True,
        )["pid"]

        def ended() -> Any:
            told = self.agent(server_id, "guest-exec-status", pid=pid)
            return told if told["exited"] else None

        done = waiting.until(f"an end of {path}", ended, timeout)
        output, errors = (
            base64.b64decode(done.get(name, "")).decode(errors="replace")
            for name in ("out-data", "err-data")
        )
        if done.get("exitcode") != 0:
            raise GuestError(f"{path}: {done}: {errors}")
        return output

    def wait_agent(self, server_id: str, timeout: float = 120) -> None:
        """Wait until the guest agent answers.

        :raises TimeoutError: it did not within `timeout` seconds
        """
        said = ""

        def answers() -> bool:
            nonlocal said
            try:
                self.agent(server_id, "guest-ping")
            except (AgentError, LookupError) as error:
                said = str(error)
                return False
            return True

        waiting.until(lambda: f"an agent in {server_id}: {said}", answers, timeout, 0.2)

    def require_up(self) -> None:
        """Raise Failure unless every service runs."""
        missing = [
            name for name in services.table(self.settings) if not self.running(name)
        ]
        if missing:
            raise Failure(f"{', '.join(missing)} not running: run `tools/aio up`")

    # -- persistent memory --

    def pmem_write(self, server_id: str, device: int, seed: int) -> str:
        """Fill /dev/pmem`device` of the guest; its checksum (see pmem_sum).

        Every byte depends on the seed and every MiB on its place; a third is zeros.
        """
        path = f"/dev/pmem{device}"
        self.guest_output(server_id, "/usr/sbin/pmem-write", path, str(seed))
        return self.pmem_sum(server_id, device)

    def pmem_sum(self, server_id: str, device: int) -> str:
        """MD5 of what the guest reads from /dev/pmem`device`."""
        path = f"/dev/pmem{device}"
        return self.guest_output(server_id, "/usr/sbin/pmem-sum", path).split()[0]

    def pmem_namespaces(self, server_id: str) -> list[str]:
        """The namespaces that the server has, in the order of its devices."""
        host = self.find_host(server_id)
        words = [*self.virsh(host), "dumpxml", server_id]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30)
        names = {f"/dev/{d.node}": d.name for d in self._devices(host).values()}
        paths = re.findall("<path>(/dev/dax[^<]+)</path>", done.stdout)
        return [names[path] for path in paths]

    def _devices(self, host: str) -> dict[str, devices.Device]:
        return devices.of_host(self.settings, host)

    def device_path(self, host: str, namespace: str) -> pathlib.Path:
        """The file with the bytes of a namespace, as devices.NAMESPACES names it."""
        return self._devices(host)[namespace].path

    def device_bytes(self, host: str, namespace: str) -> bytes:
        """The whole device."""
        return self.device_path(host, namespace).read_bytes()

    def device_sum(self, host: str, namespace: str) -> str:
        """MD5 of what a guest sees of the device: equal to its pmem_sum."""
        seen = self.device_bytes(host, namespace)[: -devices.LABEL_AREA]
        return hashlib.md5(seen, usedforsecurity=False).hexdigest()

    def device_is_zero(self, host: str, namespace: str) -> bool:
        """Whether all bytes of the device are zero, the label area's too."""
        content = self.device_bytes(host, namespace)
        return content.count(0) == len(content)

    @contextlib.contextmanager
    def daxio_fault(self, host: str, **lines: str | int) -> Iterator[None]:
        """Make the daxio of a host fail.

        :param lines: what standins/daxio describes, as only="output", rate=1000000
        """
        path = devices.fault_path(self.settings, host)
        path.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    # -- the network between the compute hosts --

    @contextlib.contextmanager
    def cut_ssh(self, *names: str) -> Iterator[None]:
        """Lose all packets to and from the sshds of these hosts, without a word.

        The services of the hosts go on to reach each other.
        """
        try:
            for host in names:
                ssh.set_link(self.settings, host, up=False)
            yield
        finally:
            for host in names:  # an sshd that is started anew has a way anyhow
                if self.running(ssh.service_name(host)):
                    ssh.set_link(self.settings, host, up=True)
