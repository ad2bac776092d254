# SPDX-License-Identifier: Apache-2.0
"""PmemManager where a whole nova cannot reach: each step that fails, in its order."""

import copy
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import nova.conf
import oslo_messaging as messaging
import pytest
from nova import context as nova_context
from nova import exception, objects
from oslo_utils import uuidutils

from nova_ext import conf
from nova_ext import exception as ext_exception
from nova_ext.compute.pmem import manager as pmem
from nova_ext.compute.pmem import rpc
from nova_ext.objects import pmem_copy
from nova_ext.objects.pmem_copy import PmemCopy
from nova_ext.virt import pmem as pmem_host

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

    :ivar stored: the row as the database has it, or None
    :ivar steps: all that happened, in order
    :ivar fails: what a step of that name raises
    :ivar during: what happens while a step of that name runs
    :ivar pending: records of the queue
    """

    def __init__(self) -> None:
        self.stored: dict[str, Any] | None = None
        self.steps: list[Any] = []
        self.fails: dict[str, Exception] = {}
        self.during: dict[str, Callable[[], Any]] = {}
        self.pending: list[Callable[[], Any]] = []
        self.events: list[Any] = []
        self.sent: list[Any] = []
        self.now = 1000.0
        self.queues = 0
        self.instance = Instance()
        self.leave("ordered")

    def leave(
        self, status: str | None, request_id: str = "req-1", migration: Any = None
    ) -> None:
        """Let the database have a row like this, or none."""
        if status is None:
            self.stored = None
            return
        row = PmemCopy(
            instance_uuid=UUID,
            change_id=uuidutils.generate_uuid(),
            status=status,
            request_id=request_id,
            migration_id=None if status == "ordered" else migration or MIGRATION_ID,
        )
        self.stored = {**row.row(), "created_at": None, "updated_at": None}

    # What nova_ext.db.api does.

    def pmem_copy_get(self, context: Any, uuid: str) -> dict[str, Any]:
        assert uuid == UUID
        if "read" in self.fails:
            raise self.fails["read"]
        if self.stored is None:
            raise ext_exception.PmemCopyNotFound(instance_uuid=uuid)
        return self.stored

    def pmem_copy_get_all_by_host(self, context: Any, host: str) -> list[Any]:
        assert host == HOST
        if "read" in self.fails:
            raise self.fails["read"]
        return [] if self.stored is None else [self.stored]

    def pmem_copy_update(
        self, context: Any, uuid: str, seen: str, values: Any
    ) -> dict[str, Any]:
        self.step(f"save {values['status']}")
        if self.stored is None or self.stored["change_id"] != seen:
            raise ext_exception.PmemCopyChanged(instance_uuid=uuid)
        self.stored = {**self.stored, **values}
        return self.stored

    def pmem_copy_delete(self, context: Any, uuid: str, seen: Any) -> None:
        if "forget" in self.fails:
            raise self.fails["forget"]
        if self.stored is not None and self.stored["change_id"] not in seen:
            raise ext_exception.PmemCopyChanged(instance_uuid=uuid)
        self.stored = None

    def step(self, name: str, *values: Any) -> None:
        self.steps.append((name, *values) if values else name)
        if name in self.during:
            self.during[name]()
        if name in self.fails:
            raise self.fails[name]

    def record(self, name: str, *values: Any) -> None:
        """What the queue writes; the real one repeats what the bus loses."""
        if name not in self.fails:
            self.events.append((name, *values))

    def flush(self) -> None:
        while self.pending:
            self.pending.pop(0)()

    @property
    def status(self) -> str | None:
        """The status of the row in the database."""
        return self.stored and str(self.stored["status"])


class Instance:
    uuid = UUID
    task_state: str | None = "resize_migrating"

    def __init__(self) -> None:
        self.flavor = {"extra_specs": {"hw:pmem": "L,L"}}
        self.migration_context = types.SimpleNamespace(
            migration_id=MIGRATION_ID,
            new_resources=[types.SimpleNamespace(identifier=name) for name in NAMES],
        )

    def obj_clone(self) -> "Instance":
        return copy.copy(self)


MIGRATION: Any = types.SimpleNamespace(
    id=MIGRATION_ID, source_compute=HOST, dest_compute=DEST
)


class FakeQueue:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud, self._closed = cloud, False
        cloud.queues += 1

    def put(self, function: Callable[..., Any], *args: Any) -> None:
        assert not self._closed
        self._cloud.pending.append(lambda: function(*args))

    def close(self) -> None:
        self._cloud.queues -= 1
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
    """The PmemHost of either host; ``expected`` and ``kept`` map names to owners."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self.expected: dict[str, str] = {}
        self.kept: dict[str, str] = {}
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

    def kill_stale_processes(self, uuid: str) -> None:
        self._cloud.step("kill_stale_processes", uuid)

    def expect_copy(self, names: Iterable[str], owner: str = "") -> None:
        self._cloud.step("expect_copy", list(names), owner)
        self.expected.update(dict.fromkeys(names, owner))

    def adopt(self, names: Iterable[str], owner: str) -> None:
        self._cloud.step("adopt", list(names), owner)

    def sanitize(self, names: Iterable[str], owner: str | None = None) -> None:
        self._cloud.step(f"sanitize {' '.join(names)}", owner)

    def reserve(self, names: Iterable[str], uuid: str) -> None:
        self._cloud.step("reserve", list(names), uuid)
        self.kept.update(dict.fromkeys(names, uuid))

    def release(self, uuid: str) -> None:
        self._cloud.step("release")
        self.kept = {name: each for name, each in self.kept.items() if each != uuid}

    def reserved(self) -> dict[str, str]:
        return dict(self.kept)

    def sanitize_reserved(self, names: Iterable[str], uuid: str) -> None:
        self._cloud.step(f"sanitize_reserved {' '.join(names)}", uuid)

    def has_pmem(self) -> bool:
        return True

    def pending_sanitize(self) -> list[str]:
        return sorted(self.expected)

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
        assert (failure is None) == (kwargs.get("exc_tb") is None) or not cloud.queues
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
        "InstanceAction",
        types.SimpleNamespace(
            get_by_request_id=lambda context, uuid, request_id: (
                types.SimpleNamespace(id=1) if uuid == UUID else None
            )
        ),
        raising=False,
    )
    monkeypatch.setattr(
        objects,
        "InstanceActionEventList",
        types.SimpleNamespace(get_by_action=lambda context, action_id: []),
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
        pmem,
        "retry_queue",
        types.SimpleNamespace(RetryQueue=lambda name: FakeQueue(cloud)),
    )
    monkeypatch.setattr(pmem.rpc, "PmemRPCAPI", lambda: FakeRPC(cloud))
    monkeypatch.setattr(pmem_copy, "db", cloud)
    monkeypatch.setattr(
        pmem, "time", types.SimpleNamespace(monotonic=lambda: cloud.now)
    )
    yield cloud
    CONF.clear_override("pmem_progress_interval", "nova_ext")
    CONF.clear_override("pmem_verify", "nova_ext")
    cloud.flush()
    assert cloud.queues == 0


