# SPDX-License-Identifier: Apache-2.0
"""What the guides quote: messages, options, commands, configuration lines, files.

A message is quoted as it is in the code, with "…", a number or a word in capitals where
the code puts a value.
"""

import ast
import configparser
import functools
import importlib
import importlib.util
import pathlib
import re
import shlex
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

import nova_ext.conf
from cinder_ext import conf as cinder_ext_conf

ROOT = pathlib.Path(__file__).parents[2]
GUIDES = sorted(
    [
        *ROOT.glob("*.rst"),
        *(ROOT / "doc/source").rglob("*.rst"),
        *(ROOT / "devstack").glob("*.rst"),
    ]
)
#: Quotes what other projects do wrong, and says nothing of this code.
_ELSEWHERE = ROOT / "doc/source/contributor/upstream-bugs.rst"

#: Messages of Nova and its libraries: the module that has each, and as what.
FOREIGN = {
    "No valid host": ("nova.exception", "No valid host"),
    "Failed to revert crashed migration": (
        "nova.compute.manager",
        "Failed to revert crashed migration",
    ),
    "Service is unavailable at this time.": (
        "nova.exception",
        "Service is unavailable at this time.",
    ),
    "Unable to load the virtualization driver": (
        "nova.virt.driver",
        "Unable to load the virtualization driver",
    ),
    "Value for option driver … is not valid": (
        "oslo_config.cfg",
        "Value for option {opt.name} is not valid",
    ),
}
#: Messages of programs whose source is not installed here.
PROGRAMS = (
    # daxio
    "copied 4096 bytes",
    "failed to clear bad blocks",
    "failed to open '/dev/dax…'",
    "requested size … larger than source",
    # sudo
    "sudo: a password is required",
    # oslo.messaging
    "Timed out waiting for a reply …",
    # jsonschema
    "Additional properties are not allowed ('copy_pmem_devices' was unexpected)",
    # tools/test
    "N passed, N failed",
    # Python
    "No module named 'cinder_ext'",
)

# Texts.

_LITERAL = re.compile(r"``(.+?)``", re.S)
_VALUE = re.compile(r"[A-Z_]+")
_WORD = re.compile(r"[^\s]+")


def _guides() -> Iterator[tuple[pathlib.Path, str]]:
    for path in GUIDES:
        if path != _ELSEWHERE:
            yield path, path.read_text()


def _inline(text: str) -> Iterator[str]:
    for literal in _LITERAL.findall(text):
        yield " ".join(literal.split())


def _block_lines(text: str) -> Iterator[str]:
    """The indented lines of a guide, with continued ones joined and prompts removed."""
    for line in re.sub(r"\\\n\s*", "", text).split("\n"):
        if line.startswith(" "):
            yield re.sub(r"^(# |\$ )", "", line.strip())


def _all(pattern: str) -> set[tuple[str, str]]:
    return {
        (path.name, found)
        for path, text in _guides()
        for found in re.findall(pattern, text)
    }


# Messages.


class _Unknown:
    """A value that the code puts into a message."""


VALUE = _Unknown()
_FORMAT = re.compile(r"%(?:\(\w+\))?[-.\d]*[sdrf]|\{[^{}]*\}")


def _tokens(text: str) -> list[str | _Unknown]:
    """The words of a template; one that holds a value is all value."""
    words: list[str | _Unknown] = []
    for word in _WORD.findall(_FORMAT.sub("\0", text)):
        words.append(VALUE if "\0" in word else word.strip("'.,:;()[]\""))
    return words


def _constants(paths: Iterable[pathlib.Path]) -> Iterator[str]:
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield "".join(
                    part.value
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)
                    else "%s"
                    for part in node.values
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


@functools.cache
def _templates() -> list[tuple[list[str | _Unknown], frozenset[str]]]:
    found = []
    packages = [
        *(ROOT / "nova_ext").rglob("*.py"),
        *(ROOT / "cinder_ext").rglob("*.py"),
    ]
    for text in set(_constants(packages)):
        tokens = _tokens(text)
        known = frozenset(word for word in tokens if isinstance(word, str))
        if len(known) > 1:
            found.append((tokens, known))
    return found


def _quoted(text: str) -> list[str | _Unknown]:
    return [
        VALUE
        if _VALUE.fullmatch(word.strip("'.,:;()[]\""))
        or "…" in word
        # "/dev/dax0.0", "10:00:01", "6a2…": an example
        or re.search(r"\d", word)
        else word.strip("'.,:;()[]\"")
        for word in _WORD.findall(text)
    ]


