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

"""PmemManager where a whole nova cannot reach: each step that fails, in its order."""

import copy
import dataclasses
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import nova.conf
import oslo_messaging as messaging
import pytest
from nova import context as nova_context
from nova import exception, objects

from nova_ext import conf
from nova_ext import exception as ext_exception
from nova_ext.compute import endpoint, pmem, pmem_mark
from nova_ext.virt import pmem_host

CONF = nova.conf.CONF
HOST, DEST, ADDRESS = "compute1", "compute2", "192.0.2.2"
UUID = "0d4b1e9c-9f2f-4d2a-8b0c-6b0a3a4f7c11"
MIGRATION_ID = 7
OWNER = f"{UUID} {MIGRATION_ID}"
NAMES = ["ns_0", "ns_1"]
TARGETS = [
    pmem_host.Device(name, "L", f"/dev/dax0.{i}", 100, 2)
    for i, name in enumerate(NAMES)
]
BUS_DOWN = messaging.MessagingTimeout("the bus is down")
NO_SPACE = pmem_host.CopyError("ssh ended with 255")


class Cloud:
    """The database, the message bus, both hosts and the clock of one server.

    :ivar stored: the server's system_metadata as the database has it
    :ivar steps: all that happened, in order
    :ivar fails: what a step of that name raises
    :ivar during: what happens while a step of that name runs
    :ivar pending: records of the journal
    """

    def __init__(self) -> None:
        ordered = pmem_mark.PmemMark(pmem_mark.Status.ORDERED, "req-1")
        self.stored = {"image_os": "kept", pmem_mark.KEY: ordered.to_json()}
        self.steps: list[Any] = []
        self.fails: dict[str, Exception] = {}
        self.during: dict[str, Callable[[], Any]] = {}
        self.pending: list[Callable[[], Any]] = []
        self.events: list[Any] = []
        self.sent: list[Any] = []
        self.now = 1000.0
        self.journals = 0
        self.instance = Instance(self)

    def step(self, name: str, *values: Any) -> None:
        self.steps.append((name, *values) if values else name)
        if name in self.during:
            self.during[name]()
        if name in self.fails:
            raise self.fails[name]

    def record(self, name: str, *values: Any) -> None:
        """What the journal writes; the real one repeats what the bus loses."""
        if name not in self.fails:
            self.events.append((name, *values))

    def flush(self) -> None:
        while self.pending:
            self.pending.pop(0)()

    @property
    def status(self) -> str | None:
        """The status of the mark in the database."""
        mark = pmem_mark.read(types.SimpleNamespace(system_metadata=self.stored))
        return mark and mark.status.value


class Instance:
    uuid = UUID
    task_state: str | None = "resize_migrating"

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self.system_metadata = dict(cloud.stored)
        self.migration_context = types.SimpleNamespace(
            migration_id=MIGRATION_ID,
            new_resources=[types.SimpleNamespace(identifier=name) for name in NAMES],
        )

    def obj_clone(self) -> "Instance":
        return copy.copy(self)

    def save(self) -> None:
        mark = pmem_mark.read(self)
        self._cloud.step(f"save {mark and mark.status.value}")
        self._cloud.stored = dict(self.system_metadata)


MIGRATION: Any = types.SimpleNamespace(
    id=MIGRATION_ID, source_compute=HOST, dest_compute=DEST
)


class FakeJournal:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud, self._closed = cloud, False
        cloud.journals += 1

    def put(self, function: Callable[..., Any], *args: Any) -> None:
        assert not self._closed
        self._cloud.pending.append(lambda: function(*args))

    def close(self) -> None:
        self._cloud.journals -= 1
        self._closed = True


class FakeCopy:
    total = 200

    def __init__(self, cloud: Cloud, progress: Callable[[int], None]) -> None:
        self._cloud, self.progress = cloud, progress

    def probe(self) -> None:
        self._cloud.step("probe")

    def run(self) -> None:
        self._cloud.step("run")
        self.progress(self.total)

    def verify(self, digest: Callable[[pmem_host.Device, int, int], str]) -> None:
        self._cloud.step("verify", digest(TARGETS[1], 5, 6))

    def stop(self, reason: str) -> None:
        self._cloud.step("stop", reason)


