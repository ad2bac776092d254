# SPDX-License-Identifier: Apache-2.0
"""Owns the RPC interface of quiesce on nova-compute, both ends of it.

* 1.0 - quiesce_instance, unquiesce_instance, release_instance
"""

from typing import Any

import oslo_messaging as messaging
from nova import exception

from nova_ext.compute import rpcapi
from nova_ext.compute.quiesce import manager

VERSION = "1.0"


class QuiesceEndpoint:
    """The server's end, in nova-compute."""

    target = messaging.Target(namespace=rpcapi.NAMESPACE, version=VERSION)

    def __init__(self, quiesce_manager: manager.QuiesceManager) -> None:
        self._manager = quiesce_manager

    @messaging.expected_exceptions(exception.NovaException)
    def quiesce_instance(
        self, context: Any, instance: Any, timeout: int, partial: bool
    ) -> None:
        """See :meth:`nova_ext.compute.quiesce.manager.QuiesceManager.quiesce`."""
        self._manager.quiesce(context, instance, timeout, partial)

    @messaging.expected_exceptions(exception.NovaException)
    def unquiesce_instance(self, context: Any, instance: Any) -> None:
        """See :meth:`nova_ext.compute.quiesce.manager.QuiesceManager.unquiesce`."""
        self._manager.unquiesce(context, instance)

    def release_instance(self, context: Any, instance: Any, window_id: str) -> None:
        """See :meth:`nova_ext.compute.quiesce.manager.QuiesceManager.release`."""
        self._manager.release(context, instance, window_id)


class QuiesceRPCAPI(rpcapi.ComputeRPCAPI):
    """The client's end: calls the compute service that runs an instance."""

    version = VERSION

    def quiesce_instance(
        self, context: Any, instance: Any, timeout: int, partial: bool
    ) -> None:
        """Begin a window; returns when the compute host has accepted the request."""
        self._host(context, instance.host).call(
            context,
            "quiesce_instance",
            instance=instance,
            timeout=timeout,
            partial=partial,
        )

    def unquiesce_instance(self, context: Any, instance: Any) -> None:
        """End the window; returns when the compute host has accepted the request."""
        self._host(context, instance.host).call(
            context, "unquiesce_instance", instance=instance
        )

    def release_instance(self, context: Any, instance: Any, window_id: str) -> None:
        """Let the host thaw a guest whose state was cleared; does not wait."""
        self._host(context, instance.host).cast(
            context, "release_instance", instance=instance, window_id=window_id
        )
