# SPDX-License-Identifier: Apache-2.0
"""Owns the agent of the tests: Ceilometer's own endpoints without a message bus."""

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import ply.yacc
import pytest
import yaml
from ceilometer import keystone_client, opts
from ceilometer.pipeline import event as event_pipeline
from ceilometer.pipeline import sample as sample_pipeline
from oslo_config import cfg
from oslo_messaging.notify import dispatcher
from oslo_messaging.serializer import NoOpSerializer

from cinder_ext.telemetry import merge
from cinder_ext.telemetry.endpoint import BackupFailures
from tests.unit.cinder_ext.telemetry.payloads import Message


def configuration(**changes: Any) -> Any:
    """Ceilometer's configuration, without its files and global effects."""
    conf = cfg.ConfigOpts()
    for group, options in opts.list_opts():
        conf.register_opts(list(options), None if group == "DEFAULT" else group)
    keystone_client.register_keystoneauth_opts(conf)
    conf([], project="ceilometer", default_config_files=[], default_config_dirs=[])
    for name, value in changes.items():
        group, _, option = name.rpartition("__")
        conf.set_override(option, value, group or None)
    return conf


class Agent:
    """The notification agent.

    :param extended: with the definitions and the endpoint of this package
    """

    def __init__(self, folder: pathlib.Path, *, extended: bool) -> None:
        ceilometer = merge.installed()
        assert ceilometer
        upstream = str(ceilometer / "data/meters.d")
        meters = [str(merge.ours() / "meters.d"), upstream] if extended else [upstream]
        events = ceilometer / "pipeline/data/event_definitions.yaml"
        if extended:
            text = merge.merge(merge.KINDS["events"], events.read_text(), "upstream")
            events = folder / "event_definitions.yaml"
            events.write_text(text)
        for kind in ("meters", "events"):
            source = {"name": "all", kind: ["*"], "sinks": ["sink"]}
            sink = {"name": "sink", "publishers": ["test://"]}
            content = {"sources": [source], "sinks": [sink]}
            (folder / f"{kind}.yaml").write_text(yaml.safe_dump(content))
        self.conf = configuration(
            pipeline_cfg_file=str(folder / "meters.yaml"),
            event_pipeline_cfg_file=str(folder / "events.yaml"),
            meter__meter_definitions_dirs=meters,
            event__definitions_cfg_file=str(events),
        )
        samples = sample_pipeline.SamplePipelineManager(self.conf)
        converter = event_pipeline.EventPipelineManager(self.conf)
        # An installed entry point would load it, too.
        endpoints = [
            endpoint
            for endpoint in samples.get_main_endpoints()
            if not isinstance(endpoint, BackupFailures)
        ]
        endpoints += converter.get_main_endpoints()
        if extended:
            endpoints.append(BackupFailures(self.conf, samples.publisher()))
        self._dispatcher = dispatcher.BatchNotificationDispatcher(
            endpoints, NoOpSerializer()
        )
        [self._samples] = samples.pipelines[0].publishers
        [self._events] = converter.pipelines[0].publishers

    def hear(self, *messages: Message) -> tuple[list[Any], list[Any]]:
        """The samples and the events that the messages become."""
        self._samples.samples, self._events.events = [], []
        for message in messages:
            assert not self._dispatcher.dispatch([message]), "taken again for ever"
        return self._samples.samples, self._events.events


def traits(event: Any) -> dict[str, Any]:
    return {trait.name: trait.value for trait in event.traits}


@pytest.fixture(scope="session", autouse=True)
def _one_grammar() -> Iterator[None]:
    """The grammar of a path is computed once, and not for each of 442 paths.

    That is nearly all of the time in which Ceilometer reads its definitions.
    """
    parsers: dict[type, Any] = {}
    build = ply.yacc.yacc

    def yacc(*, module: Any, **more: Any) -> Any:
        kind = type(module)
        if kind not in parsers:
            parsers[kind] = build(module=module, **more)
        return parsers[kind]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ply.yacc, "yacc", yacc)
        yield


@pytest.fixture(scope="session")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Agent]:
    made: dict[bool, Agent] = {}

    def agent(extended: bool) -> Agent:
        if extended not in made:
            folder = tmp_path_factory.mktemp("ceilometer")
            made[extended] = Agent(folder, extended=extended)
        return made[extended]

    return agent


@pytest.fixture
def stock(agents: Callable[[bool], Agent]) -> Agent:
    """Ceilometer as it is installed."""
    return agents(False)


@pytest.fixture
def agent(agents: Callable[[bool], Agent]) -> Agent:
    """Ceilometer with the definitions and the endpoint of this package."""
    return agents(True)
