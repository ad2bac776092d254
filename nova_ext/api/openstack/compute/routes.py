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

"""Owns how the extension enters nova's API router.

The operator names :meth:`APIRouterV21.factory` in ``api-paste.ini``::

    [app:osapi_compute_app_v21]
    paste.app_factory = nova_ext.api.openstack.compute.routes:APIRouterV21.factory
"""

from typing import Any

from nova.api.openstack import wsgi
from nova.api.openstack.compute import routes
from nova.api.openstack.compute import servers as upstream_servers

from nova_ext import install
from nova_ext.api.openstack.compute import (
    admin_actions,
    migrate_server,
    quiesce_server,
    servers,
)
from nova_ext.compute import api as compute


class APIRouterV21(routes.APIRouterV21):
    """nova's router, with the extension's controllers for servers and their actions."""

    def __init__(self, custom_routes: Any = None) -> None:
        install.install()
        install.check_api()
        super().__init__(custom_routes)
        compute_api = compute.API()
        for route in self.map.matchlist:
            resource = route.defaults.get("controller")
            # VolumesBootController is a subclass, and only creates servers.
            if (
                isinstance(resource, wsgi.Resource)
                and type(resource.controller) is upstream_servers.ServersController
            ):
                _extend(resource, compute_api)


def _extend(resource: Any, compute_api: compute.API) -> None:
    """Let ``resource``, which serves servers, use the extension."""
    for controller in resource.sub_controllers:
        if hasattr(controller, "compute_api"):
            controller.compute_api = compute_api
    resource.controller = servers.ServersController(compute_api)
    resource.register_actions(resource.controller)
    for controller in (
        admin_actions.AdminActionsController(compute_api),
        migrate_server.MigrateServerController(compute_api),
        quiesce_server.QuiesceServerController(compute_api),
    ):
        resource.register_subcontroller_actions(controller)
