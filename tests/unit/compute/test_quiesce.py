#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

"""QuiesceManager where a whole nova cannot reach: each interleaving by hand.

No thread runs here by itself: a window's thread runs when the test says so, and what
happens while it waits is a script of the test.
"""

import datetime
import itertools
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import nova.conf
import oslo_messaging as messaging
import pytest
from nova import context as nova_context
from nova import exception
from oslo_utils import timeutils

from nova_ext import conf
from nova_ext.compute import mark, quiesce
from nova_ext.virt import freezer

HOST = "compute1"
UUID = "0d4b1e9c-9f2f-4d2a-8b0c-6b0a3a4f7c11"
EVIDENCE = freezer.Evidence(domain_id=3, frozen=2, written=1200)
HUNG = freezer.ThawError("the guest agent does not answer")


class Cloud:
    """The database, the message bus, the clock and the guest of one instance.

    :ivar stored: the instance's system_metadata as the database has it
    :ivar records: what was written and sent, in order
    :ivar pending: records of open journals
    :ivar waits: what happens in each wait of a window's thread; none left: a timeout
    """

    def __init__(self) -> None:
        self.stored: dict[str, str] = {"image_os": "kept"}
        self.host = HOST
        self.vm_state = "active"
        self.task_state: str | None = None
        self.records: list[tuple[Any, ...]] = []
        self.pending: list[Callable[[], Any]] = []
        self.threads: list[Callable[[], None]] = []
        self.waits: list[Callable[[], Any]] = []
        self.now = datetime.datetime(2026, 11, 21, 10, 0, tzinfo=datetime.UTC)
        self.broken_bus: set[str] = set()
        self.freeze: Callable[[], freezer.Evidence] = lambda: EVIDENCE
        self.thaws: list[Any] = []
        self.guest: list[str] = []

    def instance(self) -> "Instance":
        return Instance(self)

    @property
    def mark(self) -> mark.Mark | None:
        """The mark in the database."""
        return mark.read(types.SimpleNamespace(system_metadata=self.stored))

    def flush(self) -> None:
        """Let the journals write."""
        while self.pending:
            self.pending.pop(0)()

    def run(self) -> None:
        """Let the windows' threads run to their end, and the journals after them."""
        while self.threads:
            self.threads.pop(0)()
        self.flush()

    def events(self) -> list[tuple[Any, ...]]:
        return [record for record in self.records if record[0] != "save"]


class Instance:
    uuid, project_id, user_id = UUID, "project", "user"

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self.system_metadata = dict(cloud.stored)
        self.host, self.task_state = cloud.host, cloud.task_state

    def save(
        self, expected_vm_state: Any = None, expected_task_state: Any = None
    ) -> None:
        cloud = self._cloud
        if "save" in cloud.broken_bus:
            raise messaging.MessagingTimeout("save")
        conflict = {"instance_uuid": UUID, "expected": {}, "actual": {}}
        if expected_task_state and cloud.task_state not in expected_task_state:
            raise exception.UnexpectedTaskStateError(**conflict)
        if expected_vm_state and cloud.vm_state not in expected_vm_state:
            raise exception.InstanceUpdateConflict(**conflict)
        cloud.stored = dict(self.system_metadata)
        saved = cloud.mark
        cloud.records.append(("save", saved and saved.status.value))


class FakeJournal:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud, self._closed = cloud, False

    def put(self, function: Callable[..., Any], *args: Any) -> None:
        assert not self._closed

        def write() -> None:
            try:
                function(*args)
            except exception.InstanceNotFound:
                self._cloud.records.append(("lost",))

        self._cloud.pending.append(write)

    def close(self) -> None:
        self._closed = True


class FakeThread:
    def __init__(self, cloud: Cloud, target: Callable[[], None]) -> None:
        self._cloud, self._target = cloud, target

    def start(self) -> None:
        self._cloud.threads.append(self._target)


class FakeEvent:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud, self._is_set = cloud, False

    def set(self) -> None:
        self._is_set = True

    def clear(self) -> None:
        self._is_set = False

    def wait(self, seconds: float) -> None:
        if self._is_set:
            return
        if self._cloud.waits:
            self._cloud.waits.pop(0)()
        if not self._is_set:
            self._cloud.now += datetime.timedelta(seconds=seconds)


