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

"""What tests and demos need of the running cloud; changes none of its settings.

Only `connect` needs openstacksdk, so the rest works with any Python 3.11.
"""

from __future__ import annotations

import json
import pathlib
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

from aiolib import hosts, processes, records, services, settings
from aiolib.settings import Failure, Settings

if TYPE_CHECKING:
    from openstack.compute.v2.server import Server
    from openstack.connection import Connection


class AgentError(Exception):
    """The guest agent did not do it; the text is virsh's."""


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

    def connect(self, user: str = "demo", **options: Any) -> Connection:
        """An openstacksdk connection as `demo` (member) or `admin`.

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
                "project_name": user,
                "user_domain_name": "Default",
                "project_domain_name": "Default",
            },
            region_name=settings.REGION,
            **options,
        )

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
        from aiolib import bootstrap

        deadline = time.monotonic() + timeout
        wanted = f"nova-compute on {host}"
        while wanted in bootstrap.late(self.settings, connection):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{wanted} has not reported in {timeout:g} s")
            time.sleep(0.2)

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
    ) -> Server:
        """Boot a server without a network on a compute host; wait until it works.

        :param image: guest, guest-noagent or guest-require
        :param agent: also wait until the guest agent answers
        """
        compute = connection.compute
        server = compute.create_server(
            name=name,
            image_id=connection.image.find_image(image, ignore_missing=False).id,
            flavor_id=compute.find_flavor(flavor, ignore_missing=False).id,
            networks="none",
            availability_zone=host,
        )
        server = compute.wait_for_server(server, wait=120, interval=0.5)
        if agent:
            self.wait_agent(server.id)
        return server

    def virsh(self, host: str) -> list[str]:
        """The words before a virsh command for the libvirt of a compute host."""
        socket = hosts.libvirt_socket(self.settings, host)
        return ["virsh", "-q", "-c", f"qemu+unix:///system?socket={socket}"]

    def in_host(self, host: str) -> list[str]:
        """The words before a command that is to run inside a host."""
        return hosts.join(self.settings, host)

    def find_host(self, server_id: str) -> str:
        """The compute host whose libvirt knows the server."""
        for host in self.settings.computes:
            words = [*self.virsh(host), "list", "--all", "--uuid"]
            done = subprocess.run(words, capture_output=True, text=True, timeout=30)
            if server_id in done.stdout.split():
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

    def wait_agent(self, server_id: str, timeout: float = 60) -> None:
        """Wait until the guest agent answers.

        :raises TimeoutError: it did not within `timeout` seconds
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.agent(server_id, "guest-ping")
                return
            except AgentError as error:
                if time.monotonic() > deadline:
                    text = f"no guest agent in {server_id} after {timeout:g} s: {error}"
                    raise TimeoutError(text) from error
                time.sleep(0.2)

    def require_up(self) -> None:
        """Raise Failure unless every service runs."""
        missing = [
            name for name in services.table(self.settings) if not self.running(name)
        ]
        if missing:
            raise Failure(f"{', '.join(missing)} not running: run `tools/aio up`")
