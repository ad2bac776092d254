# SPDX-License-Identifier: Apache-2.0
"""A task state that was taken in vain is given back, unless somebody else has it."""

import pytest
from nova import exception

from nova_ext.compute import task_state
from tests.unit.compute.surroundings import UUID, Instance, Steps


@pytest.fixture
def steps() -> Steps:
    return Steps()


@pytest.fixture
def instance(steps: Steps) -> Instance:
    made = Instance(steps)
    made.task_state = made.stored = "pausing"
    return made


def refuse(instance: Instance) -> None:
    with pytest.raises(ZeroDivisionError, match="why"), task_state.given_back(instance):
        raise ZeroDivisionError("why")


def test_nothing_is_given_back_after_a_success(
    steps: Steps, instance: Instance
) -> None:
    with task_state.given_back(instance):
        pass
    assert (instance.task_state, steps.taken) == ("pausing", [])


def test_a_failure_gives_it_back(steps: Steps, instance: Instance) -> None:
    refuse(instance)
    assert (instance.task_state, instance.stored) == (None, None)
    assert steps.taken == [("save", None)]


def test_one_that_somebody_else_has_taken_is_left(
    steps: Steps, instance: Instance
) -> None:
    instance.stored = "deleting"
    refuse(instance)
    assert instance.stored == "deleting"
    assert steps.taken == [("save", None)]


def test_a_server_that_is_gone_does_not_hide_why(
    steps: Steps, instance: Instance
) -> None:
    steps.fails["save"] = exception.InstanceNotFound(instance_id=UUID)
    refuse(instance)
    assert steps.taken == [("save", None)]


def test_another_failure_is_told_too(steps: Steps, instance: Instance) -> None:
    steps.fails["save"] = RuntimeError("the database is down")
    with pytest.raises(RuntimeError) as told, task_state.given_back(instance):
        raise ZeroDivisionError("why")
    assert isinstance(told.value.__context__, ZeroDivisionError)
