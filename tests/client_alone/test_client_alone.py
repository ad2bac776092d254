# SPDX-License-Identifier: Apache-2.0
"""The client where only its extra is installed, at the lowest releases it allows.

``tox -e client-floors`` makes that environment. The distribution has entry points for
services too, whose modules import nova, cinder or ceilometer. They do no harm there:
an entry point is imported only by what reads its group, which is oslo.config for
``[DEFAULT] config_source``, ``oslo-config-generator``, ``oslopolicy-*`` and the agent
of Ceilometer. openstackclient reads the groups that begin with ``openstack.``.
"""

import configparser
import importlib.metadata
import importlib.util
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
FLOORS = ROOT / "tests/client_alone/floors.txt"

#: Runs openstackclient in this process, then tells what of ours it has imported.
SPY = """
import sys
from openstackclient import shell
try:
    shell.main(sys.argv[1:])
finally:
    ours = sorted(name for name in sys.modules if name.startswith("nova_ext."))
    print("imported:", *ours)
"""


def pinned():
    lines = FLOORS.read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def openstack(*arguments):
    program = pathlib.Path(sys.executable).with_name("openstack")
    return subprocess.run(
        [str(program), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_floors_are_those_of_the_extra():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["extras"]["client"].split()
    wanted = dict(line.split(">=") for line in lines)
    assert pinned() == wanted


def test_the_floors_are_installed():
    found = {name: importlib.metadata.version(name) for name in pinned()}
    assert found == pinned()


@pytest.mark.parametrize("service", ["nova", "cinder", "ceilometer", "oslo_messaging"])
def test_no_service_is_installed(service):
    assert importlib.util.find_spec(service) is None


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("server quiesce", "--timeout <seconds>"),
        ("server quiesce", "--partial"),
        ("server unquiesce", "--wait"),
        ("server resize", "--copy-pmem-devices"),
        ("server migrate", "--copy-pmem-devices"),
        ("consistency snapshot create", "--best-effort"),
    ],
)
def test_the_program_has_the_commands(command, option):
    done = openstack(*command.split(), "--help")
    # What openstackclient itself complains of is not ours.
    stock = openstack("server", "pause", "--help")
    assert (done.returncode, done.stderr) == (0, stock.stderr)
    assert option in done.stdout


def test_a_command_imports_nothing_of_the_services():
    done = subprocess.run(
        [sys.executable, "-c", SPY, "help", "server", "quiesce"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    *_help, line = done.stdout.splitlines()
    word, *modules = line.split()
    assert word == "imported:"
    assert "nova_ext.client.v1.server_quiesce" in modules
    strangers = [name for name in modules if not name.startswith("nova_ext.client")]
    assert strangers == []


def test_every_module_of_the_client_can_be_imported():
    code = (
        "import importlib, pkgutil, nova_ext.client as client\n"
        "for found in pkgutil.walk_packages(client.__path__, 'nova_ext.client.'):\n"
        "    importlib.import_module(found.name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
