# SPDX-License-Identifier: Apache-2.0
"""A compute host on which nothing happens by itself: its time, threads and guest.

The register, the windows, their queues, the records and the guard are the real ones.
Their threads are greenlets: one runs until it waits or touches what lies outside of its
process (database, records, agent), and goes on when the test says so. What is outside
can be away, can lose answers, and can be the last thing that a process has touched.
"""

import contextlib
import dataclasses
import os
import pathlib
import types
from collections.abc import Callable, Iterator
from typing import Any

import greenlet
import nova.conf
import oslo_messaging as messaging
import pytest
from nova import context as nova_context
from nova import exception

from nova_ext import atomic_file, conf
from nova_ext import exception as ext_exception
from nova_ext.compute import action_records, retry_queue
from nova_ext.compute.quiesce import manager as quiesce
from nova_ext.compute.quiesce import window as freeze_window
from nova_ext.guard import guests, loop, records, thaw
from nova_ext.guard.clock import Moment
from nova_ext.guard.records import Record
from nova_ext.objects import quiesce_window
from nova_ext.objects.quiesce_window import QuiesceWindow
from nova_ext.virt.libvirt.quiesce import quiescer

HOST = "compute1"
UUID = "0d4b1e9c-9f2f-4d2a-8b0c-6b0a3a4f7c11"
AGENT_TIMEOUT = 5
RECONCILE_EVERY = 60
NOVA_COMPUTE = "nova-compute"
GUARD = "nova-ext-guard"

RPC_TIMEOUT = 10


class Crash(BaseException):
    """The end of a process, in the midst of what it does."""


class Stuck(AssertionError):
    """Threads that go on for ever without waiting."""


# Time and threads.


@dataclasses.dataclass(eq=False)
class Process:
    """A process: what it is, and how many writes it has left before it crashes."""

    name: str
    alive: bool = True
    writes_left: int | None = None


@dataclasses.dataclass(eq=False)
class Task:
    """A thread: it may go on once what it waits for is so, or at a time."""

    process: Process
    switch: greenlet.greenlet
    name: str = ""
    ready: Callable[[], bool] | None = None
    at: float | None = 0.0


