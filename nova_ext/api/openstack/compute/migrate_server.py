# SPDX-License-Identifier: Apache-2.0
"""Owns the ``migrate`` server action with ``copy_pmem_devices``."""

import copy
from typing import Any

from nova.api import validation
from nova.api.openstack import wsgi
from nova.api.openstack.compute import migrate_server
from nova.api.openstack.compute.schemas import migrate_server as upstream_schema
from typing_extensions import override

from nova_ext.api.openstack.compute import copy_pmem, versions
from nova_ext.api.openstack.compute.schemas import copy_pmem as schema
from nova_ext.compute import api as compute


@validation.validated
class MigrateServerController(migrate_server.MigrateServerController):
    """nova's migrations; a cold one may copy the PMEM devices."""

    def __init__(self, compute_api: compute.API) -> None:
        super().__init__()
        self.compute_api = compute_api

    @override
    @wsgi.response(202)
    @wsgi.expected_errors((400, 403, 404, 409))
    @wsgi.action("migrate")
    @validation.schema(schema.migrate, versions.COPY_PMEM)
    @validation.response_body_schema(upstream_schema.migrate_response)
    def _migrate(self, req: Any, id: str, body: dict[str, Any]) -> None:
        """Migrate a server to another host, below 2.105 as nova does."""
        copying, body = copy_pmem.pop_copy_pmem_devices(
            req, "migrate", body, strict_from="2.56"
        )
        clone = copy.copy(self)
        clone.compute_api = self.compute_api.with_copy_pmem(copying)
        super(MigrateServerController, clone)._migrate(req=req, id=id, body=body)
