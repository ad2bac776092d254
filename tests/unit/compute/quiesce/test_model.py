# SPDX-License-Identifier: Apache-2.0
"""The life of a freeze window as a model: whatever happens, and in whatever order.

HYPOTHESIS_EXAMPLES in the environment is the number of sequences for a long run, which
then takes others each time; without it the same ones are taken, as CI wants it.
"""

import logging
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
from hypothesis import stateful
from hypothesis import strategies as st
from oslo_utils import uuidutils

from nova_ext.compute.quiesce import window
from nova_ext.compute.quiesce.window import EVENTS, QUIESCE, UNQUIESCE
from nova_ext.guard import loop
from nova_ext.guard.records import Phase
from nova_ext.objects.quiesce_window import VISIBLE, QuiesceStatus
from tests.unit.compute.quiesce import world as worlds
from tests.unit.compute.quiesce.world import UUID, World

_EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "0"))

#: Seconds for which a guest may stay frozen after its deadline, and a row without a
#: window, while somebody could do something about it.
_LONGEST_FROZEN = 30
_LONGEST_ORPHAN = worlds.RECONCILE_EVERY + worlds.RPC_TIMEOUT

_GRAIN = 2.0

TIMEOUTS = st.sampled_from([2, 20, 60])


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Order:
    """A request, and what was true when it came."""

    def __init__(self, action: str, number: int, partial: bool = False) -> None:
        self.action, self.partial = action, partial
        self.context = worlds.request(number)
        self.event = (self.context.request_id, EVENTS[action])
        self.at = 0.0
        self.episode: int | None = None
        self.in_time = False
        self.accepted = False


