# SPDX-License-Identifier: Apache-2.0
"""The program behind ``openstack_cli.Forks``: reads commands, forks for each."""

import contextlib
import gc
import importlib
import importlib.metadata
import json
import os
import sys

from openstackclient import shell

#: What commands import at their first use, so far as it is installed.
_LATER = (
    "gnocchiclient.benchmark",
    "openstack.block_storage.v3._proxy",
    "openstack.compute.v2._proxy",
    "openstack.image.v2._proxy",
    "openstack.network.v2._proxy",
    "openstackclient.compute.v2.server",
    "openstackclient.compute.v2.server_migration",
    "rich.progress",
)


def serve():
    """Read a command a line from standard input; print its status."""
    for name in _LATER:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    shell.OpenStackShell()  # reads the entry points
    for point in importlib.metadata.entry_points().select(
        group="openstack.nova_ext.v1"
    ):
        point.load()
    gc.freeze()
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if not pid:
            _run(asked)
        _pid, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _run(asked):
    """Become the program, as if it had just been started; does not return."""
    os.environ.clear()
    os.environ.update(asked["environ"])
    os.chdir(asked["environ"]["HOME"])
    for number, mode, path in (
        (0, os.O_RDONLY, os.devnull),
        (1, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, asked["stdout"]),
        (2, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, asked["stderr"]),
    ):
        file = os.open(path, mode, 0o600)
        os.dup2(file, number)
        os.close(file)
    status = 1
    try:
        status = shell.main(asked["arguments"])
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status or 0)
