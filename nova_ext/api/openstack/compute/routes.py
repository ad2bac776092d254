# SPDX-License-Identifier: Apache-2.0
"""Owns how the extension enters nova's API router."""

from typing import Any

from nova.api.openstack import wsgi
from nova.api.openstack.compute import routes
from nova.api.openstack.compute import servers as upstream_servers
from nova.compute import api as upstream
from oslo_log import log as logging

from nova_ext.api.openstack.compute import (
    admin_actions,
    migrate_server,
    quiesce_server,
    servers,
)
from nova_ext.api.openstack.compute.views import servers as views
from nova_ext.compute import api as compute

LOG = logging.getLogger(__name__)


class APIRouterV21(routes.APIRouterV21):
    """nova's router, with the extension's controllers for servers and their actions."""

    def __init__(self, custom_routes: Any = None) -> None:
        super().__init__(custom_routes)
        compute_api = compute.API()
        for route in self.map.matchlist:
            resource = route.defaults.get("controller")
            if not isinstance(resource, wsgi.Resource):
                continue
            for controller in (resource.controller, *resource.sub_controllers):
                if isinstance(getattr(controller, "compute_api", None), upstream.API):
                    controller.compute_api = compute_api
                    LOG.debug("%s uses the extension.", type(controller).__name__)
            # VolumesBootController is a subclass, and only creates servers.
            if type(resource.controller) is upstream_servers.ServersController:
                _extend(resource, compute_api)


def _extend(resource: wsgi.Resource, compute_api: compute.API) -> None:
    """Let ``resource``, which serves servers, have the extension's controllers."""
    resource.controller = servers.ServersController(compute_api)
    resource.register_actions(resource.controller)
    for controller in (
        admin_actions.AdminActionsController(compute_api),
        migrate_server.MigrateServerController(compute_api),
        quiesce_server.QuiesceServerController(compute_api),
    ):
        resource.register_subcontroller_actions(controller)


#: What overrides methods of nova's API.
CLASSES: tuple[type, ...] = (
    admin_actions.AdminActionsController,
    compute.API,
    migrate_server.MigrateServerController,
    servers.ServersController,
    views.ViewBuilder,
)
