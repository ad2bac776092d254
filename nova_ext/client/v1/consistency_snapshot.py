# SPDX-License-Identifier: Apache-2.0
"""``openstack consistency snapshot``; the work is the consistency library's."""

import argparse
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import openstack
from cliff import columns
from openstack import exceptions as sdk_exceptions
from osc_lib import exceptions
from osc_lib.cli import format_columns, parseractions
from osc_lib.command import command
from rich import console, progress

from nova_ext.client import exceptions as client_exceptions
from nova_ext.client.consistency import (
    errors,
    groups,
    plan,
    replicate,
    report,
    restore,
    transaction,
)
from nova_ext.client.v1 import server_quiesce


class _Servers(columns.FormattableColumn[Any]):
    """Reports of servers: one line each for people, all fields for programs."""

    def human_readable(self) -> str:
        lines = []
        for server in self._value:
            why = f"not consistent ({server['reason']})"
            state = "consistent" if server["consistent"] else why
            window = f" {server['window_ms']} ms" if server["window_ms"] else ""
            frozen = server["frozen_at"] or "-"
            lines.append(
                f"{server['name']}: {state}, frozen {frozen} to "
                f"{server['thawed_at'] or '-'}{window}; {', '.join(server['members'])}"
            )
        return "\n".join(lines)


class _Ordered(columns.FormattableColumn[Any]):
    """A list whose order means something, so that it is not sorted for people."""

    def human_readable(self) -> str:
        return ", ".join(self._value)


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """Turn what the library and the SDK raise into the error of a command."""
    try:
        yield
    except (
        client_exceptions.ClientError,
        errors.ConsistencyError,
        sdk_exceptions.SDKException,
    ) as exc:
        raise exceptions.CommandError(" ".join(str(exc).split())) from exc


@contextlib.contextmanager
def _bar() -> Iterator[report.Observer]:
    """Show the steps as a bar on the terminal, if standard error is one."""
    out = console.Console(stderr=True)
    if not out.is_terminal:
        yield report.nobody
        return
    with progress.Progress(console=out, transient=True) as shown:
        task = shown.add_task("planning")

        def observe(step: report.Step) -> None:
            text = f"{step.kind.replace('_', ' ')} {step.what}"
            shown.update(task, description=text, completed=step.done, total=step.total)

        yield observe


def _connect(cloud: str) -> Any:
    """Return a connection to another entry of clouds.yaml."""
    try:
        return openstack.connect(cloud=cloud)
    except sdk_exceptions.ConfigException as exc:
        raise exceptions.CommandError(
            f"There is no cloud {cloud}: name one of clouds.yaml."
        ) from exc


def _add_snapshot(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "snapshot",
        metavar="<consistency-snapshot>",
        help=f"Consistency snapshot to {what} (name or ID)",
    )


class CreateConsistencySnapshot(command.ShowOne):
    """Take one consistent snapshot of an ordered group of servers.

    The servers are quiesced in the given order, all their disks are snapshotted, and
    they are unquiesced in reverse order. The snapshot is good if every server was
    frozen without a gap meanwhile. If anything fails, all servers are thawed and
    everything that was made is removed; --best-effort keeps what is not proved.

    Needs compute API microversion 2.105, which is used unless another is chosen.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Return the parser with the options of this command."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument(
            "--server",
            metavar="<server>[+<server>...]",
            dest="stages",
            action="append",
            required=True,
            help="Server to include (name or ID); repeat the option in the order in "
            "which they are to be quiesced. Servers joined by + are quiesced at the "
            "same time",
        )
        parser.add_argument("--name", metavar="<name>", help="Name of the snapshot")
        parser.add_argument(
            "--timeout",
            metavar="<seconds>",
            type=server_quiesce.seconds,
            default=plan.TIMEOUT,
            help="Longest time from the first quiesce to the last unquiesce. At its "
            "end the compute hosts thaw all servers by themselves "
            f"(default: {plan.TIMEOUT})",
        )
        parser.add_argument(
            "--property",
            metavar="<key=value>",
            dest="properties",
            action=parseractions.KeyValueAction,
            default={},
            help="Property for all members of the snapshot (repeat for several)",
        )
        mode = parser.add_mutually_exclusive_group()
        mode.add_argument(
            "--require-all",
            action="store_false",
            dest="best_effort",
            default=False,
            help="Fail unless every server was frozen without a gap (default)",
        )
        mode.add_argument(
            "--best-effort",
            action="store_true",
            default=False,
            help="Keep also disks of servers that could not be frozen, or whose freeze "
            "had a gap; the snapshot is then partial",
        )
        parser.add_argument(
            "--backup",
            action="store_true",
            help="Back the volumes up from the snapshots once the servers are thawed, "
            "and wait for that",
        )
        parser.add_argument(
            "--incremental",
            action="store_true",
            help="Back up only what the latest backup of each volume lacks (with "
            "--backup)",
        )
        parser.add_argument(
            "--backup-availability-zone",
            metavar="<zone>",
            help="Availability zone of the backup service to use (with --backup; "
            "default: set by the cloud)",
        )
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[Sequence[str], Iterable[Any]]:
        """Make it and show the report; raise CommandError if it failed."""
        more = parsed_args.incremental or parsed_args.backup_availability_zone
        if more and not parsed_args.backup:
            raise exceptions.CommandError(
                "--incremental and --backup-availability-zone need --backup."
            )
        with _one_line(), _bar() as observe:
            made = transaction.create(
                self.app.client_manager.nova_ext,
                [stage.split("+") for stage in parsed_args.stages],
                name=parsed_args.name,
                timeout=parsed_args.timeout,
                properties=parsed_args.properties,
                best_effort=parsed_args.best_effort,
                backup=parsed_args.backup,
                incremental=parsed_args.incremental,
                backup_zone=parsed_args.backup_availability_zone,
                observe=observe,
            )
        servers = [asdict(server) for server in made.servers]
        for server in servers:
            for name in ("frozen_at", "thawed_at"):
                if server[name]:
                    server[name] = plan.iso(server[name])
        return ("id", "name", "consistency", "window_ms", "servers"), (
            made.id,
            made.name,
            made.consistency,
            made.window_ms,
            _Servers(servers),
        )


class ListConsistencySnapshot(command.Lister):
    """List consistency snapshots."""

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[Sequence[str], Iterable[Any]]:
        """Return one row for each, the oldest first."""
        with _one_line():
            found = groups.find_all(self.app.client_manager.nova_ext)
        header = ("ID", "Name", "Status", "Consistency", "Backup", "Servers", "Created")
        return header, [
            (
                group.id,
                group.name,
                str(group.status),
                group.consistency,
                group.backup_status and str(group.backup_status),
                _Ordered([server.name for server in group.servers]),
                group.header.created_at,
            )
            for group in found
        ]


class ShowConsistencySnapshot(command.ShowOne):
    """Show a consistency snapshot and its members."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Return the parser with the options of this command."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        _add_snapshot(parser, "show")
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[Sequence[str], Iterable[Any]]:
        """Return its fields."""
        with _one_line():
            group = groups.find(self.app.client_manager.nova_ext, parsed_args.snapshot)
        fields: dict[str, Any] = {
            "id": group.id,
            "name": group.name,
            "status": str(group.status),
            "consistency": group.consistency,
            "window_ms": group.window_ms,
            "snapshot_status": str(group.snapshot_status),
            "backup_status": group.backup_status and str(group.backup_status),
            "created_at": group.header.created_at,
            "properties": format_columns.DictColumn(group.properties),
            "servers": _Ordered([f"{one.name}={one.id}" for one in group.servers]),
            "members": _Ordered(list(_members(group))),
        }
        return tuple(fields), tuple(fields.values())


