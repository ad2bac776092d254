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

"""Owns the servers controller of the extension."""

import copy
from typing import Any

from nova.api import validation
from nova.api.openstack import wsgi
from nova.api.openstack.compute import servers
from nova.api.openstack.compute.schemas import servers as upstream_schema

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

    @wsgi.response(202)
    @wsgi.expected_errors((400, 401, 403, 404, 409))
    @wsgi.action("resize")
    @validation.schema(schema.resize, versions.COPY_PMEM)
    @validation.response_body_schema(upstream_schema.resize_response)
    def _resize(self, req: Any, id: str, body: dict[str, Any]) -> None:
        """Resize a server, below 2.105 as nova does."""
        ordered, body = copy_pmem.take(req, "resize", body, strict_from="2.1")
        clone = copy.copy(self)
        clone.compute_api = self.compute_api.with_copy_pmem(ordered)
        super(ServersController, clone)._resize(req=req, id=id, body=body)
