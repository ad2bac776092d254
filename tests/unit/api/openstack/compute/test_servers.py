# SPDX-License-Identifier: Apache-2.0
"""resize with copy_pmem_devices, and which view of a server the controller shows."""

from typing import Any

import pytest
from nova import exception

from nova_ext import exception as ext_exception
from nova_ext.api.openstack.compute import servers
from nova_ext.api.openstack.compute.views import servers as views
from tests.unit import people
from tests.unit.api.openstack.compute import serving
from tests.unit.api.openstack.compute.serving import MISSING, UUID, Act, ComputeAPI


@pytest.fixture
def controller(compute_api: Any) -> Any:
    return servers.ServersController(compute_api)


@pytest.fixture
def act(controller: Any) -> Act:
    return serving.act(controller)


def resized(copying: bool, disk_config: bool | None = None) -> tuple[Any, ...]:
    return ("resize", copying, UUID, "2", {"auto_disk_config": disk_config})


def test_it_shows_the_view_of_the_extension(controller: Any) -> None:
    assert type(controller._view_builder) is views.ViewBuilder


@pytest.mark.parametrize(
    ("more", "call"),
    [
        ({}, resized(False)),
        ({"copy_pmem_devices": True}, resized(True)),
        ({"copy_pmem_devices": "on"}, resized(True)),
        ({"copy_pmem_devices": "off"}, resized(False)),
        (
            {"copy_pmem_devices": True, "OS-DCF:diskConfig": "AUTO"},
            resized(True, disk_config=True),
        ),
    ],
)
def test_what_is_handed_on(
    act: Act, compute_api: ComputeAPI, more: Any, call: tuple[Any, ...]
) -> None:
    answer = act({"resize": {"flavorRef": "2", **more}})
    assert (answer.status, answer.body) == (202, b"")
    assert compute_api.calls == [call]


def test_one_request_leaves_nothing_for_the_next(
    act: Act, controller: Any, compute_api: ComputeAPI
) -> None:
    act({"resize": {"flavorRef": "2", "copy_pmem_devices": True}})
    act({"resize": {"flavorRef": "2"}}, version="2.104")
    assert compute_api.calls == [resized(True), resized(False)]
    assert controller.compute_api is compute_api


@pytest.mark.parametrize(
    "argument",
    [
        None,
        {"copy_pmem_devices": True},
        {"flavorRef": "2", "copy_pmem_devices": ""},
        {"flavorRef": "2", "copy_pmem_devices": None},
        {"flavorRef": "2", "copy_pmem_devices": 0},
        {"flavorRef": "2", "copy_pmem_devices": True, "other": 1},
    ],
)
def test_a_malformed_body_is_400(
    act: Act, compute_api: ComputeAPI, argument: Any
) -> None:
    answer = act({"resize": argument})
    assert answer.status == 400
    assert "Invalid input" in answer.message
    assert compute_api.calls == []


@pytest.mark.parametrize("version", [None, "2.1", "2.104"])
def test_below_2_105_it_is_400_in_nova_s_words(
    act: Act, compute_api: ComputeAPI, version: str | None
) -> None:
    body = {"resize": {"flavorRef": "2", "copy_pmem_devices": True}}
    answer = act(body, version=version)
    assert answer.status == 400
    assert "Additional properties are not allowed" in answer.message
    assert compute_api.calls == []


def test_the_legacy_api_says_which_microversion_it_takes(
    act: Act, compute_api: ComputeAPI
) -> None:
    body = {"resize": {"flavorRef": "2", "copy_pmem_devices": False}}
    answer = act(body, legacy=True)
    assert answer.status == 400
    assert "copy_pmem_devices needs microversion 2.105" in answer.message
    assert compute_api.calls == []


def test_the_legacy_api_takes_what_it_took(act: Act, compute_api: ComputeAPI) -> None:
    answer = act({"resize": {"flavorRef": "2", "other": 1}}, legacy=True)
    assert answer.status == 202
    assert compute_api.calls == [resized(False)]


@pytest.mark.parametrize(
    "refusal",
    [
        ext_exception.CopyPmemNoDevices(instance_uuid=UUID),
        ext_exception.CopyPmemLabelMissing(instance_uuid=UUID, labels="SMALL"),
        ext_exception.CopyPmemComputeTooOld(instance_uuid=UUID),
        ext_exception.CopyPmemHostTooOld(host="compute2"),
        ext_exception.CopyPmemHostUnfit(host="compute2", devices="SMALL"),
        ext_exception.CopyPmemCrossCell(host="compute2", instance_uuid=UUID),
        ext_exception.CopyPmemNoHost(instance_uuid=UUID, devices="SMALL"),
        ext_exception.StateDatabaseMissing(database="nova_cell1"),
    ],
    ids=lambda refusal: type(refusal).__name__,
)
def test_a_copy_that_cannot_be_done_is_400(
    act: Act, compute_api: ComputeAPI, refusal: Any
) -> None:
    compute_api.fails = refusal
    answer = act({"resize": {"flavorRef": "2", "copy_pmem_devices": True}})
    assert answer.status == 400
    assert answer.message == refusal.format_message()


@pytest.mark.parametrize("version", ["2.104", "2.105"])
@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (exception.CannotResizeToSameFlavor(), 400),
        (exception.ImageNotAuthorized(image_id=UUID), 401),
        (exception.OverQuota(overs="cores"), 403),
        (exception.InstanceIsLocked(instance_uuid=UUID), 409),
        (exception.ServiceUnavailable(), 409),
    ],
    ids=lambda each: type(each).__name__,
)
def test_what_nova_refuses_keeps_its_status(
    act: Act, compute_api: ComputeAPI, refusal: Any, status: int, version: str
) -> None:
    compute_api.fails = refusal
    assert act({"resize": {"flavorRef": "2"}}, version=version).status == status


def test_nova_s_own_refusals_hold(act: Act, compute_api: ComputeAPI) -> None:
    body = {"resize": {"flavorRef": "2", "copy_pmem_devices": True}}
    assert act(body, context=people.reader()).status == 403
    assert act(body, server=MISSING).status == 404
    assert compute_api.calls == []
