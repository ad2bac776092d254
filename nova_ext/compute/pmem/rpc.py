# SPDX-License-Identifier: Apache-2.0
"""Owns the RPC interface of the copy of persistent memory, both ends of it.

* 1.1 - prepare_pmem_copy, digest_pmem, discard_pmem_copy
"""

from typing import Any

import oslo_messaging as messaging
from nova import exception

from nova_ext.compute import rpcapi

VERSION = "1.1"


class PmemEndpoint:
    """The server's end, in the nova-compute of the destination.

    :param pmem_manager: :class:`nova_ext.compute.pmem.manager.PmemManager`
    """

    target = messaging.Target(namespace=rpcapi.NAMESPACE, version=VERSION)

    def __init__(self, pmem_manager: Any) -> None:
        self._manager = pmem_manager

    @messaging.expected_exceptions(exception.NovaException)
    def prepare_pmem_copy(
        self, context: Any, instance: Any, migration_id: int
    ) -> list[dict[str, Any]]:
        """See :meth:`nova_ext.compute.pmem.manager.PmemManager.prepare`."""
        devices: list[dict[str, Any]] = self._manager.prepare(
            context, instance, migration_id
        )
        return devices

    @messaging.expected_exceptions(exception.NovaException)
    def digest_pmem(self, context: Any, name: str, offset: int, length: int) -> str:
        """See :meth:`nova_ext.compute.pmem.manager.PmemManager.digest`."""
        return str(self._manager.digest(name, offset, length))

    def discard_pmem_copy(self, context: Any, owner: str, names: list[str]) -> None:
        """See :meth:`nova_ext.compute.pmem.manager.PmemManager.discarded`."""
        self._manager.discarded(owner, names)


class PmemRPCAPI(rpcapi.ComputeRPCAPI):
    """The client's end: the source host calls the destination of a migration."""

    version = VERSION

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
