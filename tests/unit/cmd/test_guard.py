# SPDX-License-Identifier: Apache-2.0
"""nova-ext-guard: its options, its errors, and that it needs nothing of nova."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from oslo_log import log as logging

from nova_ext.cmd import guard
from nova_ext.guard import clock, host, loop
from nova_ext.guard.guests import LibvirtGuests
from nova_ext.guard.records import Phase, Record, Records
from nova_ext.guard.thaw import Thawer
from tests.unit.guard.fake_libvirt import UUID, Libvirt

ROOT = pathlib.Path(__file__).parents[3]

RUN_LIBVIRT_EVENTS = guard._run_libvirt_events


@pytest.fixture
def lines(tmp_path: pathlib.Path) -> dict[str, Any]:
    """What nova-compute's configuration says in [nova_ext]."""
    return {
        "driver": "nova_ext",
        "guard_directory": tmp_path / "guard",
        "guard_libvirt_uri": Libvirt.uri,
        "quiesce_agent_timeout": 7,
    }


@pytest.fixture
def config(tmp_path: pathlib.Path, lines: dict[str, Any]) -> Callable[[], str]:
    """Writes nova-compute's configuration; its path."""

    def write() -> str:
        path = tmp_path / "nova.conf"
        words = "".join(f"{name} = {value}\n" for name, value in lines.items())
        path.write_text(
            "[DEFAULT]\nconfig_source = nova_ext\nuse_stderr = true\n"
            f"[database]\nconnection = sqlite://\n[nova_ext]\n{words}"
        )
        return str(path)

    return write


class Guards:
    """The loops that main() runs, without running them.

    :ivar logged: what logging was set up for
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run: list[loop.Loop] = []
        self.logged: list[str] = []
        monkeypatch.setattr(loop.Loop, "run", lambda each: self.run.append(each))
        monkeypatch.setattr(
            logging, "setup", lambda conf, name: self.logged.append(name)
        )
        monkeypatch.setattr(guard, "_run_libvirt_events", lambda: None)


@pytest.fixture
def guards(monkeypatch: pytest.MonkeyPatch) -> Guards:
    return Guards(monkeypatch)


def test_it_follows_the_options_of_nova_compute(
    config: Callable[[], str],
    lines: dict[str, Any],
    guards: Guards,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Libvirt(monkeypatch)
    names: list[str] = []
    make = host.thawer

    def thawer_of(options: Any, name: str, uri: str) -> Thawer:
        names.append(name)
        return make(options, name, uri)

    monkeypatch.setattr(host, "thawer", thawer_of)
    assert guard.main(["--config-file", config()]) == 0
    assert names == [host.PROCESS]  # with the places of that
    (run,) = guards.run
    thawer = run._thawer
    assert thawer.records.directory == lines["guard_directory"]
    assert thawer.timeout() == 7
    assert isinstance(thawer.guests, LibvirtGuests)
    with thawer.guests.guest(UUID, urgent=True):  # of that URI
        pass
    run.look()
    assert loop.is_beating(lines["guard_directory"], host.PROCESS, clock.now())
    assert guards.logged == ["nova_ext"]


def test_its_options_are_those_of_the_command_line(
    config: Callable[[], str], guards: Guards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["nova-ext-guard", "--config-file", config()])
    assert guard.main() == 0
    assert len(guards.run) == 1


def test_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        guard.main(["--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("usage: nova-ext-guard ")


@pytest.fixture
def error(
    config: Callable[[], str], guards: Guards, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """The one line that is told by a guard that does not start."""

    def main(*arguments: str) -> str:
        assert guard.main(["--config-file", config(), *arguments]) == 2
        assert guards.run == []
        told = capsys.readouterr()
        assert told.out == ""
        (line,) = told.err.splitlines()
        assert line.startswith("nova-ext-guard: ")
        return line

    return main


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("agent_connections", "many"),
        ("agent_connections", "1"),
        ("quiesce_agent_timeout", "soon"),
        ("quiesce_agent_timeout", "0"),
    ],
)
def test_a_value_that_is_none(
    error: Callable[..., str], lines: dict[str, Any], option: str, value: str
) -> None:
    """At the start: a guard that finds it out at the first deadline is none."""
    lines[option] = value
    assert option in error()


def test_a_file_that_is_not_there(error: Callable[..., str]) -> None:
    assert "/no/such/file" in error("--config-file", "/no/such/file")


@pytest.mark.parametrize(
    "raised",
    [
        logging.LogConfigError("log.conf", "it is empty"),
        PermissionError(13, "Permission denied", "/var/log/nova/guard.log"),
    ],
)
def test_a_log_that_cannot_be(
    error: Callable[..., str], monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:
    def fail(*args: Any) -> NoReturn:
        raise raised

    monkeypatch.setattr(logging, "setup", fail)
    assert str(raised) in error()


def test_there_is_no_libvirt(
    error: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "_run_libvirt_events", RUN_LIBVIRT_EVENTS)
    monkeypatch.setitem(sys.modules, "libvirt", None)
    assert "libvirt" in error()


# The whole program.


LIBVIRT = """
import threading

