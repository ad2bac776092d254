# SPDX-License-Identifier: Apache-2.0
"""The meters of backups, through the meter machinery of the installed Ceilometer."""

import collections
from typing import Any

import pytest
import yaml

from cinder_ext.telemetry import merge
from tests.unit.cinder_ext.telemetry import payloads
from tests.unit.cinder_ext.telemetry.conftest import Agent

NEVER = ["createprogress", "create.stalled", "create.cancelled", "restore.cancelled"]


def counted(samples: list[Any]) -> dict[str, Any]:
    assert len({sample.name for sample in samples}) == len(samples)
    return {sample.name: sample.volume for sample in samples}


def test_stock_ceilometer_counts_progress_and_failures_as_size(stock: Agent) -> None:
    samples, _ = stock.hear(
        payloads.stock_progress(0.000001),
        payloads.flat("backup.create.progress"),
        payloads.flat("backup.create.error", priority="INFO"),
    )
    assert [sample.name for sample in samples] == ["backup.size"] * 3


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ("create.start", {"backup.size": 3}),
        ("create.progress", {"backup.progress": 50.0}),
        (
            "create.end",
            {
                "backup.size": 3,
                "backup.progress": 100.0,
                "backup.create.duration": 60.5,
                "backup.bytes": 3221225472,
            },
        ),
        ("create.error", {"backup.failures": 1}),
        ("restore.start", {"backup.size": 3}),
        ("restore.progress", {"backup.restore.progress": 25.0}),
        (
            "restore.end",
            {
                "backup.size": 3,
                "backup.restore.progress": 100.0,
                "backup.restore.duration": 70.0,
            },
        ),
        ("restore.error", {"backup.failures": 1}),
        ("delete.start", {"backup.size": 3}),
        ("delete.end", {"backup.size": 3, "backup.delete.duration": 2.25}),
        ("delete.error", {"backup.failures": 1}),
        ("import.start", {}),
        ("import.end", {"backup.size": 3}),
        ("import.error", {"backup.failures": 1}),
        ("export.end", {}),
        ("export.error", {"backup.failures": 1}),
        ("reset_status.start", {}),
        ("reset_status.end", {}),
        ("exists", {"backup.size": 3}),
        *((event, {}) for event in NEVER),
    ],
)
def test_samples_of_each_event(
    agent: Agent, event: str, expected: dict[str, float]
) -> None:
    samples, _ = agent.hear(payloads.flat(f"backup.{event}", operation_id=event))
    assert counted(samples) == expected
    for sample in samples:
        assert sample.resource_id == payloads.BACKUP
        assert sample.project_id == payloads.PROJECT
        assert sample.user_id == payloads.USER


def test_the_table_above_has_every_event() -> None:
    [mark] = test_samples_of_each_event.pytestmark  # type: ignore[attr-defined]
    assert sorted(f"backup.{event}" for event, _ in mark.args[1]) == payloads.FLAT


def test_stock_progress_is_no_size(agent: Agent) -> None:
    assert agent.hear(*map(payloads.stock_progress, (0.1, 0.2, 100)))[0] == []


def test_stalled_counts_nothing_at_either_priority(agent: Agent) -> None:
    for priority in ("WARN", "INFO"):
        stalled = payloads.flat("backup.create.stalled", priority=priority)
        assert agent.hear(stalled)[0] == []


def test_types_and_units(agent: Agent) -> None:
    samples, _ = agent.hear(
        *(payloads.flat(event, operation_id=event) for event in payloads.FLAT)
    )
    assert {sample.name: (sample.type, sample.unit) for sample in samples} == {
        "backup.size": ("gauge", "GiB"),
        "backup.progress": ("gauge", "percent"),
        "backup.restore.progress": ("gauge", "percent"),
        "backup.create.duration": ("gauge", "s"),
        "backup.restore.duration": ("gauge", "s"),
        "backup.delete.duration": ("gauge", "s"),
        "backup.bytes": ("gauge", "B"),
        "backup.failures": ("delta", "failure"),
    }