class Scheduler:
    """Runs one thread at a time, on a clock of its own."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.tasks: list[Task] = []
        self.failures: list[BaseException] = []
        self.current: Task | None = None
        #: Called with the seconds that have passed, after the threads have had a turn.
        self.passed: Callable[[float], None] = lambda seconds: None

    def spawn(
        self, process: Process, function: Callable[[], Any], name: str = ""
    ) -> Task:
        """Start a thread; it does not run yet."""
        thread = greenlet.greenlet(lambda: self._live(task, function))
        task = Task(process, thread, name)
        self.tasks.append(task)
        return task

    def _live(self, task: Task, function: Callable[[], Any]) -> None:
        try:
            function()
        except Crash:
            pass
        except Exception as exc:
            self.failures.append(exc)
        finally:
            self.tasks.remove(task)

    def wait(
        self, ready: Callable[[], bool] | None = None, seconds: float | None = None
    ) -> None:
        """Let others run until something is so, or a time has passed."""
        task = self.current
        assert task is not None
        if not task.process.alive:
            raise Crash
        task.ready = ready
        task.at = None if seconds is None else self.now + seconds
        task.switch.parent.switch()
        if not task.process.alive:
            raise Crash

    def pause(self) -> None:
        """Let others run, if the test wants it."""
        self.wait(seconds=0)

    def runnable(self) -> list[Task]:
        """The threads that may go on."""
        return [
            task
            for task in self.tasks
            if (task.at is not None and task.at <= self.now)
            or (task.ready is not None and task.ready())
        ]

    def step(self, task: Task) -> None:
        """Let one thread go on until it waits."""
        self.current = task
        task.switch.parent = greenlet.getcurrent()
        task.switch.switch()
        self.current = None
        if not task.process.alive:
            self.kill(task.process)

    def kill(self, process: Process) -> None:
        """End all threads of a process where they are."""
        process.alive = False
        for task in list(self.tasks):
            if task.process is not process:
                continue
            if task.switch:
                task.switch.parent = greenlet.getcurrent()
                self.current = task
                task.switch.throw(Crash)
                self.current = None
            else:
                self.tasks.remove(task)

    def run(self) -> None:
        """Let the threads go on, each in its turn, until all wait for a later time."""
        for _round in range(2000):
            tasks = self.runnable()
            if not tasks:
                return
            for task in tasks:
                if task in self.tasks:
                    self.step(task)
        raise Stuck(self.tasks)

    def advance(self, seconds: float, grain: float = 0.0) -> None:
        """Let time pass, and the threads do what they do meanwhile.

        :param grain: the smallest step, as if the host were slow
        """
        end = self.now + seconds
        self.run()
        while self.now < end:
            before = self.now
            due = [task.at for task in self.tasks if task.at is not None]
            self.now = min(end, max(before + grain, min(due, default=end)))
            self.run()
            self.passed(self.now - before)


class Lock:
    """threading.Lock"""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler, self._taken = scheduler, False

    def __enter__(self) -> None:
        if self._taken:
            self._scheduler.wait(lambda: not self._taken)
        self._taken = True

    def __exit__(self, *_: object) -> None:
        self._taken = False


class Event:
    """threading.Event"""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler, self._set = scheduler, False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True

    def clear(self) -> None:
        self._set = False

    def wait(self, seconds: float | None = None) -> bool:
        if not self._set:
            self._scheduler.wait(self.is_set, seconds)
        return self._set


class SimpleQueue:
    """queue.SimpleQueue"""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler, self._items = scheduler, list[Any]()

    def put(self, item: Any) -> None:
        self._items.append(item)

    def get(self) -> Any:
        if not self._items:
            self._scheduler.wait(lambda: bool(self._items))
        return self._items.pop(0)


# The guest.


@dataclasses.dataclass
class Command:
    """What is sent to an agent, or waits for libvirt until a time."""

    name: str
    until: float
    answer: Any = None
    done: bool = False


class Guest:
    """A guest with its agent; the :class:`nova_ext.guard.guests.Guest` of all.

    :ivar state: running, saved (its memory comes back) or off
    :ivar known: whether libvirt still knows how it came to be off
    :ivar frozen: number of the freeze that holds; None if it is thawed
    :ivar froze: which freezes were the agent's, when, and what was mounted then
    :ivar busy: libvirt lets what is sent to the agent wait
    :ivar hangs: the agent answers nothing
    :ivar hangs_at: the command at which the agent begins to hang
    :ivar refuses: the agent refuses to freeze
    :ivar bad_hook: a hook makes the thaw fail after it has thawed
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.state = "running"
        self.known = True
        self.id = 3
        self.bytes = 1200
        self.frozen: int | None = None
        self.froze: dict[int, tuple[float, list[str]]] = {}
        self._freezes = 0
        self.busy = self.hangs = self.refuses = self.bad_hook = False
        self.hangs_at = ""
        self.sent: list[Command] = []
        self.waiting: list[Command] = []
        self.types = ["ext4", "xfs"]
        self.log: list[str] = []
        #: Called before each command, by its name.
        self.before: dict[str, Callable[[], Any]] = {}

    # What happens to it.

    def kill(self, known: bool = True) -> None:
        """Its memory is lost."""
        self.state, self.known = "off", known
        self._thaw()
        self.sent.clear()
        self.waiting.clear()
        self.busy = self.hangs = False

    def save(self) -> None:
        """Its memory is put away."""
        self.state = "saved"

    def start(self) -> None:
        """It runs again, with the memory that was saved or afresh."""
        self.state = "running"
        self.id += 1
        self.bytes = 0

    def wake(self) -> None:
        """The agent goes on with what was sent to it."""
        self.hangs, self.hangs_at = False, ""
        while self.sent:
            self._carry_out(self.sent.pop(0))

    def free(self) -> None:
        """libvirt sends what waits, the last first, though nobody may wait for it."""
        self.busy = False
        while self.waiting:
            command = self.waiting.pop()
            if command.until >= self._scheduler.now and not self.hangs:
                self._carry_out(command)

    def thaw_and_refreeze(self) -> None:
        """Its administrator thaws it, and freezes it again."""
        self._thaw()
        self.bytes += 4096
        self._freeze()

    def thaw_itself(self) -> None:
        """Its administrator thaws it."""
        self._thaw()

    def _freeze(self) -> int:
        self._freezes += 1
        self.frozen = self._freezes
        return self._freezable()

    def _thaw(self) -> int:
        if self.frozen is None:
            return 0
        self.frozen = None
        return self._freezable()

    def _freezable(self) -> int:
        return sum(each != "vfat" for each in self.types)

    # What the agent is told.

    @contextlib.contextmanager
    def guest(self, uuid: str, urgent: bool) -> Iterator["Guest"]:
        """See :meth:`nova_ext.guard.guests.Guests.guest`."""
        assert uuid == UUID
        self._require_running()
        yield self

    def _require_running(self) -> None:
        if self.state != "running":
            lost = self.state == "off" and self.known
            raise guests.GuestAbsent("the guest is not running", memory_lost=lost)

    def _call(self, name: str) -> Any:
        self._scheduler.pause()
        self.before.pop(name, lambda: None)()
        self._require_running()
        command = Command(name, self._scheduler.now + guests.LIBVIRT_JOB_WAIT)
        if self.busy:
            self.waiting.append(command)
            self._scheduler.wait(lambda: command.done, guests.LIBVIRT_JOB_WAIT)
            if not command.done:
                raise guests.Refused("cannot acquire state change lock")
        elif self.hangs:
            # libvirt sends nothing to an agent that does not answer its first question.
            self._scheduler.wait(lambda: not self.hangs, AGENT_TIMEOUT)
        if self.hangs_at == name and not command.done:
            self.hangs = True
            self.sent.append(command)
            self._scheduler.wait(lambda: command.done, AGENT_TIMEOUT)
        elif not self.hangs and not command.done:
            self._carry_out(command)
        self._scheduler.pause()  # the answer is on its way
        if not command.done:
            raise guests.AgentError("the guest agent does not answer")
        if isinstance(command.answer, Exception):
            raise command.answer
        return command.answer

    def _carry_out(self, command: Command) -> None:
        command.done = True
        if self.state != "running":
            command.answer = guests.AgentError("the guest is not running")
            return
        if command.name == "status":
            command.answer = "thawed" if self.frozen is None else "frozen"
            return
        self.log.append(command.name)
        if command.name == "freeze":
            if self.refuses or self.frozen is not None:
                command.answer = guests.Refused("the command is not allowed")
            else:
                command.answer = self._freeze()
                self.froze[self._freezes] = (self._scheduler.now, self.types)
        else:
            command.answer = self._thaw()
            if self.bad_hook:
                command.answer = guests.AgentError("the thaw hook has failed")

    # What the product asks, see :class:`nova_ext.guard.guests.Guest`.

    def domain_id(self) -> int:
        return self.id

    def require_agent(self) -> None:
        """Its channel is there."""

    def commands(self) -> set[str]:
        return {guests.FREEZE, guests.THAW, guests.STATUS, guests.FSINFO}

    def status(self) -> str:
        return str(self._call("status"))

    def freeze(self) -> int:
        return int(self._call("freeze"))

    def thaw(self) -> int:
        return int(self._call("thaw"))

    def file_systems(self) -> list[guests.FileSystem]:
        return [
            guests.FileSystem(f"vda{number}", f"/{each}", each)
            for number, each in enumerate(self.types)
        ]

    def mounted_read_only(self) -> set[str]:
        return set()

    def written(self) -> int:
        self._require_running()
        return self.bytes


