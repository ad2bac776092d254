# SPDX-License-Identifier: Apache-2.0
"""Who may quiesce and unquiesce a server, as nova's own enforcer judges it."""

from typing import Any

import pytest

from nova_ext.policies import quiesce_server
from tests.unit import people
from tests.unit.people import OTHER_PROJECT, PROJECT

ACTIONS = ("quiesce", "unquiesce")
SERVER = {"project_id": PROJECT, "user_id": "owner"}


@pytest.fixture(autouse=True)
def enforcer(monkeypatch: pytest.MonkeyPatch) -> None:
    people.enforce(monkeypatch)


def can(context: Any, action: str) -> bool:
    """Whether a request may do it to a server of PROJECT."""
    rule = quiesce_server.POLICY_ROOT % action
    return bool(context.can(rule, target=SERVER, fatal=False))


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    ("roles", "project"),
    [
        (("member", "reader"), PROJECT),
        (("manager", "member", "reader"), PROJECT),
        (("admin", "manager", "member", "reader"), PROJECT),
        (("admin", "manager", "member", "reader"), OTHER_PROJECT),
    ],
)
def test_a_member_of_the_project_and_an_administrator_may(
    roles: tuple[str, ...], project: str, action: str
) -> None:
    assert can(people.someone(*roles, project=project), action)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    ("roles", "project"),
    [
        ((), PROJECT),
        (("reader",), PROJECT),
        (("service",), PROJECT),
        (("member", "reader"), OTHER_PROJECT),
        (("manager", "member", "reader"), OTHER_PROJECT),
        (("member", "reader"), None),
    ],
)
def test_a_reader_and_another_project_may_not(
    roles: tuple[str, ...], project: str | None, action: str
) -> None:
    assert not can(people.someone(*roles, project=project), action)


@pytest.mark.parametrize("action", ACTIONS)
def test_the_owner_needs_the_role_too(action: str) -> None:
    assert not can(people.someone("reader", user="owner"), action)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("scope", [{"system_scope": "all"}, {"domain_id": "default"}])
def test_a_token_of_no_project_may_not(scope: dict[str, str], action: str) -> None:
    assert not can(people.admin(project=None, **scope), action)


@pytest.mark.parametrize(("allowed", "refused"), [ACTIONS, ACTIONS[::-1]])
def test_an_operator_changes_one_without_the_other(
    allowed: str, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = quiesce_server.POLICY_ROOT % refused
    people.enforce(monkeypatch, {rule: "rule:context_is_admin"})
    assert can(people.member(), allowed)
    assert not can(people.member(), refused)
    assert can(people.admin(), refused)
