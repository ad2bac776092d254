# SPDX-License-Identifier: Apache-2.0
"""The bodies of resize and migrate: nova's with one more property."""

import copy
from typing import Any

import pytest
from nova.api.openstack.compute.schemas import migrate_server, servers

from nova_ext.api.openstack.compute.schemas import copy_pmem as schema
from tests.unit.api.openstack.compute.serving import valid

RESIZE = {"flavorRef": "2"}
ACTIONS = pytest.mark.parametrize(
    ("kind", "action", "argument"),
    [(schema.resize, "resize", RESIZE), (schema.migrate, "migrate", {})],
    ids=["resize", "migrate"],
)


@ACTIONS
def test_a_boolean_or_what_nova_takes_for_one(
    kind: dict[str, Any], action: str, argument: dict[str, Any]
) -> None:
    def taken(value: Any) -> bool:
        return valid(kind, {action: {**argument, "copy_pmem_devices": value}})

    assert all(map(taken, (True, False, "true", "False", "1", "off", "YES")))
    assert not any(map(taken, (None, 1, 0, "", "maybe", [], {})))


@ACTIONS
def test_it_may_be_left_out_and_nothing_else_may_be_added(
    kind: dict[str, Any], action: str, argument: dict[str, Any]
) -> None:
    assert valid(kind, {action: argument})
    assert not valid(kind, {action: {**argument, "copy_pmem": True}})
    assert not valid(kind, {action: argument, "copy_pmem_devices": True})


def test_the_rest_is_nova_s() -> None:
    for ours, stock, action in (
        (schema.resize, servers.resize, "resize"),
        (schema.migrate, migrate_server.migrate, "migrate"),
    ):
        without = copy.deepcopy(ours)
        del without["properties"][action]["properties"]["copy_pmem_devices"]
        assert without == stock
    assert valid(schema.migrate, {"migrate": None})
    assert not valid(schema.resize, {"resize": {"copy_pmem_devices": True}})


def test_nova_s_own_schemas_are_as_they_were() -> None:
    for stock in (servers.resize, migrate_server.migrate):
        assert "copy_pmem_devices" not in str(stock)
