# SPDX-License-Identifier: Apache-2.0
"""The bodies of quiesce and unquiesce that are valid, and those that are not."""

from typing import Any

import pytest

from nova_ext.api.openstack.compute.schemas import quiesce_server as schema
from tests.unit.api.openstack.compute.serving import valid


@pytest.mark.parametrize(
    "argument", [None, {}, {"timeout": 1}, {"timeout": 60}, {"timeout": 10**6}]
)
def test_quiesce_takes(argument: Any) -> None:
    assert valid(schema.quiesce, {"quiesce": argument})


@pytest.mark.parametrize(
    "argument",
    [
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": 1.5},
        {"timeout": "10"},
        {"timeout": True},
        {"timeout": None},
        {"timeout": 10, "other": 1},
        {"other": 1},
        [],
        "",
        0,
        False,
    ],
)
def test_quiesce_refuses(argument: Any) -> None:
    assert not valid(schema.quiesce, {"quiesce": argument})


def test_unquiesce_takes_nothing() -> None:
    assert valid(schema.unquiesce, {"unquiesce": None})


@pytest.mark.parametrize("argument", [{}, [], "", 0, False, {"timeout": 1}])
def test_unquiesce_refuses(argument: Any) -> None:
    assert not valid(schema.unquiesce, {"unquiesce": argument})


@pytest.mark.parametrize("name", ["quiesce", "unquiesce"])
def test_a_body_has_one_action_and_nothing_beside_it(name: str) -> None:
    kind = getattr(schema, name)
    malformed: list[Any] = [{}, {name: None, "other": None}, [], None, name]
    assert not any(valid(kind, body) for body in malformed)


@pytest.mark.parametrize("name", ["quiesce", "unquiesce"])
def test_the_answer_has_no_body(name: str) -> None:
    kind = getattr(schema, f"{name}_response")
    assert valid(kind, None)
    assert not valid(kind, {})