class FakeHost:
    """The PmemHost of either host; ``ledger`` and ``holds`` map names to owners."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self.ledger: dict[str, str] = {}
        self.holds: dict[str, str] = {}
        self.copy_: FakeCopy | None = None

    def devices(
        self, instance: Any, prefix: str | None = None
    ) -> list[pmem_host.Device]:
        self._cloud.step("devices", prefix)
        return TARGETS

    def copy(
        self,
        targets: Iterable[pmem_host.Device],
        instance: Any,
        address: str,
        progress: Callable[[int], None],
    ) -> FakeCopy:
        self._cloud.step("copy", list(targets), address)
        self.copy_ = FakeCopy(self._cloud, progress)
        return self.copy_

    def end_copies(self, uuid: str) -> None:
        self._cloud.step("end_copies", uuid)

    def expect(self, names: Iterable[str], owner: str = "") -> None:
        self._cloud.step("expect", list(names), owner)
        self.ledger.update(dict.fromkeys(names, owner))

    def accept(self, names: Iterable[str], owner: str) -> None:
        self._cloud.step("accept", list(names), owner)

    def clean(self, names: Iterable[str], owner: str | None = None) -> None:
        self._cloud.step(f"clean {' '.join(names)}", owner)

    def hold(self, names: Iterable[str], uuid: str) -> None:
        self._cloud.step("hold", list(names), uuid)
        self.holds.update(dict.fromkeys(names, uuid))

    def unhold(self, uuid: str) -> None:
        self._cloud.step("unhold")
        self.holds = {name: each for name, each in self.holds.items() if each != uuid}

    def held(self) -> dict[str, str]:
        return dict(self.holds)

    def clean_held(self, names: Iterable[str], uuid: str) -> None:
        self._cloud.step(f"clean_held {' '.join(names)}", uuid)

    def concerned(self) -> bool:
        return True

    def dirty(self) -> list[str]:
        return sorted(self.ledger)

    def digest(self, name: str, offset: int, length: int) -> str:
        self._cloud.step("digest", name, offset, length)
        return "digest"


class FakeRPC:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def prepare_pmem_copy(
        self, context: Any, instance: Any, migration: Any
    ) -> list[dict[str, Any]]:
        assert (instance.uuid, migration) == (UUID, MIGRATION)
        self._cloud.step("prepare")
        return [vars(target) for target in TARGETS]

    def digest_pmem(
        self, context: Any, migration: Any, name: str, offset: int, length: int
    ) -> str:
        assert migration is MIGRATION
        self._cloud.step("ask digest", name, offset, length)
        return "digest"

    def discard_pmem_copy(
        self, context: Any, migration: Any, owner: str, names: list[str]
    ) -> None:
        assert migration is MIGRATION
        self._cloud.step("discard", owner, names)


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    cloud = Cloud()
    conf.register_opts(CONF)
    CONF.set_override("pmem_progress_interval", 30, "nova_ext")

    def find(context: Any, migration_id: int, uuid: str) -> Any:
        assert (migration_id, uuid) == (MIGRATION_ID, UUID)
        cloud.step("find migration")
        return MIGRATION

    def start(context: Any, uuid: str, event: str, **kwargs: Any) -> None:
        assert (uuid, event) == (UUID, "compute_copy_pmem")
        assert kwargs.get("host") in (HOST, None)
        cloud.record("event start", context.request_id)

    def finish(context: Any, uuid: str, event: str, **kwargs: Any) -> None:
        assert (uuid, event) == (UUID, "compute_copy_pmem")
        failure = kwargs.get("exc_val")
        assert (failure is None) == (kwargs.get("exc_tb") is None) or not cloud.journals
        if isinstance(cloud.fails.get("event finish"), exception.NovaException):
            raise cloud.fails["event finish"]
        cloud.record("event finish", context.request_id, failure and str(failure))

    def emit(
        context: Any, instance: Any, host: str, phase: str, figures: Any, failure: Any
    ) -> None:
        assert (host, instance.task_state) == (HOST, "resize_migrating")
        cloud.sent.append(
            (phase, figures.total, figures.copied, figures.seconds, failure)
        )

    monkeypatch.setattr(
        objects,
        "Migration",
        types.SimpleNamespace(get_by_id_and_instance=find),
        raising=False,
    )
    monkeypatch.setattr(
        objects,
        "InstanceActionEvent",
        types.SimpleNamespace(event_start=start, event_finish_with_failure=finish),
        raising=False,
    )
    monkeypatch.setattr(pmem.notification, "emit", emit)
    monkeypatch.setattr(
        pmem, "journal", types.SimpleNamespace(Journal=lambda name: FakeJournal(cloud))
    )
    monkeypatch.setattr(pmem.rpcapi, "PmemComputeAPI", lambda: FakeRPC(cloud))
    monkeypatch.setattr(
        pmem, "time", types.SimpleNamespace(monotonic=lambda: cloud.now)
    )
    yield cloud
    CONF.clear_override("pmem_progress_interval", "nova_ext")
    CONF.clear_override("pmem_verify", "nova_ext")
    cloud.flush()
    assert cloud.journals == 0


@pytest.fixture
def memory(cloud: Cloud) -> FakeHost:
    return FakeHost(cloud)


@pytest.fixture
def manager(memory: FakeHost) -> pmem.PmemManager:
    return pmem.PmemManager(HOST, memory)


def request(request_id: str = "req-1") -> Any:
    return nova_context.RequestContext(
        user_id="user",
        project_id="project",
        is_admin=True,  # else nova loads its policies to find out
        request_id=request_id,
    )


def move(cloud: Cloud, manager: pmem.PmemManager) -> None:
    """What the driver does."""
    try:
        with manager.moving(request(), cloud.instance, ADDRESS) as the_move:
            cloud.step("guest off")
            manager.run(the_move)
            cloud.step("disks")
    finally:
        cloud.instance.task_state = None  # what is written late tells how it was
        cloud.flush()


# The order


@pytest.mark.parametrize(
    ("change", "ordered"),
    [
        ({}, True),
        ({"request_id": "req-0"}, False),
        ({"status": pmem_mark.Status.COPYING, "migration_id": 7}, False),
        ({"status": pmem_mark.Status.COPIED, "migration_id": 7}, False),
    ],
)
def test_ordered_by_this_request_alone(
    cloud: Cloud, manager: pmem.PmemManager, change: dict[str, Any], ordered: bool
) -> None:
    fields = {"status": pmem_mark.Status.ORDERED, "request_id": "req-1", **change}
    pmem_mark.write(cloud.instance, pmem_mark.PmemMark(**fields))
    assert manager.ordered(request(), cloud.instance) == ordered


def test_not_ordered(cloud: Cloud, manager: pmem.PmemManager) -> None:
    pmem_mark.write(cloud.instance, None)
    assert not manager.ordered(request(), cloud.instance)


# A copy


def test_what_a_copy_does_in_order(cloud: Cloud, manager: pmem.PmemManager) -> None:
    move(cloud, manager)
    assert cloud.steps == [
        "find migration",
        "save copying",  # before the destination hears of it
        "prepare",
        ("copy", TARGETS, ADDRESS),
        "probe",
        "guest off",
        "run",
        ("devices", None),
        ("hold", NAMES, UUID),  # before nova can forget whose they are
        "save copied",  # only when all has arrived
        "disks",
    ]
    assert cloud.events == [("event start", "req-1"), ("event finish", "req-1", None)]
    assert cloud.status == "copied"
    mark = pmem_mark.read(cloud.instance)
    assert mark == pmem_mark.PmemMark(pmem_mark.Status.COPIED, "req-1", MIGRATION_ID)
    assert manager.copied(cloud.instance, MIGRATION)
    assert [sent[:3] for sent in cloud.sent] == [("start", 200, 0), ("end", 200, 200)]
    assert cloud.stored["image_os"] == "kept"


def test_digests_are_compared_when_they_are_wanted(
    cloud: Cloud, manager: pmem.PmemManager
) -> None:
    CONF.set_override("pmem_verify", "digest", "nova_ext")
    move(cloud, manager)
    assert cloud.steps[cloud.steps.index("run") + 1 :][:2] == [
        ("ask digest", "ns_1", 5, 6),
        ("verify", "digest"),
    ]


def failed(cloud: Cloud, manager: pmem.PmemManager) -> Exception:
    """Why a copy fails; whatever that is, the destination is told to discard."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - returned
        move(cloud, manager)
    discards = [step for step in cloud.steps if step[0] == "discard"]
    assert len(discards) == 1
    assert discards[0][1] == OWNER
    if "prepare" in cloud.steps:
        assert discards[0][2] == NAMES
    assert cloud.steps.index(discards[0]) > cloud.steps.index("save copying")
    assert cloud.steps[-1] == "save None"
    assert pmem_mark.read(cloud.instance) is None
    if "disks" not in cloud.steps:
        assert "end" not in [sent[0] for sent in cloud.sent]
    # It may begin anew.
    assert not manager.unfinished(cloud.instance)
    assert not manager._moves
    return caught.value


