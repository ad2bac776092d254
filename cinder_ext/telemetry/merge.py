# SPDX-License-Identifier: Apache-2.0
"""Owns ``cinder-ext-telemetry-merge``.

Ceilometer reads its event definitions and its Gnocchi resources from one file each. The
command adds those of this package to the existing file. It edits the text, so that
comments, anchors, order and indentation stay, and then compares the parsed content.
(ruamel.yaml would drop unused anchors and indent Ceilometer's own files differently.)
"""

import argparse
import difflib
import fnmatch
import importlib.resources
import importlib.util
import os
import pathlib
import stat
import sys
import textwrap
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from nova_ext import atomic_file

_BEGIN = "# Begin of the definitions of cinder_ext: keep them as they are.\n"
_END = "# End of the definitions of cinder_ext.\n"

# Metrics that Ceilometer's own file has under another resource type, which may stay.
_TAKEN_OVER = {("volume", "backup.size"), ("volume", "volume.backup.size")}


class MergeError(Exception):
    """Why the command fails, in one line."""


class Kind(NamedTuple):
    """One of the two files.

    :ivar file_name: the name of Ceilometer's file and of that of this package
    :ivar folder: where Ceilometer keeps it in its package
    :ivar key: the key that holds the list, None if the file is the list
    """

    file_name: str
    folder: str
    key: str | None


KINDS = {
    "events": Kind("event_definitions.yaml", "pipeline/data", None),
    "gnocchi": Kind("gnocchi_resources.yaml", "publisher/data", "resources"),
}


def ours() -> pathlib.Path:
    """The folder of this package's definitions."""
    return pathlib.Path(str(importlib.resources.files(__package__))) / "data"


def installed() -> pathlib.Path | None:
    """The folder of the installed Ceilometer, which is not imported."""
    spec = importlib.util.find_spec("ceilometer")
    return pathlib.Path(spec.origin).parent if spec and spec.origin else None


def merge(kind: Kind, text: str, source: str) -> str:
    """The text with the definitions of this package at the end of its list.

    :param source: the name of the text in an error
    :raises MergeError: if anything in the text would be lost or replaced
    """
    data, node = _load(text, kind, source)
    mine_text = (ours() / kind.file_name).read_text()
    mine_data, mine_node = _load(mine_text, kind, kind.file_name)
    there, mine = _items(data, kind), _items(mine_data, kind)
    others = [item for item in there if item not in mine]
    conflicts = _resource_conflicts if kind.key else _event_conflicts
    if conflict := next(conflicts(others, mine), None):
        raise MergeError(f"{source}: {conflict}")
    if all(there.count(item) == 1 for item in mine):
        return text
    if len(others) < len(there):
        raise MergeError(
            f"{source}: has some definitions of cinder_ext, but not each one once: "
            "remove them and merge again"
        )
    block = textwrap.indent(
        _BEGIN + textwrap.dedent(_block(mine_text, mine_node)) + _END,
        " " * node.start_mark.column,
    )
    end = _end(text, node)
    newline = "" if text[:end].endswith("\n") else "\n"
    merged = text[:end] + newline + block + text[end:]
    there.extend(mine)
    if _load(merged, kind, source)[0] != data:
        raise MergeError(f"{source}: is written in a way that cannot be extended")
    return merged


def _load(text: str, kind: Kind, source: str) -> tuple[Any, yaml.SequenceNode]:
    """The content of the text, and where in it the list is."""
    try:
        data = yaml.safe_load(text)
        node = yaml.compose(text, yaml.SafeLoader)
    # A date that does not exist is no YAMLError.
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise MergeError(f"{source}: {place}{problem}") from error
    if kind.key:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        node = {key.value: value for key, value in pairs}.get(kind.key)
    name = f"{kind.key} is" if kind.key else "is"
    if not isinstance(node, yaml.SequenceNode):
        raise MergeError(f"{source}: {name} not a list")
    if node.flow_style or not node.value:
        raise MergeError(f"{source}: {name} not a list of one item on a line")
    for number, item in enumerate(_items(data, kind), 1):
        if not isinstance(item, dict):
            raise MergeError(f"{source}: item {number} of the list is not a mapping")
    return data, node


def _items(data: Any, kind: Kind) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = data[kind.key] if kind.key else data
    return items


def _end(text: str, node: yaml.SequenceNode) -> int:
    """Where the last line of the list ends.

    The end of the node is the next token after it, beyond comments. These may belong to
    that token, unless there is none.
    """
    if node.end_mark.index >= len(text):
        return len(text)
    last = max(
        token.end_mark.index
        for token in yaml.scan(text, yaml.SafeLoader)
        if token.start_mark.index < node.end_mark.index
        and token.start_mark.index < token.end_mark.index
    )
    if text[last - 1] == "\n":
        return last
    return text.find("\n", last) + 1 or len(text)