# The database.


class Instance:
    """What the product knows of a server."""

    uuid, project_id, user_id = UUID, "project", "user"

    def __init__(self, host: str, task_state: str | None) -> None:
        self.host, self.task_state = host, task_state


class Database:
    """The database behind the message bus, as ``nova_ext.db.api`` and nova see it.

    :ivar stored: the row, or None
    :ivar up: whether it can be reached
    :ivar answers_lost: how many of the next answers are lost
    :ivar log: what was written and sent, in order
    :ivar results: what each event ended with, by request and event
    """

    def __init__(self, world: "World") -> None:
        self._world = world
        self.stored: dict[str, Any] | None = None
        self.host = HOST
        self.vm_state = "active"
        self.task_state: str | None = None
        self.up = True
        self.deleted = False
        self.answers_lost = 0
        self.down_for: set[str] = set()
        self.log: list[tuple[Any, ...]] = []
        self.actions: list[tuple[str, str]] = []
        self.events: dict[tuple[str, str], list[str | None]] = {}
        self.details: dict[tuple[str, str], str] = {}

    @property
    def row(self) -> QuiesceWindow | None:
        """The row."""
        return QuiesceWindow.from_row(None, self.stored) if self.stored else None

    def instance(self) -> Instance:
        """The server as it is by now."""
        return Instance(self.host, self.task_state)

    @contextlib.contextmanager
    def _reached(self, name: str, writes: bool) -> Iterator[None]:
        scheduler = self._world.scheduler
        scheduler.pause()
        if not self.up or name in self.down_for:
            scheduler.wait(seconds=RPC_TIMEOUT)
            raise messaging.MessagingTimeout(name)
        yield
        if writes:
            self._world.wrote()
        if self.answers_lost:
            self.answers_lost -= 1
            raise messaging.MessagingTimeout(name)

    def _store(self, row: dict[str, Any] | None) -> None:
        self.stored = row
        self.log.append(("save", row and row["status"]))

    def quiesce_window_get(self, context: Any, uuid: str) -> dict[str, Any]:
        with self._reached("read", writes=False):
            if self.stored is None or self.deleted:
                raise ext_exception.QuiesceWindowNotFound(instance_uuid=uuid)
            return self.stored

    def quiesce_window_get_all_by_host(self, context: Any, host: str) -> list[Any]:
        assert host == HOST
        with self._reached("read", writes=False):
            return [self.stored] if self.stored and not self.deleted else []

    def quiesce_window_delete_of_deleted(self, context: Any, host: str) -> int:
        with self._reached("save", writes=True):
            if self.deleted:
                self.stored = None
            return 0

    def quiesce_window_create(
        self, context: Any, values: Any, host: str, vm_states: Any, task_states: Any
    ) -> dict[str, Any]:
        with self._reached("save", writes=True):
            current = self.stored
            if current and current["change_id"] == values["change_id"]:
                return current
            self._check_instance(host)
            conflict = {"instance_uuid": UUID, "expected": {}, "actual": {}}
            if self.task_state not in task_states:
                raise exception.UnexpectedTaskStateError(**conflict)
            if self.vm_state not in vm_states:
                raise exception.InstanceUpdateConflict(**conflict)
            if current and current["status"] != "broken":
                raise ext_exception.QuiesceWindowExists(
                    instance_uuid=UUID, status=current["status"]
                )
            self._store({**values, "created_at": None, "updated_at": None})
            assert self.stored is not None
            return self.stored

    def quiesce_window_update(
        self,
        context: Any,
        uuid: str,
        seen: str,
        values: Any,
        host: str | None = None,
        expected_task_states: Any = None,
    ) -> dict[str, Any]:
        with self._reached("save", writes=True):
            if host is not None:
                self._check_instance(host)
            current = self.stored
            if current and current["change_id"] == values["change_id"]:
                return current
            if expected_task_states and self.task_state not in expected_task_states:
                raise exception.UnexpectedTaskStateError(
                    instance_uuid=uuid,
                    expected={},
                    actual={"task_state": self.task_state},
                )
            if current is None or current["change_id"] != seen:
                raise ext_exception.QuiesceWindowChanged(instance_uuid=uuid)
            self._store({**current, **values})
            assert self.stored is not None
            return self.stored

    def quiesce_window_delete(self, context: Any, uuid: str, seen: Any) -> None:
        with self._reached("save", writes=True):
            if self.stored is None:
                return
            if self.stored["change_id"] not in seen:
                raise ext_exception.QuiesceWindowChanged(instance_uuid=uuid)
            self._store(None)

    def _check_instance(self, host: str) -> None:
        if host != self.host or self.deleted or self.task_state == "deleting":
            raise exception.InstanceNotFound(instance_id=UUID)

    # What nova's objects do.

    def get_by_uuid(self, *args: Any, **kwargs: Any) -> Instance:
        with self._reached("read", writes=False):
            if self.deleted:
                raise exception.InstanceNotFound(instance_id=UUID)
            return self.instance()

    def action_start(
        self, context: Any, uuid: str, action: str, want_result: bool
    ) -> None:
        with self._reached("action_start", writes=True):
            self.actions.append((context.request_id, action))
            self.log.append(("action_start", action, context.request_id))

    def get_by_request_id(self, context: Any, uuid: str, request_id: str) -> Any:
        with self._reached("read", writes=False):
            for number, (each, action) in enumerate(self.actions):
                if each == request_id:
                    return types.SimpleNamespace(id=number, action=action)
            return None

    def get_by_action(self, context: Any, number: int) -> list[Any]:
        with self._reached("read", writes=False):
            return [
                types.SimpleNamespace(event=event, finish_time=bool(told))
                for (request_id, event), told in self.events.items()
                if request_id == self.actions[number][0]
            ]

    def get_by_instance_uuid(self, context: Any, uuid: str, limit: int) -> list[Any]:
        with self._reached("read", writes=False):
            return [
                types.SimpleNamespace(request_id=request_id, action=action)
                for request_id, action in self.actions[-limit:]
            ]

    def event_start(self, context: Any, uuid: str, event: str, **_: Any) -> None:
        with self._reached("event_start", writes=True):
            self._require_action(context)
            self.events.setdefault((context.request_id, event), [])
            self.log.append(("event_start", event, context.request_id))

    def _require_action(self, context: Any) -> None:
        if not any(each == context.request_id for each, _name in self.actions):
            raise exception.InstanceActionNotFound(
                request_id=context.request_id, instance_uuid=UUID
            )

    def event_finish(
        self, context: Any, uuid: str, event: str, exc_val: Any, exc_tb: Any, **_: Any
    ) -> None:
        assert exc_tb is None or exc_val is not None
        with self._reached("event_finish", writes=True):
            self._require_action(context)
            if (context.request_id, event) not in self.events:
                raise exception.InstanceActionEventNotFound(action_id=1, event=event)
            failure = None if exc_tb is None else exc_val
            if exc_tb is None and exc_val:
                self.details[context.request_id, event] = exc_val
            self.events[context.request_id, event].append(failure)
            self.log.append(("event_finish", event, context.request_id, failure))
            self._world.told(context.request_id, event, failure)


