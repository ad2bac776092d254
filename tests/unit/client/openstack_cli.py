# SPDX-License-Identifier: Apache-2.0
"""How tests run a command of openstackclient: as an object, a fork, or the program."""

import io
import json
import os
import pathlib
import subprocess
import sys
import types

_ROOT = pathlib.Path(__file__).parents[3]
_SCRIPT = pathlib.Path(sys.executable).with_name("openstack")

#: What makes openstackclient as it is when this distribution is not installed.
STOCK = """
import importlib.metadata as metadata
found = metadata.entry_points()
others = metadata.EntryPoints(
    point
    for group in found.groups
    for point in found.select(group=group)
    if not point.value.startswith("nova_ext"))
metadata.entry_points = lambda: others
"""


def here(conn, kind, *arguments):
    """Run a command in this process, and return what it prints.

    :param conn: the SDK connection that the shell would give it
    :param kind: class of the command
    """
    out = io.StringIO()
    app = types.SimpleNamespace(
        client_manager=types.SimpleNamespace(nova_ext=conn),
        command_manager=types.SimpleNamespace(namespace="openstack.cli"),
        stdout=out,
    )
    command = kind(app, None)
    status = command.run(command.get_parser("openstack").parse_args(arguments))
    assert not status
    return out.getvalue()


def environment(credentials, home):
    """Return the environment of a user of a fake cloud.

    :param home: an empty folder, in which programs run
    """
    return {
        "HOME": str(home),
        "PATH": str(_SCRIPT.parent),
        "COLUMNS": "200",
        "OS_REGION_NAME": "RegionOne",
        **{f"OS_{name.upper()}": value for name, value in credentials.items()},
    }


def program(environ, *arguments):
    """Run the installed program to its end."""
    return subprocess.run(
        [str(_SCRIPT), *arguments],
        env=environ,
        cwd=environ["HOME"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class Forks:
    """A process that has imported openstackclient and forks for each command.

    A command has its own process, arguments, environment and files, as the program
    has: what it leaves behind in modules, loggers and handlers of signals goes with
    it. Only the seconds that the imports take are paid for once.

    :param cache: folder for what openstackclient remembers of entry points on disk
    :param before: code to run before openstackclient is imported
    """

    def __init__(self, cache, before=""):
        path = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", f"{before}\n{_FORKS}"],
            env={**os.environ, "PYTHONPATH": path, "XDG_CACHE_HOME": str(cache)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self._process.communicate()

    def __call__(self, environ, *arguments):
        """Run a command to its end."""
        home = pathlib.Path(environ["HOME"])
        out, err = home / "stdout", home / "stderr"
        asked = {
            "arguments": arguments,
            "environ": environ,
            "stdout": str(out),
            "stderr": str(err),
        }
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        return subprocess.CompletedProcess(
            arguments, code, out.read_text(), err.read_text()
        )


_FORKS = "from tests.unit.client import openstack_forks\nopenstack_forks.serve()"
