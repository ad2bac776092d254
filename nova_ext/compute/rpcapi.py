# SPDX-License-Identifier: Apache-2.0
"""Owns how nova-compute's endpoints of the extension are called.

Each wing has an RPC interface of its own in one namespace, with a version of its own: a
stock nova-compute has no endpoint of this namespace and answers ``UnsupportedVersion``.
"""

from typing import Any

import oslo_messaging as messaging
from nova import rpc
from nova.compute import rpcapi
from nova.objects import base as objects_base

NAMESPACE = "nova_ext"


class ComputeRPCAPI:
    """Calls the endpoint of one wing on compute services.

    :cvar version: of the RPC interface
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
