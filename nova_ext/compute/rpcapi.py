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

from nova_ext.compute import endpoint


class QuiesceComputeAPI:
    """Calls the endpoint of the compute service that runs an instance.

    API version history:

    * 1.0 - quiesce_instance, unquiesce_instance, release_instance
    """

    def __init__(self) -> None:
        target = messaging.Target(
            topic=rpcapi.RPC_TOPIC, namespace=endpoint.NAMESPACE, version="1.0"
        )
        # The router finds the message bus of the instance's cell.
        self._router = rpc.ClientRouter(
            rpc.get_client(target, serializer=objects_base.NovaObjectSerializer())
        )

    def quiesce_instance(self, context: Any, instance: Any, timeout: int) -> None:
        """Begin a window; returns when the compute host has taken the order."""
        self._client(context, instance).call(
            context, "quiesce_instance", instance=instance, timeout=timeout
        )

    def unquiesce_instance(self, context: Any, instance: Any) -> None:
        """End the window; returns when the compute host has taken the order."""
        self._client(context, instance).call(
            context, "unquiesce_instance", instance=instance
        )

    def release_instance(self, context: Any, instance: Any) -> None:
        """Let the host thaw a guest whose marker was cleared; does not wait."""
        self._client(context, instance).cast(
            context, "release_instance", instance=instance
        )

    def _client(self, context: Any, instance: Any) -> Any:
        return self._router.client(context).prepare(server=instance.host)
