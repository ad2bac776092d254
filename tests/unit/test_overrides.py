# SPDX-License-Identifier: Apache-2.0
"""Each method that overrides one of nova's says so, and install() looks it up."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest
from typing_extensions import override

from nova_ext import exception, install
from nova_ext.api.openstack.compute import routes
from nova_ext.compute import manager
from nova_ext.virt.libvirt import driver

CLASSES = [*routes.CLASSES, manager.ComputeManager, driver.LibvirtDriver]


def split(cls: type) -> tuple[list[type], list[type]]:
    """The classes of the extension in the order of resolution, and nova's."""
    ours = [each for each in cls.__mro__ if each.__module__.startswith("nova_ext.")]
    return ours, [each for each in cls.__mro__ if each not in ours]


@pytest.mark.parametrize("cls", CLASSES)
def test_what_overrides_nova_is_marked(cls: type) -> None:
    ours, others = split(cls)
    unmarked = [
        f"{each.__qualname__}.{name}"
        for each in ours
        for name, value in vars(each).items()
        if inspect.isfunction(value)
        and name != "__init__"
        and any(inspect.isfunction(vars(other).get(name)) for other in others)
        and not getattr(value, "__override__", False)
    ]
    assert unmarked == []


@pytest.mark.parametrize("cls", CLASSES)
def test_nova_has_what_is_overridden(cls: type) -> None:
    install.check(cls)


def test_a_renamed_method_of_nova_is_refused() -> None:
    class Stock:
        __module__ = "nova.compute.manager"

        def now_called_otherwise(self) -> None:
            """What the release before called finish_resize."""

    class Ours(Stock):
        __module__ = "nova_ext.compute.manager"

        @override
        def finish_resize(self) -> None:
            """Never called by this nova."""

    with pytest.raises(exception.InstallError, match=r"Ours\.finish_resize"):
        install.check(Ours)


def private_names(cls: type) -> Iterator[str]:
    """The private attributes that the methods of a class use of ``self``."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "self"
            and node.attr.startswith("_")
            and not node.attr.startswith("__")
        ):
            yield node.attr


def known(cls: type) -> set[str]:
    """The attributes of a class: its own, and those that its methods set."""
    names = set(vars(cls))
    for value in vars(cls).values():
        code: Any = getattr(value, "__code__", None)
        if code is not None:
            names.update(code.co_names)
    return names


@pytest.mark.parametrize("cls", CLASSES)
def test_nova_has_the_private_names_that_are_used(cls: type) -> None:
    ours, others = split(cls)
    there = set().union(*map(vars, ours), *map(known, others))
    missing = {
        name
        for each in ours
        for name in private_names(each)
        if name not in there and not _set_by(ours, name)
    }
    assert missing == set()


def _set_by(classes: list[type], name: str) -> bool:
    return any(
        isinstance(node, ast.Attribute)
        and node.attr == name
        and isinstance(node.ctx, ast.Store)
        for each in classes
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(each))))
    )