@pytest.fixture
def memory(cloud: Cloud) -> FakeHost:
    return FakeHost(cloud)


@pytest.fixture
def manager(memory: FakeHost) -> pmem.PmemManager:
    return pmem.PmemManager(HOST, memory, lambda: True)


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
        with manager.prepared_copy(request(), cloud.instance, ADDRESS) as the_move:
            cloud.step("guest off")
            manager.copy(the_move)
            cloud.step("disks")
    finally:
        cloud.instance.task_state = None  # what is written late tells how it was
        cloud.flush()


# The order


@pytest.mark.parametrize(
    ("status", "request_id", "ordered"),
    [
        ("ordered", "req-1", True),
        ("ordered", "req-0", False),
        ("copying", "req-1", False),
        ("copied", "req-1", False),
        (None, "", False),
    ],
)
def test_ordered_by_this_request_alone(
    cloud: Cloud,
    manager: pmem.PmemManager,
    status: str | None,
    request_id: str,
    ordered: bool,
) -> None:
    cloud.leave(status, request_id)
    assert manager.ordered(request(), cloud.instance) == ordered


MISSING = ext_exception.StateDatabaseMissing(database="nova_cell1")
TOO_OLD = ext_exception.ConductorTooOld(objname="PmemCopy")


@pytest.mark.parametrize(
    ("raised", "published", "refused"),
    [
        (MISSING, True, False),  # the API has accepted no order either
        (MISSING, False, False),
        (TOO_OLD, False, False),
        (TOO_OLD, True, True),
        (BUS_DOWN, True, True),
    ],
)
def test_an_order_that_cannot_be_read(
    cloud: Cloud,
    memory: FakeHost,
    raised: Exception,
    published: bool,
    refused: bool,
) -> None:
    """A stock action goes on, but the data of an order is never left behind."""
    manager = pmem.PmemManager(HOST, memory, lambda: published)
    cloud.fails["read"] = raised
    if refused:
        with pytest.raises(type(raised)):
            manager.ordered(request(), cloud.instance)
    else:
        assert not manager.ordered(request(), cloud.instance)