class FakeFreezer:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def freeze(self, uuid: str) -> freezer.Evidence:
        assert uuid == UUID
        self._cloud.guest.append("freeze")
        return self._cloud.freeze()

    def thaw(self, uuid: str, evidence: freezer.Evidence | None) -> str | None:
        assert uuid == UUID
        self._cloud.guest.append("thaw")
        answer = self._cloud.thaws.pop(0) if self._cloud.thaws else None
        if isinstance(answer, Exception):
            raise answer
        if evidence is None:
            return answer or "it is not known when the guest was frozen"
        return answer


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    cloud = Cloud()
    conf.register_opts(nova.conf.CONF)
    record = cloud.records.append

    def on_bus(name: str, *values: Any) -> None:
        if name in cloud.broken_bus:
            raise messaging.MessagingTimeout(name)
        record((name, *values))

    def action_start(context: Any, uuid: str, action: str, want_result: bool) -> None:
        on_bus("action_start", action, context.request_id)

    def event_start(context: Any, uuid: str, event: str, **kwargs: Any) -> None:
        on_bus("event_start", event, context.request_id)

    def event_finish(
        context: Any, uuid: str, event: str, exc_val: str, exc_tb: Any, **kwargs: Any
    ) -> None:
        assert (exc_val is None) == (exc_tb is None)
        on_bus("event_finish", event, context.request_id, exc_val)

    def emit(
        context: Any,
        instance: Any,
        host: str,
        action: str,
        phase: str,
        window: mark.Mark,
        failure: Any,
    ) -> None:
        record(("notify", action, phase, window.quiesced_at is not None))

    monkeypatch.setattr(
        quiesce,
        "objects",
        types.SimpleNamespace(
            Instance=types.SimpleNamespace(
                get_by_uuid=lambda *args, **kwargs: cloud.instance()
            ),
            InstanceAction=types.SimpleNamespace(action_start=action_start),
            InstanceActionEvent=types.SimpleNamespace(
                event_start=event_start, event_finish_with_failure=event_finish
            ),
        ),
    )
    monkeypatch.setattr(quiesce.notification, "emit", emit)
    monkeypatch.setattr(
        quiesce,
        "journal",
        types.SimpleNamespace(Journal=lambda name: FakeJournal(cloud)),
    )
    monkeypatch.setattr(
        quiesce,
        "threading",
        types.SimpleNamespace(
            Lock=threading.Lock,
            Event=lambda: FakeEvent(cloud),
            Thread=lambda target, name, daemon: FakeThread(cloud, target),
        ),
    )
    monkeypatch.setattr(
        quiesce,
        "timeutils",
        types.SimpleNamespace(
            utcnow=lambda with_timezone: cloud.now,
            delta_seconds=timeutils.delta_seconds,
        ),
    )
    monkeypatch.setattr(
        quiesce,
        "time",
        types.SimpleNamespace(monotonic=lambda: cloud.now.timestamp()),
    )
    yield cloud
    assert not cloud.threads
    assert not cloud.pending


@pytest.fixture
def manager(cloud: Cloud) -> quiesce.QuiesceManager:
    return quiesce.QuiesceManager(HOST, FakeFreezer(cloud))


def request(number: int) -> Any:
    return nova_context.RequestContext(
        user_id="user",
        project_id="project",
        is_admin=True,  # else nova loads its policies to find out
        request_id=f"req-{number}",
    )


def leave_mark(cloud: Cloud, status: mark.Status) -> None:
    """Let the database be as a nova-compute that died left it."""
    left = mark.Mark(status, "req-1", 60, quiesced_at=cloud.now, evidence=EVIDENCE)
    cloud.stored[mark.KEY] = left.to_json()


# The order of what is recorded