def test_a_whole_backup_is_counted_once(agent: Agent) -> None:
    """With the legacy alias, in both formats, and all on one topic."""
    create = [
        message
        for percent in (10.0, 20.0, 99.9)
        for message in (
            payloads.flat("backup.create.progress", backup_percent=percent),
            payloads.flat("backup.createprogress", backup_percent=percent),
            payloads.versioned("volume_backup.create.progress"),
        )
    ]
    for phase in ("start", "end"):
        create.append(payloads.flat(f"backup.create.{phase}"))
        create.append(payloads.versioned(f"volume_backup.create.{phase}"))
    samples, _ = agent.hear(*create)
    assert collections.Counter(sample.name for sample in samples) == {
        "backup.size": 2,
        "backup.progress": 4,
        "backup.create.duration": 1,
        "backup.bytes": 1,
    }
    progress = [sample.volume for sample in samples if sample.name == "backup.progress"]
    assert progress == [10.0, 20.0, 99.9, 100.0]


@pytest.mark.parametrize("event_type", payloads.VERSIONED)
def test_versioned_events_are_not_metered(agent: Agent, event_type: str) -> None:
    assert agent.hear(payloads.versioned(event_type))[0] == []


@pytest.mark.parametrize(
    "event", ["backup.create.progress", "backup.create.end", "backup.restore.end"]
)
def test_what_is_unknown_gives_no_sample(agent: Agent, event: str) -> None:
    unknown = {"backup_percent": None, "duration": None, "result": None, "size": None}
    assert agent.hear(payloads.flat(event, **unknown))[0] == []


def test_metadata(agent: Agent) -> None:
    restore = payloads.flat("backup.restore.progress", is_incremental=True)
    [sample], _ = agent.hear(restore)
    assert sample.resource_metadata == {
        "display_name": "nightly",
        "volume_id": payloads.VOLUME,
        "status": "creating",
        "availability_zone": "nova",
        "host": "b1@posix",
        "is_incremental": True,
        "operation_id": payloads.OPERATION,
        "restore_volume_id": payloads.RESTORED,
    }


def test_metadata_of_a_failure(agent: Agent) -> None:
    [sample], _ = agent.hear(payloads.flat("backup.create.error", operation_id="why"))
    assert sample.resource_metadata["action"] == "create"
    assert sample.resource_metadata["error_code"] == "no_space"
    assert sample.resource_metadata["error_type"] == "OSError"
    assert sample.resource_metadata["error_phase"] == "transfer"


def test_bytes_tell_what_was_stored(agent: Agent) -> None:
    samples, _ = agent.hear(payloads.flat("backup.create.end"))
    [read] = [sample for sample in samples if sample.name == "backup.bytes"]
    assert read.resource_metadata["bytes_stored"] == 9000
    assert read.resource_metadata["object_count"] == 30


def test_meters_of_ceilometer_stay(stock: Agent, agent: Agent) -> None:
    volume = payloads.message(
        "volume.create.end",
        {"size": 1, "volume_id": payloads.VOLUME, "tenant_id": payloads.PROJECT},
        publisher="volume.v1",
    )
    [mine], _ = agent.hear(volume)
    [theirs], _ = stock.hear(volume)
    assert (mine.name, mine.volume) == (theirs.name, theirs.volume)
    assert mine.name == "volume.size"


def test_only_one_meter_of_ceilometer_is_replaced() -> None:
    def names(path: Any) -> set[str]:
        return {item["name"] for item in yaml.safe_load(path.read_text())["metric"]}

    ceilometer = merge.installed()
    assert ceilometer
    mine = names(merge.ours() / "meters.d/cinder_ext_backup.yaml")
    mine |= names(merge.ours() / "failures.yaml")
    assert mine & names(ceilometer / "data/meters.d/meters.yaml") == {"backup.size"}
