# SPDX-License-Identifier: Apache-2.0
"""PmemAPI: what resize checks for a copy, and when the order is written or goes."""

from collections.abc import Sequence
from typing import Any

import pytest
from nova import exception, objects
from nova.compute import api as nova_api
from nova.compute import flavors

from nova_ext import exception as ext_exception
from nova_ext.compute.pmem import api as pmem_api
from nova_ext.compute.pmem import gate
from nova_ext.objects import pmem_copy
from tests.unit import people
from tests.unit.compute import surroundings
from tests.unit.compute.surroundings import UUID, Instance, Steps

REQUEST = "req-0c7a1f52-6f3a-4b47-9d65-31c1a8a3f4e1"
MISSING = ext_exception.StateDatabaseMissing(database="nova_cell1")
DEVICES = ["device"]


class Cloud(Steps):
    """The database of one server's cell, and nova's resize.

    :ivar ordered: the request whose order the database has
    :ivar asked: the API that nova's resize was called on last
    """

    def __init__(self) -> None:
        super().__init__()
        self.ordered: str | None = None
        self.asked: Any = None

    # What nova_ext.db.api does.

    def pmem_copy_get(self, context: Any, uuid: str) -> dict[str, Any]:
        self.take("look", uuid)
        raise ext_exception.PmemCopyNotFound(instance_uuid=uuid)

    def pmem_copy_order(
        self, context: Any, row: Any, expected: Sequence[str | None]
    ) -> dict[str, Any]:
        assert (row["instance_uuid"], row["status"]) == (UUID, "ordered")
        assert row["migration_id"] is None
        self.take("order", list(expected))
        self.ordered = row["request_id"]
        return {**row, "created_at": None, "updated_at": None}

    def pmem_copy_delete_by_instance(self, context: Any, uuid: str) -> None:
        self.take("forget", uuid)
        self.ordered = None

    # What nova does.

    def action_start(
        self, context: Any, uuid: str, action: str, want_result: bool
    ) -> None:
        self.take("record", action)


class FakeGate:
    """The gate; each check is a step that a test lets fail."""

    AvoidingComputeTaskAPI = gate.AvoidingComputeTaskAPI

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def devices(self, instance: Any) -> list[str]:
        self._cloud.take("devices")
        return DEVICES

    def check_flavor(self, instance: Any, flavor: str, needed: Any) -> None:
        self._cloud.take("check_flavor", flavor, needed)

    def check_source(self, context: Any, instance: Any) -> None:
        self._cloud.take("check_source")

    def check_host(self, context: Any, instance: Any, host: str, needed: Any) -> None:
        self._cloud.take("check_host", host, needed)

    def unfit_hosts(
        self, context: Any, instance: Any, needed: Any, stay: bool
    ) -> list[str]:
        self._cloud.take("unfit_hosts", needed, stay)
        return ["unfit"]


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Cloud:
    cloud = Cloud()
    people.enforce(monkeypatch)

    def resize(
        self: Any, context: Any, instance: Any, *args: Any, **kwargs: Any
    ) -> None:
        cloud.asked = self
        cloud.take("resize", *args, kwargs)

    def get_flavor(context: Any, flavor_id: str, read_deleted: str) -> str:
        assert read_deleted == "no"
        cloud.take("flavor", flavor_id)
        return f"flavor {flavor_id}"

    def stay(self: Any, cold_migrate: bool, instance: Any) -> bool:
        return not cold_migrate  # as allow_resize_to_same_host has it

    monkeypatch.setattr(pmem_copy, "db", cloud)
    monkeypatch.setattr(pmem_api, "gate", FakeGate(cloud))
    monkeypatch.setattr(flavors, "get_flavor_by_flavor_id", get_flavor)
    monkeypatch.setattr(objects, "InstanceAction", cloud)
    monkeypatch.setattr(nova_api.API, "__init__", lambda self: None)
    monkeypatch.setattr(nova_api.API, "resize", resize)
    monkeypatch.setattr(nova_api.API, "_allow_resize_to_same_host", stay)
    return cloud


@pytest.fixture
def api(cloud: Cloud) -> Any:
    made: Any = pmem_api.PmemAPI()
    made.servicegroup_api = surroundings.SERVICEGROUP
    made.compute_task_api = surroundings.Caller(cloud, "conductor")
    return made


@pytest.fixture
def instance(cloud: Cloud) -> Instance:
    return Instance(cloud)


@pytest.fixture
def context(cloud: Cloud) -> Any:
    return people.member(request_id=REQUEST)


# What is checked


def test_without_a_copy_resize_is_nova_s(
    cloud: Cloud, api: Any, context: Any, instance: Instance
) -> None:
    api.resize(context, instance, "2", auto_disk_config=True)
    api.with_copy_pmem(False).resize(context, instance, host_name="compute2")
    assert cloud.taken == [
        ("resize", "2", {"auto_disk_config": True}),
        ("resize", None, {"host_name": "compute2"}),
    ]


