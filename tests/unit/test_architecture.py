# SPDX-License-Identifier: Apache-2.0
"""Which module may import which: arrows point down the tables below, never up.

Imports are read from the source, those inside functions and for type checkers too.
"""

import ast
import functools
import graphlib
import pathlib
import sys
from collections.abc import Iterator, Mapping

import pytest

ROOT = pathlib.Path(__file__).parents[2]

#: The floors of each house, the ground floor first. A room may import its own modules
#: and those of the floors below it. Rooms of one floor are wings: they do not know each
#: other. A module is in the room with the longest name that begins its own.
HOUSES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "nova_ext": (
        ("nova_ext.exception", "nova_ext.atomic_file"),
        # A process of its own, which imports nothing of nova.
        ("nova_ext.guard",),
        ("nova_ext.conf", "nova_ext.policies"),
        ("nova_ext.db",),
        ("nova_ext.objects",),
        # Contracts of virt drivers, privileged functions, what is told to others.
        ("nova_ext.virt", "nova_ext.privsep", "nova_ext.notifications"),
        ("nova_ext.virt.libvirt.quiesce", "nova_ext.virt.libvirt.pmem"),
        ("nova_ext.virt.libvirt",),
        ("nova_ext.compute",),
        ("nova_ext.compute.quiesce", "nova_ext.compute.pmem"),
        ("nova_ext.compute.endpoint",),
        ("nova_ext.compute.api", "nova_ext.compute.manager"),
        ("nova_ext.api",),
        ("nova_ext.install",),
        ("nova_ext.config_source", "nova_ext.cmd", "nova_ext.wsgi"),
    ),
    "nova_ext.client": (
        (
            "nova_ext.client.resources",
            "nova_ext.client.polling",
            "nova_ext.client.once",
        ),
        ("nova_ext.client.exceptions",),
        ("nova_ext.client.compute",),
        ("nova_ext.client.consistency",),
        ("nova_ext.client.v1",),
        ("nova_ext.client.plugin",),
    ),
    "cinder_ext": (
        ("cinder_ext.exception",),
        ("cinder_ext.conf",),
        ("cinder_ext.objects",),
        ("cinder_ext.notifications",),
        ("cinder_ext.backup",),
        ("cinder_ext.scheduler", "cinder_ext.telemetry"),
    ),
    "tools": (
        ("aiolib",),
        ("guest", "pmemhosts"),
    ),
    "referee": (("referee",),),
    "bench_api": (("aiolib.bench_api",),),
    "bench_pmem": (("aiolib.bench_pmem",),),
}

#: What may be imported from one house into another.
DOORS = {
    ("cinder_ext", "nova_ext.atomic_file"),
    ("tools", "nova_ext.client"),
    # They measure the API and the driver's copy without a cloud.
    ("bench_api", "aiolib"),
    ("bench_api", "nova_ext.db"),
    ("bench_api", "nova_ext.wsgi"),
    ("bench_pmem", "aiolib"),
    ("bench_pmem", "nova_ext.conf"),
    ("bench_pmem", "nova_ext.virt"),
    # It looks at all that the extension overrides of nova and cinder.
    ("referee", "nova_ext"),
    ("referee", "cinder_ext"),
}

#: What is not imported although it is on a floor below.
WALLS = (
    # nova-compute knows its driver by the contracts only.
    ("nova_ext.compute", "nova_ext.virt.libvirt"),
    ("nova_ext.api", "nova_ext.virt"),
)

#: What the client needs, which is all that its extra in setup.cfg installs.
CLIENT_NEEDS = {"cliff", "keystoneauth1", "openstack", "osc_lib", "rich"}

#: What the guard needs beside libvirt, so that it runs where nova does not.
GUARD_NEEDS = {"lxml", "oslo_config", "oslo_log", "oslo_utils"}


def _name(path: pathlib.Path) -> str:
    base = ROOT / "tools" if ROOT / "tools" in path.parents else ROOT
    parts = path.relative_to(base).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def _modules() -> dict[str, ast.Module]:
    """Return the modules of all houses, by name."""
    found = [
        path
        for top in ("nova_ext", "cinder_ext", "tools")
        for path in (ROOT / top).rglob("*.py")
    ]
    return {_name(path): ast.parse(path.read_text()) for path in sorted(found)}