@pytest.mark.parametrize(
    ("step", "raised", "reason"),
    [
        ("prepare", exception.MigrationPreCheckError(reason="no daxio"), "no daxio"),
        ("prepare", messaging.UnsupportedVersion("1.1"), "install the nova extensions"),
        ("prepare", BUS_DOWN, "the bus is down"),
        ("prepare", messaging.RemoteError("KeyError", "x"), "KeyError"),
        ("copy", pmem_host.CopyError("no device for label L"), "for label L"),
        ("probe", NO_SPACE, "ssh ended with 255"),
        ("run", NO_SPACE, "ssh ended with 255"),
        ("verify", pmem_host.CopyError("5 bytes differ"), "5 bytes differ"),
        ("ask digest", BUS_DOWN, "the bus is down"),
        ("ask digest", exception.MigrationPreCheckError(reason="gone"), "gone"),
    ],
)
@pytest.mark.parametrize("bus", ["up", "down"])
def test_step_that_fails(
    cloud: Cloud,
    manager: pmem.PmemManager,
    step: str,
    raised: Exception,
    reason: str,
    bus: str,
) -> None:
    """With the bus down too, the first reason is the one that counts."""
    CONF.set_override("pmem_verify", "digest", "nova_ext")
    cloud.fails[step] = raised
    if bus == "down":
        cloud.during[step] = lambda: cloud.fails.update(
            {"discard": BUS_DOWN, "save None": BUS_DOWN, "event finish": BUS_DOWN}
        )
    failure = failed(cloud, manager)
    assert isinstance(failure, ext_exception.PmemCopyFailed)
    assert reason in str(failure)
    assert UUID in str(failure)
    assert ("guest off" in cloud.steps) == (step not in ("prepare", "copy", "probe"))
    if bus == "up":
        assert cloud.status is None
        if "guest off" in cloud.steps:
            assert [sent[0] for sent in cloud.sent] == ["start", "error"]
            told = cloud.sent[1][4]
            assert told.exception_message == str(failure)
            assert (told.module_name, told.function_name) == (pmem.__name__, "_run")
            assert cloud.events[0] == ("event start", "req-1")
            assert reason in cloud.events[1][2]
        else:
            assert cloud.sent == cloud.events == []


