# SPDX-License-Identifier: Apache-2.0
"""The resource type of a backup, through Ceilometer's publisher for Gnocchi."""

import pathlib
import re
import urllib.parse
from typing import Any

import pytest
import yaml
from ceilometer import sample as ceilometer_sample
from ceilometer.publisher import gnocchi
from gnocchiclient import exceptions
from gnocchiclient.v1 import resource_type_cli

from cinder_ext.telemetry import merge
from tests.unit.cinder_ext.telemetry import payloads
from tests.unit.cinder_ext.telemetry.conftest import Agent, configuration

GUIDE = pathlib.Path(__file__).parents[4] / "doc/source/admin/backup-telemetry.rst"


class Server:
    """What of Gnocchi the publisher calls. It knows no resource at first."""

    def __init__(self) -> None:
        self.archive_policy = self.metric = self.resource = self
        self.resources: dict[str, tuple[str, dict[str, Any]]] = {}
        self.measures: dict[str, dict[str, Any]] = {}
        self.ended: list[tuple[str, str]] = []

    def create(self, kind: Any, resource: dict[str, Any] | None = None) -> None:
        if resource:
            self.resources[resource["id"]] = (kind, dict(resource))

    def update(self, kind: str, resource_id: str, change: dict[str, Any]) -> None:
        assert self.resources[resource_id][0] == kind
        if "ended_at" in change:
            self.ended.append((kind, resource_id))
        self.resources[resource_id][1].update(change)

    def batch_resources_metrics_measures(
        self, measures: dict[str, dict[str, Any]], create_metrics: bool
    ) -> None:
        unknown = [
            {"original_resource_id": it} for it in measures if it not in self.resources
        ]
        if unknown:
            raise exceptions.BadRequest(
                400, {"cause": "Unknown resources", "detail": unknown}
            )
        for resource_id, metrics in measures.items():
            self.measures.setdefault(resource_id, {}).update(metrics)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setattr(
        gnocchi.GnocchiPublisher, "_get_gnocchi_client", lambda *arguments: made
    )
    monkeypatch.setattr(gnocchi.keystone_client, "get_client", lambda conf: None)
    return made


@pytest.fixture
def publisher(server: Server, tmp_path: pathlib.Path) -> Any:
    ceilometer = merge.installed()
    assert ceilometer
    text = (ceilometer / "publisher/data/gnocchi_resources.yaml").read_text()
    file = tmp_path / "gnocchi_resources.yaml"
    file.write_text(merge.merge(merge.KINDS["gnocchi"], text, "upstream"))
    url = f"gnocchi://?enable_filter_project=false&resources_definition_file={file}"
    return gnocchi.GnocchiPublisher(configuration(), urllib.parse.urlparse(url))


def resource_types(publisher: Any) -> dict[str, Any]:
    return {item.cfg["resource_type"]: item for item in publisher.resources_definition}


def test_no_resource_type_of_ceilometer_is_lost(publisher: Any) -> None:
    data = yaml.safe_load(
        (merge.installed() or pathlib.Path())
        .joinpath("publisher/data/gnocchi_resources.yaml")
        .read_text()
    )
    before = {item["resource_type"] for item in data["resources"]}
    assert set(resource_types(publisher)) == before | {"volume_backup"}


def test_each_meter_of_a_backup_is_a_metric_of_it(publisher: Any) -> None:
    names = {"volume.backup.size"}
    for file in ("meters.d/cinder_ext_backup.yaml", "failures.yaml"):
        data = yaml.safe_load((merge.ours() / file).read_text())
        names |= {item["name"] for item in data["metric"]}
    assert set(resource_types(publisher)["volume_backup"].metrics) == names
    for name in names:
        resource_type = publisher.metric_map[name].cfg["resource_type"]
        assert resource_type == "volume_backup", name


def test_other_metrics_of_a_volume_stay(publisher: Any) -> None:
    for name in ("volume.size", "snapshot.size", "volume.snapshot.size"):
        assert publisher.metric_map[name].cfg["resource_type"] == "volume"


def test_a_backup_from_its_first_sample_to_its_end(
    publisher: Any, server: Server, agent: Agent
) -> None:
    for event in (
        "create.start",
        "create.progress",
        "create.end",
        "restore.progress",
        "delete.error",
        "delete.end",
    ):
        message = payloads.flat(f"backup.{event}", operation_id=f"gnocchi {event}")
        samples, events = agent.hear(message)
        publisher.publish_samples(samples)
        assert server.ended == []
        publisher.publish_events(events)
    kind, resource = server.resources[payloads.BACKUP]
    assert kind == "volume_backup"
    assert resource.pop("ended_at")
    assert resource == {
        "id": payloads.BACKUP,
        "user_id": payloads.USER,
        "project_id": payloads.PROJECT,
        "display_name": "nightly",
        "volume_id": payloads.VOLUME,
        "status": "creating",
        "availability_zone": "nova",
    }
    assert server.ended == [("volume_backup", payloads.BACKUP)]
    measures = server.measures[payloads.BACKUP]
    assert set(measures) == {
        "backup.size",
        "backup.progress",
        "backup.restore.progress",
        "backup.create.duration",
        "backup.delete.duration",
        "backup.bytes",
        "backup.failures",
    }
    assert measures["backup.progress"]["measures"][0]["value"] == 100.0
    assert measures["backup.progress"]["unit"] == "percent"


def test_the_polled_size_belongs_to_the_same_resource(
    publisher: Any, server: Server
) -> None:
    polled = ceilometer_sample.Sample(
        "volume.backup.size",
        "gauge",
        "GiB",
        3,
        payloads.USER,
        payloads.PROJECT,
        payloads.BACKUP,
        timestamp="2026-11-21T10:00:00",
        resource_metadata={"name": "nightly", "volume_id": payloads.VOLUME},
    )
    publisher.publish_samples([polled])
    kind, resource = server.resources[payloads.BACKUP]
    assert (kind, resource["display_name"]) == ("volume_backup", "nightly")


@pytest.mark.parametrize("event_type", payloads.FLAT + payloads.VERSIONED)
def test_only_the_end_of_a_delete_ends_it(publisher: Any, event_type: str) -> None:
    found = publisher._get_resource_definition_from_event(event_type)
    if event_type == "backup.delete.end":
        assert found[0].cfg["resource_type"] == "volume_backup"
        assert found[1] == gnocchi.EVENT_DELETE
    else:
        assert found is None


def test_the_guide_creates_the_attributes_that_are_sent(publisher: Any) -> None:
    [command] = re.findall(
        r"resource-type create volume_backup(.*?)\n\n", GUIDE.read_text(), re.DOTALL
    )
    given = re.findall(r"-a (\S+)", command)
    parse = resource_type_cli.CliResourceTypeCreate._resource_attribute
    attributes = dict(parse(attribute) for attribute in given)
    sent = resource_types(publisher)["volume_backup"]._attributes
    assert set(attributes) == set(sent)
    # A sample that lacks one must not be refused.
    assert not any(attribute["required"] for attribute in attributes.values())
