# SPDX-License-Identifier: Apache-2.0
"""``--copy-pmem-devices`` of ``openstack server resize`` and ``server migrate``.

As in :mod:`nova_ext.client.v1.server_show` these are hooks of cliff (entry point groups
``openstack.cli.server_resize`` and ``openstack.cli.server_migrate``): the stock
commands run as they are, whatever options they have, and without the option nothing is
changed. With it, the one call that sends the request is replaced by ours, and so is the
wait: the stock one would call a failed copy a success, because the server is ACTIVE
again. cliff looks hooks up by the words as typed: an abbreviated ``server resi`` does
not know the option.
"""

import abc
import argparse
import types
from collections.abc import Callable
from typing import Any

from cliff import hooks
from osc_lib import exceptions

from nova_ext.client import compute
from nova_ext.client import exceptions as client_exceptions


class _CopyPmem(hooks.CommandHook):
    """The option, and what it changes in the stock command."""

    #: The SDK's method with which the stock command sends its request.
    method = ""

    _conn: Any = None
    _wait = False
    _ordered = ("", "")

    @abc.abstractmethod
    def check(self, parsed_args: argparse.Namespace) -> None:
        """Refuse options that do not go with a copy.

        :raises: osc_lib.exceptions.CommandError
        """

    @abc.abstractmethod
    def send(self, conn: Any, server: Any, *args: Any, **kwargs: Any) -> str:
        """Send the request in place of ``method``; return the request ID."""

    def get_parser(self, parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        """Return the parser with the option."""
        parser.add_argument(
            "--copy-pmem-devices",
            action="store_true",
            help="Copy the data of the server's persistent memory to its destination; "
            "without it the data is lost (needs compute API microversion "
            f"{compute.MICROVERSION} or higher, which is used unless another is "
            "chosen)",
        )
        return parser

    def get_epilog(self) -> str | None:
        """Return nothing: the help of the option says all."""
        return None

    def before(self, parsed_args: argparse.Namespace) -> argparse.Namespace:
        """Let the stock command send our request, and not wait."""
        if not parsed_args.copy_pmem_devices:
            return parsed_args
        self.check(parsed_args)
        app: Any = self.cmd.app
        conn = self._conn = app.client_manager.nova_ext
        _command_error(compute.negotiate, conn)

        def send(server: Any, *args: Any, **kwargs: Any) -> None:
            request_id = _command_error(self.send, conn, server, *args, **kwargs)
            self._ordered = (server.id, request_id)

        # Nothing else of the SDK: a stock command that sent its request in another way
        # would lose the request for a copy, and with it the data.
        sdk = types.SimpleNamespace(
            default_microversion=conn.compute.default_microversion,
            get_endpoint_data=conn.compute.get_endpoint_data,
            find_server=conn.compute.find_server,
            find_flavor=conn.compute.find_flavor,
        )
        setattr(sdk, self.method, send)
        manager = types.SimpleNamespace(compute=sdk)
        self.cmd.app = _App(app, manager)  # type: ignore[assignment]
        self._wait, parsed_args.wait = parsed_args.wait, False
        return parsed_args

    def after(self, parsed_args: argparse.Namespace, return_code: int) -> int:
        """Wait in place of the stock command; return its status."""
        if self._wait:
            _command_error(compute.wait_moved, self._conn, *self._ordered)
            self.cmd.app.stdout.write("Complete\n")
        return return_code


class ResizeCopyPmem(_CopyPmem):
    """``server resize --flavor <flavor> --copy-pmem-devices <server>``."""

    method = "resize_server"

    def check(self, parsed_args: argparse.Namespace) -> None:
        """Refuse --confirm and --revert."""
        if not parsed_args.flavor:
            raise exceptions.CommandError(
                "--copy-pmem-devices goes with --flavor only: confirming or reverting "
                "a resize copies nothing."
            )

    def send(self, conn: Any, server: Any, flavor: Any) -> str:
        """Send the resize."""
        return compute.resize_copying_pmem(conn, server.id, flavor.id)


class MigrateCopyPmem(_CopyPmem):
    """``server migrate [--host <host>] --copy-pmem-devices <server>``."""

    method = "migrate_server"

    def check(self, parsed_args: argparse.Namespace) -> None:
        """Refuse --live-migration."""
        if parsed_args.live_migration:
            raise exceptions.CommandError(
                "--copy-pmem-devices does not go with --live-migration: leave one of "
                "them out."
            )

    def send(self, conn: Any, server: Any, host: str | None = None) -> str:
        """Send the cold migration."""
        return compute.migrate_copying_pmem(conn, server.id, host)


class _App:
    """The shell's application with another client manager."""

    def __init__(self, app: Any, client_manager: Any) -> None:
        self._app = app
        self.client_manager = client_manager

    def __getattr__(self, name: str) -> Any:
        return getattr(self._app, name)


def _command_error(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call ``function`` and let its ClientError end the command in one line."""
    try:
        return function(*args, **kwargs)
    except client_exceptions.ClientError as exc:
        raise exceptions.CommandError(str(exc)) from exc
