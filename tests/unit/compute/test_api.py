# SPDX-License-Identifier: Apache-2.0
"""API: how the parts of the wings work on one request."""

import types
from typing import Any

import pytest
from nova import exception
from nova.compute import api as nova_api

from nova_ext.compute import api as compute
from nova_ext.compute.pmem import api as pmem_api
from nova_ext.compute.quiesce import rpc
from nova_ext.objects.pmem_copy import PmemCopy
from nova_ext.objects.quiesce_window import QuiesceStatus, QuiesceWindow
from tests.unit.compute.surroundings import Instance, Steps

RPC: Any = object()
WINDOW: Any = types.SimpleNamespace(
    visible=True,
    instance_uuid=Instance.uuid,
    status=QuiesceStatus.QUIESCED,
)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    steps = Steps()

    def part(name: str) -> Any:
        return lambda self, context, instance, *args, **kw: steps.take(name, *args)

    monkeypatch.setattr(nova_api.API, "__init__", lambda self: None)
    monkeypatch.setattr(nova_api.API, "resize", part("nova's resize"))
    monkeypatch.setattr(nova_api.API, "_record_action_start", part("record"))
    monkeypatch.setattr(nova_api.API, "_local_delete", part("nova's delete"))
    monkeypatch.setattr(pmem_api.PmemAPI, "_resize_with_copy", part("with copy"))
    monkeypatch.setattr(pmem_api.PmemAPI, "_order", part("order"))
    monkeypatch.setattr(
        PmemCopy,
        "destroy_by_instance_uuid",
        lambda context, uuid: steps.take("forget copy"),
    )
    monkeypatch.setattr(
        QuiesceWindow,
        "destroy_by_instance_uuid",
        lambda context, uuid: steps.take("forget window"),
    )
    monkeypatch.setattr(rpc, "QuiesceRPCAPI", lambda: RPC)
    return steps


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The window of the server, if any; what the next look finds."""
    found: list[Any] = []
    monkeypatch.setattr(
        QuiesceWindow,
        "find",
        lambda context, uuid: found[0] if found else None,
    )
    return found


def test_a_clone_for_one_request_still_quiesces(steps: Steps) -> None:
    clone: Any = compute.API().with_copy_pmem(True)
    assert type(clone) is compute.API
    assert clone.quiesce_rpcapi is RPC


def test_a_resize_passes_both_wings(steps: Steps, windows: list[Any]) -> None:
    instance = Instance(steps)
    compute.API().with_copy_pmem(True).resize("context", instance, "2")
    compute.API().resize("context", instance, "2")
    assert steps.taken == [("with copy", "2"), ("nova's resize", "2")]


def test_a_quiesced_server_is_refused_before_a_copy_is_looked_at(
    steps: Steps, windows: list[Any]
) -> None:
    windows.append(WINDOW)
    with pytest.raises(exception.InstanceInvalidState):
        compute.API().with_copy_pmem(True).resize("context", Instance(steps), "2")
    assert steps.taken == []


def test_no_order_is_written_for_a_server_that_was_quiesced_in_between(
    steps: Steps, windows: list[Any]
) -> None:
    api = compute.API().with_copy_pmem(True)
    instance = Instance(steps)
    instance.task_state = instance.stored = "resize_prep"
    api._record_action_start("context", instance, "resize")
    assert steps.taken == ["order", ("record", "resize")]
    steps.taken.clear()
    windows.append(WINDOW)
    with pytest.raises(exception.InstanceInvalidState):
        api._record_action_start("context", instance, "resize")
    assert steps.taken == [("save", None)]


def test_a_delete_without_host_forgets_what_both_wings_have(steps: Steps) -> None:
    compute.API()._local_delete("context", Instance(steps), [], "delete", print)
    assert [each if isinstance(each, str) else each[0] for each in steps.taken] == [
        "nova's delete",
        "forget copy",
        "forget window",
    ]
