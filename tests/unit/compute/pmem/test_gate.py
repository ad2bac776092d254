# SPDX-License-Identifier: Apache-2.0
"""The gate: will the source copy, and where can the data go?"""

import types
from typing import Any

import pytest
from nova import exception, objects

from nova_ext import exception as ext_exception
from nova_ext.compute.pmem import gate
from nova_ext.objects import capability
from tests.unit.compute.surroundings import UUID

ALIGN = 2097152
GIB = 1024**3
INSTANCE: Any = types.SimpleNamespace(uuid=UUID, host="compute1", node="node1")


def device(label: str = "SMALL", size: int = 2 * GIB, align: int = ALIGN) -> Any:
    """A device of a server, as nova's driver describes it."""
    return objects.LibvirtVPMEMDevice(
        label=label, name="ns_0", devpath="/dev/dax0.0", size=size, align=align
    )


def node(host: str | None, *devices: Any, version: str | None = "2") -> Any:
    """A compute node that publishes this."""
    stats: dict[str, str] = {}
    capability.publish({"stats": stats}, devices)
    stats["nova_ext"] = version or ""
    return types.SimpleNamespace(host=host, stats=stats)


def server(*metadata: Any) -> Any:
    """A server with a resource for each; None for one without metadata."""
    made = objects.ResourceList()
    made.objects = [
        objects.Resource(
            provider_uuid=UUID,
            resource_class="CUSTOM_PMEM_NAMESPACE_SMALL",
            identifier="ns_0",
            **({} if each is None else {"metadata": each}),
        )
        for each in metadata
    ]
    return types.SimpleNamespace(uuid=UUID, resources=made)


