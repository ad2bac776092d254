# SPDX-License-Identifier: Apache-2.0
"""install(): what it registers, and that it refuses a nova that it does not know."""

import json
import types
from collections.abc import Callable
from typing import Any

import pytest

# Each script runs in an interpreter of its own, because install() is for good.
START = """
from nova import monkey_patch
monkey_patch.patch(backend="threading")
import json, sys
from nova import conf as nova_conf, policies, service, version
from nova.api.openstack import api_version_request, compute
from nova.api.openstack.compute import versions
from nova.api.openstack.compute.schemas import servers
from nova_ext import exception, install

def fields(version):
    return [
        name
        for name in ("show", "detail", "update", "rebuild")
        if "quiesce_status" in str(getattr(servers, f"{name}_response_v{version}", ""))
    ]

def state():
    return {
        "microversion": api_version_request._MAX_API_VERSION,
        "document": versions.VERSIONS["v2.1"]["version"],
        "manager": service.SERVICE_MANAGERS.get("nova-compute"),
        "alias": "nova.virt.nova_ext" in sys.modules,
        "options": hasattr(nova_conf.CONF, "nova_ext"),
        "schemas": fields("2100"),
        "policies": [rule.name for rule in policies.list_rules()],
    }
"""

INSTALL = """
seen = {"stock": state()}
install.install()
seen["extended"] = state()
seen["schemas_298"] = fields("298")
seen["views"] = len(install._server_schemas(servers))
seen["router"] = compute.APIRouterV21.__module__
install.install()
seen["again"] = state()
seen["driver_loaded"] = "nova_ext.virt.libvirt.driver" in sys.modules
from oslo_utils import importutils
alias = importutils.import_module("nova.virt.nova_ext")
seen["other_driver"] = hasattr(alias, "HypervDriver")
driver = importutils.import_class("nova.virt.nova_ext.LibvirtDriver")
seen["driver"] = driver.__module__
from nova_ext.api.openstack.compute import routes
install.replace_router(routes.APIRouterV21)
seen["replaced_router"] = compute.APIRouterV21.__module__
print(json.dumps(seen))
"""

REFUSE = """
from unittest import mock
major = lambda number: mock.patch.object(version, "version_string", lambda: number)
maximum = lambda number: mock.patch.object(
    api_version_request, "_MAX_API_VERSION", number)
managers = lambda change: mock.patch.dict(service.SERVICE_MANAGERS, change, clear=True)
class Gone:
    def __init__(self, holder, name):
        self.holder, self.name = holder, name
    def __enter__(self):
        self.value = getattr(self.holder, self.name)
        delattr(self.holder, self.name)
    def __exit__(self, *args):
        setattr(self.holder, self.name, self.value)
changes = {
    "nova 35": major("35.0.0"),
    "nova 33": major("33.1.0"),
    "nova 340": major("340.0.0"),
    "newer maximum": maximum("2.105"),
    "older maximum": maximum("2.103"),
    "other manager": managers({"nova-compute": "vendor.Manager"}),
    "no manager": managers({}),
    "no schema": Gone(servers, "rebuild_response_v2100"),
    "odd policies": mock.patch.object(policies, "list_rules", mock.Mock(
        side_effect=lambda rules=list(policies.list_rules()): rules)),
}
seen = {}
for name, change in changes.items():
    with change:
        before, errors = state(), []
        for attempt in range(2):
            try:
                install.install()
            except exception.InstallError as error:
                errors.append(str(error))
        seen[name] = {"errors": errors, "unchanged": state() == before}
install.install()  # nothing of the refusals is left
seen["then"] = state()["microversion"]
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def seen(fresh: Callable[..., str]) -> types.SimpleNamespace:
    return types.SimpleNamespace(**json.loads(fresh(START + INSTALL)))


@pytest.fixture(scope="module")
def refusals(fresh: Callable[..., str]) -> Any:
    return json.loads(fresh(START + REFUSE))


def test_importing_changes_nothing(seen: types.SimpleNamespace) -> None:
    stock = seen.stock
    assert stock["microversion"] == stock["document"] == "2.104"
    assert stock["manager"] == "nova.compute.manager.ComputeManager"
    assert not stock["alias"]
    assert not stock["options"]
    assert stock["schemas"] == []
    assert not [name for name in stock["policies"] if "quiesce" in name]


def test_install_registers(seen: types.SimpleNamespace) -> None:
    extended = seen.extended
    assert extended["microversion"] == extended["document"] == "2.105"
    assert extended["manager"] == "nova_ext.compute.manager.ComputeManager"
    assert extended["alias"]
    assert extended["options"]


def test_install_adds_policies_to_those_of_nova(seen: types.SimpleNamespace) -> None:
    stock, extended = seen.stock["policies"], seen.extended["policies"]
    assert len(stock) > 100
    assert extended == [
        *stock,
        "os_compute_api:os-quiesce-server:quiesce",
        "os_compute_api:os-quiesce-server:unquiesce",
    ]


def test_install_adds_fields_to_the_newest_views_only(
    seen: types.SimpleNamespace,
) -> None:
    assert seen.extended["schemas"] == ["show", "detail", "update", "rebuild"]
    assert seen.views == 4
    assert seen.schemas_298 == []


def test_second_install_does_nothing(seen: types.SimpleNamespace) -> None:
    assert seen.again == seen.extended


def test_driver_alias_loads_the_driver_when_asked(seen: types.SimpleNamespace) -> None:
    assert not seen.driver_loaded
    assert not seen.other_driver
    assert seen.driver == "nova_ext.virt.libvirt.driver"


def test_router_is_replaced_only_for_our_own_application(
    seen: types.SimpleNamespace,
) -> None:
    assert seen.router == "nova.api.openstack.compute.routes"
    assert seen.replaced_router == "nova_ext.api.openstack.compute.routes"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("nova 35", "built for nova 34 but nova 35.0.0 is installed"),
        ("nova 33", "built for nova 34 but nova 33.1.0 is installed"),
        ("nova 340", "built for nova 34 but nova 340.0.0 is installed"),
        ("newer maximum", "(microversion 2.104)"),
        ("older maximum", "(microversion 2.104)"),
        ("other manager", "(the manager class of nova-compute)"),
        ("no manager", "(the manager class of nova-compute)"),
        ("no schema", "(rebuild_response_v2100)"),
        ("odd policies", "(nova.policies.list_rules)"),
    ],
)
def test_install_refuses_in_one_sentence(
    refusals: Any, change: str, complaint: str
) -> None:
    refusal = refusals[change]
    assert refusal["unchanged"]
    first, second = refusal["errors"]  # it does not give in at the second attempt
    assert first == second
    assert complaint in first
    assert "install nova 34" in first  # what to do
    assert first.endswith("from the configuration.")
    assert ". " not in first
    assert "\n" not in first


def test_a_refusal_leaves_nothing_behind(refusals: Any) -> None:
    assert refusals["then"] == "2.105"