# All of it.


class World:
    """A compute host with one guest, its database, and the clock.

    :param directory: of the records
    """

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.scheduler = Scheduler()
        self.guest = Guest(self.scheduler)
        self.database = Database(self)
        self.boot_id = "boot-1"
        self.wall = 1_790_000_000.0
        self.disk_full = False
        self.threads_left: int | None = None
        self.compute: Process | None = None
        self.guard: Process | None = None
        self.manager: quiesce.QuiesceManager = None  # type: ignore[assignment]
        self.told: Callable[[str, str, str | None], None] = lambda *args: None

    def clock(self) -> Moment:
        """The time for deadlines."""
        now = self.scheduler.now
        return Moment(self.boot_id, now, self.wall + now)

    @property
    def record(self) -> Record | None:
        """The record of the guest."""
        return records.Records(self.directory).read(UUID)

    def wrote(self) -> None:
        """The process that runs has written something; it may be its last deed."""
        task = self.scheduler.current
        if task is None:
            return
        process = task.process
        if process.writes_left is not None:
            process.writes_left -= 1
            if process.writes_left < 0:
                process.alive = False
                raise Crash
        self.scheduler.pause()

    # The processes.

    def start_thread(self, function: Callable[[], Any], name: str) -> None:
        """Start a thread in the process that runs."""
        if self.threads_left is not None:
            if not self.threads_left:
                raise RuntimeError("can't start new thread")
            self.threads_left -= 1
        task = self.scheduler.current
        process = task.process if task else self.compute
        assert process is not None
        self.scheduler.spawn(process, function, name)

    def _thawer(self) -> thaw.Thawer:
        return thaw.Thawer(
            records.Records(self.directory),
            self.guest,
            lambda: AGENT_TIMEOUT,
            self.clock,
        )

    def start_compute(self, guarding: bool = True, reconciling: bool = True) -> None:
        """Start nova-compute.

        :param guarding: with its guard
        :param reconciling: with its periodic task
        """
        process = self.compute = Process(NOVA_COMPUTE)
        made = quiescer.LibvirtGuestQuiescer(self._thawer())
        self.manager = manager = quiesce.QuiesceManager(HOST, made)
        if guarding:
            self.scheduler.spawn(process, made._guard.run)

        def reconcile() -> None:
            while True:
                with contextlib.suppress(
                    exception.NovaException, messaging.MessagingException, OSError
                ):
                    manager.reconcile(nova_context.get_admin_context())
                self.scheduler.wait(seconds=RECONCILE_EVERY)

        if reconciling:
            self.scheduler.spawn(process, reconcile)

    def start_guard(self) -> None:
        """Start the guard that is a process of its own."""
        self.guard = Process(GUARD)
        self.scheduler.spawn(self.guard, loop.Loop(GUARD, self._thawer()).run)

    def stop(self, process: Process | None) -> None:
        """Kill a process."""
        if process is not None:
            self.scheduler.kill(process)

    def reboot(self) -> None:
        """The host boots anew, without any process of it."""
        self.stop(self.compute)
        self.stop(self.guard)
        self.boot_id = f"boot-{int(self.boot_id[5:]) + 1}"
        if self.guest.state == "running":
            self.guest.kill()
        self.guest.known = False

    def call(self, function: Callable[..., Any], *args: Any) -> "Call":
        """Begin an RPC to nova-compute."""
        assert self.compute is not None
        made = Call()
        self.scheduler.spawn(self.compute, lambda: made.carry_out(function, args))
        return made

    def do(self, function: Callable[..., Any], *args: Any) -> Any:
        """An RPC to nova-compute, alone: only records are written meanwhile."""
        made = self.call(function, *args)
        own = self.scheduler.tasks[-1]
        while not made.done:
            runnable = self.scheduler.runnable()
            writing = [each for each in runnable if "-records-" in each.name]
            turn = [own] if own in runnable else writing
            if not turn:
                break
            self.scheduler.step(turn[0])
        return made.result()


