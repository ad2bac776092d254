# SPDX-License-Identifier: Apache-2.0
"""The actions quiesce and unquiesce: what is handed on, and each refusal's status."""

from typing import Any

import pytest
from nova import exception

from nova_ext import exception as ext_exception
from nova_ext.api.openstack.compute import quiesce_server
from tests.unit import people
from tests.unit.api.openstack.compute import serving
from tests.unit.api.openstack.compute.serving import MISSING, UUID, Act, ComputeAPI

QUIESCE: Any = {"quiesce": None}
UNQUIESCE: Any = {"unquiesce": None}
BOTH = pytest.mark.parametrize(
    "body", [QUIESCE, UNQUIESCE], ids=["quiesce", "unquiesce"]
)


@pytest.fixture
def act(compute_api: Any) -> Act:
    return serving.act(quiesce_server.QuiesceServerController(compute_api))


@pytest.mark.parametrize(
    ("argument", "timeout", "partial"),
    [
        (None, None, False),
        ({}, None, False),
        ({"timeout": 1}, 1, False),
        ({"partial": True}, None, True),
        ({"timeout": 1, "partial": False}, 1, False),
    ],
)
def test_quiesce_hands_on_what_is_asked_for(
    act: Act, compute_api: ComputeAPI, argument: Any, timeout: int | None, partial: bool
) -> None:
    answer = act({"quiesce": argument})
    assert (answer.status, answer.body) == (202, b"")
    assert compute_api.calls == [("quiesce", UUID, timeout, partial)]


def test_unquiesce_is_handed_on(act: Act, compute_api: ComputeAPI) -> None:
    answer = act(UNQUIESCE)
    assert (answer.status, answer.body) == (202, b"")
    assert compute_api.calls == [("unquiesce", UUID)]


@BOTH
def test_they_are_unknown_below_2_105(
    act: Act, compute_api: ComputeAPI, body: Any
) -> None:
    for version in (None, "2.1", "2.104"):
        assert act(body, version=version).status == 404
    assert act(body, legacy=True).status == 404
    assert compute_api.calls == []
    answer = act(body, version="latest")
    assert answer.status == 202
    assert answer.headers["OpenStack-API-Version"] == "compute 2.105"


@BOTH
def test_a_newer_microversion_is_not_acceptable(act: Act, body: Any) -> None:
    answer = act(body, version="2.106")
    assert answer.status == 406
    assert "2.105" in answer.message


@pytest.mark.parametrize(
    "body",
    [
        {"quiesce": []},
        {"quiesce": ""},
        {"quiesce": 5},
        {"quiesce": {"timeout": 0}},
        {"quiesce": {"timeout": None}},
        {"quiesce": {"time": 5}},
        {"unquiesce": {}},
        {"unquiesce": False},
    ],
)
def test_a_malformed_body_is_400(act: Act, compute_api: ComputeAPI, body: Any) -> None:
    answer = act(body)
    assert answer.status == 400
    assert "Invalid input" in answer.message
    assert compute_api.calls == []


@BOTH
def test_an_unknown_server_is_404(act: Act, compute_api: ComputeAPI, body: Any) -> None:
    answer = act(body, server=MISSING)
    assert answer.status == 404
    assert MISSING in answer.message
    assert compute_api.calls == []


@BOTH
def test_a_reader_is_refused_with_403(
    act: Act, compute_api: ComputeAPI, body: Any
) -> None:
    (action,) = body
    answer = act(body, context=people.reader())
    assert answer.status == 403
    assert f"os_compute_api:os-quiesce-server:{action} " in answer.message
    assert compute_api.calls == []


@BOTH
def test_the_project_of_the_server_counts(
    act: Act, compute_api: ComputeAPI, body: Any
) -> None:
    # An operator may let members of one project see the servers of another.
    stranger = people.member(project=people.OTHER_PROJECT)
    assert act(body, context=stranger).status == 403
    assert compute_api.calls == []
    assert act(body, context=people.admin(project=people.OTHER_PROJECT)).status == 202


@BOTH
def test_an_operator_may_reserve_it_for_the_owner(
    act: Act, monkeypatch: pytest.MonkeyPatch, body: Any
) -> None:
    (action,) = body
    rule = f"os_compute_api:os-quiesce-server:{action}"
    people.enforce(monkeypatch, {rule: "user_id:%(user_id)s"})
    assert act(body, context=people.member(user=people.OWNER)).status == 202
    assert act(body, context=people.member(user="another")).status == 403


@BOTH
@pytest.mark.parametrize(
    "refusal",
    [
        exception.InstanceIsLocked(instance_uuid=UUID),
        exception.InstanceNotReady(instance_id=UUID),
        exception.ComputeHostNotFound(host="compute1"),
        exception.ServiceUnavailable(),
        ext_exception.QuiesceComputeUnavailable(instance_uuid=UUID),
    ],
    ids=lambda refusal: type(refusal).__name__,
)
def test_what_passes_by_itself_is_409(
    act: Act, compute_api: ComputeAPI, body: Any, refusal: exception.NovaException
) -> None:
    compute_api.fails = refusal
    answer = act(body)
    assert answer.status == 409
    assert answer.message == refusal.format_message()


@BOTH
def test_the_wrong_state_is_409_and_named(
    act: Act, compute_api: ComputeAPI, body: Any
) -> None:
    (action,) = body
    compute_api.fails = exception.InstanceInvalidState(
        attr="quiesce_status", instance_uuid=UUID, state="quiesced", method="x"
    )
    answer = act(body)
    assert answer.status == 409
    assert answer.message == (
        f"Cannot '{action}' instance {UUID} while it is in quiesce_status quiesced"
    )


@BOTH
def test_a_server_that_is_deleted_in_between_is_404(
    act: Act, compute_api: ComputeAPI, body: Any
) -> None:
    compute_api.fails = exception.InstanceNotFound(instance_id=UUID)
    answer = act(body)
    assert answer.status == 404
    assert UUID in answer.message


@BOTH
@pytest.mark.parametrize(
    "refusal",
    [
        ext_exception.QuiesceTimeoutTooLong(timeout=601, max=600),
        ext_exception.QuiesceAgentNotEnabled(instance_uuid=UUID),
        ext_exception.QuiesceComputeTooOld(instance_uuid=UUID),
        ext_exception.QuiesceNotSupported(instance_uuid=UUID),
        ext_exception.StateDatabaseMissing(database="nova_cell1"),
        ext_exception.StateDatabaseDenied(database="nova_cell1", name="nova_ext"),
        ext_exception.ConductorTooOld(objname="QuiesceWindow"),
    ],
    ids=lambda refusal: type(refusal).__name__,
)
def test_what_is_missing_somewhere_is_400(
    act: Act, compute_api: ComputeAPI, body: Any, refusal: exception.NovaException
) -> None:
    compute_api.fails = refusal
    answer = act(body)
    assert answer.status == 400
    assert answer.message == refusal.format_message()
