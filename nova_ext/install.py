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

"""Owns every write into nova's modules: self-checks first, then a short table.

:func:`install` is called by the paste factory in the API, and by the oslo.config source
or the console script in nova-compute. It changes the running process only.
"""

import importlib
import inspect
import sys
import types
from typing import Any

import nova.conf
from nova import policies, service, version
from nova.api.openstack import api_version_request
from oslo_utils import importutils

from nova_ext import conf, exception
from nova_ext import policies as ext_policies
from nova_ext.api.openstack.compute import versions
from nova_ext.api.openstack.compute.schemas import servers as ext_schema

#: The major version of nova that this extension was built for.
NOVA = 34

#: ``compute_driver = nova_ext.LibvirtDriver``: nova looks for drivers below nova.virt.
DRIVER_ALIAS = "nova.virt.nova_ext"

_REMEDY = (
    f"install nova {NOVA}, or the release of nova-ext for this nova, or remove "
    "nova_ext from the configuration"
)

_STOCK_MANAGER = "nova.compute.manager.ComputeManager"
_MANAGER = "nova_ext.compute.manager.ComputeManager"

#: The response schemas of the greatest microversion of nova that show a server.
_SERVER_SCHEMAS = (
    "show_response_v2100",
    "detail_response_v2100",
    "update_response_v2100",
    "rebuild_response_v2100",
)

#: What the extension overrides or calls; a renamed one would be ignored in silence.
_OVERRIDDEN_IN_COMPUTE = {
    "nova.compute.manager.ComputeManager": (
        "_delete_allocation_after_move",
        "_delete_stashed_flavor_info",
        "_init_instance",
        "_resize_instance",
        "finish_resize",
        "revert_resize",
    ),
    "nova.scheduler.client.report.SchedulerReportClient": ("move_allocations",),
    "nova.virt.libvirt.driver.LibvirtDriver": (
        "_can_quiesce",
        "_cleanup",
        "_cleanup_resize",
        "_cleanup_vpmems",
        "_get_resources",
        "_get_vpmem_resources",
        "_get_vpmems",
        "_hard_reboot",
        "_requires_quiesce",
        "_volume_snapshot_create",
        "confirm_migration",
        "destroy",
        "finish_migration",
        "finish_revert_migration",
        "get_available_resource",
        "migrate_disk_and_power_off",
        "power_off",
        "pre_live_migration",
        "quiesce",
        "reboot",
        "spawn",
        "unquiesce",
    ),
}
_OVERRIDDEN_IN_API = {
    "nova.api.openstack.compute.admin_actions.AdminActionsController": (
        "_reset_state",
    ),
    "nova.api.openstack.compute.migrate_server.MigrateServerController": ("_migrate",),
    "nova.api.openstack.compute.servers.ServersController": (
        "_resize",
        "_view_builder_class",
    ),
    "nova.api.openstack.compute.views.servers.ViewBuilder": (
        "_show_expected_attrs",
        "show",
    ),
    "nova.api.openstack.wsgi.Resource": (
        "register_actions",
        "register_subcontroller_actions",
    ),
    "nova.compute.api.API": (
        "_allow_cross_cell_resize",
        "_allow_resize_to_same_host",
        "evacuate",
        "live_migrate",
        "pause",
        "reboot",
        "rebuild",
        "rescue",
        "resize",
        "set_admin_password",
        "shelve",
        "start",
        "stop",
        "suspend",
    ),
}

_installed = False


def install() -> None:
    """Add the extension to the nova of this process; a second call does nothing.

    :raises: nova_ext.exception.InstallError when the installed nova is not the one that
        the extension was built for; nothing is changed then
    """
    global _installed
    if _installed:
        return
    compute_versions = importlib.import_module("nova.api.openstack.compute.versions")
    schemas = importlib.import_module("nova.api.openstack.compute.schemas.servers")
    _check(schemas)

    # Options and policies
    conf.register_opts(nova.conf.CONF)
    stock_rules = policies.list_rules
    policies.list_rules = lambda: [*stock_rules(), *ext_policies.list_rules()]
    # Microversion
    api_version_request._MAX_API_VERSION = versions.MAX
    compute_versions.VERSIONS["v2.1"]["version"] = versions.MAX
    for server in _server_schemas(schemas):
        server["properties"].update(ext_schema.server_v2105_properties)
    # nova-compute
    service.SERVICE_MANAGERS["nova-compute"] = _MANAGER
    sys.modules[DRIVER_ALIAS] = _DriverAlias(DRIVER_ALIAS)
    _installed = True


def check_api() -> None:
    """Refuse a nova whose API lacks something that the extension overrides.

    :raises: nova_ext.exception.InstallError
    """
    _check_overridden(_OVERRIDDEN_IN_API)


def replace_router(router: type) -> None:
    """Make the stock ``api-paste.ini`` find ``router``, the extension's.

    Only for :mod:`nova_ext.wsgi.osapi_compute`: whoever edits ``api-paste.ini`` names
    the router there.
    """
    package = importlib.import_module("nova.api.openstack.compute")
    package.__dict__["APIRouterV21"] = router


class _DriverAlias(types.ModuleType):
    """A module that finds the driver when nova-compute asks for it, not before."""

    def __getattr__(self, name: str) -> Any:
        if name != "LibvirtDriver":
            raise AttributeError(name)
        _check_overridden(_OVERRIDDEN_IN_COMPUTE)
        module = importlib.import_module("nova_ext.virt.libvirt.driver")
        return module.LibvirtDriver


def _server_schemas(schemas: Any) -> list[dict[str, Any]]:
    """The schemas of a server's view inside nova's response schemas."""
    found: list[dict[str, Any]] = []

    def walk(value: Any) -> None:
        if isinstance(value, list):
            for item in value:
                walk(item)
        elif isinstance(value, dict):
            # The view of a server in a cell that is down has no "addresses".
            if "addresses" in value.get("properties", {}):
                found.append(value)
            else:
                for item in value.values():
                    walk(item)

    for name in _SERVER_SCHEMAS:
        walk(getattr(schemas, name))
    return found


def _check(schemas: Any) -> None:
    """Refuse a nova in which a registration would miss its place."""
    installed = version.version_string()
    if installed.split(".")[0] != str(NOVA):
        raise exception.InstallError(
            f"nova-ext was built for nova {NOVA} but nova {installed} is installed: "
            f"{_REMEDY}."
        )
    missing = [name for name in _SERVER_SCHEMAS if not hasattr(schemas, name)]
    if not inspect.isfunction(policies.list_rules):
        missing.append("nova.policies.list_rules")
    if api_version_request._MAX_API_VERSION != versions.UPSTREAM:
        missing.append(f"microversion {versions.UPSTREAM}")
    if service.SERVICE_MANAGERS.get("nova-compute") != _STOCK_MANAGER:
        missing.append("the manager class of nova-compute")
    _refuse(missing)


def _check_overridden(names: dict[str, tuple[str, ...]]) -> None:
    """Refuse a nova in which something that the extension overrides is not there."""
    _refuse(
        [
            f"{path}.{name}"
            for path, attributes in names.items()
            for name in attributes
            if not hasattr(importutils.import_class(path), name)
        ]
    )


def _refuse(missing: list[str]) -> None:
    if missing:
        raise exception.InstallError(
            f"nova {version.version_string()} was changed where nova-ext attaches "
            f"({', '.join(missing)}): {_REMEDY}."
        )