def _block(text: str, node: yaml.SequenceNode) -> str:
    """The lines of the list."""
    start = node.start_mark.index - node.start_mark.column
    return text[start : _end(text, node)]


def _event_conflicts(
    others: list[dict[str, Any]], mine: list[dict[str, Any]]
) -> Iterator[str]:
    """Definitions that match an event of ours: Ceilometer uses the last one only."""
    names = [name for item in mine for name in item["event_type"]]
    for item in others:
        patterns = _listed(item.get("event_type"))
        without = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
        included = [pattern for pattern in patterns if not pattern.startswith("!")]
        # A definition for all events that no other one matches is not replaced.
        if not included or "*" in included:
            continue
        for name in names:
            if _matches(name, included) and not _matches(name, without):
                yield (
                    f"the definition of {', '.join(included)} handles {name} already: "
                    f"remove it, or add '!{name.rpartition('.')[0]}.*' to it"
                )


def _resource_conflicts(
    others: list[dict[str, Any]], mine: list[dict[str, Any]]
) -> Iterator[str]:
    """What other resource types have that only one type can have."""
    for own in mine:
        for item in others:
            name = item.get("resource_type")
            if name == own["resource_type"]:
                yield f"resource type {name} is there, but another one: remove it"
            for metric in own["metrics"]:
                if metric in _listed(item.get("metrics")) and (
                    (name, metric) not in _TAKEN_OVER
                ):
                    yield f"metric {metric} belongs to resource type {name}: remove it"
            for operation in ("event_create", "event_delete", "event_update"):
                for event in own["event_delete"]:
                    if _matches(event, _listed(item.get(operation))):
                        yield f"{operation} of resource type {name} takes {event} away"


def _listed(value: Any) -> list[str]:
    """The strings of a value that is one, a list of them, or a mapping."""
    if isinstance(value, list | dict):
        return [str(item) for item in value]
    return [value] if isinstance(value, str) else []


def _matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _read(path: pathlib.Path) -> str:
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise MergeError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise MergeError(f"{path}: not UTF-8") from error


def _write(path: pathlib.Path, text: str) -> None:
    """Replace the file in one step; owner and mode of an existing file stay."""
    mode, owner = 0o644, None
    try:
        if path.exists():
            there = path.stat()
            mode = stat.S_IMODE(there.st_mode)
            owner = (there.st_uid, there.st_gid)
        atomic_file.write(path, text, mode, owner)
    except OSError as error:
        raise MergeError(f"{path}: {error.strerror}") from error


def _source(kind: Kind, file: pathlib.Path | None) -> pathlib.Path:
    if file:
        return file
    folder = installed()
    if not folder:
        raise MergeError("Ceilometer is not installed here: name the file to extend")
    return folder / kind.folder / kind.file_name


def run(kind: Kind, file: pathlib.Path | None, target: pathlib.Path | None) -> None:
    """Show what changes, and write it if there is a target."""
    source = _source(kind, file)
    text = _read(source)
    merged = merge(kind, text, str(source))
    if target:
        # Keep a symbolic link.
        target = pathlib.Path(os.path.realpath(target))
        old = _read(target) if target.exists() else None
        if old not in (None, merged) and not target.samefile(source):
            raise MergeError(
                f"{target}: is there with other content, which would be lost: name it "
                "as the file to extend"
            )
        if old != merged:
            _write(target, merged)
    shown = difflib.unified_diff(
        text.splitlines(), merged.splitlines(), str(source), str(target or source)
    )
    for line in shown:
        sys.stdout.write(line.rstrip("\n") + "\n")
    if text == merged:
        sys.stdout.write(f"{source}: nothing to add\n")


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    folder = installed()
    parser = argparse.ArgumentParser(
        prog="cinder-ext-telemetry-merge",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Add the definitions of cinder_ext to a file of Ceilometer. "
        "Without --write\nonly the change is shown.",
        epilog="Meters need no merge. For ceilometer.conf, in this order:\n\n[meter]\n"
        f"meter_definitions_dirs = {ours() / 'meters.d'}\n"
        "meter_definitions_dirs = /etc/ceilometer/meters.d\n"
        f"meter_definitions_dirs = {folder or 'CEILOMETER'}/data/meters.d",
    )
    parser.add_argument("kind", choices=KINDS, help="which file it is")
    parser.add_argument(
        "file",
        nargs="?",
        type=pathlib.Path,
        help="the file to extend, by default the one of the installed Ceilometer",
    )
    parser.add_argument(
        "--write",
        metavar="FILE",
        type=pathlib.Path,
        help="where to write the result; may be the file to extend",
    )
    options = parser.parse_args(arguments)
    try:
        run(KINDS[options.kind], options.file, options.write)
    except MergeError as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