class Life(stateful.RuleBasedStateMachine):
    """One guest on one host."""

    def __init__(self) -> None:
        super().__init__()
        self._patch = pytest.MonkeyPatch()
        self._directory = tempfile.TemporaryDirectory()
        self.world = World(pathlib.Path(self._directory.name))
        worlds.install(self.world, self._patch)
        for module in (window, loop):
            self._patch.setattr(module.LOG, "exception", self._unexpected)
        self.scheduler, self.guest = self.world.scheduler, self.world.guest
        self.database = self.world.database
        self.world.told = self._told
        self.scheduler.passed = self._passed
        self.orders: dict[str, Order] = {}
        #: What must not be, and was.
        self.wrong: list[str] = []
        self.deadline: float | None = None
        self.overdue = self.orphan = 0.0
        self.world.start_compute()
        self.scheduler.run()

    # Requests.

    def _order(self, order: Order, *args: Any) -> None:
        manager, database = self.world.manager, self.database
        self.orders[order.context.request_id] = order

        def carry_out() -> None:
            record = self.world.record
            order.at, order.episode = self.scheduler.now, self.guest.frozen
            order.in_time = bool(
                record
                and record.phase is Phase.FROZEN
                and record.left(self.world.clock())
            )
            getattr(manager, order.action)(order.context, database.instance(), *args)
            order.accepted = database.up

        self.world.call(carry_out)

    # Each runs to its end at once, or as the steps below let it.

    @stateful.initialize(timeout=TIMEOUTS, at_once=st.booleans())
    def begin(self, timeout: int, at_once: bool) -> None:
        self.quiesce(timeout, False, at_once)

    @stateful.precondition(lambda self: self.world.compute.alive)
    @stateful.rule(timeout=TIMEOUTS, partial=st.booleans(), at_once=st.booleans())
    def quiesce(self, timeout: int, partial: bool, at_once: bool) -> None:
        order = Order(QUIESCE, len(self.orders), partial)
        self._order(order, timeout, partial)
        if at_once:
            self.scheduler.run()

    @stateful.precondition(lambda self: self.world.compute.alive)
    @stateful.rule(at_once=st.booleans())
    def unquiesce(self, at_once: bool) -> None:
        self._order(Order(UNQUIESCE, len(self.orders)))
        if at_once:
            self.scheduler.run()

    @stateful.precondition(lambda self: self.database.stored)
    @stateful.rule(arrives=st.booleans())
    def reset_state(self, arrives: bool) -> None:
        stored = self.database.stored
        if stored["status"] not in VISIBLE:
            return
        self.database.stored = {
            **stored,
            "status": QuiesceStatus.RELEASED.value,
            "change_id": uuidutils.generate_uuid(),
        }
        if arrives and self.world.compute.alive:
            self.world.call(
                self.world.manager.release,
                worlds.request(0),
                self.database.instance(),
                stored["window_id"],
            )

    @stateful.precondition(lambda self: self.world.compute.alive)
    @stateful.rule(again=st.booleans())
    def stop(self, again: bool) -> None:
        manager, guest = self.world.manager, self.guest

        def carry_out() -> None:
            manager.refuse(self.database.instance(), "stop", True)
            manager.interrupt(UUID, "the server was powered off")
            self.scheduler.pause()
            guest.kill()
            self.scheduler.pause()
            manager.lose(UUID, "the server was powered off")
            if again:
                guest.start()

        self.world.call(carry_out)

    # Threads and time.

    @stateful.rule(picks=st.lists(st.integers(0, 5), min_size=4, max_size=20))
    def go_on(self, picks: list[int]) -> None:
        for pick in picks:
            tasks = self.scheduler.runnable()
            if not tasks:
                return
            self.scheduler.step(tasks[pick % len(tasks)])

    @stateful.rule(seconds=st.sampled_from([0.5, 3.0, 20.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        self.scheduler.advance(seconds, _GRAIN)

    # What goes wrong, and right again: a rule for a kind, lest requests be rare.

    @stateful.rule(
        what=st.sampled_from(
            ["hangs", "status", "freeze", "thaw", "wakes", "wakes", "busy", "free"]
        )
    )
    def agent(self, what: str) -> None:
        if what == "wakes":
            self.guest.wake()
        elif what == "free":
            self.guest.free()
        elif what in ("hangs", "busy"):
            setattr(self.guest, what, True)
        else:
            self.guest.hangs_at = what

    @stateful.rule(refuses=st.booleans(), bad_hook=st.booleans(), vfat=st.booleans())
    def inside(self, refuses: bool, bad_hook: bool, vfat: bool) -> None:
        self.guest.refuses, self.guest.bad_hook = refuses, bad_hook
        if not self.world.manager._windows:
            self.guest.types = ["ext4", "xfs", "vfat"] if vfat else ["ext4", "xfs"]

    @stateful.precondition(lambda self: self.guest.state == "running")
    @stateful.rule(
        what=st.sampled_from(["thaw", "refreeze", "killed", "unknown", "saved"])
    )
    def guest_changes(self, what: str) -> None:
        guest = self.guest
        if what == "saved":
            guest.save()
        elif what in ("killed", "unknown"):
            guest.kill(known=what == "killed")
        elif guest.frozen is not None and what == "refreeze":
            guest.thaw_and_refreeze()
        else:
            guest.thaw_itself()

    @stateful.precondition(lambda self: self.guest.state != "running")
    @stateful.rule()
    def guest_starts(self) -> None:
        self.guest.start()

    @stateful.rule(
        what=st.sampled_from(
            ["full", "not full", "down", "up", "up", "lost 1", "lost 2", "clock back"]
        )
    )
    def outside(self, what: str) -> None:
        if "full" in what:
            self.world.disk_full = what == "full"
        elif "lost" in what:
            self.database.answers_lost = int(what[-1])
        elif what == "clock back":
            self.world.wall -= 3600
        else:
            self.database.up = what == "up"

    # Processes.

    @stateful.precondition(lambda self: self.world.compute.alive)
    @stateful.rule(writes=st.integers(0, 8))
    def compute_crashes(self, writes: int) -> None:
        if writes:
            self.world.compute.writes_left = writes - 1
        else:
            self.world.stop(self.world.compute)

    @stateful.precondition(lambda self: not self.world.compute.alive)
    @stateful.rule()
    def compute_starts(self) -> None:
        self.world.start_compute()

    @stateful.rule(writes=st.integers(0, 3))
    def guard(self, writes: int) -> None:
        """It starts, or it crashes after so many writes."""
        world = self.world
        if world.guard is None or not world.guard.alive:
            world.start_guard()
        elif writes:
            world.guard.writes_left = writes - 1
        else:
            world.stop(world.guard)

    @stateful.rule(saved=st.booleans())
    def host_reboots(self, saved: bool) -> None:
        if saved and self.guest.state == "running":
            self.guest.save()
        self.world.reboot()

    def _unexpected(self, text: str, *args: Any) -> None:
        self.wrong.append(text % args + repr(sys.exc_info()[1]))

    # What is always so.

    def _told(self, request_id: str, event: str, failure: str | None) -> None:
        """An event has finished; the product would log what is raised here."""
        order = self.orders.get(request_id)
        if failure is not None:
            return
        if order is None:
            self.wrong.append("Success of what nobody asked for")
        elif order.action == QUIESCE:
            froze = [each for each in self.guest.froze.values() if each[0] >= order.at]
            if not froze:
                self.wrong.append("Success of a quiesce, and nothing was frozen")
            elif not order.partial and "vfat" in froze[0][1]:
                self.wrong.append("Success of a quiesce that left something out")
        else:
            if not order.in_time:
                self.wrong.append("Success of an unquiesce that came too late")
            if order.episode not in self.guest.froze:
                self.wrong.append("Success of an unquiesce after a gap")

    def _passed(self, seconds: float) -> None:
        world, guest = self.world, self.guest
        up = world.compute.alive or (world.guard and world.guard.alive)
        record = world.record
        due = record and not record.left(world.clock())
        able = not (guest.hangs or guest.hangs_at or guest.busy)
        if (
            guest.frozen is None
            or guest.state != "running"
            or not (up and due and able)
        ):
            self.overdue = 0.0
        else:
            self.overdue += seconds
        assert self.overdue <= _LONGEST_FROZEN + _GRAIN, "frozen for too long"
        row = self.database.stored
        if (
            row is None
            or row["status"] == QuiesceStatus.BROKEN
            or not (self.database.up and world.compute.alive)
            or self.database.answers_lost
            or UUID in world.manager._windows
        ):
            self.orphan = 0.0
        else:
            self.orphan += seconds
        assert self.orphan <= _LONGEST_ORPHAN + 2 * _GRAIN, "a row without a window"

    @stateful.invariant()
    def holds(self) -> None:
        assert not self.wrong
        assert not self.scheduler.failures
        if self.guest.frozen is not None:
            record = self.world.record
            assert record is not None, "frozen without a record"
            assert record.phase is not Phase.THAWED, "frozen with a record that ended"

    def settle(self) -> None:
        """Everything works again, and time passes."""
        world, guest, database = self.world, self.guest, self.database
        database.up, database.answers_lost, world.disk_full = True, 0, False
        for process in (world.compute, world.guard):
            if process:
                process.writes_left = None
        guest.refuses = guest.bad_hook = False
        guest.free()
        guest.wake()
        if guest.state != "running":
            guest.start()
        if not world.compute.alive:
            world.start_compute()
        for _turn in range(30):
            self.scheduler.advance(20, _GRAIN)
            row = database.stored
            if (
                (row is None or row["status"] == QuiesceStatus.BROKEN)
                and world.record is None
                and not world.manager._windows
            ):
                return
        raise AssertionError(("not settled", database.stored, world.record))

    def teardown(self) -> None:
        try:
            self.settle()
            self.holds()
            self._check_orders()
        finally:
            self.world.stop(self.world.compute)
            self.world.stop(self.world.guard)
            self._patch.undo()
            self._directory.cleanup()

    def _check_orders(self) -> None:
        for order in self.orders.values():
            told = self.database.events.get(order.event, [])
            kinds = {failure is None for failure in told}
            assert len(kinds) < 2, ("told twice", order.action, told)
            if order.accepted:
                assert told, ("never told", order.action, order.context.request_id)


TestLife = Life.TestCase
TestLife.settings = hypothesis.settings(
    max_examples=_EXAMPLES or 300,
    stateful_step_count=25,
    derandomize=not _EXAMPLES,
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(hypothesis.HealthCheck),
)
