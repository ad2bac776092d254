# SPDX-License-Identifier: Apache-2.0
"""copy_pmem_devices in a body: what it means, and what is left for stock nova."""

from typing import Any

import pytest

from nova_ext import exception
from nova_ext.api.openstack.compute import copy_pmem
from tests.unit.api.openstack.compute import serving


def pop(argument: Any, strict_from: str = "2.56", **kwargs: Any) -> tuple[bool, Any]:
    """Whether a copy is asked for, and the body that is left."""
    body = {"migrate": argument}
    copying, rest = copy_pmem.pop_copy_pmem_devices(
        serving.request(**kwargs), "migrate", body, strict_from
    )
    assert list(rest) == ["migrate"]
    return copying, rest["migrate"]


@pytest.mark.parametrize(
    ("value", "asked"),
    [
        (True, True),
        (False, False),
        ("true", True),
        ("ON", True),
        ("1", True),
        ("no", False),
        ("0", False),
    ],
)
def test_a_boolean_or_what_nova_takes_for_one(value: Any, asked: bool) -> None:
    argument = {"host": "compute2", "copy_pmem_devices": value}
    assert pop(argument) == (asked, {"host": "compute2"})
    assert argument == {"host": "compute2", "copy_pmem_devices": value}


@pytest.mark.parametrize("value", ["maybe", "", None, 2])
def test_nothing_else_is_guessed(value: Any) -> None:
    """The schema has refused it before; false would be a loss of data."""
    with pytest.raises(ValueError, match="Unrecognized value"):
        pop({"copy_pmem_devices": value})


@pytest.mark.parametrize("version", [None, "2.1", "2.56", "2.104", "2.105"])
@pytest.mark.parametrize(
    "argument", [None, {}, {"host": None}, "copy_pmem_devices", ["copy_pmem_devices"]]
)
def test_a_body_without_it_is_left_as_it_is(argument: Any, version: str | None) -> None:
    assert pop(argument, version=version) == (False, argument)


@pytest.mark.parametrize("version", ["2.56", "2.104"])
def test_a_strict_nova_refuses_it_by_itself(version: str) -> None:
    argument = {"copy_pmem_devices": True}
    assert pop(argument, version=version) == (False, argument)


@pytest.mark.parametrize("value", [True, False, "maybe"])
@pytest.mark.parametrize("version", [None, "2.1", "2.55"])
def test_a_nova_that_would_drop_it_gets_no_such_body(
    version: str | None, value: Any
) -> None:
    with pytest.raises(exception.CopyPmemMicroversion, match=r"microversion 2\.105"):
        pop({"copy_pmem_devices": value}, version=version)


def test_the_legacy_api_would_drop_it_always() -> None:
    for strict_from in ("2.1", "2.56"):
        with pytest.raises(exception.CopyPmemMicroversion):
            pop({"copy_pmem_devices": True}, strict_from, version=None, legacy=True)
