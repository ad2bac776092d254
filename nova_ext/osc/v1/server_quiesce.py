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

"""Owns ``openstack server quiesce`` and ``unquiesce``; requests are client.py's."""

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from osc_lib import exceptions
from osc_lib.command import command

from nova_ext import client

COLUMNS = ("ID", "Name", "Quiesced At", "Unquiesce At")


def seconds(text: str) -> int:
    """Return the number of seconds that an option's value says; for argparse."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return value


def _add_servers(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "servers",
        metavar="<server>",
        nargs="+",
        help=f"Server(s) to {what} (name or ID)",
    )


class QuiesceServer(command.Lister):
    """Freeze the file systems of server(s) through their guest agents.

    Servers are quiesced in the given order. The first failure ends the command and
    says which servers are quiesced already: they stay so until they are unquiesced or
    their deadline comes. Without --wait the command prints nothing and ends when the
    requests are accepted, before the guests are frozen. With --wait each server is
    frozen before the next one is asked, and a table shows since when and until when.

    Needs compute API microversion 2.105, which is used unless another is chosen.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Return the parser with the options of this command."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument(
            "--timeout",
            metavar="<seconds>",
            type=seconds,
            help="Time after which the compute host thaws the server by itself, "
            "counted for each server (default and maximum: set by the cloud)",
        )
        parser.add_argument(
            "--wait",
            action="store_true",
            help="Wait until each server is quiesced and show the deadlines; gives up "
            f"<seconds> + {client.WAIT_GRACE} seconds after a request, at the latest "
            f"after {client.WAIT_LIMIT} seconds",
        )
        _add_servers(parser, "quiesce")
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[Sequence[str], Iterable[Any]]:
        """Quiesce in order; raise CommandError at the first failure."""
        conn = self.app.client_manager.nova_ext
        try:
            client.negotiate(conn)
            # All names first: a typing error must not leave half a group frozen.
            found = [client.find(conn, name) for name in parsed_args.servers]
        except client.ClientError as exc:
            raise exceptions.CommandError(str(exc)) from exc
        ids = [server_id for server_id, _name in found]
        if len(set(ids)) < len(ids):
            raise exceptions.CommandError(
                "A server is given more than once: name each server once."
            )
        rows: list[tuple[str | None, ...]] = []
        for done, server_id in enumerate(ids):
            try:
                request_id = client.quiesce(conn, server_id, parsed_args.timeout)
                if parsed_args.wait:
                    limit = client.quiesce_wait_limit(parsed_args.timeout)
                    state = client.wait_quiesced(
                        conn, server_id, request_id, limit=limit
                    )
                    rows.append(
                        (state.id, state.name, state.quiesced_at, state.unquiesce_at)
                    )
            # Whatever happens, an interrupt included: nobody may be left with half a
            # group frozen and not know it.
            except (Exception, KeyboardInterrupt) as exc:
                message = _half_done(exc, parsed_args.servers, done)
                raise exceptions.CommandError(message) from exc
        return COLUMNS, rows

    def produce_output(
        self, parsed_args: argparse.Namespace, column_names: Any, data: Any
    ) -> int:
        """Print the table with --wait; nothing without it, in no format."""
        if parsed_args.wait:
            super().produce_output(parsed_args, column_names, data)
        return 0


def _half_done(exc: BaseException, servers: Sequence[str], done: int) -> str:
    """Return the one line that tells an operator where the group stands.

    :param servers: all servers of the command, in order
    :param done: how many of them were quiesced before the failure
    """
    reason = " ".join(str(exc).split()) or "Interrupted."
    # Anything but a clear answer leaves open what became of the last server.
    unclear = getattr(exc, "may_be_frozen", True)
    thaw = list(servers[: done + 1] if unclear else servers[:done])
    parts = [reason]
    if done:
        parts.append(f"Quiesced already: {', '.join(servers[:done])}.")
    if unclear:
        parts.append(f"May be quiesced: {servers[done]}.")
    if thaw:
        command_line = " ".join(["openstack server unquiesce", *reversed(thaw)])
        parts.append(f"Thaw with: {command_line}")
    return " ".join(parts)


class UnquiesceServer(command.Command):
    """Thaw the file systems of quiesced server(s).

    Servers are unquiesced in the given order: to thaw a group in the reverse order of
    its quiesce, name the servers in reverse. Every server is tried; the exit status is
    not 0 if one failed. With --wait all requests are sent before the first is waited
    for, so that a guest that hangs does not keep the others frozen, and a failure
    means that the guest was not frozen all the time since its quiesce: do not rely on
    snapshots taken in between.

    Needs compute API microversion 2.105, which is used unless another is chosen.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Return the parser with the options of this command."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument(
            "--wait",
            action="store_true",
            help="Wait for each server's result and fail if its freeze had a gap; "
            f"gives up after {client.WAIT_LIMIT} seconds for a server",
        )
        _add_servers(parser, "unquiesce")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Unquiesce all in order; raise CommandError if any failed."""
        conn = self.app.client_manager.nova_ext
        try:
            client.negotiate(conn)
        except client.ClientError as exc:
            raise exceptions.CommandError(str(exc)) from exc
        failures: dict[str, str] = {}
        accepted: list[tuple[str, str, str]] = []
        for name in parsed_args.servers:
            try:
                server_id, _name = client.find(conn, name)
                accepted.append((name, server_id, client.unquiesce(conn, server_id)))
            except Exception as exc:
                failures[name] = " ".join(str(exc).split())
        for name, server_id, request_id in accepted if parsed_args.wait else ():
            try:
                client.wait_unquiesced(conn, server_id, request_id)
            except Exception as exc:
                failures[name] = " ".join(str(exc).split())
        if not failures:
            return
        if len(parsed_args.servers) == 1:
            raise exceptions.CommandError(next(iter(failures.values())))
        for name in parsed_args.servers:
            if name in failures:
                self.log.error("%s: %s", name, failures[name])
        failed = [name for name in parsed_args.servers if name in failures]
        raise exceptions.CommandError(
            f"{len(failed)} of {len(parsed_args.servers)} servers failed to "
            f"unquiesce: {', '.join(failed)}"
        )
