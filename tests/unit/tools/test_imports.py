# SPDX-License-Identifier: Apache-2.0
"""The modules of the tools import each other in one direction."""

import ast
import graphlib
import pathlib
from collections.abc import Iterator

TOOLS = pathlib.Path(__file__).parents[3] / "tools"


def modules() -> dict[str, pathlib.Path]:
    found = {}
    for package in ("aiolib", "pmemhosts"):
        for path in (TOOLS / package).glob("*.py"):
            found[f"{package}.{path.stem}"] = path
    return found


def imported(node: ast.AST) -> Iterator[str]:
    """What is imported at run time, also inside functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module:
            yield child.module
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        else:
            yield from imported(child)


def test_there_is_no_circle() -> None:
    paths = modules()
    graph = {
        name: set(imported(ast.parse(path.read_text()))) & set(paths)
        for name, path in paths.items()
    }
    assert graph["aiolib.client"] >= {"aiolib.reports", "aiolib.waiting"}
    list(graphlib.TopologicalSorter(graph).static_order())
