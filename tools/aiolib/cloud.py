# SPDX-License-Identifier: Apache-2.0
"""Brings the whole cloud up and down, in order; each part's work is in its module."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import fcntl
import hashlib
import pathlib
import shutil
import subprocess
from collections.abc import Iterator

from aiolib import (
    ceph,
    command,
    config,
    database,
    guest,
    hosts,
    packages,
    processes,
    records,
    services,
    settings,
    ssh,
    wheels,
)
from aiolib.progress import say
from aiolib.settings import REPO, TOOLS, Failure, Settings

_EXTENSION = (
    REPO / "nova_ext/install.py",
    REPO / "nova_ext/api/openstack/compute/routes.py",
)
_LOCK = "lock"


@contextlib.contextmanager
def alone(s: Settings) -> Iterator[None]:
    """One `up` or `down` at a time."""
    s.home.mkdir(parents=True, exist_ok=True)
    with (s.home / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = "another `tools/aio up` or `down` is at work: wait until it ends"
            raise Failure(text) from None
        yield


def _check(s: Settings) -> None:
    if len(str(s.home)) > 50:
        raise Failure(f"{s.home} is too long for unix sockets: set a shorter AIO_HOME")
    if s.beside and not services.running(s.first, "s3"):
        raise Failure(f"{s.beside} is not up: this site borrows its S3 server")
    missing = [path.name for path in _EXTENSION if not path.exists()]
    if missing and not s.stock:
        raise Failure(
            f"the extension has no {missing[0]}: set AIO_STOCK=1 for a stock cloud"
        )


def _prepare(s: Settings) -> str:
    """Packages, wheels, image, unless borrowed; returns the virtualisation type."""
    if s.beside:
        return guest.virt_type(s)
    packages.install(s)

    def guest_part() -> str:
        guest.build(s)
        return guest.virt_type(s)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        virt = pool.submit(guest_part)
        others = pool.submit(wheels.install_s3, s)
        wheels.install(s)
        others.result()
        return virt.result()


def prepare(s: Settings) -> None:
    """Install and build what `up` needs, and start nothing."""
    s.save()
    _prepare(s)


def _bootstrap(s: Settings, task: str, timeout: float = 180) -> None:
    environment = command.clean_environment(
        AIO_HOME=str(s.home), PYTHONPATH=str(TOOLS), PYTHONWARNINGS="ignore"
    )
    command.run(
        [s.venv / "bin/python", "-m", "aiolib.bootstrap", task],
        timeout=timeout,
        env=environment,
        log=s.log / "bootstrap.log",
    )


def _once(s: Settings, task: str, wanted: str) -> None:
    stamp = s.home / f"{task}-done"
    if not stamp.exists() or stamp.read_text() != wanted:
        say(f"making {task}")
        _bootstrap(s, task)
        stamp.write_text(wanted)


def _discover(s: Settings) -> None:
    """Without it the scheduler does not know of new compute services."""
    stamp, wanted = s.home / "computes-mapped", " ".join(s.computes)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    command.run(
        [
            *(s.venv / "bin/nova-manage", "--config-file", s.etc / "nova/nova.conf"),
            *("cell_v2", "discover_hosts", "--by-service"),
        ],
        timeout=120,
        log=s.log / "nova-manage.log",
        env=command.clean_environment(PATH=config.path_variable(s)),
    )
    stamp.write_text(wanted)


def _stop_outdated(s: Settings) -> None:
    """Services that left the table, or whose configuration or code changed."""
    table = services.table(s)
    holders = {hosts.record_name(host) for host in s.hosts}
    outdated = {}
    for name in records.names(s):
        process = records.read(s, name)
        service = table.get(name)
        if name in holders or process is None:
            continue
        if service is None or not services.current(s, service):
            outdated[name] = process
    if not outdated:
        return
    say(f"stopping {' '.join(outdated)}: to run differently now")
    trees = [each for root in outdated.values() for each in processes.tree(root)]
    processes.end(trees, services.GRACE)
    for name in outdated:
        records.forget(s, name)


def up(s: Settings) -> None:
    """Bring up what is not; a second call finds nothing to do."""
    _check(s)
    s.save()
    config.write(s, _prepare(s))
    ssh.prepare(s)
    _stop_outdated(s)
    ceph.prepare(s)
    for host in s.hosts:
        hosts.start(s, host)
    database.prepare(s)
    started: list[str] = []

    def stage(number: int) -> None:
        members = [m for m in services.table(s).values() if m.stage == number]
        fresh = [member for member in members if services.launch(s, member)]
        if fresh:
            say("starting " + " ".join(member.name for member in fresh))
        for member in members:
            services.wait(s, member)
        started.extend(member.name for member in fresh)

    stage(services.INFRASTRUCTURE)
    database.synchronise(s)
    ceph.admit_osd(s)
    stage(services.APIS)
    ceph.make_pools(s)
    _once(s, "identity", s.url("keystone"))
    stage(services.DAEMONS)
    stage(services.COMPUTES)
    if started:
        say("waiting for the services to report")
        _bootstrap(s, "ready")
    _discover(s)
    _once(s, "zones", " ".join(s.computes))
    recipe = hashlib.sha256((TOOLS / "aiolib/bootstrap.py").read_bytes()).hexdigest()
    _once(s, "resources", f"{guest.fingerprint(s)} {recipe}")
    say(f"up, {len(started)} of {len(services.table(s))} services started")


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of `status`."""

    name: str
    running: bool
    answers: bool
    pid: int
    note: str


