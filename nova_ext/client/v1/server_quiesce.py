# SPDX-License-Identifier: Apache-2.0
"""``openstack server quiesce`` and ``unquiesce``; the requests are compute.py's.

Exit status: 0 when everything went well, 1 when something failed (one line on stderr
says what), 2 when the command line is wrong and nothing was sent.
"""

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from osc_lib import exceptions
from osc_lib.command import command

from nova_ext.client import compute
from nova_ext.client import exceptions as client_exceptions

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

    The exit status is 0 if all were quiesced (without --wait: accepted), 1 if one
    failed, 2 if the command line is wrong.

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
            "--partial",
            action="store_true",
            help="Go on if a writable file system cannot be frozen (a vfat, say); "
            "without it the quiesce fails and names the mount points",
        )
        parser.add_argument(
            "--wait",
            action="store_true",
            help="Wait until each server is quiesced and show the deadlines; gives up "
            f"<seconds> + {compute.WAIT_GRACE} seconds after a request, at the latest "
            f"after {compute.WAIT_LIMIT} seconds",
        )
        _add_servers(parser, "quiesce")
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[Sequence[str], Iterable[Any]]:
        """Quiesce in order; raise CommandError at the first failure."""
        conn = self.app.client_manager.nova_ext
        try:
            compute.negotiate(conn)
            # All names first: a typing error must not leave half a group frozen.
            found = [compute.find(conn, name) for name in parsed_args.servers]
        except client_exceptions.ClientError as exc:
            raise exceptions.CommandError(str(exc)) from exc
        ids = [server_id for server_id, _name in found]
        if len(set(ids)) < len(ids):
            raise exceptions.CommandError(
                "A server is given more than once: name each server once."
            )
        rows: list[tuple[str | None, ...]] = []
        for done, server_id in enumerate(ids):
            try:
                request_id = compute.quiesce(
                    conn, server_id, parsed_args.timeout, partial=parsed_args.partial
                )
                if parsed_args.wait:
                    limit = compute.quiesce_wait_limit(parsed_args.timeout)
                    compute.wait_quiesced(conn, server_id, request_id, limit=limit)
                    server = compute.get_quiesced(conn, server_id)
                    rows.append(
                        (
                            server.id,
                            server.name,
                            server.quiesced_at,
                            server.unquiesce_at,
                        )
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
    its quiesce, name the servers in reverse. Every server is tried, and once even if it
    is given more than once. With --wait all requests are sent before the first is
    waited for, so that a guest that hangs does not keep the others frozen, and a
    failure means that the guest was not frozen all the time since its quiesce: do not
    rely on snapshots taken in between.

    The exit status is 0 if all were unquiesced (without --wait: accepted), 1 if one
    failed, 2 if the command line is wrong.

    Needs compute API microversion 2.105, which is used unless another is chosen.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Return the parser with the options of this command."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument(
            "--wait",
            action="store_true",
            help="Wait for each server's result and fail if its freeze had a gap; "
            f"gives up after {compute.WAIT_LIMIT} seconds for a server",
        )
        _add_servers(parser, "unquiesce")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Unquiesce all in order; raise CommandError if any failed."""
        conn = self.app.client_manager.nova_ext
        try:
            compute.negotiate(conn)
        except client_exceptions.ClientError as exc:
            raise exceptions.CommandError(str(exc)) from exc
        failures: dict[str, str] = {}
        accepted: list[tuple[str, str, str]] = []
        tried: dict[str, str] = {}
        for name in dict.fromkeys(parsed_args.servers):
            server_id = name  # what it is if it cannot be found
            try:
                server_id, _name = compute.find(conn, name)
                if server_id not in tried:
                    request_id = compute.unquiesce(conn, server_id)
                    accepted.append((name, server_id, request_id))
            except Exception as exc:
                failures[name] = " ".join(str(exc).split())
            tried.setdefault(server_id, name)
        for name, server_id, request_id in accepted if parsed_args.wait else ():
            try:
                compute.wait_unquiesced(conn, server_id, request_id)
            except Exception as exc:
                failures[name] = " ".join(str(exc).split())
        if not failures:
            return
        if len(tried) == 1:
            raise exceptions.CommandError(next(iter(failures.values())))
        failed = [name for name in tried.values() if name in failures]
        for name in failed:
            self.log.error("%s: %s", name, failures[name])
        raise exceptions.CommandError(
            f"{len(failed)} of {len(tried)} servers failed to unquiesce: "
            f"{', '.join(failed)}"
        )