def _members(group: groups.Group) -> Iterator[str]:
    for number, disk in group.disks.items():
        for found in (group.snapshots.get(number), group.backups.get(number)):
            if found:
                yield f"{disk.title}={found.title} ({found.status})"


class DeleteConsistencySnapshot(command.Command):
    """Delete consistency snapshot(s) with all their snapshots, backups and images.

    The data of backups goes, too: a cloud that they were replicated to cannot restore
    them any more.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Return the parser with the options of this command."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument(
            "snapshots",
            metavar="<consistency-snapshot>",
            nargs="+",
            help="Consistency snapshot(s) to delete (name or ID)",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Delete all; raise CommandError with what is left if one failed."""
        conn = self.app.client_manager.nova_ext
        failures = []
        for name in parsed_args.snapshots:
            try:
                with _one_line():
                    groups.delete(conn, groups.find(conn, name))
            except exceptions.CommandError as exc:
                failures.append(f"{name}: {exc}")
        if failures:
            raise exceptions.CommandError(" ".join(failures))


class ReplicateConsistencySnapshot(command.Command):
    """Make the backups of a consistency snapshot known to another cloud.

    Both clouds need access to the same backup store. The snapshot can then be listed
    and restored there, also when this cloud is gone.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Return the parser with the options of this command."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument(
            "--cloud",
            metavar="<cloud>",
            required=True,
            help="The other cloud (entry of clouds.yaml)",
        )
        _add_snapshot(parser, "replicate")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Bring over what is not there yet."""
        conn = self.app.client_manager.nova_ext
        with _one_line(), _bar() as observe:
            group = groups.find(conn, parsed_args.snapshot)
            target = _connect(parsed_args.cloud)
            replicate.replicate(conn, target, group, observe=observe)


class RestoreConsistencySnapshot(command.Lister):
    """Make servers of a consistency snapshot, in their order.

    They are made of its snapshots, or of its backups if those are gone. With --cloud
    they are made in another cloud, of its backups, which are replicated first.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Return the parser with the options of this command."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument(
            "--cloud",
            metavar="<cloud>",
            help="Cloud to restore in (entry of clouds.yaml; default: this one)",
        )
        parser.add_argument(
            "--new-addresses",
            action="store_true",
            help="Give the servers new MAC and IP addresses on their networks, as is "
            "needed beside the originals",
        )
        _add_snapshot(parser, "restore")
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[Sequence[str], Iterable[Any]]:
        """Make them and return a row for each; raise CommandError if one failed."""
        conn = self.app.client_manager.nova_ext
        with _one_line(), _bar() as observe:
            group = groups.find(conn, parsed_args.snapshot)
            if parsed_args.cloud:
                target = _connect(parsed_args.cloud)
                group = replicate.replicate(conn, target, group, observe=observe)
                conn = target
            made = restore.restore(
                conn, group, new_addresses=parsed_args.new_addresses, observe=observe
            )
        return ("ID", "Name", "Original", "Disks"), [
            (one.id, one.name, one.original, _Ordered(one.disks)) for one in made
        ]