VIR_ERR_NO_DOMAIN = 42
events = []

class libvirtError(Exception):
    pass

class Domain:
    status = "frozen"
    isActive = lambda self: 1
    ID = lambda self: 3
    XMLDesc = lambda self, flags: "<domain/>"

class Connection:
    domain = Domain()
    isAlive = lambda self: 1
    setKeepAlive = lambda self, interval, count: 0
    lookupByUUIDString = lambda self, uuid: self.domain

def open(uri):
    assert events[0] == "registered"  # or the connection knows nothing of it
    return Connection()

def virEventRegisterDefaultImpl():
    events.append("registered")

def virEventRunDefaultImpl():
    events.append("run")
    if events.count("run") == 2:
        threading.Event().wait()
"""
LIBVIRT_QEMU = """
import json

def qemuAgentCommand(domain, command, timeout, flags):
    assert timeout == 7
    name = json.loads(command)["execute"]
    if name == "guest-fsfreeze-thaw":
        domain.status = "thawed"
        return '{"return": 2}'
    assert name == "guest-fsfreeze-status"
    return json.dumps({"return": domain.status})
"""

#: Ends once a guest is thawed, and tells what has been imported by then.
PROGRAM = """
import pathlib
import sys
import time

from nova_ext.cmd import guard

directory = pathlib.Path(sys.argv.pop())
real = time.sleep

def sleep(seconds):
    if any('"thawed"' in path.read_text() for path in directory.glob("*.json")):
        assert sys.modules["libvirt"].events == ["registered", "run", "run"]
        print(*sorted({name.partition(".")[0] for name in sys.modules}))
        sys.exit()
    real(0.01)

time.sleep = sleep
guard.main()
"""


def test_the_program_thaws_and_imports_nothing_of_nova(
    tmp_path: pathlib.Path, config: Callable[[], str], lines: dict[str, Any]
) -> None:
    """With the file that makes nova-compute load the extension."""
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "libvirt.py").write_text(LIBVIRT)
    (modules / "libvirt_qemu.py").write_text(LIBVIRT_QEMU)
    now = clock.now()
    records = Records(lines["guard_directory"])
    records.write(
        Record(
            uuid=UUID,
            window_id="window",
            phase=Phase.FROZEN,
            began=now,
            until=now,
            due=now,
            domain_id=3,
            frozen=2,
            written=0,
        )
    )
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-c", PROGRAM),
            *("--config-file", config(), str(records.directory)),
        ],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
        env={**os.environ, "PYTHONPATH": f"{modules}{os.pathsep}{ROOT}"},
    )
    assert done.returncode == 0, done.stderr
    assert "Guarding the guests of test:///fake." in done.stderr
    record = records.read(UUID)
    assert record is not None
    assert record.phase is Phase.THAWED
    assert "the compute host thawed it" in (record.breach or "")
    imported = set(done.stdout.split())
    assert {"nova_ext", "oslo_config", "libvirt"} <= imported
    strange = {"nova", "oslo_messaging", "oslo_db", "sqlalchemy", "eventlet"}
    assert imported & strange == set()
