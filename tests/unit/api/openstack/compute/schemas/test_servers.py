# SPDX-License-Identifier: Apache-2.0
"""The fields that a server's view gains: what may stand in an answer."""

from typing import Any

import pytest

from nova_ext.api.openstack.compute.schemas import servers as schema
from nova_ext.objects import quiesce_window
from tests.unit.api.openstack.compute.serving import valid

TIME = "2026-11-21T10:00:00Z"


def allowed(name: str, value: Any) -> bool:
    kind = {
        "type": "object",
        "properties": schema.server_v2105_properties,
        "additionalProperties": False,
    }
    return valid(kind, {name: value}, is_body=False)


def test_there_are_three() -> None:
    assert list(schema.server_v2105_properties) == [
        "quiesce_status",
        "quiesced_at",
        "unquiesce_at",
    ]


def test_a_status_is_one_that_users_see_or_null() -> None:
    assert allowed("quiesce_status", None)
    seen = {each.value for each in quiesce_window.QuiesceStatus}
    shown = {value for value in seen if allowed("quiesce_status", value)}
    assert shown == {each.value for each in quiesce_window.VISIBLE}
    assert shown == {"quiescing", "quiesced", "unquiescing"}
    assert not allowed("quiesce_status", "frozen")
    assert not allowed("quiesce_status", 1)


@pytest.mark.parametrize("name", ["quiesced_at", "unquiesce_at"])
def test_a_time_is_iso_8601_or_null(name: str) -> None:
    assert allowed(name, TIME)
    assert allowed(name, None)
    assert not allowed(name, "yesterday")
    assert not allowed(name, 1795255200)