def _fits(quote: list[Any], template: list[Any]) -> bool:
    """Whether the template has the quote in it; values match values only.

    A value of the quote stands for any words of the template, and the other way round
    a value of the template for values of the quote.
    """
    reached = {(0, start) for start in range(len(template) + 1)}
    while reached:
        if any(done == len(quote) for done, _ in reached):
            return True
        following = set()
        for done, at in reached:
            word = quote[done]
            if word is VALUE:
                following.add((done + 1, at))
                if at < len(template):
                    following.add((done, at + 1))
                continue
            if at < len(template) and template[at] is VALUE:
                following.add((done, at + 1))
            if at < len(template) and template[at] == word:
                following.add((done + 1, at + 1))
        reached = following - reached
    return False


def _is_in_code(message: str) -> bool:
    quote = _quoted(message)
    words = {word for word in quote if isinstance(word, str)}
    return any(
        words <= known and _fits(quote, template) for template, known in _templates()
    )


_COMMAND = re.compile(
    r"(nova|cinder|openstack|pip|tox|tools|virsh|apt-get|ssh|sudo|daxio|ndctl|systemctl|"
    r"python|bindep|pre-commit|reno|mariadb-dump|pg_dump|kolla-ansible|oslo|curl|-)"
)

#: What begins like a command and is a message.
_SPEAKING = re.compile(r"nova-ext was|nova-compute was|nova … was|ssh ended")


def _messages(text: str) -> Iterator[str]:
    """Literals of a guide that read like a message: three words, no code."""
    for literal in _inline(text):
        words = [word for word in _quoted(literal) if isinstance(word, str)]
        if len(literal.split()) < 3 or len(words) < 2:
            continue
        # Options, JSON, paths, SQL and shell; but messages may name an option.
        is_code = re.search(
            r"^[\[/{@<\"#]|[=_|$]|/\w+\.|::", literal.replace("copy_pmem", "")
        )
        if is_code and not re.match(r"(The|Host|Instance|its|the|nova-) ", literal):
            continue
        if _COMMAND.match(literal) and not _SPEAKING.match(literal):
            continue
        yield literal


@pytest.mark.parametrize(
    ("path", "message"),
    sorted({(p.name, m) for p, text in _guides() for m in _messages(text)}),
)
def test_message_is_in_the_code(path: str, message: str) -> None:
    if message in FOREIGN:
        module, text = FOREIGN[message]
        spec = importlib.util.find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        assert text in pathlib.Path(spec.origin).read_text()
        return
    if any(said.strip("… ") in message for said in PROGRAMS):
        return
    assert _is_in_code(message), f"{path} quotes what no code says"


@pytest.mark.parametrize(
    ("message", "found"),
    [
        ("Could not zero namespace … yet: …", True),
        ("Lost 17 notifications of backups.", True),
        # Two that a guide once had and no code.
        ("Could not record a quiesce window, trying again", False),
        ("Lost a record of a quiesce window", False),
    ],
)
def test_an_invented_message_is_found(message: str, found: bool) -> None:
    assert _is_in_code(message) is found


# Options.


def _options(conf: Any) -> dict[str, set[str]]:
    return {
        str(getattr(group, "name", group)): {option.dest for option in options}
        for group, options in conf.list_opts()
    }


OURS = {**_options(nova_ext.conf), **_options(cinder_ext_conf)}
#: oslo.config's own, of the group that names a configuration source.
OURS["nova_ext"].add("driver")


def _named_options() -> set[tuple[str, str, str]]:
    return {
        (path.name, group, option)
        for path, text in _guides()
        for literal in _inline(text)
        for group, option in re.findall(r"\[(\w+)\] ([a-z]\w+)", literal)
        if group in OURS
    }


@pytest.mark.parametrize(("path", "group", "option"), sorted(_named_options()))
def test_option_exists(path: str, group: str, option: str) -> None:
    assert option in OURS[group]


def test_options_by_their_name_alone_exist() -> None:
    kinds = "timeout|streams|interval|verify|ciphers|user|file|options|prefix"
    named = _all(rf"``((?:quiesce|pmem)_\w*_(?:{kinds}))``")
    assert named
    assert {name for _, name in named} <= OURS["nova_ext"]


def _ini_blocks() -> Iterator[tuple[str, str]]:
    for path, text in _guides():
        for match in re.finditer(
            r"^( *)\.\. code-block:: ini\n((?:\1 +\S.*\n|\s*\n)+)", text, re.M
        ):
            lines = [line.strip() for line in match[2].split("\n")]
            yield path.name, "\n".join(lines)


def _settings() -> list[tuple[str, str, str, str]]:
    found = []
    for path, block in _ini_blocks():
        parser = configparser.ConfigParser(
            interpolation=None, strict=False, default_section="none", delimiters=("=",)
        )
        parser.read_string(block)
        found += [
            (path, section, key, value)
            for section in parser.sections()
            for key, value in parser.items(section)
        ]
    return found


