# SPDX-License-Identifier: Apache-2.0
"""QuiesceManager where a whole nova cannot reach: each interleaving by hand.

No thread runs here by itself: those of nova-compute run when the test says so.
"""

import pathlib
from collections.abc import Iterator
from typing import Any

import oslo_messaging as messaging
import pytest
from nova import context as nova_context
from nova import exception
from oslo_utils import uuidutils

from nova_ext.compute.quiesce import manager as quiesce
from nova_ext.guard.records import Phase
from nova_ext.objects.quiesce_window import QuiesceStatus, QuiesceWindow
from tests.unit.compute.quiesce import world as worlds
from tests.unit.compute.quiesce.world import HOST, UUID, World, request

FINISHED = ("event_finish", "compute_unquiesce_instance")
QUIESCED = ("event_finish", "compute_quiesce_instance")


@pytest.fixture
def world(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A host whose nova-compute runs, without its periodic task."""
    world = World(tmp_path)
    worlds.install(world, monkeypatch)
    world.start_compute(reconciling=False)
    world.scheduler.run()
    yield world
    world.stop(world.compute)
    world.stop(world.guard)
    assert not world.scheduler.failures


def order(
    world: World, number: int = 1, timeout: int = 60, partial: bool = False
) -> None:
    """Quiesce; the caller gets its answer and no more happens."""
    instance = world.database.instance()
    world.do(world.manager.quiesce, request(number), instance, timeout, partial)


def unquiesce(world: World, number: int = 2) -> None:
    """Unquiesce, and let all do what follows from it."""
    call = world.call(
        world.manager.unquiesce, request(number), world.database.instance()
    )
    world.scheduler.advance(5)
    call.result()


def quiesced(world: World) -> None:
    """Quiesce, and let the guest be frozen."""
    order(world)
    world.scheduler.run()
    assert world.guest.frozen is not None


def reconcile(world: World) -> None:
    world.call(world.manager.reconcile, nova_context.get_admin_context())
    world.scheduler.run()


def settle(world: World, seconds: float = 120) -> None:
    world.scheduler.advance(seconds, grain=1.0)


def finished(world: World) -> list[tuple[Any, ...]]:
    """How each event ended."""
    return [each[1:] for each in world.database.log if each[0] == "event_finish"]


def saved(world: World) -> list[Any]:
    """What was written to the row."""
    return [each[1] for each in world.database.log if each[0] == "save"]


def restart(world: World) -> None:
    """nova-compute dies, and is started again."""
    world.stop(world.compute)
    world.start_compute(reconciling=False)
    reconcile(world)


def leave_row(world: World, status: QuiesceStatus, reason: str = "") -> None:
    """Let the database be as a nova-compute that died left it, and no record."""
    left = QuiesceWindow(
        instance_uuid=UUID,
        window_id=uuidutils.generate_uuid(),
        change_id=uuidutils.generate_uuid(),
        status=status,
        request_id="req-1",
        timeout=60,
        partial=False,
        left_out=None,
        quiesced_at=None,
        reason=reason,
    )
    world.database.stored = {**left.row(), "created_at": None, "updated_at": None}
    world.database.actions = [("req-1", "quiesce")]
    world.database.events = {("req-1", "compute_quiesce_instance"): []}


def release(world: World) -> None:
    """What os-resetState writes, whose message to the host is lost."""
    stored = world.database.stored
    assert stored is not None
    change_id = uuidutils.generate_uuid()
    world.database.stored = {**stored, "status": "released", "change_id": change_id}


# The order of what is recorded


def test_what_a_window_records_in_order(world: World) -> None:
    order(world)
    # Written before the guest is touched, and before the caller gets its answer.
    assert world.database.log == [
        ("save", "quiescing"),
        ("action_start", "quiesce", "req-1"),
    ]
    assert world.guest.log == []
    world.scheduler.run()
    unquiesce(world)
    assert world.guest.log == ["freeze", "thaw"]
    assert world.database.log[2:] == [
        ("event_start", "compute_quiesce_instance", "req-1"),
        ("notify", "quiesce", "start", False),
        ("save", "quiesced"),
        ("event_finish", "compute_quiesce_instance", "req-1", None),
        ("notify", "quiesce", "end", True),
        ("save", "unquiescing"),
        ("action_start", "unquiesce", "req-2"),
        ("event_start", "compute_unquiesce_instance", "req-2"),
        ("notify", "unquiesce", "start", True),
        ("save", None),  # whoever hears of the end may begin anew
        ("event_finish", "compute_unquiesce_instance", "req-2", None),
        ("notify", "unquiesce", "end", True),
    ]
    assert world.database.stored is None
    assert world.record is None
    assert not world.manager._windows


def test_the_guest_is_thawed_in_time_though_nothing_can_be_recorded(
    world: World,
) -> None:
    order(world)
    world.database.up = False
    world.scheduler.advance(59)
    assert world.guest.frozen is not None
    world.scheduler.advance(2)
    assert world.guest.log == ["freeze", "thaw"]
    assert world.database.row.status == "quiescing"
    assert UUID in world.manager._windows  # until its records are written
    world.database.up = True
    settle(world)
    assert world.database.row.status == "broken"
    assert "thawed it" in world.database.row.reason
    assert not world.manager._windows


def test_start_is_told_as_it_was_when_the_bus_is_slow(world: World) -> None:
    order(world)
    world.database.up = False
    world.scheduler.advance(1)
    assert world.guest.frozen is not None
    world.database.up = True
    settle(world)
    notified = [each[1:] for each in world.database.log if each[0] == "notify"]
    assert notified[0] == ("quiesce", "start", False)


# Conflicts


def test_without_a_quiescer_quiesce_is_not_supported(world: World) -> None:
    manager = quiesce.QuiesceManager(HOST, None)
    with pytest.raises(exception.InstanceQuiesceNotSupported):
        manager.quiesce(request(1), world.database.instance(), 60, False)
    assert world.database.log == []


def test_second_window_is_a_conflict(world: World) -> None:
    order(world)
    before = list(world.database.log)
    with pytest.raises(exception.InstanceInvalidState, match="quiescing"):
        order(world, 2)
    assert world.database.log == before


@pytest.mark.parametrize(
    "change", [{"task_state": "rebooting"}, {"vm_state": "stopped"}]
)
def test_quiesce_that_loses_the_race_for_the_instance_is_a_conflict(
    world: World, change: dict[str, str]
) -> None:
    vars(world.database).update(change)
    with pytest.raises(exception.InstanceInvalidState):
        order(world)
    world.scheduler.run()
    assert world.database.stored is None
    assert world.guest.log == []
    assert not world.manager._windows


def test_unquiesce_before_the_freeze_is_a_conflict(world: World) -> None:
    order(world)
    with pytest.raises(exception.InstanceInvalidState, match="quiescing"):
        world.do(world.manager.unquiesce, request(2), world.database.instance())


def test_second_unquiesce_is_a_conflict(world: World) -> None:
    quiesced(world)
    first = world.call(world.manager.unquiesce, request(2), world.database.instance())
    world.scheduler.step(world.scheduler.tasks[-1])
    with pytest.raises(exception.InstanceInvalidState):
        world.do(world.manager.unquiesce, request(3), world.database.instance())
    world.scheduler.run()
    first.result()
    assert not [each for each in world.database.log if "req-3" in each]


def test_unquiesce_of_nothing_is_a_conflict(world: World) -> None:
    with pytest.raises(exception.InstanceInvalidState, match="null"):
        unquiesce(world)


def test_unquiesce_of_a_row_without_window_sees_to_its_end(world: World) -> None:
    quiesced(world)
    world.stop(world.compute)
    world.start_compute(reconciling=False)
    with pytest.raises(exception.InstanceInvalidState):
        unquiesce(world)
    settle(world)
    assert world.guest.log == ["freeze", "thaw"]
    assert world.database.row.status == "broken"


def test_unquiesce_thaws_though_it_cannot_be_recorded(world: World) -> None:
    quiesced(world)
    world.database.up = False
    unquiesce(world)  # its answer does not wait for the bus either
    assert world.guest.log == ["freeze", "thaw"]
    world.database.up = True
    settle(world)
    assert world.database.stored is None
    assert finished(world)[-1][-2:] == ("req-2", None)


def test_unquiesce_after_the_deadline_is_a_conflict(world: World) -> None:
    """Also when the guard has not come to it yet."""
    quiesced(world)
    world.scheduler.now += 60
    with pytest.raises(exception.InstanceInvalidState):
        world.do(world.manager.unquiesce, request(2), world.database.instance())


# An order that cannot be recorded


def test_quiesce_that_cannot_be_recorded_leaves_nothing(world: World) -> None:
    world.database.down_for = {"save"}
    instance = world.database.instance()
    call = world.call(world.manager.quiesce, request(1), instance, 60, False)
    world.scheduler.advance(15)
    with pytest.raises(messaging.MessagingTimeout):
        call.result()
    world.database.down_for.clear()
    settle(world)
    assert world.guest.log == []
    # Else the server is "quiescing", and refused everything, until a restart.
    assert world.database.stored is None
    assert not world.manager._windows


def test_quiesce_does_not_wait_for_its_action(world: World) -> None:
    world.database.down_for = {"action_start"}
    instance = world.database.instance()
    call = world.call(world.manager.quiesce, request(1), instance, 60, False)
    world.scheduler.advance(5)
    call.result()
    assert world.guest.log == ["freeze"]
    world.database.down_for.clear()
    world.scheduler.advance(20)
    assert finished(world) == [("compute_quiesce_instance", "req-1", None)]


@pytest.mark.parametrize("what", ["action_start", "event_start", "event_finish"])
def test_unquiesce_of_a_broken_window_that_cannot_be_recorded_may_be_repeated(
    world: World, what: str
) -> None:
    leave_row(world, QuiesceStatus.BROKEN)
    world.database.down_for = {what}
    instance = world.database.instance()
    call = world.call(world.manager.unquiesce, request(2), instance)
    world.scheduler.advance(15)
    with pytest.raises(messaging.MessagingTimeout):
        call.result()
    world.database.down_for.clear()
    assert not world.manager._windows
    unquiesce(world, 3)
    assert world.database.stored is None
    assert finished(world)[-1][1] == "req-3"


def test_freeze_that_fails_unexpectedly_is_a_failed_quiesce(world: World) -> None:
    def nonsense() -> None:
        world.guest.before["freeze"] = nonsense
        raise ZeroDivisionError

    world.guest.before["freeze"] = nonsense
    order(world)
    settle(world)
    assert world.database.stored is None
    assert world.record is None
    ((event, _request, failure),) = finished(world)
    assert event == "compute_quiesce_instance"
    assert failure is not None


# After a restart


@pytest.mark.parametrize(
    ("status", "told", "left"),
    [
        ("quiescing", ["compute_quiesce_instance"], None),
        ("unquiescing", ["compute_quiesce_instance"], None),
        (
            "released",
            ["compute_unquiesce_instance", "compute_quiesce_instance"],
            None,
        ),
        ("broken", [], "broken"),
    ],
)
def test_resume_of_a_row_whose_record_is_lost(
    world: World, status: str, told: list[str], left: str | None
) -> None:
    leave_row(world, QuiesceStatus(status))
    world.guest._freeze()
    reconcile(world)
    settle(world)
    assert (world.guest.frozen is None) == (status != "broken")
    assert [event for event, *_ in finished(world)] == told
    row = world.database.row
    assert (row and row.status.value) == left
    assert world.record is None
    assert not world.manager._windows


def test_resume_without_row_does_nothing(world: World) -> None:
    reconcile(world)
    assert not world.manager._windows
    assert world.database.log == []


def test_resumed_window_lasts_until_its_deadline(world: World) -> None:
    quiesced(world)
    world.scheduler.advance(25)
    restart(world)
    world.scheduler.advance(34)
    assert world.guest.frozen is not None
    world.scheduler.advance(2)
    assert world.guest.frozen is None


def test_resumed_window_is_unquiesced_with_its_proof(world: World) -> None:
    quiesced(world)
    restart(world)
    unquiesce(world)
    assert (*FINISHED, "req-2", None) in world.database.log
    assert world.database.stored is None


def test_restart_while_the_switch_thaws_still_says_that_it_fired(world: World) -> None:
    """The deadline passed and the agent hung; then nova-compute died."""
    quiesced(world)
    world.guest.hangs = True
    world.scheduler.advance(70)
    world.stop(world.compute)
    world.guest.wake()
    restart(world)
    settle(world)
    (_, (event, request_id, failure)) = finished(world)
    assert event == "compute_unquiesce_instance"
    assert request_id != "req-1"  # that is the quiesce, which ended long ago
    assert failure is not None
    assert world.database.row.status == "broken"


# What a nova-compute that died in the midst of it did not come to tell


@pytest.mark.parametrize("writes", range(12))
def test_a_crash_loses_no_quiesce(world: World, writes: int) -> None:
    """Whatever was the last that it wrote, once its caller had got its answer."""
    order(world)
    world.compute.writes_left = writes
    world.scheduler.run()
    restart(world)
    settle(world)
    told = [each for each in finished(world) if each[0] == QUIESCED[1]]
    assert len({failure is None for *_, failure in told}) == 1
    assert world.guest.frozen is None


@pytest.mark.parametrize("writes", range(14))
def test_a_crash_loses_no_unquiesce(world: World, writes: int) -> None:
    quiesced(world)
    world.compute.writes_left = writes
    call = world.call(world.manager.unquiesce, request(2), world.database.instance())
    world.scheduler.run()
    restart(world)
    settle(world)
    told = [failure for event, req, failure in finished(world) if req == "req-2"]
    assert len({failure is None for failure in told}) == 1 or not call.done
    assert world.guest.frozen is None
    assert world.record is None


def test_a_crash_before_the_action_is_there_leaves_no_row_for_ever(
    world: World,
) -> None:
    """An event cannot be told then, which must not be tried again and again."""
    quiesced(world)
    world.compute.writes_left = 0
    world.database.down_for = {"action_start"}
    world.call(world.manager.unquiesce, request(2), world.database.instance())
    world.scheduler.run()
    world.database.down_for.clear()
    world.database.actions.clear()
    restart(world)
    settle(world)
    assert world.database.stored is None


@pytest.mark.parametrize("writes", range(12))
def test_a_crash_while_the_switch_thaws_leaves_no_record(
    world: World, writes: int
) -> None:
    quiesced(world)
    world.compute.writes_left = writes
    settle(world, 70)
    restart(world)
    settle(world, 10)
    assert world.database.row.status == "broken"
    assert world.guest.frozen is None
    assert world.record is None


def test_a_release_tells_the_quiesce_that_was_not_told(world: World) -> None:
    order(world)
    world.stop(world.compute)
    release(world)
    restart(world)
    settle(world)
    told = {(event, each): failure for event, each, failure in finished(world)}
    assert told["compute_quiesce_instance", "req-1"] is not None
    assert world.database.stored is None


# Ends that nobody ordered


def test_interruption_is_the_reason_of_the_next_unquiesce_once(world: World) -> None:
    quiesced(world)
    world.manager.interrupt(UUID, "the server was rebooted")
    settle(world, 5)
    assert world.database.row.reason == "the server was rebooted"
    world.database.log.clear()
    unquiesce(world)
    ((_event, request_id, failure),) = finished(world)
    assert request_id == "req-2"
    assert "the server was rebooted" in failure
    assert world.database.stored is None
    with pytest.raises(exception.InstanceInvalidState):
        unquiesce(world, 3)


def test_first_interruption_counts(world: World) -> None:
    quiesced(world)
    world.manager.interrupt(UUID, "the server was rebooted")
    world.manager.interrupt(UUID, "the guest was destroyed")
    settle(world, 5)
    assert world.database.row.reason == "the server was rebooted"


def test_interruption_without_window_is_nothing(world: World) -> None:
    world.manager.interrupt(UUID, "the server was rebooted")
    assert world.database.log == []


@pytest.mark.parametrize(
    "change", [{"host": "compute2"}, {"task_state": "deleting"}], ids=["moved", "gone"]
)
def test_nothing_is_written_to_an_instance_that_left(
    world: World, change: dict[str, str]
) -> None:
    order(world)
    vars(world.database).update(change)
    settle(world)
    assert world.guest.log == ["freeze", "thaw"]
    assert saved(world) == ["quiescing"]


def test_task_that_began_meanwhile_ends_the_window(world: World) -> None:
    order(world)
    world.database.task_state = "powering-off"
    settle(world, 10)
    assert "powering-off" in world.database.row.reason


def test_task_that_is_given_back_leaves_the_window_alone(world: World) -> None:
    """A stop of the same moment took the task state, then found the row."""
    order(world)
    world.database.task_state = "powering-off"
    world.scheduler.advance(2)
    world.database.task_state = None
    unquiesce(world)
    assert (*FINISHED, "req-2", None) in world.database.log
    assert "quiesced" in saved(world)


def test_a_guest_whose_memory_is_lost_ends_the_window(world: World) -> None:
    quiesced(world)
    world.manager.interrupt(UUID, "the server was powered off")
    world.guest.kill(known=False)
    world.manager.lose(UUID, "the server was powered off")
    settle(world, 5)
    assert world.database.row.status == "broken"
    assert world.record is None


def test_a_guest_that_was_saved_is_thawed_when_it_is_back(world: World) -> None:
    quiesced(world)
    world.guest.save()
    settle(world, 300)
    assert world.database.row.status == "unquiescing"
    assert world.record.phase is Phase.FROZEN
    world.guest.start()
    settle(world, 5)
    assert world.guest.frozen is None
    assert world.database.row.status == "broken"


# While a thaw does not succeed


def test_thaw_is_repeated_each_second_and_told_once(world: World) -> None:
    quiesced(world)
    world.guest.hangs = True
    unquiesce(world)
    settle(world, 100)
    (_, (event, request_id, failure)) = finished(world)
    assert (event, request_id) == (FINISHED[1], "req-2")
    assert "not thawed yet" in failure
    world.guest.wake()
    settle(world, 5)
    assert world.guest.frozen is None
    assert len(finished(world)) == 2
    assert world.database.stored is None


def test_unexpected_error_of_a_thaw_is_repeated(world: World) -> None:
    quiesced(world)

    def fail() -> None:
        raise ZeroDivisionError

    world.guest.before["thaw"] = fail
    unquiesce(world)
    settle(world, 5)
    assert world.guest.frozen is None
    assert world.database.log[-2][:2] != FINISHED or world.database.stored is None


def test_guest_that_is_gone_needs_no_thaw(world: World) -> None:
    quiesced(world)
    world.guest.kill()
    unquiesce(world)
    assert world.guest.log == ["freeze"]
    assert "powered off" in finished(world)[-1][-1]
    assert world.database.stored is None


def test_freeze_that_was_refused_is_not_thawed(world: World) -> None:
    world.guest.refuses = True
    order(world)
    settle(world, 5)
    assert world.guest.log == ["freeze"]
    assert world.database.stored is None
    assert world.record is None


def test_thaw_hook_that_fails_is_no_failure(world: World) -> None:
    quiesced(world)
    world.guest.bad_hook = True
    unquiesce(world)
    assert finished(world)[-1] == ("compute_unquiesce_instance", "req-2", None)


def test_file_system_that_cannot_be_frozen(world: World) -> None:
    world.guest.types.append("vfat")
    order(world)
    settle(world, 60)
    ((_event, _request, failure),) = finished(world)
    assert "/vfat" in failure
    assert world.guest.frozen is None
    order(world, 2, partial=True)
    settle(world, 1)
    assert world.database.row.left_out == '["/vfat"]'
    unquiesce(world)
    assert finished(world)[-1] == ("compute_unquiesce_instance", "req-2", None)
    told = "without the file systems /vfat"
    assert set(world.database.details.values()) == {told}
    assert len(world.database.details) == 2  # of quiesce and unquiesce


def test_without_space_for_a_record_nothing_is_frozen(world: World) -> None:
    world.disk_full = True
    order(world)
    settle(world, 60)
    assert world.guest.log == []
    ((_event, _request, failure),) = finished(world)
    assert failure is not None


# What a nova-compute that dies leaves to the next one


def test_quiesce_without_an_answer_leaves_the_row_of_another_window(
    world: World,
) -> None:
    order(world)
    world.stop(world.compute)
    world.start_compute(reconciling=False)
    before = world.database.stored
    world.database.up = False
    begun = world.call(
        world.manager.quiesce, request(2), world.database.instance(), 60, False
    )
    world.scheduler.advance(worlds.RPC_TIMEOUT)
    with pytest.raises(messaging.MessagingTimeout):
        begun.result()
    world.database.up = True
    world.scheduler.advance(60)
    assert world.database.stored == before


@pytest.mark.parametrize("writes", range(12))
def test_outcome_is_told_before_another_window_begins(
    world: World, writes: int
) -> None:
    quiesced(world)
    assert world.compute is not None
    world.compute.writes_left = writes
    asked = world.call(world.manager.unquiesce, request(2), world.database.instance())
    world.scheduler.advance(5)
    world.stop(world.compute)
    world.start_compute(reconciling=False)
    world.call(world.manager.quiesce, request(3), world.database.instance(), 60, False)
    world.scheduler.advance(5)
    world.call(world.manager.reconcile, nova_context.get_admin_context())
    world.scheduler.advance(5)
    told = world.database.events.get(("req-2", "compute_unquiesce_instance"))
    assert told or not asked.done


@pytest.mark.parametrize("writes", range(12))
def test_request_for_a_guest_that_was_lost_is_told(world: World, writes: int) -> None:
    """Whenever the nova-compute that has taken up its window dies."""
    quiesced(world)
    world.guest.hangs = True
    unquiesce(world)
    world.stop(world.compute)
    world.start_compute(reconciling=False)
    world.guest.kill()
    world.manager.lose(UUID, "the server was powered off")
    assert world.compute is not None
    world.compute.writes_left = writes
    for _start in range(2):
        world.call(world.manager.reconcile, nova_context.get_admin_context())
        world.scheduler.advance(5)
        world.stop(world.compute)
        world.start_compute(reconciling=False)
    told = world.database.events["req-2", "compute_unquiesce_instance"]
    assert set(told) == {told[0]} != {None}
    assert world.record is None


# What images ask


def test_holds(world: World) -> None:
    instance = world.database.instance()
    assert not world.manager.holds(instance)
    order(world)
    with pytest.raises(exception.InstanceQuiesceFailed):
        world.manager.holds(instance)
    world.scheduler.run()
    assert world.manager.holds(instance)
    settle(world)
    assert not world.manager.holds(instance)


# Others at the row


def test_each_try_of_a_record_names_the_same_change(world: World) -> None:
    """So that the database knows a change again whose answer was lost."""
    update = world.database.quiesce_window_update
    asked: list[str] = []

    def note(*args: Any, **kwargs: Any) -> dict[str, Any]:
        asked.append(args[3]["change_id"])
        if len(asked) == 1:
            raise messaging.MessagingTimeout("the answer")
        return update(*args, **kwargs)

    world.database.quiesce_window_update = note  # type: ignore[method-assign]
    order(world)
    settle(world)
    assert asked[0] == asked[1]
    assert len(set(asked)) == len(asked) - 1


@pytest.mark.parametrize("arrives", [False, True])
def test_os_reset_state_ends_the_window(world: World, arrives: bool) -> None:
    quiesced(world)
    release(world)
    if arrives:
        window_id = world.database.stored["window_id"]
        instance = world.database.instance()
        world.call(world.manager.release, request(9), instance, window_id)
    else:
        reconcile(world)
    settle(world, 5)  # it does not wait for its deadline
    assert world.guest.log == ["freeze", "thaw"]
    assert world.database.stored is None
    (told,) = [each for each in world.database.log if each[:2] == FINISHED]
    assert told[3] is not None


def test_a_release_of_an_earlier_window_leaves_this_one_alone(world: World) -> None:
    quiesced(world)
    instance = world.database.instance()
    world.do(world.manager.release, request(9), instance, uuidutils.generate_uuid())
    settle(world, 5)
    assert world.guest.frozen is not None


def test_a_restored_database_is_corrected_by_the_host(world: World) -> None:
    quiesced(world)
    change_id = uuidutils.generate_uuid()
    world.database.stored |= {"status": "quiescing", "change_id": change_id}
    unquiesce(world)
    assert world.database.stored is None
    assert (*FINISHED, "req-2", None) in world.database.log


def test_a_restored_database_without_the_row_ends_the_window(world: World) -> None:
    quiesced(world)
    world.database.stored = None
    reconcile(world)
    settle(world, 5)
    assert world.guest.log == ["freeze", "thaw"]
    assert world.database.stored is None
    (told,) = [each for each in world.database.log if each[:2] == FINISHED]
    assert "its record was removed" in told[3]


def test_a_record_without_row_or_window_ends(world: World) -> None:
    quiesced(world)
    world.stop(world.compute)
    world.database.stored = None
    restart(world)
    assert world.guest.frozen is None
    assert world.record is None


def test_a_window_is_left_alone_while_its_row_is_there(world: World) -> None:
    quiesced(world)
    reconcile(world)
    settle(world, 55)
    assert world.guest.frozen is not None


def test_a_window_that_is_just_being_recorded_is_left_alone(world: World) -> None:
    world.call(world.manager.quiesce, request(1), world.database.instance(), 60, False)
    world.scheduler.step(world.scheduler.tasks[-1])
    assert world.database.stored is None
    reconcile(world)
    unquiesce(world)
    assert (*FINISHED, "req-2", None) in world.database.log


def test_a_thread_that_cannot_start_leaves_nothing(world: World) -> None:
    world.threads_left = 1  # that of the queue
    with pytest.raises(RuntimeError):
        order(world)
    settle(world, 5)
    assert world.guest.log == []
    assert world.database.stored is None
    assert not world.manager._windows


def test_a_row_of_another_window_is_a_conflict(world: World) -> None:
    leave_row(world, QuiesceStatus.RELEASED)
    with pytest.raises(exception.InstanceInvalidState, match="released"):
        order(world, 2)
    settle(world, 5)
    assert world.guest.log == []
    assert world.database.row is not None
