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

"""Owns the RPC client side of the extension's nova-compute endpoint."""

from typing import Any

import oslo_messaging as messaging
from nova import rpc
from nova.compute import rpcapi
from nova.objects import base as objects_base

NAMESPACE = "nova_ext"


class _ComputeAPI:
    """Calls the ``nova_ext`` endpoints of compute services.

    API version history:

    * 1.0 - quiesce_instance, unquiesce_instance, release_instance
    * 1.1 - prepare_pmem_copy, digest_pmem, discard_pmem_copy
    """

    version: str

    def __init__(self) -> None:
        target = messaging.Target(
            topic=rpcapi.RPC_TOPIC, namespace=NAMESPACE, version=self.version
        )
        # The router finds the message bus of the context's cell.
        self._router = rpc.ClientRouter(
            rpc.get_client(target, serializer=objects_base.NovaObjectSerializer())
        )

    def _host(self, context: Any, host: str) -> Any:
        return self._router.client(context).prepare(server=host)


class QuiesceComputeAPI(_ComputeAPI):
    """Calls the compute service that runs an instance."""

    version = "1.0"

    def quiesce_instance(self, context: Any, instance: Any, timeout: int) -> None:
        """Begin a window; returns when the compute host has taken the order."""
        self._host(context, instance.host).call(
            context, "quiesce_instance", instance=instance, timeout=timeout
        )

    def unquiesce_instance(self, context: Any, instance: Any) -> None:
        """End the window; returns when the compute host has taken the order."""
        self._host(context, instance.host).call(
            context, "unquiesce_instance", instance=instance
        )

    def release_instance(self, context: Any, instance: Any) -> None:
        """Let the host thaw a guest whose marker was cleared; does not wait."""
        self._host(context, instance.host).cast(
            context, "release_instance", instance=instance
        )


class PmemComputeAPI(_ComputeAPI):
    """Calls the compute service at the destination of a migration."""

    version = "1.1"

    def prepare_pmem_copy(
        self, context: Any, instance: Any, migration: Any
    ) -> list[dict[str, Any]]:
        """The devices that await the data; returns when they are checked."""
        devices: list[dict[str, Any]] = self._host(
            context, migration.dest_compute
        ).call(
            context,
            "prepare_pmem_copy",
            instance=instance,
            migration_id=migration.id,
        )
        return devices

    def digest_pmem(
        self, context: Any, migration: Any, name: str, offset: int, length: int
    ) -> str:
        """The digest of a range of bytes of a device."""
        return str(
            self._host(context, migration.dest_compute).call(
                context, "digest_pmem", name=name, offset=offset, length=length
            )
        )

    def discard_pmem_copy(
        self, context: Any, migration: Any, owner: str, names: list[str]
    ) -> None:
        """Let the host zero devices that received ``owner``'s data; does not wait."""
        self._host(context, migration.dest_compute).cast(
            context, "discard_pmem_copy", owner=owner, names=names
        )
