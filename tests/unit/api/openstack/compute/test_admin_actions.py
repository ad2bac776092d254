# SPDX-License-Identifier: Apache-2.0
"""os-resetState: nova's own work first, then the frozen guest is released."""

from typing import Any

import pytest
from nova.api.openstack.compute import admin_actions as upstream

from nova_ext import exception
from nova_ext.api.openstack.compute import admin_actions
from tests.unit import people
from tests.unit.api.openstack.compute import serving
from tests.unit.api.openstack.compute.serving import MISSING, UUID, Act, ComputeAPI

RESET: Any = {"os-resetState": {"state": "active"}}


class Action:
    """The record of an instance action."""

    def __init__(self, calls: list[Any]) -> None:
        self._calls = calls

    def action_start(self, context: Any, uuid: str, action: str) -> "Action":
        self._calls.append(("action_start", uuid, action))
        return self

    def finish(self) -> None:
        self._calls.append(("finish",))


@pytest.fixture(autouse=True)
def objects(monkeypatch: pytest.MonkeyPatch, compute_api: ComputeAPI) -> None:
    class Objects:
        InstanceAction = Action(compute_api.calls)

    def save(admin_state_reset: bool = False) -> None:
        server = compute_api.server
        compute_api.calls.append(("save", server.vm_state, server.task_state))

    monkeypatch.setattr(upstream, "objects", Objects)
    compute_api.server.save = save
    compute_api.server.vm_state = "error"
    compute_api.server.task_state = "rebooting"


@pytest.fixture
def act(compute_api: Any) -> Act:
    return serving.act(admin_actions.AdminActionsController(compute_api))


@pytest.mark.parametrize("version", [None, "2.104", "2.105"])
def test_the_guest_is_released_once_nova_has_reset_the_state(
    act: Act, compute_api: ComputeAPI, version: str | None
) -> None:
    answer = act(RESET, context=people.admin(), version=version)
    assert (answer.status, answer.body) == (202, b"")
    assert compute_api.calls == [
        ("action_start", UUID, "resetState"),
        ("save", "active", None),
        ("finish",),
        ("release_quiesced", UUID),
    ]


def test_what_nova_refuses_releases_nothing(act: Act, compute_api: ComputeAPI) -> None:
    assert act(RESET, context=people.member()).status == 403
    assert act(RESET, context=people.admin(), server=MISSING).status == 404
    malformed = {"os-resetState": {"state": "frozen"}}
    assert act(malformed, context=people.admin()).status == 400
    assert compute_api.calls == []


def test_a_window_that_changes_all_the_time_is_409(
    act: Act, compute_api: ComputeAPI
) -> None:
    compute_api.fails = exception.QuiesceWindowChanged(instance_uuid=UUID)
    answer = act(RESET, context=people.admin())
    assert answer.status == 409
    assert answer.message == compute_api.fails.format_message()
    assert compute_api.calls[-1] == ("finish",)
