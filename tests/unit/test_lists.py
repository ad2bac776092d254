# SPDX-License-Identifier: Apache-2.0
"""The lists that others read: options, policies, versions and their histories."""

import pathlib
import re

import pytest
from nova.policies import base
from oslo_config import cfg
from oslo_policy import policy

from nova_ext import conf, policies
from nova_ext.api.openstack.compute import versions
from nova_ext.compute.pmem import rpc as pmem_rpc
from nova_ext.compute.quiesce import rpc as quiesce_rpc
from nova_ext.notifications.objects import instance_copy_pmem, instance_quiesce
from nova_ext.objects import capability

ROOT = pathlib.Path(__file__).parents[2]


def test_options_for_the_generator() -> None:
    ((group, options),) = conf.list_opts()
    assert group.name == "nova_ext"
    assert [o.name for o in options] == [
        "quiesce_default_timeout",
        "quiesce_max_timeout",
        "pmem_copy_streams",
        "pmem_copy_timeout",
        "pmem_progress_interval",
        "pmem_verify",
        "pmem_ssh_ciphers",
        "pmem_ssh_user",
        "pmem_ssh_identity_file",
        "pmem_ssh_options",
        "pmem_remote_command_prefix",
        "quiesce_agent_timeout",
        "guard_directory",
        "guard_libvirt_uri",
        "agent_connections",
    ]
    for option in options:
        if option.name.endswith(("_timeout", "_interval")):
            assert "seconds" in option.help.lower()
        assert "Read by" in option.help


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("quiesce_default_timeout", 0),
        ("quiesce_max_timeout", 0),
        ("quiesce_agent_timeout", 0),
        ("quiesce_agent_timeout", 601),
        ("agent_connections", 2),
    ],
)
def test_options_have_a_range(name: str, value: int) -> None:
    parsed = cfg.ConfigOpts()
    conf.register_opts(parsed)
    conf.register_opts(parsed)  # harmless
    parsed([])
    with pytest.raises(ValueError, match="Should be"):
        parsed.set_override(name, value, group="nova_ext")


def test_default_timeout_is_allowed() -> None:
    parsed = cfg.ConfigOpts()
    conf.register_opts(parsed)
    parsed([])
    options = parsed.nova_ext
    assert options.quiesce_default_timeout <= options.quiesce_max_timeout


def test_policies_are_documented() -> None:
    rules = list(policies.list_rules())
    assert [rule.name for rule in rules] == [
        "os_compute_api:os-quiesce-server:quiesce",
        "os_compute_api:os-quiesce-server:unquiesce",
    ]
    for rule in rules:
        assert isinstance(rule, policy.DocumentedRuleDefault)
        assert rule.check_str == base.PROJECT_MEMBER_OR_ADMIN
        assert rule.scope_types == ["project"]
        action = rule.name.rpartition(":")[2]
        (operation,) = rule.operations
        assert operation["method"] == "POST"
        assert operation["path"] == f"/servers/{{server_id}}/action ({action})"


def ours() -> list[str]:
    first = int(versions.UPSTREAM.partition(".")[2]) + 1
    last = int(versions.MAX.partition(".")[2])
    return [f"2.{minor}" for minor in range(first, last + 1)]


def test_microversions_follow_those_of_nova() -> None:
    assert ours() == [versions.QUIESCE] == ["2.105"]


def test_microversions_are_listed_in_their_module() -> None:
    assert re.findall(r"^\* (2\.\d+) - ", versions.__doc__ or "", re.M) == ours()


#: The module and the endpoint of each RPC interface.
ENDPOINTS = {
    quiesce_rpc: quiesce_rpc.QuiesceEndpoint,
    pmem_rpc: pmem_rpc.PmemEndpoint,
}

HISTORY = ROOT / "doc/source/contributor/microversion-history.rst"


def test_history_page_has_the_microversions() -> None:
    assert re.findall(r"^(2\.\d+)\n-+$", HISTORY.read_text(), re.M) == ours()


def test_history_page_has_the_compute_service_versions() -> None:
    part = HISTORY.read_text().partition("capability.py")[2].partition("RPC API")[0]
    rows = re.findall(r"^(\d+) +(\S.*)$", part, re.M)
    assert rows == [(str(n), text) for n, text in capability.VERSION_HISTORY]


def test_history_page_has_the_rpc_versions() -> None:
    part = HISTORY.read_text().partition("Versions of the RPC API")[2]
    rows = re.findall(r"^(\d+\.\d+) +(\S.*)$", part, re.M)
    assert rows == [
        (kind.target.version, ", ".join(_methods(kind))) for kind in ENDPOINTS.values()
    ]
    for (module, kind), (version, methods) in zip(ENDPOINTS.items(), rows, strict=True):
        assert f"namespace ``{kind.target.namespace}``" in " ".join(part.split())
        assert f"* {version} - {methods}" in (module.__doc__ or "")


def _methods(kind: type) -> list[str]:
    return [name for name in vars(kind) if name[0] != "_" and name != "target"]


def test_history_page_has_the_notifications() -> None:
    part = HISTORY.read_text().partition("Versions of the notifications")[2]
    rows = dict(re.findall(r"^``(\w+)`` +(\d+\.\d+)", part, re.M))
    assert rows == {
        name: value.VERSION
        for module in (instance_quiesce, instance_copy_pmem)
        for name, value in vars(module).items()
        if name.startswith(("InstanceQuiesce", "InstanceCopyPmem"))
    }
