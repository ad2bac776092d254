# SPDX-License-Identifier: Apache-2.0
"""``cinder-ext-telemetry-merge``: what it adds, and what it refuses to touch."""

import os
import pathlib
import stat
from typing import Any

import pytest
import yaml

from cinder_ext.telemetry import merge

EVENTS = """\
# What the operator wrote.
- event_type: &names ['volume.*']  # with an anchor
  traits: &traits
    host: publisher_id
- event_type: image.*
  traits:
    <<: *traits
"""

RESOURCES = """\
resources:
    - resource_type: volume
      metrics:
          backup.size:
          volume.size:
    - resource_type: mine
      metrics: [some.metric]
      # of mine

# About the policies.
archive_policies: []
"""

UPSTREAM = {"events": "pipeline/data", "gnocchi": "publisher/data"}


def items(kind: str, text: str) -> Any:
    data = yaml.safe_load(text)
    return data["resources"] if kind == "gnocchi" else data


def mine(kind: str) -> Any:
    text = (merge.ours() / merge.KINDS[kind].file_name).read_text()
    return items(kind, text)


def added(kind: str, text: str) -> str:
    return merge.merge(merge.KINDS[kind], text, "file")


def upstream(kind: str) -> pathlib.Path:
    folder = merge.installed()
    assert folder
    return folder / UPSTREAM[kind] / merge.KINDS[kind].file_name


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of the command."""
    with pytest.raises(SystemExit) as raised:
        merge.main(list(arguments))
    message = str(raised.value.code)
    assert "\n" not in message
    assert message.startswith("cinder-ext-telemetry-merge: ")
    assert capsys.readouterr().out == ""
    return message.removeprefix("cinder-ext-telemetry-merge: ")


TEXTS = [
    pytest.param("events", EVENTS, id="events"),
    pytest.param("gnocchi", RESOURCES, id="gnocchi"),
    pytest.param("events", None, id="events of Ceilometer"),
    pytest.param("gnocchi", None, id="resources of Ceilometer"),
]


@pytest.mark.parametrize(("kind", "text"), TEXTS)
def test_all_that_was_there_stays(kind: str, text: str | None) -> None:
    text = text or upstream(kind).read_text()
    merged = added(kind, text)
    assert items(kind, merged) == items(kind, text) + mine(kind)
    lines = iter(merged.splitlines())
    # In its order, with every comment and blank line.
    assert all(line in lines for line in text.splitlines())


@pytest.mark.parametrize(("kind", "text"), TEXTS)
def test_again_changes_nothing(kind: str, text: str | None) -> None:
    merged = added(kind, text or upstream(kind).read_text())
    assert added(kind, merged) == merged


def test_where_the_block_is_put() -> None:
    lines = added("gnocchi", RESOURCES).splitlines()
    begin = next(number for number, line in enumerate(lines) if "# Begin" in line)
    end = next(number for number, line in enumerate(lines) if "# End" in line)
    assert lines[begin].startswith("    # Begin")
    assert lines[begin - 1] == "      metrics: [some.metric]"
    assert lines[end + 1 :] == RESOURCES.splitlines()[7:]


@pytest.mark.parametrize(
    "text",
    [
        EVENTS.rstrip("\n"),
        EVENTS + "# the end",
        EVENTS + "\n\n",
        "---\n" + EVENTS + "...\n",
        EVENTS.replace("\n", "\r\n"),
        EVENTS.replace("\n", "\n   ").rstrip(" ").replace("# What", "   # What", 1),
        "- event_type: é.*\n  traits: {}\n",
        "- event_type: a\n  traits:\n    text: |\n      two\n      lines\n",
        "- event_type: a\n  traits:\n",
        "- event_type: a\n  traits: {}\n- &x {event_type: b, traits: {}}\n- *x\n...\n",
    ],
)
def test_unusual_texts(text: str) -> None:
    merged = added("events", text)
    assert yaml.safe_load(merged) == yaml.safe_load(text) + mine("events")
    assert added("events", merged) == merged


@pytest.mark.parametrize(
    "pattern",
    [
        "backup.create.end",
        "backup.*",
        "*.error",
        "volume_backup.*",
        "instance.*",
        ["other.*", "backup.ex?sts"],
        ["*.end", "!volume.*"],
    ],
)
def test_a_definition_that_would_lose_events_is_named(pattern: Any) -> None:
    first = pattern if isinstance(pattern, str) else pattern[0]
    text = EVENTS + yaml.safe_dump([{"event_type": pattern, "traits": {"a": "b"}}])
    with pytest.raises(merge.MergeError, match=r"handles .* already") as raised:
        added("events", text)
    assert first in str(raised.value)


@pytest.mark.parametrize(
    "pattern",
    [
        "*",
        ["*", "!volume.*"],
        "!volume.*",
        "volume.*",
        ["instance.*", "!instance.*quiesce.*", "!instance.copy_pmem.*"],
    ],
)
def test_what_loses_no_event_is_no_conflict(pattern: Any) -> None:
    text = EVENTS + yaml.safe_dump([{"event_type": pattern, "traits": {}}])
    assert len(items("events", added("events", text))) == 3 + len(mine("events"))


def test_the_advice_for_a_conflict_works() -> None:
    text = "- event_type: ['backup.*'{}]\n  traits: {{}}\n"
    excluded: list[str] = []
    for _ in range(20):
        try:
            added("events", text.format("".join(f", '{it}'" for it in excluded)))
            break
        except merge.MergeError as error:
            excluded.append(str(error).split("'")[-2])
    assert 0 < len(excluded) < 10


@pytest.mark.parametrize(
    ("resource", "problem"),
    [
        ({"resource_type": "volume_backup"}, "resource type volume_backup is there"),
        ({"metrics": ["backup.size"]}, "metric backup.size belongs to"),
        ({"metrics": {"backup.failures": None}}, "metric backup.failures belongs to"),
        ({"event_delete": "backup.*"}, "event_delete of resource type x takes"),
        ({"event_update": ["*.end"]}, "event_update of resource type x takes"),
    ],
)
def test_a_resource_type_in_the_way_is_named(
    resource: dict[str, Any], problem: str
) -> None:
    other = {"resource_type": "x", "metrics": [], **resource}
    text = yaml.safe_dump({"resources": [other]})
    with pytest.raises(merge.MergeError, match=problem):
        added("gnocchi", text)


@pytest.mark.parametrize("kind", list(UPSTREAM))
def test_a_changed_block_is_not_replaced(kind: str) -> None:
    text = upstream(kind).read_text()
    changed = added(kind, text).replace("resource_metadata.status", "resource_metadata")
    changed = changed.replace("worker: payload.worker", "worker: payload.host")
    with pytest.raises(merge.MergeError, match="remove"):
        added(kind, changed)


def test_half_of_a_block_is_not_completed() -> None:
    text = yaml.safe_dump(mine("events")[:-1])
    with pytest.raises(merge.MergeError, match="not each one once"):
        added("events", text)
    with pytest.raises(merge.MergeError, match="not each one once"):
        added("events", yaml.safe_dump([*mine("events"), *mine("events")]))


@pytest.mark.parametrize(
    ("kind", "text", "problem"),
    [
        ("events", "- a: [\n", "line 2: "),
        ("events", "a: b\n", "is not a list"),
        ("events", "", "is not a list"),
        ("events", "just text\n", "is not a list"),
        ("events", "[]\n", "is not a list of one item on a line"),
        ("events", "[{event_type: a}]\n", "is not a list of one item on a line"),
        ("events", "- text\n", "item 1 of the list is not a mapping"),
        ("events", "- a: 1\n--- \n- b: 1\n", "line 2: "),
        ("events", "- a: !!python/object:os.system {}\n", "line 1: "),
        ("events", "- a: 2026-02-30\n", "not YAML"),
        ("events", "- a: \x01\n", "not YAML"),
        ("events", "- a: *b\n", "line 1: found undefined alias"),
        ("gnocchi", "- a: 1\n", "resources is not a list"),
        ("gnocchi", "resources:\n", "resources is not a list"),
        ("gnocchi", "archive_policies: []\n", "resources is not a list"),
    ],
)
def test_bad_files(
    capsys: pytest.CaptureFixture[str],
    tmp_path: pathlib.Path,
    kind: str,
    text: str,
    problem: str,
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    message = refused(capsys, kind, str(file), "--write", str(file))
    assert message.startswith(f"{file}: ")
    assert problem in message
    assert file.read_text() == text


def test_files_that_cannot_be_read(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    absent = tmp_path / "absent.yaml"
    assert refused(capsys, "events", str(absent)) == (
        f"{absent}: No such file or directory"
    )
    assert refused(capsys, "events", str(tmp_path)) == f"{tmp_path}: Is a directory"
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe")
    assert refused(capsys, "events", str(binary)) == f"{binary}: not UTF-8"


def test_without_ceilometer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "installed", lambda: None)
    assert "name the file" in refused(capsys, "events")


def test_only_the_change_is_shown(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "events.yaml"
    file.write_text(EVENTS)
    merge.main(["events", str(file)])
    shown = capsys.readouterr().out.splitlines()
    assert shown[:2] == [f"--- {file}", f"+++ {file}"]
    assert not [line for line in shown[2:] if line.startswith("-")]
    assert "+    - backup.create.error" in shown
    assert file.read_text() == EVENTS
    assert os.listdir(tmp_path) == ["events.yaml"]


def test_write_into_the_file_and_again(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "events.yaml"
    file.write_text(EVENTS)
    file.chmod(0o640)
    merge.main(["events", str(file), "--write", str(file)])
    assert file.read_text() == added("events", EVENTS)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    written = file.stat().st_ino
    capsys.readouterr()
    merge.main(["events", str(file), "--write", str(file)])
    assert capsys.readouterr().out == f"{file}: nothing to add\n"
    assert file.stat().st_ino == written
    assert os.listdir(tmp_path) == ["events.yaml"]


@pytest.mark.parametrize("kind", list(UPSTREAM))
def test_ceilometers_own_file_is_the_default(
    kind: str, capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "new.yaml"
    before = upstream(kind).read_text()
    for _ in range(2):
        merge.main([kind, "--write", str(file)])
        assert file.read_text() == added(kind, before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert upstream(kind).read_text() == before


def test_another_file_is_not_overwritten(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    file, other = tmp_path / "events.yaml", tmp_path / "other.yaml"
    file.write_text(EVENTS)
    other.write_text("- event_type: mine\n  traits: {}\n")
    message = refused(capsys, "events", str(file), "--write", str(other))
    assert message.startswith(f"{other}: is there with other content")
    assert other.read_text() == "- event_type: mine\n  traits: {}\n"


def test_a_link_stays_a_link(tmp_path: pathlib.Path) -> None:
    file, link = tmp_path / "events.yaml", tmp_path / "link.yaml"
    file.write_text(EVENTS)
    link.symlink_to(file)
    merge.main(["events", str(link), "--write", str(link)])
    assert link.is_symlink()
    assert file.read_text() == added("events", EVENTS)


def test_a_failed_write_leaves_the_file(
    capsys: pytest.CaptureFixture[str],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "events.yaml"
    file.write_text(EVENTS)

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    message = refused(capsys, "events", str(file), "--write", str(file))
    assert message == f"{file}: No space left on device"
    assert file.read_text() == EVENTS
    assert os.listdir(tmp_path) == ["events.yaml"]


def test_a_folder_that_is_not_there(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    target = tmp_path / "absent" / "events.yaml"
    message = refused(capsys, "events", "--write", str(target))
    assert message == f"{target}: No such file or directory"


def test_help_has_the_lines_for_the_meters(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        merge.main(["--help"])
    lines = [
        line.partition(" = ")[2]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("meter_definitions_dirs = ")
    ]
    first, second, third = map(pathlib.Path, lines)
    assert (first / "cinder_ext_backup.yaml").exists()
    assert second == pathlib.Path("/etc/ceilometer/meters.d")
    assert (third / "meters.yaml").exists()
