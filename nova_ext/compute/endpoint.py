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

"""Owns the RPC server side of the extension on nova-compute, in its own namespace."""

from typing import Any

import oslo_messaging as messaging
from nova import exception

from nova_ext.compute import pmem, quiesce
from nova_ext.compute.rpcapi import NAMESPACE


class QuiesceEndpoint:
    """The ``nova_ext`` endpoint of nova-compute.

    A stock nova-compute has no endpoint of this namespace and answers with
    ``UnsupportedVersion``.
    """

    # 1.0: quiesce_instance, unquiesce_instance, release_instance
    target = messaging.Target(namespace=NAMESPACE, version="1.0")

    def __init__(self, manager: quiesce.QuiesceManager) -> None:
        self._manager = manager

    @messaging.expected_exceptions(exception.NovaException)
    def quiesce_instance(self, context: Any, instance: Any, timeout: int) -> None:
        """See :meth:`nova_ext.compute.quiesce.QuiesceManager.quiesce`."""
        self._manager.quiesce(context, instance, timeout)

    @messaging.expected_exceptions(exception.NovaException)
    def unquiesce_instance(self, context: Any, instance: Any) -> None:
        """See :meth:`nova_ext.compute.quiesce.QuiesceManager.unquiesce`."""
        self._manager.unquiesce(context, instance)

    def release_instance(self, context: Any, instance: Any) -> None:
        """See :meth:`nova_ext.compute.quiesce.QuiesceManager.release`."""
        self._manager.release(context, instance)


class PmemEndpoint:
    """The part of the ``nova_ext`` endpoint that serves copies of persistent memory."""

    # 1.1: prepare_pmem_copy, digest_pmem, discard_pmem_copy
    target = messaging.Target(namespace=NAMESPACE, version="1.1")

    def __init__(self, manager: pmem.PmemManager) -> None:
        self._manager = manager

    @messaging.expected_exceptions(exception.NovaException)
    def prepare_pmem_copy(
        self, context: Any, instance: Any, migration_id: int
    ) -> list[dict[str, Any]]:
        """See :meth:`nova_ext.compute.pmem.PmemManager.prepare`."""
        return self._manager.prepare(context, instance, migration_id)

    @messaging.expected_exceptions(exception.NovaException)
    def digest_pmem(self, context: Any, name: str, offset: int, length: int) -> str:
        """See :meth:`nova_ext.compute.pmem.PmemManager.digest`."""
        return self._manager.digest(name, offset, length)

    def discard_pmem_copy(self, context: Any, owner: str, names: list[str]) -> None:
        """See :meth:`nova_ext.compute.pmem.PmemManager.discarded`."""
        self._manager.discarded(owner, names)