def test_a_resize_with_copy(
    cloud: Cloud, api: Any, context: Any, instance: Instance
) -> None:
    api.with_copy_pmem(True).resize(context, instance, "2", auto_disk_config=True)
    assert cloud.taken == [
        "devices",
        ("flavor", "2"),
        ("check_flavor", "flavor 2", DEVICES),
        ("look", UUID),
        "check_source",
        ("unfit_hosts", DEVICES, True),
        ("resize", "2", {"host_name": None, "auto_disk_config": True}),
    ]


def test_a_migration_with_copy(
    cloud: Cloud, api: Any, context: Any, instance: Instance
) -> None:
    api.with_copy_pmem(True).resize(context, instance, host_name=None)
    assert cloud.taken == [
        "devices",
        ("look", UUID),
        "check_source",
        ("unfit_hosts", DEVICES, False),
        ("resize", None, {"host_name": None}),
    ]


def test_a_migration_with_copy_to_a_named_host(
    cloud: Cloud, api: Any, context: Any, instance: Instance
) -> None:
    asked = api.with_copy_pmem(True)
    asked.resize(context, instance, host_name="compute2")
    assert cloud.taken == [
        "devices",
        ("look", UUID),
        "check_source",
        ("check_host", "compute2", DEVICES),
        ("resize", None, {"host_name": "compute2"}),
    ]
    assert cloud.asked.compute_task_api is api.compute_task_api


@pytest.mark.parametrize(
    ("step", "host"),
    [
        ("devices", None),
        ("flavor", None),
        ("check_flavor", None),
        ("look", None),
        ("check_source", None),
        ("unfit_hosts", None),
        ("check_host", "compute2"),
    ],
)
def test_what_a_check_refuses_does_not_reach_nova(
    cloud: Cloud,
    api: Any,
    context: Any,
    instance: Instance,
    step: str,
    host: str | None,
) -> None:
    cloud.fails[step] = MISSING
    with pytest.raises(ext_exception.StateDatabaseMissing):
        api.with_copy_pmem(True).resize(context, instance, "2", host_name=host)
    last = cloud.taken[-1]
    assert (last if isinstance(last, str) else last[0]) == step


@pytest.mark.parametrize(
    ("attribute", "value", "refusal"),
    [
        ("locked", True, exception.InstanceIsLocked),
        ("vm_state", "paused", exception.InstanceInvalidState),
        ("task_state", "rebooting", exception.InstanceInvalidState),
        ("host", None, exception.InstanceNotReady),
    ],
)
def test_nova_s_own_checks_come_first(
    cloud: Cloud,
    api: Any,
    context: Any,
    instance: Instance,
    attribute: str,
    value: Any,
    refusal: type[exception.NovaException],
) -> None:
    """A locked server without PMEM is 409, as it is without a copy."""
    setattr(instance, attribute, value)
    with pytest.raises(refusal):
        api.with_copy_pmem(True).resize(context, instance, "2")
    assert cloud.taken == []


def test_a_source_that_is_down_comes_first_too(
    cloud: Cloud, api: Any, context: Any, instance: Instance
) -> None:
    instance.service.up = False
    with pytest.raises(exception.ServiceUnavailable):
        api.with_copy_pmem(True).resize(context, instance, "2")
    assert cloud.taken == []


def test_a_stopped_server_can_be_moved_with_its_data(
    cloud: Cloud, api: Any, context: Any, instance: Instance
) -> None:
    instance.vm_state = "stopped"
    api.with_copy_pmem(True).resize(context, instance, "2")
    assert cloud.asked is not None


# What is kept apart


def test_requests_at_the_same_time_do_not_share_an_order(
    cloud: Cloud, api: Any, context: Any, instance: Instance
) -> None:
    copying, other = api.with_copy_pmem(True), api.with_copy_pmem(False)
    other.resize(context, instance, "2")
    api.resize(context, instance, "2")
    assert cloud.taken == [("resize", "2", {})] * 2
    assert copying.with_copy_pmem(False)._copy_pmem is False
    assert copying._copy_pmem is True
    assert api._copy_pmem is False


def test_the_scheduler_is_kept_off_unfit_hosts_by_this_request_only(
    cloud: Cloud, api: Any, context: Any, instance: Instance
) -> None:
    class Spec:
        ignore_hosts = ["compute1"]

    asked = api.with_copy_pmem(True)
    asked.resize(context, instance, "2")
    conductor = cloud.asked.compute_task_api
    conductor.resize_instance(context, instance, request_spec=Spec)
    assert cloud.taken[-1] == "conductor resize_instance"
    assert Spec.ignore_hosts == ["compute1", "unfit"]
    assert asked.compute_task_api is api.compute_task_api