@pytest.mark.parametrize("step", ["save copying", "save copied"])
def test_mark_that_cannot_be_saved(
    cloud: Cloud, manager: pmem.PmemManager, step: str
) -> None:
    cloud.fails[step] = BUS_DOWN
    assert failed(cloud, manager) is BUS_DOWN
    assert ("prepare" in cloud.steps) == (step == "save copied")


def test_server_that_is_deleted_meanwhile(
    cloud: Cloud, manager: pmem.PmemManager
) -> None:
    gone = exception.InstanceNotFound(instance_id=UUID)
    cloud.fails.update({"save copied": gone, "save None": gone})
    assert failed(cloud, manager) is gone


def test_copy_does_not_wait_for_what_it_records(
    cloud: Cloud, manager: pmem.PmemManager
) -> None:
    """The guest is off, and the message bus may be down."""
    cloud.flush = lambda: None  # type: ignore[method-assign]
    move(cloud, manager)
    assert cloud.status == "copied"
    assert cloud.sent == cloud.events == []
    del cloud.flush  # type: ignore[method-assign]
    cloud.flush()
    assert cloud.events[-1] == ("event finish", "req-1", None)


def test_failure_after_the_copy_discards_it(
    cloud: Cloud, manager: pmem.PmemManager
) -> None:
    cloud.fails["disks"] = OSError("no space for the disks")
    assert failed(cloud, manager) is cloud.fails["disks"]
    assert "save copied" in cloud.steps
    assert cloud.status is None