def test_what_a_window_records_in_order(
    cloud: Cloud, manager: quiesce.QuiesceManager
) -> None:
    def order() -> None:
        cloud.flush()
        manager.unquiesce(request(2), cloud.instance())

    cloud.waits = [order]
    manager.quiesce(request(1), cloud.instance(), 60)
    # Marked before the guest is touched, and before the caller gets its answer.
    assert cloud.records == [
        ("save", "quiescing"),
        ("action_start", "quiesce", "req-1"),
    ]
    assert cloud.guest == []
    cloud.run()
    assert cloud.guest == ["freeze", "thaw"]
    assert cloud.records[2:] == [
        ("event_start", "compute_quiesce_instance", "req-1"),
        ("notify", "quiesce", "start", False),
        ("save", "quiesced"),
        ("event_finish", "compute_quiesce_instance", "req-1", None),
        ("notify", "quiesce", "end", True),
        ("action_start", "unquiesce", "req-2"),
        ("save", "unquiescing"),
        ("event_start", "compute_unquiesce_instance", "req-2"),
        ("notify", "unquiesce", "start", True),
        ("save", None),
        ("event_finish", "compute_unquiesce_instance", "req-2", None),
        ("notify", "unquiesce", "end", True),
    ]
    assert cloud.stored == {"image_os": "kept"}
    assert not manager._windows


def test_the_guest_is_thawed_in_time_though_nothing_can_be_recorded(
    cloud: Cloud, manager: quiesce.QuiesceManager
) -> None:
    manager.quiesce(request(1), cloud.instance(), 60)
    began = cloud.now
    cloud.threads.pop(0)()  # no journal writes anything meanwhile
    assert cloud.guest == ["freeze", "thaw"]
    assert cloud.now - began == datetime.timedelta(seconds=60)
    assert cloud.mark is not None
    assert cloud.mark.status == "quiescing"
    assert UUID in manager._windows  # until its records are written
    cloud.flush()
    assert cloud.mark.status == "broken"
    assert "thawed it" in cloud.mark.reason
    assert not manager._windows


def test_start_is_told_as_it_was_when_the_bus_is_slow(
    cloud: Cloud, manager: quiesce.QuiesceManager
) -> None:
    manager.quiesce(request(1), cloud.instance(), 60)
    cloud.run()
    notified = [record[1:] for record in cloud.records if record[0] == "notify"]
    assert notified[0] == ("quiesce", "start", False)


# Conflicts


def test_without_a_freezer_quiesce_is_not_supported(cloud: Cloud) -> None:
    manager = quiesce.QuiesceManager(HOST, None)
    with pytest.raises(exception.InstanceQuiesceNotSupported):
        manager.quiesce(request(1), cloud.instance(), 60)
    assert cloud.records == []


def test_second_window_is_a_conflict(
    cloud: Cloud, manager: quiesce.QuiesceManager
) -> None:
    manager.quiesce(request(1), cloud.instance(), 60)
    before = list(cloud.records)
    with pytest.raises(exception.InstanceInvalidState, match="quiescing"):
        manager.quiesce(request(2), cloud.instance(), 60)
    assert cloud.records == before
    cloud.run()


@pytest.mark.parametrize(
    "change", [{"task_state": "rebooting"}, {"vm_state": "stopped"}]
)
def test_quiesce_that_loses_the_race_for_the_instance_is_a_conflict(
    cloud: Cloud, manager: quiesce.QuiesceManager, change: dict[str, str]
) -> None:
    vars(cloud).update(change)
    try:
        with pytest.raises(exception.InstanceInvalidState):
            manager.quiesce(request(1), cloud.instance(), 60)
    finally:
        cloud.flush()
    assert cloud.mark is None
    assert cloud.guest == []
    assert not manager._windows


def test_unquiesce_before_the_freeze_is_a_conflict(
    cloud: Cloud, manager: quiesce.QuiesceManager
) -> None:
    manager.quiesce(request(1), cloud.instance(), 60)
    with pytest.raises(exception.InstanceInvalidState, match="quiescing"):
        manager.unquiesce(request(2), cloud.instance())
    cloud.run()


def test_second_unquiesce_is_a_conflict(
    cloud: Cloud, manager: quiesce.QuiesceManager
) -> None:
    conflicts: list[exception.InstanceInvalidState] = []

    def order_twice() -> None:
        manager.unquiesce(request(2), cloud.instance())
        with pytest.raises(exception.InstanceInvalidState) as caught:
            manager.unquiesce(request(3), cloud.instance())
        conflicts.append(caught.value)

    cloud.waits = [order_twice]
    manager.quiesce(request(1), cloud.instance(), 60)
    cloud.run()
    assert len(conflicts) == 1
    assert not [record for record in cloud.records if "req-3" in record]


