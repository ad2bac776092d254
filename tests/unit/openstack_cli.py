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

"""Owns how tests run a command of openstackclient: here, or as the real program."""

import io
import pathlib
import subprocess
import sys
import types

_SCRIPT = pathlib.Path(sys.executable).with_name("openstack")


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


class Program:
    """The real program, with the environment of a user of a fake cloud.

    :param home: an empty folder, in which it runs
    :param caches: folder for what programs remember on disk
    """

    def __init__(self, credentials, home, caches):
        self._home = home
        self._caches = caches
        self._environment = {
            "HOME": str(home),
            "PATH": str(_SCRIPT.parent),
            "COLUMNS": "200",
            "OS_REGION_NAME": "RegionOne",
            **{f"OS_{name.upper()}": value for name, value in credentials.items()},
        }

    def __call__(self, *arguments, program=(str(_SCRIPT),)):
        """Run it to its end."""
        # stevedore remembers entry points on disk: programs must not share that.
        cache = self._caches / f"cache-{len(program)}"
        return subprocess.run(
            [*program, *arguments],
            env={**self._environment, "XDG_CACHE_HOME": str(cache)},
            cwd=self._home,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
