# SPDX-License-Identifier: Apache-2.0
"""Chaos for quiesce: services die and hang while three guests are quiesced in a loop.

A round is made before it begins, from the seed: who is quiesced for how long, who is
unquiesced when, what breaks when and for how long. Then everything is mended, and what
has to hold after all that is checked:

* no guest is frozen for longer than 30 s after its deadline, or after the end of the
  last fault that stood between it and what thaws it;
* a window that ends with Success is one in which the guest wrote nothing and thawed
  nothing, by its console;
* in the end each guest is thawed, has no state and writes, and each request that was
  accepted has an action that has ended.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import dataclasses
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from aiolib import services, waiting, windows
from aiolib.client import AgentError, Cloud
from aiolib.progress import say
from nova_ext.client import compute, exceptions

HOST = "cmp4"
LATEST = 30  # s that a guest may be frozen for after its deadline
_SETTLED = 120  # s after the end of the last fault
_GRACE = 0.5  # s until a line of a guest's console is seen here
_LONGEST = 10  # s that a fault lasts

_COMPUTE, _GUARD = f"nova-compute-{HOST}", services.guard_name(HOST)
_LIBVIRT = f"libvirtd-{HOST}"
#: Services that break. Healed in this order.
SERVICES = (
    *("rabbitmq", "mariadb", _LIBVIRT, "nova-conductor", "nova-api"),
    *(_COMPUTE, _GUARD),
)
#: Without these a guest is not thawed, or not for certain.
_NEEDED = (_LIBVIRT, _COMPUTE, _GUARD)
_AGENT = "agent"


@dataclasses.dataclass(frozen=True)
class Fault:
    """Something that breaks.

    :ivar target: a service, or the agent of a guest
    :ivar how: ``kill`` or ``stop``, which is a hang
    :ivar begin: seconds after the begin of the round, as ``end``
    """

    target: str
    how: str
    begin: float
    end: float


@dataclasses.dataclass(frozen=True)
class Order:
    """What is asked for a guest: both moments in seconds after the begin."""

    quiesce: float
    timeout: int
    unquiesce: float | None


@dataclasses.dataclass
class Request:
    """A request that was sent, and when in seconds of the epoch.

    :ivar id: empty if it was not accepted, for certain or not
    """

    action: str
    sent: float
    id: str = ""
    answer: str = ""


def plan(chance: random.Random, guests: int) -> tuple[list[Order], list[Fault]]:
    """What is done in a round."""
    orders = []
    for _ in range(guests):
        begin, timeout = chance.uniform(0, 2), chance.randint(4, 14)
        wanted = chance.random() < 0.7
        end = begin + chance.uniform(1, timeout + 2) if wanted else None
        orders.append(Order(begin, timeout, end))
    faults = []
    for target in chance.sample([*SERVICES, _AGENT], chance.choice((1, 1, 2, 3))):
        begin = chance.uniform(0, 10)
        how = chance.choice(("kill", "stop"))
        faults.append(Fault(target, how, begin, begin + chance.uniform(1, _LONGEST)))
    return orders, faults


class Round:
    """One round with all that was seen."""

    def __init__(
        self, cloud: Cloud, ids: list[str], orders: list[Order], faults: list[Fault]
    ) -> None:
        self._cloud = cloud
        self._ids = ids
        self._orders = dict(zip(ids, orders, strict=True))
        self._faults = faults
        self.requests: dict[str, list[Request]] = {uuid: [] for uuid in ids}
        self.dues: dict[str, float] = {}
        self.violations: list[str] = []
        self.outcomes: Counter[str] = Counter()
        self.late: list[float] = []
        #: Like the last, where one of the two guards worked all the time.
        self.late_guarded: list[float] = []

    # What is done.

    def run(self) -> None:
        """Do what is planned, mend everything, then check."""
        cloud = self._cloud
        witnesses = {
            uuid: windows.Witness(cloud.console_log(uuid)) for uuid in self._ids
        }
        begin = time.time()
        todo: list[tuple[float, Callable[[], object]]] = []
        for uuid, order in self._orders.items():
            todo.append((order.quiesce, lambda u=uuid: self._quiesce(u)))
            if order.unquiesce is not None:
                todo.append((order.unquiesce, lambda u=uuid: self._unquiesce(u)))
        for fault in self._faults:
            todo.append((fault.begin, lambda f=fault: self._break(f)))
            todo.append((fault.end, lambda f=fault: self._mend(f)))
        todo.sort(key=lambda each: each[0])
        end = begin + max(
            max(order.quiesce + order.timeout for order in self._orders.values()),
            todo[-1][0],
        )
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            running = []
            for when, call in todo:
                self._watch(begin + when)
                running.append(pool.submit(call))
            self._watch(end)
            for each in running:
                each.result(180)
        heal(cloud)
        healed = time.time()
        try:
            self._settle(healed)
        finally:
            for witness in witnesses.values():
                witness.close()
        for uuid, witness in witnesses.items():
            self._judge(uuid, witness, begin)

    def _watch(self, end: float) -> None:
        """Note the deadlines, as the host has written them, until a moment."""
        while True:
            for uuid in self._ids:
                with contextlib.suppress(LookupError, ValueError):
                    self.dues[uuid] = windows.due(self._cloud.settings, HOST, uuid)
            if time.time() >= end:
                return
            time.sleep(0.05)

    def _send(self, uuid: str, action: str, call: Callable[[], str]) -> None:
        request = Request(action, time.time())
        self.requests[uuid].append(request)
        try:
            request.id = call()
            request.answer = "accepted"
        except exceptions.ClientError as exc:
            request.answer = type(exc).__name__
        except Exception as exc:  # no API, or no answer of it
            request.answer = type(exc).__name__

    def _quiesce(self, uuid: str) -> None:
        timeout = self._orders[uuid].timeout
        self._send(
            uuid,
            "quiesce",
            lambda: compute.quiesce(self._cloud.tenant, uuid, timeout=timeout),
        )

    def _unquiesce(self, uuid: str) -> None:
        self._send(
            uuid, "unquiesce", lambda: compute.unquiesce(self._cloud.tenant, uuid)
        )

    def _break(self, fault: Fault) -> None:
        cloud = self._cloud
        if fault.target == _AGENT:
            pause_agent(cloud, self._ids[0], fault.end - fault.begin)
        elif fault.how == "kill":
            cloud.kill(fault.target)
        else:
            cloud.kill(fault.target, signal.SIGSTOP)

    def _mend(self, fault: Fault) -> None:
        if fault.target != _AGENT:
            mend(self._cloud, fault.target)

    # What has to hold.

    def _settle(self, healed: float) -> None:
        """Wait until all is as before the round, and count how the requests ended."""
        cloud = self._cloud
        for uuid in self._ids:
            left = max(5.0, healed + _SETTLED - time.time())
            try:
                self._wait(uuid, left)
            except TimeoutError as exc:
                self.violations.append(f"{uuid}: {exc}")
        for uuid in self._ids:
            for request in self.requests[uuid]:
                if request.id:
                    left = max(5.0, healed + _SETTLED - time.time())
                    request.answer = self._ended(uuid, request, left)
                self.outcomes[f"{request.action} {request.answer}"] += 1
        for uuid in self._ids:  # what broke is told once
            with contextlib.suppress(exceptions.ClientError):
                request_id = compute.unquiesce(cloud.tenant, uuid)
                compute.wait_unquiesced(cloud.tenant, uuid, request_id, interval=0.2)

    def _wait(self, uuid: str, seconds: float) -> None:
        cloud = self._cloud
        end = time.monotonic() + seconds

        def until(what: str, look: Callable[[], object]) -> None:
            waiting.until(what, look, max(1.0, end - time.monotonic()), 0.2)

        until("the agent says thawed", lambda: windows.is_thawed(cloud, uuid))
        said: Any = ""

        def no_state() -> bool:
            nonlocal said
            try:
                said = compute.get_server(cloud.tenant, uuid).quiesce_status
            except Exception as exc:  # the API is on its way back
                said = exc
            return said is None

        until("no state", no_state)
        before = cloud.console_log(uuid).stat().st_size
        until(
            "the guest writes", lambda: cloud.console_log(uuid).stat().st_size > before
        )

    def _ended(self, uuid: str, request: Request, seconds: float) -> str:
        """How the action of a request ended."""
        name = f"compute_{request.action}_instance"
        admin = self._cloud.admin.compute

        def results() -> list[str]:
            # a request whose host could not be asked any more has no event
            known = {action.request_id for action in admin.server_actions(uuid)}
            if request.id not in known:
                return []
            found = admin.get_server_action(request.id, uuid)
            return [
                event["result"]
                for event in found.events or ()
                if event["event"] == name and event["result"]
            ]

        try:
            return str(waiting.until("an end", results, seconds, 0.3)[0])
        except TimeoutError:
            text = f"{uuid}: {request.action} {request.id} has not ended"
            self.violations.append(text)
            return "has not ended"

    def _judge(self, uuid: str, witness: windows.Witness, begin: float) -> None:
        frozen = witness.first("H freeze", begin)
        if frozen is None:
            return
        thawed = witness.first("H thaw", frozen)
        due = self.dues.get(uuid, frozen + self._orders[uuid].timeout)
        if thawed is None:
            if uuid in self.dues:
                self.violations.append(f"{uuid}: it was frozen and never thawed")
            return
        mended = max(
            (begin + f.end for f in self._faults if f.target in (*_NEEDED, _AGENT)),
            default=due,
        )
        late = thawed - due
        self.late.append(late)
        if self._guarded():
            self.late_guarded.append(late)
        if thawed > max(due, mended) + LATEST:
            self.violations.append(
                f"{uuid}: frozen for {late:.1f} s after its deadline"
            )
        for request in self.requests[uuid]:
            if request.action == "unquiesce" and request.answer == "Success":
                self._prove(uuid, witness, frozen, request.sent)

    def _prove(
        self, uuid: str, witness: windows.Witness, frozen: float, asked: float
    ) -> None:
        written = witness.count("W", frozen + _GRACE, asked)
        thawed = witness.count("H thaw", frozen, asked)
        if written or thawed:
            self.violations.append(
                f"{uuid}: Success, but it wrote {written} records and thawed {thawed} "
                "times in its window"
            )

    def _guarded(self) -> bool:
        broken = {fault.target for fault in self._faults}
        return not (broken & {_LIBVIRT, _AGENT} or broken >= {_COMPUTE, _GUARD})


def pause_agent(cloud: Cloud, server_id: str, seconds: float) -> None:
    """Let the agent of a guest hang; a frozen one refuses to."""
    with contextlib.suppress(AgentError):
        cloud.guest_run(server_id, "/usr/sbin/agent-pause", str(round(seconds)))


def mend(cloud: Cloud, name: str) -> None:
    """Let a service go on, or start it."""
    if cloud.running(name):
        cloud.kill(name, signal.SIGCONT)
    else:
        cloud.start(name)


def heal(cloud: Cloud) -> None:
    """Mend everything; a service that has given up meanwhile, too."""
    for name in SERVICES:
        mend(cloud, name)


@contextlib.contextmanager
def _guests(cloud: Cloud, number: int) -> Iterator[list[str]]:
    tenant = cloud.tenant
    with contextlib.ExitStack() as cleanup:
        with concurrent.futures.ThreadPoolExecutor(number) as pool:
            names = [f"chaos-{each + 1}" for each in range(number)]
            servers = list(pool.map(lambda n: cloud.boot(tenant, n, host=HOST), names))
        for server in servers:
            cleanup.callback(tenant.compute.wait_for_delete, server, wait=60)
            cleanup.callback(tenant.compute.delete_server, server)
        yield [str(server.id) for server in servers]


def _figures(rounds: list[Round], faults: Counter[str]) -> None:
    outcomes: Counter[str] = Counter()
    for each in rounds:
        outcomes += each.outcomes
    print(f"rounds: {len(rounds)}")
    for title, counter in (("faults", faults), ("requests", outcomes)):
        told = ", ".join(f"{name} {number}" for name, number in sorted(counter.items()))
        print(f"{title}: {told}")
    for title, late in (
        ("thawed after the deadline at the latest", [x.late for x in rounds]),
        ("the same while a guard and libvirt worked", [x.late_guarded for x in rounds]),
    ):
        values = [value for some in late for value in some]
        print(f"{title}: {max(values, default=0):.1f} s of {len(values)} windows")


def main(arguments: list[str]) -> int:
    """Run rounds until the time is over; 1 if something did not hold."""
    parser = argparse.ArgumentParser(prog="tools/chaos quiesce", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="default: a new one")
    parser.add_argument("--minutes", type=float, default=2, help="default 2")
    options = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else None
    seed = options.seed if seed is None else seed
    cloud = Cloud()
    cloud.require_up()
    print(f"seed {seed}")
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    rounds: list[Round] = []
    faults: Counter[str] = Counter()
    violations = 0
    end = time.monotonic() + 60 * options.minutes
    with _guests(cloud, 3) as ids:
        try:
            while time.monotonic() < end:
                orders, broken = plan(chance, len(ids))
                faults.update(f"{each.how} {each.target}" for each in broken)
                told = "; ".join(
                    f"{f.how} {f.target} {f.begin:.1f}-{f.end:.1f}" for f in broken
                )
                say(f"round {len(rounds) + 1}: {told}")
                each = Round(cloud, ids, orders, broken)
                rounds.append(each)
                each.run()
                for text in each.violations:
                    violations += 1
                    print(f"VIOLATION in round {len(rounds)}: {text}", flush=True)
        finally:
            heal(cloud)
            cloud.wait_reported(cloud.admin, HOST, 120)
            _figures(rounds, faults)
    print(f"violations: {violations}")
    return 1 if violations else 0