def test_unquiesce_of_nothing_is_a_conflict(
    cloud: Cloud, manager: quiesce.QuiesceManager
) -> None:
    with pytest.raises(exception.InstanceInvalidState, match="null"):
        manager.unquiesce(request(2), cloud.instance())


def test_unquiesce_of_a_mark_without_window_sees_to_its_end(
    cloud: Cloud, manager: quiesce.QuiesceManager
) -> None:
    leave_mark(cloud, mark.Status.QUIESCED)
    with pytest.raises(exception.InstanceInvalidState):
        manager.unquiesce(request(2), cloud.instance())
    cloud.run()
    assert cloud.guest == ["thaw"]


def test_unquiesce_thaws_though_it_cannot_be_recorded(
    cloud: Cloud, manager: quiesce.QuiesceManager
) -> None:
    began = cloud.now

    def order() -> None:
        cloud.broken_bus = {"action_start"}
        with pytest.raises(messaging.MessagingTimeout):
            manager.unquiesce(request(2), cloud.instance())

    cloud.waits = [order]
    manager.quiesce(request(1), cloud.instance(), 60)
    cloud.threads.pop(0)()
    assert cloud.guest == ["freeze", "thaw"]
    assert cloud.now == began
    cloud.broken_bus.clear()
    cloud.flush()
    assert cloud.mark is None


# An order that cannot be recorded


def test_quiesce_whose_mark_cannot_be_written_leaves_nothing(
    cloud: Cloud, manager: quiesce.QuiesceManager
) -> None:
    cloud.broken_bus = {"save"}
    with pytest.raises(messaging.MessagingTimeout):
        manager.quiesce(request(1), cloud.instance(), 60)
    cloud.broken_bus.clear()
    cloud.flush()
    assert cloud.guest == []
    assert cloud.mark is None
    assert not manager._windows


def test_quiesce_whose_action_cannot_be_recorded_leaves_no_mark(
    cloud: Cloud, manager: quiesce.QuiesceManager
) -> None:
    cloud.broken_bus = {"action_start"}
    with pytest.raises(messaging.MessagingTimeout):
        manager.quiesce(request(1), cloud.instance(), 60)
    cloud.broken_bus.clear()
    cloud.flush()
    assert cloud.guest == []
    # Else the server is "quiescing", and refused everything, until a restart.
    assert cloud.mark is None
    assert not manager._windows


def test_unquiesce_of_a_broken_window_that_cannot_be_recorded_may_be_repeated(
    cloud: Cloud, manager: quiesce.QuiesceManager
) -> None:
    leave_mark(cloud, mark.Status.BROKEN)
    cloud.broken_bus = {"action_start"}
    with pytest.raises(messaging.MessagingTimeout):
        manager.unquiesce(request(2), cloud.instance())
    cloud.flush()
    cloud.broken_bus.clear()
    assert not manager._windows
    manager.unquiesce(request(3), cloud.instance())
    cloud.flush()
    assert cloud.mark is None


def test_freezer_that_fails_unexpectedly_is_a_failed_quiesce(
    cloud: Cloud, manager: quiesce.QuiesceManager
) -> None:
    def freeze() -> freezer.Evidence:
        raise ValueError("the agent talks nonsense")

    cloud.freeze = freeze
    manager.quiesce(request(1), cloud.instance(), 60)
    try:
        cloud.run()
    except ValueError:
        cloud.flush()
    assert cloud.guest == ["freeze", "thaw"]  # it may be frozen
    assert cloud.mark is None
    finished = [record for record in cloud.records if record[0] == "event_finish"]
    assert len(finished) == 1
    assert finished[0][3] is not None


# After a restart