@functools.cache
def _imports(module: str) -> frozenset[str]:
    """Return what a module imports: modules of ours, and others by their full name."""
    found = set()
    for node in ast.walk(_modules()[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{module} has a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            ours = {name for name in names if name in _modules()}
            found |= ours
            if ours != names:
                found.add(node.module)
    return frozenset(found - {module})


def _begins(module: str, name: str) -> bool:
    return f"{module}.".startswith(f"{name}.")


def _place(module: str) -> tuple[str, int, str] | None:
    """Return house, floor and room of a module of ours."""
    found = [
        (house, floor, room)
        for house, floors in HOUSES.items()
        for floor, rooms in enumerate(floors)
        for room in rooms
        if _begins(module, room)
    ]
    return max(found, key=lambda place: len(place[2]), default=None)


def _wrong_ways() -> Iterator[str]:
    for module in _modules():
        here = _place(module)
        for other in _imports(module):
            there = _place(other)
            if not (here and there) or other not in _modules():
                continue
            if here[0] != there[0]:
                if not any(
                    here[0] == house and _begins(other, room) for house, room in DOORS
                ):
                    yield f"{module} imports {other}: there is no door"
            elif here[2] != there[2] and there[1] >= here[1]:
                way = "up" if there[1] > here[1] else "across"
                yield f"{module} imports {other}: that is {way}"
            elif any(_begins(module, a) and _begins(other, b) for a, b in WALLS):
                yield f"{module} imports {other}: there is a wall"


def test_every_module_has_a_room() -> None:
    houses = {"nova_ext", "nova_ext.client", "cinder_ext"}
    homeless = {name for name in _modules() if not _place(name)} - houses
    assert homeless == set()


def test_imports_point_down() -> None:
    assert sorted(_wrong_ways()) == []


def test_no_circle() -> None:
    graph = {
        module: {other for other in _imports(module) if other in _modules()}
        for module in _modules()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as exc:
        pytest.fail(" -> ".join(exc.args[1]), pytrace=False)


def _needs(*rooms: str) -> set[str]:
    """Return the packages that rooms import, without ours and the standard library."""
    names = {
        name.partition(".")[0]
        for module in _modules()
        if any(_begins(module, room) for room in rooms)
        for name in _imports(module)
    }
    return names - sys.stdlib_module_names - {"nova_ext"}


def test_the_client_needs_what_its_extra_installs() -> None:
    assert _needs("nova_ext.client") == CLIENT_NEEDS


def test_the_guard_needs_nothing_of_nova() -> None:
    assert _needs("nova_ext.guard", "nova_ext.cmd.guard") == GUARD_NEEDS


def test_the_guard_imports_nothing_of_ours_but_files() -> None:
    ours = {
        name
        for module in _modules()
        if _begins(module, "nova_ext.guard")
        for name in _imports(module)
        if _begins(name, "nova_ext") and not _begins(name, "nova_ext.guard")
    }
    assert ours == {"nova_ext.atomic_file"}


def test_the_product_imports_neither_tools_nor_tests() -> None:
    product = [name for name in _modules() if name.startswith(("nova_", "cinder_"))]
    tops = {name.partition(".")[0] for one in product for name in _imports(one)}
    assert not tops & {"aiolib", "pmemhosts", "referee", "tests", "tools"}


@pytest.mark.parametrize(
    ("module", "room"),
    [
        ("nova_ext.compute.pmem.manager", "nova_ext.compute.pmem"),
        ("nova_ext.compute.rpcapi", "nova_ext.compute"),
        ("nova_ext.virt.libvirt.driver", "nova_ext.virt.libvirt"),
        ("nova_ext.virt.pmem", "nova_ext.virt"),
        ("nova_ext.clientele", None),
    ],
)
def test_a_module_is_in_the_room_with_the_longest_name(
    module: str, room: str | None
) -> None:
    place = _place(module)
    assert (place and place[2]) == room
