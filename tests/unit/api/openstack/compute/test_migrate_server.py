# SPDX-License-Identifier: Apache-2.0
"""migrate with copy_pmem_devices: what nova's controller hands on then."""

from typing import Any

import pytest
from nova import exception

from nova_ext import exception as ext_exception
from nova_ext.api.openstack.compute import migrate_server
from tests.unit import people
from tests.unit.api.openstack.compute import serving
from tests.unit.api.openstack.compute.serving import MISSING, UUID, Act, ComputeAPI


@pytest.fixture
def controller(compute_api: Any) -> Any:
    return migrate_server.MigrateServerController(compute_api)


@pytest.fixture
def act(controller: Any) -> Act:
    return serving.act(controller)


def migrated(copying: bool, host: str | None) -> tuple[Any, ...]:
    """The call of the compute API; without a flavor, resize is a migration."""
    return ("resize", copying, UUID, None, {"host_name": host})


@pytest.mark.parametrize(
    ("argument", "copying", "host"),
    [
        (None, False, None),
        ({}, False, None),
        ({"host": "compute2"}, False, "compute2"),
        ({"copy_pmem_devices": True}, True, None),
        ({"copy_pmem_devices": "yes"}, True, None),
        ({"copy_pmem_devices": False}, False, None),
        ({"copy_pmem_devices": True, "host": "compute2"}, True, "compute2"),
        ({"copy_pmem_devices": True, "host": None}, True, None),
    ],
)
def test_what_is_handed_on(
    act: Act, compute_api: ComputeAPI, argument: Any, copying: bool, host: str | None
) -> None:
    answer = act({"migrate": argument}, context=people.admin())
    assert (answer.status, answer.body) == (202, b"")
    assert compute_api.calls == [migrated(copying, host)]


def test_one_request_leaves_nothing_for_the_next(
    act: Act, controller: Any, compute_api: ComputeAPI
) -> None:
    act({"migrate": {"copy_pmem_devices": True}}, context=people.admin())
    act({"migrate": None}, context=people.admin(), version="2.104")
    assert compute_api.calls == [migrated(True, None), migrated(False, None)]
    assert controller.compute_api is compute_api


@pytest.mark.parametrize(
    "argument",
    [
        {"copy_pmem_devices": "maybe"},
        {"copy_pmem_devices": None},
        {"copy_pmem_devices": 1},
        {"copy_pmem_devices": True, "other": 1},
        [],
    ],
)
def test_a_malformed_body_is_400(
    act: Act, compute_api: ComputeAPI, argument: Any
) -> None:
    answer = act({"migrate": argument}, context=people.admin())
    assert answer.status == 400
    assert "Invalid input" in answer.message
    assert compute_api.calls == []


@pytest.mark.parametrize("version", [None, "2.55", "2.56", "2.104"])
def test_below_2_105_it_is_400(
    act: Act, compute_api: ComputeAPI, version: str | None
) -> None:
    answer = act(
        {"migrate": {"copy_pmem_devices": True}},
        context=people.admin(),
        version=version,
    )
    assert answer.status == 400
    assert "copy_pmem_devices" in answer.message
    assert compute_api.calls == []


def test_the_legacy_api_says_which_microversion_it_takes(
    act: Act, compute_api: ComputeAPI
) -> None:
    answer = act(
        {"migrate": {"copy_pmem_devices": False}}, context=people.admin(), legacy=True
    )
    assert answer.status == 400
    assert "copy_pmem_devices needs microversion 2.105" in answer.message
    assert compute_api.calls == []


@pytest.mark.parametrize(
    ("argument", "version", "legacy"),
    [
        (None, "2.1", False),
        ({"hosts": "x"}, "2.55", False),
        ("copy_pmem_devices", "2.1", False),
        ({"hosts": "x"}, None, True),
    ],
)
def test_what_an_old_api_takes_is_taken(
    act: Act, compute_api: ComputeAPI, argument: Any, version: str | None, legacy: bool
) -> None:
    answer = act(
        {"migrate": argument}, context=people.admin(), version=version, legacy=legacy
    )
    assert answer.status == 202
    assert compute_api.calls == [migrated(False, None)]


def test_a_copy_that_cannot_be_done_is_400(act: Act, compute_api: ComputeAPI) -> None:
    compute_api.fails = ext_exception.CopyPmemNoDevices(instance_uuid=UUID)
    answer = act({"migrate": {"copy_pmem_devices": True}}, context=people.admin())
    assert answer.status == 400
    assert answer.message == compute_api.fails.format_message()


@pytest.mark.parametrize("version", ["2.104", "2.105"])
@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (exception.CannotMigrateToSameHost(), 400),
        (exception.OverQuota(overs="cores"), 403),
        (exception.InstanceNotFound(instance_id=UUID), 404),
        (exception.InstanceIsLocked(instance_uuid=UUID), 409),
        (exception.ServiceUnavailable(), 409),
    ],
    ids=lambda each: type(each).__name__,
)
def test_what_nova_refuses_keeps_its_status(
    act: Act, compute_api: ComputeAPI, refusal: Any, status: int, version: str
) -> None:
    compute_api.fails = refusal
    answer = act({"migrate": None}, context=people.admin(), version=version)
    assert (answer.status, answer.message) == (status, refusal.format_message())


def test_nova_s_own_refusals_hold(act: Act, compute_api: ComputeAPI) -> None:
    body = {"migrate": {"copy_pmem_devices": True}}
    assert act(body, context=people.member()).status == 403
    assert act(body, context=people.admin(), server=MISSING).status == 404
    assert compute_api.calls == []