class Nodes:
    """The compute nodes of the server's cell, and the hosts of all cells."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.mapped: set[str] = set()

    def get_all(self, context: str) -> list[Any]:
        assert context == "context"
        return self.nodes

    def get_by_host_and_nodename(self, context: str, host: str, name: str) -> Any:
        assert name == "node1"
        return self.get_first_node_by_host_for_old_compat(context, host)

    def get_first_node_by_host_for_old_compat(self, context: str, host: str) -> Any:
        assert context == "context"
        for each in self.nodes:
            if each.host == host:
                return each
        raise exception.ComputeHostNotFound(host=host)

    def get_by_host(self, context: str, host: str) -> None:
        assert context == "context"
        if host not in self.mapped:
            raise exception.HostMappingNotFound(name=host)


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Nodes:
    made = Nodes()
    for name in ("ComputeNode", "ComputeNodeList", "HostMapping"):
        monkeypatch.setattr(objects, name, made)
    return made


# The server


def test_devices_are_the_resources_that_are_pmem() -> None:
    first, second = device("SMALL"), device("BIG")
    instance = server(first, None, objects.ResourceMetadata(), second)
    assert gate.devices(instance) == [first, second]


@pytest.mark.parametrize(
    "resources",
    [None, [], server(None).resources, server(objects.ResourceMetadata()).resources],
)
def test_a_server_without_pmem(resources: Any) -> None:
    instance = types.SimpleNamespace(uuid=UUID, resources=resources)
    with pytest.raises(ext_exception.CopyPmemNoDevices, match=UUID):
        gate.devices(instance)


# The flavor


def flavor(pmem: str | None) -> Any:
    return objects.Flavor(extra_specs={"hw:pmem": pmem} if pmem else {})


@pytest.mark.parametrize(
    ("needed", "pmem"),
    [
        (["SMALL"], "SMALL"),
        (["SMALL"], "BIG,SMALL"),
        (["SMALL", "SMALL"], "SMALL,BIG,SMALL"),
        (["BIG", "SMALL"], "SMALL,BIG"),
    ],
)
def test_a_flavor_with_a_place_for_each_device(needed: list[str], pmem: str) -> None:
    gate.check_flavor(INSTANCE, flavor(pmem), [device(label) for label in needed])


@pytest.mark.parametrize(
    ("needed", "pmem", "missing"),
    [
        (["SMALL"], None, "SMALL"),
        (["SMALL"], "BIG", "SMALL"),
        (["SMALL", "SMALL"], "SMALL", "SMALL"),
        (["SMALL", "SMALL", "BIG"], None, "BIG, SMALL, SMALL"),
        (["SMALL", "BIG"], "BIG,BIG", "SMALL"),
    ],
)
def test_a_flavor_that_lacks_a_label(
    needed: list[str], pmem: str | None, missing: str
) -> None:
    with pytest.raises(ext_exception.CopyPmemLabelMissing) as refused:
        gate.check_flavor(INSTANCE, flavor(pmem), [device(label) for label in needed])
    assert refused.value.kwargs["labels"] == missing
    assert refused.value.kwargs["instance_uuid"] == UUID


# The source


@pytest.mark.parametrize("version", ["2", "3"])
def test_a_source_that_copies(nodes: Nodes, version: str) -> None:
    nodes.nodes = [node("compute1", version=version)]
    gate.check_source("context", INSTANCE)


@pytest.mark.parametrize("version", ["1", None])
def test_a_source_that_would_not_copy(nodes: Nodes, version: str | None) -> None:
    nodes.nodes = [node("compute1", version=version)]
    with pytest.raises(ext_exception.CopyPmemComputeTooOld, match=UUID):
        gate.check_source("context", INSTANCE)


def test_a_source_without_compute_node(nodes: Nodes) -> None:
    with pytest.raises(ext_exception.CopyPmemComputeTooOld, match=UUID):
        gate.check_source("context", INSTANCE)


# A destination that the user has named


def check(*needed: Any, host: str = "compute2") -> None:
    gate.check_host("context", INSTANCE, host, needed or [device()])


#: What a host may have for a device of 2 GiB, and whether its data fits in.
SPACES = pytest.mark.parametrize(
    ("spaces", "fits"),
    [
        ([device()], True),
        ([device(size=3 * GIB)], True),
        ([device(size=2 * GIB - 1)], False),
        ([device(align=2 * ALIGN)], False),
        ([device(align=ALIGN // 2)], False),
        ([device("BIG")], False),
        ([], False),
        ([device(size=GIB), device(size=2 * GIB)], True),
        ([device(size=GIB), device(size=2 * GIB, align=1)], False),
    ],
)


@SPACES
def test_a_named_host(nodes: Nodes, spaces: list[Any], fits: bool) -> None:
    nodes.nodes = [node("compute2", *spaces)]
    if fits:
        check()
        return
    with pytest.raises(ext_exception.CopyPmemHostUnfit) as refused:
        check()
    assert refused.value.kwargs["host"] == "compute2"
    assert refused.value.kwargs["devices"] == (
        "SMALL of at least 2147483648 bytes, aligned to 2097152"
    )


def test_a_named_host_needs_a_place_for_each_device(nodes: Nodes) -> None:
    nodes.nodes = [node("compute2", device())]
    check(device(), device())  # how many are free is asked of placement
    with pytest.raises(ext_exception.CopyPmemHostUnfit, match="2, BIG of at least 7"):
        check(device(align=2), device("BIG", size=7))


@pytest.mark.parametrize("version", ["1", None])
def test_a_named_host_that_could_not_take_it(nodes: Nodes, version: str | None) -> None:
    nodes.nodes = [node("compute2", device(), version=version)]
    with pytest.raises(ext_exception.CopyPmemHostTooOld, match="compute2"):
        check()


def test_the_server_s_own_host_is_refused_in_nova_s_words(nodes: Nodes) -> None:
    nodes.nodes = [node("compute1", device())]
    with pytest.raises(exception.CannotMigrateToSameHost):
        check(host="compute1")


def test_a_host_of_another_cell(nodes: Nodes) -> None:
    nodes.mapped = {"far"}
    with pytest.raises(ext_exception.CopyPmemCrossCell, match=f"far .*{UUID}"):
        check(host="far")


def test_a_host_that_nobody_knows(nodes: Nodes) -> None:
    with pytest.raises(exception.ComputeHostNotFound, match="nowhere"):
        check(host="nowhere")


# The hosts that the scheduler must not choose


def unfit(*needed: Any, stay: bool = False) -> list[str]:
    return gate.unfit_hosts("context", INSTANCE, needed or [device()], stay)


@SPACES
def test_a_host_of_the_cell(nodes: Nodes, spaces: list[Any], fits: bool) -> None:
    nodes.nodes = [node("compute3", device()), node("compute2", *spaces)]
    assert unfit() == ([] if fits else ["compute2"])


def test_hosts_that_could_not_take_it(nodes: Nodes) -> None:
    nodes.nodes = [
        node("stock", device(), version=None),
        node("older", device(), version="1"),
        node("fit", device()),
        node(None, device()),  # of a service that is being deleted
    ]
    assert unfit() == ["older", "stock"]


@pytest.mark.parametrize("found", [[], [node("smaller", device(size=GIB))]])
def test_no_host_that_could_take_it(nodes: Nodes, found: list[Any]) -> None:
    nodes.nodes = [*found, node(None, device())]
    with pytest.raises(ext_exception.CopyPmemNoHost) as refused:
        unfit()
    assert refused.value.kwargs["instance_uuid"] == UUID
    assert "SMALL of at least 2147483648" in refused.value.kwargs["devices"]


def test_the_server_s_own_host_counts_if_it_may_stay(nodes: Nodes) -> None:
    nodes.nodes = [node("compute1", device()), node("stock", version=None)]
    assert unfit(stay=True) == ["stock"]
    with pytest.raises(ext_exception.CopyPmemNoHost):
        unfit(stay=False)


def test_the_server_s_own_host_is_told_too_if_it_does_not_fit(nodes: Nodes) -> None:
    nodes.nodes = [node("compute1"), node("fit", device())]
    assert unfit(stay=True) == unfit(stay=False) == ["compute1"]


# The scheduler's orders


@pytest.mark.parametrize(
    ("ignored", "expected"),
    [
        (None, ["a", "b"]),
        ([], ["a", "b"]),
        (["compute1"], ["compute1", "a", "b"]),
    ],
)
def test_the_scheduler_is_kept_off_hosts(
    ignored: list[str] | None, expected: list[str]
) -> None:
    told = []

    class ComputeTaskAPI:
        def resize_instance(self, *args: Any, **kwargs: Any) -> None:
            told.append((args, kwargs))

    before = list(ignored or ())
    spec = types.SimpleNamespace(ignore_hosts=ignored)
    hosts = ["a", "b"]
    avoiding = gate.AvoidingComputeTaskAPI(ComputeTaskAPI(), hosts)
    hosts.append("changed afterwards")
    avoiding.resize_instance("context", INSTANCE, request_spec=spec, flavor="flavor")
    assert told == [(("context", INSTANCE), {"request_spec": spec, "flavor": "flavor"})]
    assert spec.ignore_hosts == expected
    assert list(ignored or ()) == before  # nova's own list
