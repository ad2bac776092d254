# SPDX-License-Identifier: Apache-2.0
"""Owns the servers controller of the extension."""

import copy
from typing import Any

from nova.api import validation
from nova.api.openstack import wsgi
from nova.api.openstack.compute import servers
from nova.api.openstack.compute.schemas import servers as upstream_schema
from typing_extensions import override

from nova_ext.api.openstack.compute import copy_pmem, versions
from nova_ext.api.openstack.compute.schemas import copy_pmem as schema
from nova_ext.api.openstack.compute.views import servers as views
from nova_ext.compute import api as compute


class ServersController(servers.ServersController):
    """nova's servers controller with the extension's compute API and view."""

    _view_builder_class = views.ViewBuilder

    def __init__(self, compute_api: compute.API) -> None:
        super().__init__()
        self.compute_api = compute_api

    @override
    @wsgi.response(202)
    @wsgi.expected_errors((400, 401, 403, 404, 409))
    @wsgi.action("resize")
    @validation.schema(schema.resize, versions.COPY_PMEM)
    @validation.response_body_schema(upstream_schema.resize_response)
    def _resize(self, req: Any, id: str, body: dict[str, Any]) -> None:
        """Resize a server, below 2.105 as nova does."""
        copying, body = copy_pmem.pop_copy_pmem_devices(
            req, "resize", body, strict_from="2.1"
        )
        clone = copy.copy(self)
        clone.compute_api = self.compute_api.with_copy_pmem(copying)
        super(ServersController, clone)._resize(req=req, id=id, body=body)