def test_a_server_without_persistent_memory_costs_no_query(
    cloud: Cloud, manager: pmem.PmemManager
) -> None:
    cloud.fails["read"] = AssertionError("nobody should ask")
    cloud.instance.flavor = {"extra_specs": {}}
    assert not manager.ordered(request(), cloud.instance)
    assert not manager.copied(cloud.instance, MIGRATION)
    assert not manager.unfinished(cloud.instance)
    manager.forget(cloud.instance, MIGRATION)


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
        ("reserve", NAMES, UUID),  # before nova can forget whose they are
        "save copied",  # only when all has arrived
        "disks",
    ]
    assert cloud.events == [("event start", "req-1"), ("event finish", "req-1", None)]
    assert cloud.status == "copied"
    assert cloud.stored is not None
    assert cloud.stored["migration_id"] == MIGRATION_ID
    assert manager.copied(cloud.instance, MIGRATION)
    assert [sent[:3] for sent in cloud.sent] == [("start", 200, 0), ("end", 200, 200)]


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
    if "disks" not in cloud.steps:
        assert "end" not in [sent[0] for sent in cloud.sent]
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
            {"discard": BUS_DOWN, "event finish": BUS_DOWN}
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
def test_row_that_cannot_be_saved(
    cloud: Cloud, manager: pmem.PmemManager, step: str
) -> None:
    cloud.fails[step] = BUS_DOWN
    assert failed(cloud, manager) is BUS_DOWN
    assert ("prepare" in cloud.steps) == (step == "save copied")


def test_server_that_is_deleted_meanwhile(
    cloud: Cloud, manager: pmem.PmemManager
) -> None:
    gone = exception.InstanceNotFound(instance_id=UUID)
    cloud.fails["save copied"] = gone
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
    manager = pmem.PmemManager(HOST, None, lambda: True)
    assert "no persistent memory" in str(failed(cloud, manager))
    assert "prepare" not in cloud.steps
    # Nor does it do anything as a destination.
    manager.discarded(OWNER, NAMES)
    manager.adopt_devices(cloud.instance, MIGRATION, NAMES)
    manager.sanitize_unassigned([])
    manager.end_reservations(request(), [])
    manager.kill_stale_processes(cloud.instance)
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


def test_prepare_sanitizes_before_it_expects(
    cloud: Cloud, manager: pmem.PmemManager
) -> None:
    prepared = rpc.PmemEndpoint(manager).prepare_pmem_copy(
        request(), cloud.instance, MIGRATION_ID
    )
    assert [pmem_host.Device(**each) for each in prepared] == TARGETS
    assert cloud.steps == [
        ("devices", "new"),
        ("sanitize ns_0 ns_1", None),
        ("expect_copy", NAMES, OWNER),
    ]


@pytest.mark.parametrize("step", ["devices", "sanitize ns_0 ns_1", "expect_copy"])
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
    the_endpoint = rpc.PmemEndpoint(manager)
    assert the_endpoint.digest_pmem(request(), "ns_1", 5, 6) == "digest"
    assert cloud.steps == [("digest", "ns_1", 5, 6)]
    cloud.fails["digest"] = pmem_host.CopyError("ends before")
    with pytest.raises(exception.MigrationPreCheckError, match=f"{HOST}: ends before"):
        manager.digest("ns_1", 5, 6)


def test_discard_zeroes_each_device_of_the_owner(
    cloud: Cloud, manager: pmem.PmemManager
) -> None:
    cloud.fails["sanitize ns_0"] = NO_SPACE
    rpc.PmemEndpoint(manager).discard_pmem_copy(request(), OWNER, NAMES)
    assert cloud.steps == [("sanitize ns_0", OWNER), ("sanitize ns_1", OWNER)]


