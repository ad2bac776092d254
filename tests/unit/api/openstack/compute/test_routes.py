# SPDX-License-Identifier: Apache-2.0
"""The router: every way to a server leads through the extension, no other one does."""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from nova import rpc
from nova.api.openstack import wsgi
from nova.api.openstack.compute import routes as upstream_routes
from nova.api.openstack.compute import servers as upstream
from nova.api.openstack.compute import volumes_boot
from nova.compute import api

from nova_ext.api.openstack.compute import (
    admin_actions,
    migrate_server,
    quiesce_server,
    routes,
    servers,
)
from nova_ext.compute import api as ext_api
from tests.unit.api.openstack.compute.serving import ComputeAPI

COMPUTE_API = ComputeAPI()


@contextlib.contextmanager
def no_message_bus() -> Iterator[None]:
    """nova's controllers make their APIs, which would reach for it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("get_client", "get_notifier"):
            patch.setattr(rpc, name, lambda *args, **kwargs: None)
        patch.setattr(api, "API", mock.Mock)
        patch.setattr(ext_api, "API", lambda: COMPUTE_API)
        yield


@pytest.fixture(scope="module")
def router() -> Any:
    with no_message_bus():
        return routes.APIRouterV21()


@pytest.fixture(scope="module")
def stock() -> Any:
    """The router of nova, to compare with."""
    with no_message_bus():
        return upstream_routes.APIRouterV21()


def resources(router: Any) -> Iterator[tuple[Any, str, Any]]:
    """Methods, path below the project, and resource of each route."""
    for route in router.map.matchlist:
        resource = route.defaults.get("controller")
        if isinstance(resource, wsgi.Resource):
            method = route.conditions["method"] if route.conditions else None
            yield method, route.routepath.rpartition("-]+}")[2], resource


def of_servers(router: Any, kind: type = servers.ServersController) -> list[Any]:
    return [each for _, _, each in resources(router) if type(each.controller) is kind]


def test_every_route_to_servers_has_the_controller_of_the_extension(
    router: Any,
) -> None:
    kinds = {type(resource.controller) for _, _, resource in resources(router)}
    assert servers.ServersController in kinds
    assert upstream.ServersController not in kinds
    paths = {
        (method, path)
        for methods, path, resource in resources(router)
        if type(resource.controller) is servers.ServersController
        for method in methods
    }
    assert paths == {
        ("GET", "/servers"),
        ("POST", "/servers"),
        ("GET", "/servers/detail"),
        ("GET", "/servers/{id}"),
        ("PUT", "/servers/{id}"),
        ("DELETE", "/servers/{id}"),
        ("POST", "/servers/{id}/action"),
    }


def test_the_legacy_way_to_boot_from_a_volume_is_left_to_nova(router: Any) -> None:
    assert volumes_boot.VolumesBootController in {
        type(resource.controller) for _, _, resource in resources(router)
    }


def test_actions_of_the_extension_and_those_of_nova(router: Any) -> None:
    for resource in of_servers(router):
        bound = {
            name: type(method.__self__)
            for name, method in resource.wsgi_actions.items()
        }
        assert bound["quiesce"] is quiesce_server.QuiesceServerController
        assert bound["unquiesce"] is quiesce_server.QuiesceServerController
        assert bound["migrate"] is migrate_server.MigrateServerController
        assert bound["os-migrateLive"] is migrate_server.MigrateServerController
        assert bound["os-resetState"] is admin_actions.AdminActionsController
        assert bound["resize"] is servers.ServersController
        assert bound["reboot"] is servers.ServersController
        assert bound["pause"].__module__.startswith("nova.api.")


def test_two_actions_are_new(router: Any, stock: Any) -> None:
    ours = of_servers(router)
    theirs = of_servers(stock, upstream.ServersController)
    assert len(ours) == len(theirs) > 0
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.wsgi_actions.keys() - other.wsgi_actions.keys() == {
            "quiesce",
            "unquiesce",
        }
        assert other.wsgi_actions.keys() <= mine.wsgi_actions.keys()


def test_what_overrides_nova_is_checked_before_it_serves(router: Any) -> None:
    """install.check() looks for what nova may have renamed in these classes."""
    used: set[type] = {ext_api.API}
    for resource in of_servers(router):
        used.add(type(resource.controller._view_builder))
        used |= {type(each.__self__) for each in resource.wsgi_actions.values()}
    ours = {each for each in used if each.__module__.startswith("nova_ext.")}
    assert ours - {quiesce_server.QuiesceServerController} == set(routes.CLASSES)


def test_every_controller_asks_the_compute_api_of_the_extension(router: Any) -> None:
    """Else a frozen server could be paused, or lose a volume."""
    asking = set()
    for _, _, resource in resources(router):
        actions = {method.__self__ for method in resource.wsgi_actions.values()}
        for each in {resource.controller, *resource.sub_controllers, *actions}:
            if hasattr(each, "compute_api"):
                assert each.compute_api is COMPUTE_API, type(each)
                asking.add(type(each).__name__)
    assert asking >= {
        "InterfaceAttachmentController",
        "PauseServerController",
        "ServersController",
        "VolumeAttachmentController",
    }


def test_other_routes_are_nova_s(router: Any) -> None:
    foreign = {
        type(resource.controller)
        for _, _, resource in resources(router)
        if not type(resource.controller).__module__.startswith("nova.api.")
    }
    assert foreign == {servers.ServersController}
