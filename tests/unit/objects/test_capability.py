# SPDX-License-Identifier: Apache-2.0
"""The compute service version and the PMEM devices: what is published, what is read."""

import json
import types

import pytest

from nova_ext.objects import capability


def vpmem(label: str, size: int, align: int = 2097152) -> types.SimpleNamespace:
    return types.SimpleNamespace(label=label, size=size, align=align)


def node(**stats: str | None) -> types.SimpleNamespace:
    return types.SimpleNamespace(stats=dict(stats))


def test_capability_history_only_grows() -> None:
    numbers = [number for number, _ in capability.VERSION_HISTORY]
    assert numbers == list(range(1, len(numbers) + 1))
    assert numbers[-1] == capability.VERSION
    assert all(text for _, text in capability.VERSION_HISTORY)
    # What is published is never changed: a peer may run with it.
    assert capability.VERSION_HISTORY[0] == (1, "quiesce and unquiesce")
    assert capability.VERSION_HISTORY[1][1].startswith("copy_pmem_devices")
    assert (capability.QUIESCE, capability.COPY_PMEM) == (1, 2)


def test_capability_is_published_beside_other_stats() -> None:
    resources: dict[str, dict[str, str]] = {"stats": {"failed_builds": "1"}}
    capability.publish(resources)
    assert resources == {
        "stats": {"failed_builds": "1", "nova_ext": str(capability.VERSION)}
    }
    resources = {}
    capability.publish(resources)
    assert resources == {"stats": {"nova_ext": str(capability.VERSION)}}


@pytest.mark.parametrize(
    ("guarded", "published"), [(True, "1"), (False, "0"), (None, None)]
)
def test_a_host_says_whether_it_has_a_guard(
    guarded: bool | None, published: str | None
) -> None:
    resources: dict[str, dict[str, str]] = {}
    capability.publish(resources, guarded=guarded)
    assert resources["stats"].get("nova_ext_guard") == published
    assert capability.lacks_guard(node(**resources["stats"])) is (guarded is False)


@pytest.mark.parametrize(
    ("stats", "expected"),
    [
        ({"nova_ext": "1"}, 1),
        ({"nova_ext": "12"}, 12),
        ({"nova_ext": None}, 0),
        ({"failed_builds": "3"}, 0),
        ({}, 0),
        (None, 0),
        ({"nova_ext": "new"}, 0),
    ],
)
def test_capability_of_an_instance(
    monkeypatch: pytest.MonkeyPatch, stats: dict[str, str | None] | None, expected: int
) -> None:
    class Node:
        @staticmethod
        def get_by_host_and_nodename(context: str, host: str, node: str) -> "Node":
            assert (context, host, node) == ("context", "host1", "node1")
            return Node()

    class Objects:
        ComputeNode = Node

    class Instance:
        host, node = "host1", "node1"

    monkeypatch.setattr(Node, "stats", stats, raising=False)
    monkeypatch.setattr(capability, "objects", Objects)
    assert capability.of_instance("context", Instance) == expected


def test_a_node_without_pmem_devices_publishes_none() -> None:
    resources: dict[str, dict[str, str]] = {}
    capability.publish(resources, [])
    assert capability.PMEM_STATS_KEY not in resources["stats"]


def test_pmem_devices_are_published_by_label_without_their_number() -> None:
    resources: dict[str, dict[str, str]] = {"stats": {"failed_builds": "1"}}
    devices = [vpmem("SMALL", 30), vpmem("4GB", 40, 1), vpmem("SMALL", 20)]
    capability.publish(resources, [*devices, vpmem("SMALL", 30)])
    assert resources["stats"].pop("nova_ext_pmem") == (
        '{"4GB":[[40,1]],"SMALL":[[20,2097152],[30,2097152]]}'
    )
    assert resources["stats"] == {
        "failed_builds": "1",
        "nova_ext": str(capability.VERSION),
    }


def test_published_devices_are_read_again() -> None:
    resources: dict[str, dict[str, str]] = {}
    capability.publish(resources, [vpmem("SMALL", 30), vpmem("SMALL", 20)])
    assert capability.pmem_of_node(node(**resources["stats"])) == {
        "SMALL": {(30, 2097152), (20, 2097152)}
    }
    assert capability.of_node(node(**resources["stats"])) == capability.VERSION


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "[]",
        "x",
        json.dumps({"SMALL": 1}),
        json.dumps({"SMALL": [[1]]}),
        json.dumps({"SMALL": [["a", 1]]}),
    ],
)
def test_devices_that_cannot_be_read_are_none(text: str | None) -> None:
    assert capability.pmem_of_node(node(nova_ext_pmem=text)) == {}


def test_a_stock_node_has_nothing() -> None:
    for stock in (node(), types.SimpleNamespace(stats=None)):
        assert capability.of_node(stock) == 0
        assert capability.pmem_of_node(stock) == {}
        assert not capability.lacks_guard(stock)