@pytest.mark.parametrize(
    ("status", "migration_id", "step"),
    [
        ("copied", MIGRATION_ID, ("adopt", NAMES, OWNER)),
        ("copied", MIGRATION_ID + 1, ("sanitize ns_0 ns_1", None)),
        ("copying", MIGRATION_ID, ("sanitize ns_0 ns_1", None)),
        ("ordered", None, ("sanitize ns_0 ns_1", None)),
        (None, None, ("sanitize ns_0 ns_1", None)),
    ],
)
def test_adopt_devices(
    cloud: Cloud,
    manager: pmem.PmemManager,
    status: str | None,
    migration_id: int | None,
    step: Any,
) -> None:
    cloud.leave(status, migration=migration_id)
    manager.adopt_devices(cloud.instance, MIGRATION, NAMES)
    assert cloud.steps == [step]


@pytest.mark.parametrize("step", ["adopt", "sanitize ns_0 ns_1"])
def test_adopt_devices_that_fails(
    cloud: Cloud, manager: pmem.PmemManager, step: str
) -> None:
    cloud.leave("copied" if step == "adopt" else "copying")
    cloud.fails[step] = NO_SPACE
    with pytest.raises(ext_exception.PmemCopyFailed, match="ssh ended with 255"):
        manager.adopt_devices(cloud.instance, MIGRATION, NAMES)


def test_sanitize_unassigned(
    cloud: Cloud, manager: pmem.PmemManager, memory: FakeHost
) -> None:
    memory.expected = dict.fromkeys(["ns_0", "ns_1", "ns_2", "ns_3"], OWNER)
    cloud.fails["sanitize ns_0"] = NO_SPACE
    manager.sanitize_unassigned(["ns_1", "ns_9"])
    assert cloud.steps == [
        ("sanitize ns_0", None),
        ("sanitize ns_2", None),
        ("sanitize ns_3", None),
    ]


# What the source reserves