def test_a_copy_never_crosses_cells(
    cloud: Cloud, api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [True, False, 1]
    monkeypatch.setattr(
        nova_api.API, "_allow_cross_cell_resize", lambda *args: answers.pop(0)
    )
    assert api._allow_cross_cell_resize("context", "instance", 66) is True
    assert api._allow_cross_cell_resize("context", "instance", 66) is False
    copying = api.with_copy_pmem(True)
    assert copying._allow_cross_cell_resize("context", "instance", 66) is False


# The order


def pmem(instance: Any, labels: str = "SMALL") -> Any:
    """The server with the task state of a resize, and this in its flavor."""
    instance.flavor = {"extra_specs": {"hw:pmem": labels} if labels else {}}
    instance.task_state = instance.stored = "resize_prep"
    return instance


@pytest.mark.parametrize("action", ["resize", "migrate"])
def test_the_order_is_written_before_the_action(
    cloud: Cloud, api: Any, context: Any, instance: Instance, action: str
) -> None:
    api.with_copy_pmem(True)._record_action_start(context, pmem(instance), action)
    assert cloud.taken == [("order", ["resize_prep"]), ("record", action)]
    assert cloud.ordered == REQUEST


@pytest.mark.parametrize("action", ["resize", "migrate"])
def test_an_order_that_cannot_be_written_gives_the_server_back(
    cloud: Cloud, api: Any, context: Any, instance: Instance, action: str
) -> None:
    cloud.fails["order"] = MISSING
    with pytest.raises(ext_exception.StateDatabaseMissing):
        api.with_copy_pmem(True)._record_action_start(context, pmem(instance), action)
    assert cloud.taken == [("order", ["resize_prep"]), ("save", None)]
    assert instance.stored is None


@pytest.mark.parametrize(
    ("failure", "state"),
    [
        (exception.InstanceNotFound(instance_id=UUID), "deleting"),
        (
            exception.UnexpectedDeletingTaskStateError(
                instance_uuid=UUID, expected={}, actual={"task_state": "deleting"}
            ),
            "deleting",
        ),
        (
            exception.UnexpectedTaskStateError(
                instance_uuid=UUID, expected={}, actual={"task_state": None}
            ),
            "None",
        ),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Exception) else "",
)
def test_a_server_that_is_deleted_before_the_order_is_in_the_wrong_state(
    cloud: Cloud,
    api: Any,
    context: Any,
    instance: Instance,
    failure: Exception,
    state: str,
) -> None:
    """Nova's controllers answer 409 to that, and 500 to what the database says."""
    cloud.fails["order"] = failure
    cloud.during["order"] = lambda: setattr(instance, "stored", "deleting")
    with pytest.raises(exception.InstanceInvalidState) as refused:
        api.with_copy_pmem(True)._record_action_start(context, pmem(instance), "resize")
    assert refused.value.kwargs["attr"] == "task_state"
    assert refused.value.kwargs["state"] == state
    assert refused.value.kwargs["instance_uuid"] == UUID
    assert instance.stored == "deleting"
    assert cloud.taken == [("order", ["resize_prep"]), ("save", None)]


@pytest.mark.parametrize("action", ["resize", "migrate"])
def test_every_other_move_removes_an_older_order(
    cloud: Cloud, api: Any, context: Any, instance: Instance, action: str
) -> None:
    cloud.ordered = "req-older"
    api._record_action_start(context, pmem(instance), action)
    assert cloud.taken == [("forget", UUID), ("record", action)]
    assert cloud.ordered is None


def test_an_older_order_that_cannot_be_removed_gives_the_server_back(
    cloud: Cloud, api: Any, context: Any, instance: Instance
) -> None:
    cloud.fails["forget"] = RuntimeError("the database is down")
    with pytest.raises(RuntimeError):
        api._record_action_start(context, pmem(instance), "resize")
    assert cloud.taken == [("forget", UUID), ("save", None)]


def test_a_server_without_pmem_costs_no_question(
    cloud: Cloud, api: Any, context: Any, instance: Instance
) -> None:
    api._record_action_start(context, pmem(instance, ""), "resize")
    assert cloud.taken == [("record", "resize")]


def test_without_the_database_there_is_no_order_to_remove(
    cloud: Cloud, api: Any, context: Any, instance: Instance
) -> None:
    cloud.fails["forget"] = MISSING
    api._record_action_start(context, pmem(instance), "resize")
    assert cloud.taken == [("forget", UUID), ("record", "resize")]
    assert instance.stored == "resize_prep"


@pytest.mark.parametrize("copying", [True, False])
@pytest.mark.parametrize("action", ["confirmResize", "live-migration", "evacuate"])
def test_other_actions_leave_the_order_alone(
    cloud: Cloud,
    api: Any,
    context: Any,
    instance: Instance,
    action: str,
    copying: bool,
) -> None:
    asked = api.with_copy_pmem(copying)
    asked._record_action_start(context, pmem(instance), action)
    assert cloud.taken == [("record", action)]


def test_delete_of_a_server_whose_host_is_down_removes_the_order_afterwards(
    cloud: Cloud,
    api: Any,
    context: Any,
    instance: Instance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def local_delete(self: Any, *args: Any) -> None:
        cloud.take("delete", *args)

    monkeypatch.setattr(nova_api.API, "_local_delete", local_delete)
    args = (context, instance, ["bdm"], "delete", print)
    api._local_delete(*args)
    cloud.fails["forget"] = MISSING
    api._local_delete(*args)
    assert cloud.taken == [("delete", *args), ("forget", UUID)] * 2