def test_migration_that_cannot_be_found_changes_nothing(
    cloud: Cloud, manager: pmem.PmemManager
) -> None:
    cloud.fails["find migration"] = BUS_DOWN
    with pytest.raises(messaging.MessagingTimeout):
        move(cloud, manager)
    assert cloud.steps == ["find migration"]
    assert cloud.status == "ordered"


def test_host_without_persistent_memory(cloud: Cloud) -> None:
    manager = pmem.PmemManager(HOST, None)
    assert "no persistent memory" in str(failed(cloud, manager))
    assert "prepare" not in cloud.steps
    # Nor does it do anything as a destination.
    manager.discarded(OWNER, NAMES)
    manager.arrive(cloud.instance, MIGRATION, NAMES)
    manager.clean_unassigned([])
    manager.end_holds(request(), [])
    manager.end_leftovers(cloud.instance)
    with pytest.raises(exception.MigrationPreCheckError, match=HOST):
        manager.prepare(request(), cloud.instance, MIGRATION_ID)


# Progress and stop


def test_progress_is_told_at_intervals(
    cloud: Cloud, manager: pmem.PmemManager, memory: FakeHost
) -> None:
    def run() -> None:
        assert memory.copy_ is not None
        for done in range(10, 100, 10):
            cloud.now += 10
            memory.copy_.progress(done)

    cloud.during["run"] = run
    move(cloud, manager)
    progress = [sent[2:4] for sent in cloud.sent if sent[0] == "progress"]
    assert progress == [(30, 30.0), (60, 60.0), (90, 90.0)]
    assert cloud.sent[-1][:4] == ("end", 200, 200, 90.0)


def test_time_counts_from_the_first_byte(
    cloud: Cloud, manager: pmem.PmemManager
) -> None:
    def wait() -> None:
        cloud.now += 500

    cloud.during["guest off"] = wait
    move(cloud, manager)
    assert cloud.sent[-1][3] == 0.0


def test_stop_reaches_the_copy(cloud: Cloud, manager: pmem.PmemManager) -> None:
    cloud.during["run"] = lambda: manager.stop(UUID, "the guest was destroyed")
    move(cloud, manager)
    assert ("stop", "the guest was destroyed") in cloud.steps


@pytest.mark.parametrize("step", ["prepare", "guest off"])
def test_stop_before_the_first_byte(
    cloud: Cloud, manager: pmem.PmemManager, step: str
) -> None:
    cloud.during[step] = lambda: manager.stop(UUID, "the guest was destroyed")
    assert "the guest was destroyed" in str(failed(cloud, manager))
    assert "run" not in cloud.steps


def test_stop_without_a_copy_is_nothing(
    cloud: Cloud, manager: pmem.PmemManager
) -> None:
    manager.stop(UUID, "the guest was destroyed")
    move(cloud, manager)
    manager.stop(UUID, "the guest was destroyed")
    assert ("stop", "the guest was destroyed") not in cloud.steps
    assert cloud.status == "copied"


# The destination host


def test_prepare_cleans_before_it_expects(
    cloud: Cloud, manager: pmem.PmemManager
) -> None:
    prepared = endpoint.PmemEndpoint(manager).prepare_pmem_copy(
        request(), cloud.instance, MIGRATION_ID
    )
    assert [pmem_host.Device(**each) for each in prepared] == TARGETS
    assert cloud.steps == [
        ("devices", "new"),
        ("clean ns_0 ns_1", None),
        ("expect", NAMES, OWNER),
    ]


@pytest.mark.parametrize("step", ["devices", "clean ns_0 ns_1", "expect"])
@pytest.mark.parametrize("raised", [NO_SPACE, OSError("no space")])
def test_prepare_that_fails(
    cloud: Cloud, manager: pmem.PmemManager, step: str, raised: Exception
) -> None:
    cloud.fails[step] = raised
    with pytest.raises(
        exception.MigrationPreCheckError, match=f"host {HOST}: {raised}"
    ):
        manager.prepare(request(), cloud.instance, MIGRATION_ID)