@pytest.mark.parametrize(
    ("name", "raised"),
    [
        ("reserve", OSError("no space")),
        ("devices", NO_SPACE),
        ("save copied", BUS_DOWN),
    ],
)
def test_nothing_is_reserved_after_a_failure(
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
    assert memory.kept == {}
    assert "release" in cloud.steps
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
def test_end_reservations(
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
    cloud.leave(None if status == "gone" else status)

    def get(context: Any, uuid: str, expected_attrs: list[str]) -> Any:
        assert uuid == UUID
        if status == "gone":
            raise exception.InstanceNotFound(instance_id=uuid)
        return instance

    monkeypatch.setattr(
        objects, "Instance", types.SimpleNamespace(get_by_uuid=get), raising=False
    )
    memory.kept = dict.fromkeys(["ns_0", "ns_1"], UUID)
    cloud.fails["sanitize_reserved ns_0"] = NO_SPACE
    manager.end_reservations(request(), ["ns_5"])
    cleaned = [(f"sanitize_reserved {name}", UUID) for name in memory.kept]
    assert cloud.steps == (cleaned if zeroed else [])
    cloud.steps.clear()
    manager.end_reservations(request(), NAMES)
    assert cloud.steps == []


# After a restart


@pytest.mark.parametrize(
    ("status", "unfinished"),
    [(None, False), ("ordered", False), ("copying", True), ("copied", True)],
)
def test_unfinished(
    cloud: Cloud, manager: pmem.PmemManager, status: str | None, unfinished: bool
) -> None:
    cloud.leave(status)
    assert manager.unfinished(cloud.instance) == unfinished


def test_copy_on_its_way_is_not_unfinished(
    cloud: Cloud, manager: pmem.PmemManager
) -> None:
    seen: list[bool] = []
    cloud.during["run"] = lambda: seen.append(manager.unfinished(cloud.instance))
    move(cloud, manager)
    assert seen == [False]
    assert manager.unfinished(cloud.instance)


def abort(cloud: Cloud, manager: pmem.PmemManager) -> Any:
    """What nova-compute does for a copy that an earlier one has left."""
    (row,) = manager.leftovers(nova_context.get_admin_context())
    manager.kill_stale_processes(cloud.instance)
    return manager.abort(cloud.instance, row)


def test_abort(cloud: Cloud, manager: pmem.PmemManager) -> None:
    cloud.leave("copying", "req-5")
    assert abort(cloud, manager) is MIGRATION
    assert cloud.steps == [
        ("kill_stale_processes", UUID),
        "find migration",
        ("discard", OWNER, NAMES),
        "release",
    ]
    ((event, request_id, failure),) = cloud.events
    assert (event, request_id) == ("event finish", "req-5")
    assert "nova-compute ended in the meantime" in failure
    assert cloud.status == "copying"  # until its migration has ended
    manager.forget(cloud.instance, MIGRATION)
    assert cloud.status is None


@pytest.mark.parametrize(
    "raised",
    [
        exception.InstanceActionNotFound(request_id="req-5", instance_uuid=UUID),
        exception.InstanceActionEventNotFound(action_id=1, event="x"),
    ],
)
def test_abort_of_a_copy_that_no_event_tells_of(
    cloud: Cloud, manager: pmem.PmemManager, raised: Exception
) -> None:
    cloud.leave("copying", "req-5")
    cloud.fails["event finish"] = raised
    assert abort(cloud, manager) is MIGRATION


def test_abort_is_repeated_when_the_destination_was_not_told(
    cloud: Cloud, manager: pmem.PmemManager
) -> None:
    cloud.leave("copying", "req-5")
    cloud.fails["discard"] = BUS_DOWN
    with pytest.raises(messaging.MessagingTimeout):
        abort(cloud, manager)
    assert manager.unfinished(cloud.instance)


@pytest.mark.parametrize(
    ("status", "left"),
    [(None, 0), ("ordered", 0), ("copying", 1), ("copied", 1)],
)
def test_leftovers(
    cloud: Cloud, manager: pmem.PmemManager, status: str | None, left: int
) -> None:
    cloud.leave(status)
    assert len(manager.leftovers(nova_context.get_admin_context())) == left


@pytest.mark.parametrize("raised", [MISSING, TOO_OLD])
def test_a_cell_without_the_tables_has_no_leftovers(
    cloud: Cloud, memory: FakeHost, raised: Exception
) -> None:
    cloud.fails["read"] = raised
    manager = pmem.PmemManager(HOST, memory, lambda: False)
    assert manager.leftovers(nova_context.get_admin_context()) == []


# The end of a row


def test_a_later_order_is_not_forgotten_with_an_earlier_copy(
    cloud: Cloud, manager: pmem.PmemManager
) -> None:
    """The bus was down when the copy failed; the user has asked again since."""
    flush = cloud.flush
    cloud.flush = lambda: None  # type: ignore[method-assign]
    cloud.fails["run"] = NO_SPACE
    failed(cloud, manager)
    cloud.leave("ordered", "req-2")
    cloud.flush = flush  # type: ignore[method-assign]
    cloud.flush()
    assert manager.ordered(request("req-2"), cloud.instance)


def test_a_row_of_another_migration_is_not_forgotten(
    cloud: Cloud, manager: pmem.PmemManager
) -> None:
    cloud.leave("copied", migration=MIGRATION_ID + 1)
    manager.forget(cloud.instance, MIGRATION)
    assert cloud.status == "copied"
    cloud.leave("ordered")
    manager.forget(cloud.instance, MIGRATION)
    assert cloud.status == "ordered"


def test_what_cannot_be_forgotten_now_is_left_over(
    cloud: Cloud, manager: pmem.PmemManager
) -> None:
    cloud.leave("copied")
    cloud.fails["forget"] = BUS_DOWN
    manager.forget(cloud.instance, MIGRATION)
    assert len(manager.leftovers(nova_context.get_admin_context())) == 1


def test_an_order_that_another_request_took_over_is_not_copied(
    cloud: Cloud, manager: pmem.PmemManager
) -> None:
    cloud.during["find migration"] = lambda: None
    update = cloud.pmem_copy_update

    def overtaken(*args: Any) -> dict[str, Any]:
        cloud.leave("ordered", "req-2")
        return update(*args)

    cloud.pmem_copy_update = overtaken  # type: ignore[method-assign]
    with pytest.raises(ext_exception.PmemCopyChanged):
        move(cloud, manager)
    assert "prepare" not in cloud.steps
    assert manager.ordered(request("req-2"), cloud.instance)