@pytest.mark.parametrize(
    ("status", "guest", "finished", "left"),
    [
        ("quiescing", ["thaw"], ["compute_quiesce_instance"], None),
        ("quiesced", ["thaw"], ["compute_unquiesce_instance"], "broken"),
        ("unquiescing", ["thaw"], ["compute_unquiesce_instance"], None),
        ("released", ["thaw"], ["compute_unquiesce_instance"], None),
        ("broken", [], [], "broken"),
    ],
)
def test_resume(
    cloud: Cloud,
    manager: quiesce.QuiesceManager,
    status: str,
    guest: list[str],
    finished: list[str],
    left: str | None,
) -> None:
    leave_mark(cloud, mark.Status(status))
    manager.resume(cloud.instance())
    cloud.run()
    assert cloud.guest == guest
    events = [record for record in cloud.records if record[0] == "event_finish"]
    assert [event[1] for event in events] == finished
    assert (cloud.mark and cloud.mark.status.value) == left
    assert not manager._windows


def test_resume_without_mark_does_nothing(
    cloud: Cloud, manager: quiesce.QuiesceManager
) -> None:
    manager.resume(cloud.instance())
    assert not cloud.threads
    assert cloud.records == []


def test_resumed_window_lasts_until_its_deadline(
    cloud: Cloud, manager: quiesce.QuiesceManager
) -> None:
    leave_mark(cloud, mark.Status.QUIESCED)
    began = cloud.now
    cloud.now += datetime.timedelta(seconds=25)
    manager.resume(cloud.instance())
    cloud.run()
    assert cloud.now - began == datetime.timedelta(seconds=60)


def test_resumed_window_is_unquiesced_with_its_evidence(
    cloud: Cloud, manager: quiesce.QuiesceManager
) -> None:
    leave_mark(cloud, mark.Status.QUIESCED)
    cloud.waits = [lambda: manager.unquiesce(request(2), cloud.instance())]
    manager.resume(cloud.instance())
    cloud.run()
    assert (
        "event_finish",
        "compute_unquiesce_instance",
        "req-2",
        None,
    ) in cloud.records
    assert cloud.mark is None


def test_restart_while_the_switch_thaws_still_says_that_it_fired(
    cloud: Cloud, manager: quiesce.QuiesceManager
) -> None:
    """The deadline passed and the agent hung; then nova-compute died."""

    class Died(BaseException):
        """The end of the process."""

    def die() -> None:
        raise Died

    cloud.thaws = [HUNG]
    cloud.waits = [lambda: None, die]
    manager.quiesce(request(1), cloud.instance(), 60)
    with pytest.raises(Died):
        cloud.threads.pop(0)()
    cloud.flush()
    assert cloud.mark is not None
    assert cloud.mark.status == "unquiescing"
    cloud.records.clear()

    again = quiesce.QuiesceManager(HOST, FakeFreezer(cloud))
    again.resume(cloud.instance())
    cloud.run()
    finished = [record for record in cloud.records if record[0] == "event_finish"]
    assert len(finished) == 1
    _, event, request_id, failure = finished[0]
    assert event == "compute_unquiesce_instance"
    assert request_id != "req-1"  # that is the quiesce, which ended long ago
    assert failure is not None
    assert cloud.mark is not None
    assert cloud.mark.status == "broken"


# Ends that nobody ordered


def test_interruption_is_the_reason_of_the_next_unquiesce_once(
    cloud: Cloud, manager: quiesce.QuiesceManager
) -> None:
    cloud.waits = [
        lambda: manager.interrupt(UUID, "the server was rebooted"),
    ]
    manager.quiesce(request(1), cloud.instance(), 60)
    cloud.run()
    assert cloud.mark is not None
    assert cloud.mark.reason == "the server was rebooted"
    cloud.records.clear()
    manager.unquiesce(request(2), cloud.instance())
    cloud.flush()
    (finished,) = [record for record in cloud.records if record[0] == "event_finish"]
    assert finished[2] == "req-2"
    assert "the server was rebooted" in finished[3]
    assert cloud.mark is None
    with pytest.raises(exception.InstanceInvalidState):
        manager.unquiesce(request(3), cloud.instance())


def test_first_interruption_counts(
    cloud: Cloud, manager: quiesce.QuiesceManager
) -> None:
    def twice() -> None:
        manager.interrupt(UUID, "the server was rebooted")
        manager.interrupt(UUID, "the guest was destroyed")

    cloud.waits = [twice]
    manager.quiesce(request(1), cloud.instance(), 60)
    cloud.run()
    assert cloud.mark is not None
    assert cloud.mark.reason == "the server was rebooted"