def test_digest(cloud: Cloud, manager: pmem.PmemManager) -> None:
    the_endpoint = endpoint.PmemEndpoint(manager)
    assert the_endpoint.digest_pmem(request(), "ns_1", 5, 6) == "digest"
    assert cloud.steps == [("digest", "ns_1", 5, 6)]
    cloud.fails["digest"] = pmem_host.CopyError("ends before")
    with pytest.raises(exception.MigrationPreCheckError, match=f"{HOST}: ends before"):
        manager.digest("ns_1", 5, 6)


def test_discard_zeroes_each_device_of_the_owner(
    cloud: Cloud, manager: pmem.PmemManager
) -> None:
    cloud.fails["clean ns_0"] = NO_SPACE
    endpoint.PmemEndpoint(manager).discard_pmem_copy(request(), OWNER, NAMES)
    assert cloud.steps == [("clean ns_0", OWNER), ("clean ns_1", OWNER)]


@pytest.mark.parametrize(
    ("status", "migration_id", "step"),
    [
        ("copied", MIGRATION_ID, ("accept", NAMES, OWNER)),
        ("copied", MIGRATION_ID + 1, ("clean ns_0 ns_1", None)),
        ("copying", MIGRATION_ID, ("clean ns_0 ns_1", None)),
        ("ordered", None, ("clean ns_0 ns_1", None)),
        (None, None, ("clean ns_0 ns_1", None)),
    ],
)
def test_arrive(
    cloud: Cloud,
    manager: pmem.PmemManager,
    status: str | None,
    migration_id: int | None,
    step: Any,
) -> None:
    mark = None
    if status:
        mark = pmem_mark.PmemMark(pmem_mark.Status(status), "req-1", migration_id)
    pmem_mark.write(cloud.instance, mark)
    manager.arrive(cloud.instance, MIGRATION, NAMES)
    assert cloud.steps == [step]


@pytest.mark.parametrize("step", ["accept", "clean ns_0 ns_1"])
def test_arrive_that_fails(cloud: Cloud, manager: pmem.PmemManager, step: str) -> None:
    status = "copied" if step == "accept" else "copying"
    mark = pmem_mark.PmemMark(pmem_mark.Status(status), "req-1", MIGRATION_ID)
    pmem_mark.write(cloud.instance, mark)
    cloud.fails[step] = NO_SPACE
    with pytest.raises(ext_exception.PmemCopyFailed, match="ssh ended with 255"):
        manager.arrive(cloud.instance, MIGRATION, NAMES)


def test_clean_unassigned(
    cloud: Cloud, manager: pmem.PmemManager, memory: FakeHost
) -> None:
    memory.ledger = dict.fromkeys(["ns_0", "ns_1", "ns_2", "ns_3"], OWNER)
    cloud.fails["clean ns_0"] = NO_SPACE
    manager.clean_unassigned(["ns_1", "ns_9"])
    assert cloud.steps == [
        ("clean ns_0", None),
        ("clean ns_2", None),
        ("clean ns_3", None),
    ]


# What the source holds


@pytest.mark.parametrize(
    ("name", "raised"),
    [("hold", OSError("no space")), ("devices", NO_SPACE), ("save copied", BUS_DOWN)],
)
def test_nothing_is_held_after_a_failure(
    cloud: Cloud,
    manager: pmem.PmemManager,
    memory: FakeHost,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    raised: Exception,
) -> None:
    if name == "save copied":
        cloud.fails[name] = raised
    else:

        def fail(*args: Any) -> Any:
            raise raised

        monkeypatch.setattr(memory, name, fail)
    assert str(raised) in str(failed(cloud, manager))
    assert memory.holds == {}
    assert "unhold" in cloud.steps
    assert cloud.status is None