def _defines(target: str) -> bool:
    """Whether a module has a class or function; the services are not imported here."""
    module, _, name = target.replace(":", ".").rpartition(".")
    source = ROOT / (module.replace(".", "/") + ".py")
    return source.is_file() and name in {
        node.name
        for node in ast.parse(source.read_text()).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }


@pytest.mark.parametrize(("path", "section", "key", "value"), sorted(_settings()))
def test_configuration_line(path: str, section: str, key: str, value: str) -> None:
    if section in OURS:
        assert key in OURS[section]
    elif key == "compute_driver":
        assert value == "nova_ext.LibvirtDriver"
    elif key == "paste.app_factory":
        assert _defines(value)
        # What is meant for api-paste.ini shows its own line there.
        assert f"{key} = {value}" in (ROOT / "nova_ext/wsgi/paste.py").read_text()
    elif value.startswith(("nova_ext.", "cinder_ext.")):
        assert _defines(value)


# Commands.


@functools.cache
def _entry_points(group: str) -> dict[str, str]:
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    lines = setup["entry_points"][group].split("\n")
    return dict(
        (part.strip() for part in line.split("=", 1)) for line in lines if "=" in line
    )


def _load(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def _openstack_commands() -> set[tuple[str, str, str]]:
    """Guide, command and arguments of each of our commands in the guides."""
    names = [name.replace("_", " ") for name in _entry_points("openstack.nova_ext.v1")]
    options = r"(?:--os-\S+ \S+ )*"
    command = re.compile(rf"openstack {options}({'|'.join(names)})\b(.*)")
    found = set()
    for path, text in _guides():
        for line in _block_lines(text):
            if match := command.match(line):
                found.add((path.name, match[1], match[2].partition(" #")[0]))
    return found


@pytest.mark.parametrize(("path", "name", "arguments"), sorted(_openstack_commands()))
def test_openstack_command(path: str, name: str, arguments: str) -> None:
    command = _load(_entry_points("openstack.nova_ext.v1")[name.replace(" ", "_")])
    parser = command(None, None).get_parser(name)
    parser.parse_args(shlex.split(arguments))  # exits if it does not fit


def test_added_options_exist() -> None:
    assert {option for _, option in _all(r"(--copy-[a-z-]+)")} == {
        "--copy-pmem-devices"
    }
    for command in ("server_resize", "server_migrate"):
        target = _entry_points(f"openstack.cli.{command}")["nova_ext"]
        source = ROOT / (target.partition(":")[0].replace(".", "/") + ".py")
        assert '"--copy-pmem-devices"' in source.read_text()


def _program_lines() -> set[tuple[str, str, str]]:
    pattern = r"(?<![\w/.-])((?:nova|cinder)-ext-(?:[a-z]+-?)+)(?![\w.-])((?: [\w-]+)*)"
    return {
        (path.name, program, rest)
        for path, text in _guides()
        for line in (*_inline(text), *_block_lines(text))
        for program, rest in re.findall(pattern, line)
    }


@pytest.mark.parametrize(("path", "program", "rest"), sorted(_program_lines()))
def test_console_script(path: str, program: str, rest: str) -> None:
    module = _entry_points("console_scripts")[program].partition(":")[0]
    known = set(_constants([ROOT / (module.replace(".", "/") + ".py")]))
    tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text())
    known |= {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    words = [word for word in rest.split() if word != "--help"]
    if words and words[0] in ("db", "upgrade"):
        named = {w for w in words if w.startswith("--")} | set(words[:2])
        # oslo.upgradecheck brings its own sub-commands.
        assert named - known <= {"upgrade", "check"}


def test_tox_environments_exist() -> None:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    named = {
        one
        for _, many in _all(r"tox (?:run )?-e ([a-z0-9,-]+)")
        for one in many.split(",")
    }
    there = {name.partition(":")[2] for name in tox.sections() if ":" in name}
    assert named - {"py3"} <= there


# Files.


def _paths() -> set[tuple[str, str]]:
    found = set()
    for path, text in _guides():
        for literal in _inline(text):
            if re.fullmatch(
                r"(doc|specs|tools|tests|releasenotes|devstack|api-ref|nova_ext|cinder_ext)"
                r"/[\w./-]*",
                literal,
            ):
                found.add((path.name, literal))
        for target in re.findall(r"`[^`<]+<([\w./-]+)>`__", text):
            found.add((path.name, target))
    return found


@pytest.mark.parametrize(("path", "name"), sorted(_paths()))
def test_file_exists(path: str, name: str) -> None:
    assert (ROOT / name).exists()