def test_interruption_without_window_is_nothing(
    cloud: Cloud, manager: quiesce.QuiesceManager
) -> None:
    manager.interrupt(UUID, "the server was rebooted")
    assert cloud.records == []


@pytest.mark.parametrize(
    "change", [{"host": "compute2"}, {"task_state": "deleting"}], ids=["moved", "gone"]
)
def test_nothing_is_written_to_an_instance_that_left(
    cloud: Cloud, manager: quiesce.QuiesceManager, change: dict[str, str]
) -> None:
    manager.quiesce(request(1), cloud.instance(), 60)
    vars(cloud).update(change)
    cloud.run()
    assert cloud.guest == ["freeze", "thaw"]
    assert [record for record in cloud.records if record[0] == "save"] == [
        ("save", "quiescing")
    ]


def test_task_that_began_meanwhile_ends_the_window(
    cloud: Cloud, manager: quiesce.QuiesceManager
) -> None:
    def begin() -> None:
        cloud.task_state = "powering-off"
        cloud.flush()

    cloud.waits = [begin]
    manager.quiesce(request(1), cloud.instance(), 60)
    cloud.run()
    assert cloud.mark is not None
    assert "powering-off" in cloud.mark.reason


# While a thaw does not succeed


def test_thaw_is_repeated_ever_more_slowly_and_told_once(
    cloud: Cloud, manager: quiesce.QuiesceManager
) -> None:
    waited: list[datetime.datetime] = []
    cloud.thaws = [HUNG] * 20
    cloud.waits = [
        lambda: manager.unquiesce(request(2), cloud.instance()),
        *[lambda: waited.append(cloud.now)] * 20,
    ]
    manager.quiesce(request(1), cloud.instance(), 60)
    cloud.run()
    assert cloud.guest.count("thaw") == 21
    pauses = [
        (after - before).total_seconds() for before, after in itertools.pairwise(waited)
    ]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (1, 30)
    told = [record for record in cloud.records if record[0] == "event_finish"][1:]
    assert len(told) == 1
    assert "not thawed yet" in told[0][3]
    assert cloud.mark is None


def test_unexpected_error_of_a_thaw_is_repeated(
    cloud: Cloud, manager: quiesce.QuiesceManager
) -> None:
    cloud.thaws = [ZeroDivisionError(), None]
    cloud.waits = [lambda: manager.unquiesce(request(2), cloud.instance())]
    manager.quiesce(request(1), cloud.instance(), 60)
    cloud.run()
    assert cloud.guest == ["freeze", "thaw", "thaw"]
    assert cloud.records[-2][-1] is None


def test_guest_that_is_gone_needs_no_thaw(
    cloud: Cloud, manager: quiesce.QuiesceManager
) -> None:
    cloud.thaws = [freezer.GuestGone("the guest is not running")]
    cloud.waits = [lambda: manager.unquiesce(request(2), cloud.instance())]
    manager.quiesce(request(1), cloud.instance(), 60)
    cloud.run()
    assert cloud.guest == ["freeze", "thaw"]
    assert "the guest is not running" in cloud.records[-2][-1]
    assert cloud.mark is None


def test_failed_freeze_that_left_the_guest_alone_is_not_thawed(
    cloud: Cloud, manager: quiesce.QuiesceManager
) -> None:
    def freeze() -> freezer.Evidence:
        raise freezer.FreezeError("its file systems are frozen already", False)

    cloud.freeze = freeze
    manager.quiesce(request(1), cloud.instance(), 60)
    cloud.run()
    assert cloud.guest == ["freeze"]
    assert cloud.mark is None


# What images ask


def test_holds(cloud: Cloud, manager: quiesce.QuiesceManager) -> None:
    seen: list[bool] = []
    instance = cloud.instance()
    assert not manager.holds(instance)
    manager.quiesce(request(1), cloud.instance(), 60)
    with pytest.raises(exception.InstanceQuiesceFailed):
        manager.holds(instance)
    cloud.waits = [lambda: seen.append(manager.holds(instance))]
    cloud.run()
    assert seen == [True]
    assert not manager.holds(instance)