@pytest.mark.parametrize(
    ("status", "host", "own", "zeroed"),
    [
        ("gone", HOST, NAMES, True),
        ("copied", DEST, [], False),
        ("copying", HOST, NAMES, False),
        ("ordered", DEST, [], True),
        (None, DEST, [], True),
        (None, DEST, NAMES, True),  # of that name on another host
        (None, HOST, NAMES, False),  # it is back
        (None, HOST, ["ns_9"], True),
    ],
)
def test_end_holds(
    cloud: Cloud,
    manager: pmem.PmemManager,
    memory: FakeHost,
    monkeypatch: pytest.MonkeyPatch,
    status: str | None,
    host: str,
    own: list[str],
    zeroed: bool,
) -> None:
    instance: Any = cloud.instance
    instance.host = host
    instance.resources = [types.SimpleNamespace(identifier=name) for name in own]
    mark = status and pmem_mark.PmemMark(pmem_mark.Status.ORDERED, "req-1")
    if mark and status != "gone":
        mark = dataclasses.replace(mark, status=pmem_mark.Status(status))
    pmem_mark.write(instance, mark or None)

    def get(context: Any, uuid: str, expected_attrs: list[str]) -> Any:
        assert uuid == UUID
        if status == "gone":
            raise exception.InstanceNotFound(instance_id=uuid)
        return instance

    monkeypatch.setattr(
        objects, "Instance", types.SimpleNamespace(get_by_uuid=get), raising=False
    )
    memory.holds = dict.fromkeys(["ns_0", "ns_1"], UUID)
    cloud.fails["clean_held ns_0"] = NO_SPACE
    manager.end_holds(request(), ["ns_5"])
    cleaned = [(f"clean_held {name}", UUID) for name in memory.holds]
    assert cloud.steps == (cleaned if zeroed else [])
    cloud.steps.clear()
    manager.end_holds(request(), NAMES)
    assert cloud.steps == []


# After a restart


@pytest.mark.parametrize(
    ("status", "unfinished"),
    [(None, False), ("ordered", False), ("copying", True), ("copied", True)],
)
def test_unfinished(
    cloud: Cloud, manager: pmem.PmemManager, status: str | None, unfinished: bool
) -> None:
    mark = status and pmem_mark.PmemMark(pmem_mark.Status(status), "req-1", 7)
    pmem_mark.write(cloud.instance, mark or None)
    assert manager.unfinished(cloud.instance) == unfinished


def test_copy_on_its_way_is_not_unfinished(
    cloud: Cloud, manager: pmem.PmemManager
) -> None:
    seen: list[bool] = []
    cloud.during["run"] = lambda: seen.append(manager.unfinished(cloud.instance))
    move(cloud, manager)
    assert seen == [False]
    assert manager.unfinished(cloud.instance)


def cut_short(cloud: Cloud) -> None:
    """A nova-compute died while it copied."""
    mark = pmem_mark.PmemMark(pmem_mark.Status.COPYING, "req-5", MIGRATION_ID)
    cloud.stored[pmem_mark.KEY] = mark.to_json()
    cloud.instance = Instance(cloud)


def test_give_up(cloud: Cloud, manager: pmem.PmemManager) -> None:
    cut_short(cloud)
    manager.end_leftovers(cloud.instance)
    assert manager.give_up(cloud.instance) is MIGRATION
    assert cloud.steps == [
        ("end_copies", UUID),
        "find migration",
        ("discard", OWNER, NAMES),
        "unhold",
    ]
    ((event, request_id, failure),) = cloud.events
    assert (event, request_id) == ("event finish", "req-5")
    assert "nova-compute ended meanwhile" in failure
    assert pmem_mark.read(cloud.instance) is None


@pytest.mark.parametrize(
    "raised",
    [
        exception.InstanceActionNotFound(request_id="req-5", instance_uuid=UUID),
        exception.InstanceActionEventNotFound(action_id=1, event="x"),
    ],
)
def test_give_up_of_a_copy_that_no_event_tells_of(
    cloud: Cloud, manager: pmem.PmemManager, raised: Exception
) -> None:
    cut_short(cloud)
    cloud.fails["event finish"] = raised
    manager.give_up(cloud.instance)
    assert pmem_mark.read(cloud.instance) is None


def test_give_up_is_repeated_when_the_destination_was_not_told(
    cloud: Cloud, manager: pmem.PmemManager
) -> None:
    cut_short(cloud)
    cloud.fails["discard"] = BUS_DOWN
    with pytest.raises(messaging.MessagingTimeout):
        manager.give_up(cloud.instance)
    assert manager.unfinished(cloud.instance)