def status(s: Settings) -> list[Line]:
    lines = []
    for service in services.table(s).values():
        process = records.read(s, service.name)
        note = f"127.0.0.1:{s.port(service.name)}" if service.listens else ""
        if service.host:
            note = f"in host {service.host}"
        if service.extension:
            note += f" +{service.extension}"
        lines.append(
            Line(
                service.name,
                process is not None,
                process is not None and services.answers(s, service),
                process.pid if process else 0,
                note,
            )
        )
    return lines


def _ours(s: Settings) -> list[processes.Process]:
    """Everything that belongs to this cloud, recorded or not; guests too."""
    found = {process.pid: process for process in processes.belonging_to(s.home)}
    found |= {process.pid: process for process in hosts.members(s)}
    return list(found.values())


def _recorded(s: Settings, names: list[str]) -> list[processes.Process]:
    trees = []
    for name in names:
        if process := records.read(s, name):
            trees += processes.tree(process)
    return trees


def _guests(s: Settings) -> list[processes.Process]:
    return [p for p in _ours(s) if "qemu-system" in p.command().partition(" ")[0]]


def leftovers(s: Settings) -> list[str]:
    """What of the cloud is still on the machine, one text each."""
    left = [f"process {p.pid}: {p.command()[:150]}" for p in _ours(s)]
    left += [f"network link {name}" for name in ssh.links(s)]
    for line in pathlib.Path("/proc/self/mounts").read_text().splitlines():
        target = line.split()[1]
        if target.startswith(f"{s.home}/"):
            left.append(f"mount {target}")
    return left


def _purge(s: Settings) -> None:
    """Remove the state; its lock last, so that no `up` begins in the middle."""
    for path in s.home.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _LOCK:
            path.unlink()
    shutil.rmtree(s.home)


def down(s: Settings, *, purge: bool = False) -> list[str]:
    """End everything; return what could not be ended, empty when all is well.

    A second site, which cannot live without this one, goes before it.
    """
    if not s.home.exists():
        return []
    left = [text for other in settings.borrowers(s) for text in down(other, purge=True)]
    names = records.names(s)
    holders = {hosts.record_name(host) for host in s.hosts}
    last = {"mariadb", "rabbitmq", *holders}
    last |= {name for name in names if name.startswith("libvirtd-")}
    first = [name for name in names if name not in last]
    if first:
        say(f"ending {len(first)} services")
        processes.end(_recorded(s, first), services.GRACE)
    if guests := _guests(s):
        say(f"ending {len(guests)} guests")
        processes.end(guests, 5)
    processes.end(_recorded(s, [n for n in names if n not in holders]), 30)
    processes.end(_ours(s), 5)
    ssh.remove_links(s)
    for line in pathlib.Path("/proc/self/mounts").read_text().splitlines():
        target = line.split()[1]
        if target.startswith(f"{s.home}/"):
            subprocess.run(["umount", target], timeout=30, check=False)
    left += leftovers(s)
    config.forget_clouds(s)
    if not left:
        for name in names:
            records.forget(s, name)
        if purge:
            _purge(s)
    say("down" if not left else "not all could be ended")
    return left