class Call:
    """An RPC that was begun."""

    def __init__(self) -> None:
        self.done = False
        self._answer: Any = None
        self.error: Exception | None = None

    def carry_out(self, function: Callable[..., Any], args: Any) -> None:
        """Do it."""
        try:
            self._answer = function(*args)
        except Exception as exc:
            self.error = exc
        self.done = True

    def result(self) -> Any:
        """The answer."""
        assert self.done
        if self.error:
            raise self.error
        return self._answer


def request(number: int) -> Any:
    """The context of a request."""
    return nova_context.RequestContext(
        user_id="user",
        project_id="project",
        is_admin=True,  # else nova loads its policies to find out
        request_id=f"req-{number}",
    )


def _disk(world: World, patch: pytest.MonkeyPatch) -> None:
    """Let the disk be full, and nothing be waited for that it does."""
    write, remove = atomic_file.write, atomic_file.remove

    def writing(path: pathlib.Path, text: str, durable: bool = True) -> None:
        if world.disk_full:
            raise OSError(28, "No space left on device")
        write(path, text, durable=durable)
        if path.suffix == ".json":
            world.wrote()

    def removing(path: pathlib.Path) -> None:
        remove(path)
        world.wrote()

    here = types.SimpleNamespace(
        write=writing, remove=removing, make_directory=atomic_file.make_directory
    )
    patch.setattr(records, "atomic_file", here)
    patch.setattr(loop, "atomic_file", here)
    patch.setattr(atomic_file, "os", _without_fsync())


