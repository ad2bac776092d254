# SPDX-License-Identifier: Apache-2.0
"""Owns every write into nova's modules: self-checks first, then a short table.

:func:`install` is called by the paste factory in the API, by the oslo.config source in
nova-compute and nova-conductor, and by the console script of nova-compute. It changes
the running process only.
"""

import importlib
import inspect
import sys
import types
from typing import Any

import nova.conf
from nova import policies, rpc, service, version
from nova.api.openstack import api_version_request
from oslo_utils import importutils

from nova_ext import conf, exception, objects
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
    # What goes between the services
    rpc.add_extra_exmods(exception.__name__)
    objects.register_all()
    # nova-compute
    service.SERVICE_MANAGERS["nova-compute"] = _MANAGER
    sys.modules[DRIVER_ALIAS] = _DriverAlias(DRIVER_ALIAS)
    _installed = True


def check(*classes: type) -> None:
    """Refuse a nova that lacks a method which one of our classes overrides.

    A renamed one would be ignored in silence. What overrides is marked with
    ``typing_extensions.override``.

    :param classes: of the extension, with bases of nova
    :raises: nova_ext.exception.InstallError
    """
    _refuse([name for each in classes for name in _not_overridden(each)])


def replace_router(router: type) -> None:
    """Make the stock ``api-paste.ini`` find ``router``, the extension's.

    Only for :mod:`nova_ext.wsgi.osapi_compute`: whoever edits ``api-paste.ini`` names
    :mod:`nova_ext.wsgi.paste` there.
    """
    package = importlib.import_module("nova.api.openstack.compute")
    package.__dict__["APIRouterV21"] = router


class _DriverAlias(types.ModuleType):
    """A module that finds the driver when nova-compute asks for it, not before."""

    def __getattr__(self, name: str) -> Any:
        if name != "LibvirtDriver":
            raise AttributeError(name)
        module = importlib.import_module("nova_ext.virt.libvirt.driver")
        check(importutils.import_class(_MANAGER), module.LibvirtDriver)
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


def _not_overridden(cls: type) -> list[str]:
    """The methods that ``cls`` believes to override, but nova does not have."""
    ours = [each for each in cls.__mro__ if each.__module__.startswith("nova_ext.")]
    others = [each for each in cls.__mro__ if each not in ours]
    return [
        f"{each.__qualname__}.{name}"
        for each in ours
        for name, value in vars(each).items()
        if getattr(value, "__override__", False)
        and not any(name in vars(other) for other in others)
    ]


def _refuse(missing: list[str]) -> None:
    if missing:
        raise exception.InstallError(
            f"nova {version.version_string()} was changed where nova-ext attaches "
            f"({', '.join(missing)}): {_REMEDY}."
        )