def _without_fsync() -> types.SimpleNamespace:
    return types.SimpleNamespace(**{**vars(os), "fsync": lambda handle: None})


def install(world: World, patch: pytest.MonkeyPatch) -> None:
    """Put a world in the place of the real one."""
    conf.register_opts(nova.conf.CONF)
    scheduler, database = world.scheduler, world.database
    threading = types.SimpleNamespace(
        Lock=lambda: Lock(scheduler),
        Event=lambda: Event(scheduler),
        Thread=lambda target, name, daemon: types.SimpleNamespace(
            start=lambda: world.start_thread(target, name)
        ),
    )
    time = types.SimpleNamespace(
        monotonic=lambda: scheduler.now,
        sleep=lambda seconds: scheduler.wait(seconds=seconds),
    )
    for module in (loop, quiesce, freeze_window, retry_queue):
        patch.setattr(module, "threading", threading)
    for module in (loop, records, freeze_window):
        patch.setattr(module, "time", time)
    patch.setattr("tenacity.nap.time", time)
    patch.setattr(
        retry_queue,
        "queue",
        types.SimpleNamespace(SimpleQueue=lambda: SimpleQueue(scheduler)),
    )
    _disk(world, patch)
    patch.setattr(quiesce_window, "db", database)
    instances = types.SimpleNamespace(Instance=database)
    patch.setattr(quiesce, "objects", instances)
    patch.setattr(freeze_window, "objects", instances)
    patch.setattr(
        action_records,
        "objects",
        types.SimpleNamespace(
            InstanceAction=database,
            InstanceActionEventList=database,
            InstanceActionList=database,
            InstanceActionEvent=types.SimpleNamespace(
                event_start=database.event_start,
                event_finish_with_failure=database.event_finish,
            ),
        ),
    )
    patch.setattr(
        action_records,
        "DetailedActionEvent",
        types.SimpleNamespace(event_finish_with_failure=database.event_finish),
    )

    def emit(
        context: Any,
        instance: Any,
        host: str,
        action: str,
        phase: str,
        window: QuiesceWindow,
        failure: Any,
    ) -> None:
        database.log.append(("notify", action, phase, window.quiesced_at is not None))

    patch.setattr(freeze_window.notification, "emit", emit)
