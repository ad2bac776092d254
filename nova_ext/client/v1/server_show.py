# SPDX-License-Identifier: Apache-2.0
"""The quiesce fields of ``openstack server show``, from 2.105 on.

openstacksdk's ``Server`` drops body attributes that it does not know, and
openstackclient shows what the SDK kept. A command of the same name in our own group
would replace the stock one, but cliff then warns of a duplicate at *every*
``openstack`` command. So this is a cliff command hook (entry point group
``openstack.cli.server_show``): the stock command runs as it is, and the hook adds the
three fields, from one more GET, to the columns that it returns. Below 2.105, or
without ``--os-compute-api-version``, the hook changes nothing and sends nothing; but
who asks for one of the fields by ``-c`` is told which version it takes.
cliff looks hooks up by the words as typed: an abbreviated ``server sho`` has none.
"""

import argparse
from typing import Any

from cliff import hooks
from osc_lib import exceptions

from nova_ext.client import compute

FIELDS = ("quiesce_status", "quiesced_at", "unquiesce_at")


class QuiesceFields(hooks.CommandHook):
    """Adds quiesce_status, quiesced_at and unquiesce_at to the shown server."""

    def get_parser(self, parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        """Return the parser unchanged: there are no options of its own."""
        return parser

    def get_epilog(self) -> str:
        """Return the line for the help of ``server show``."""
        return (
            f"Specify --os-compute-api-version {compute.MICROVERSION} or higher to see "
            f"{', '.join(FIELDS)}."
        )

    def before(self, parsed_args: argparse.Namespace) -> argparse.Namespace:
        """Return the arguments unchanged.

        :raises osc_lib.exceptions.CommandError: one of the fields is asked for, and the
            microversion has none
        """
        asked = _asked(parsed_args)
        if asked and not compute.chosen_microversion(self._conn):
            raise exceptions.CommandError(
                f"{', '.join(asked)} can be shown from compute API microversion "
                f"{compute.MICROVERSION} on: add --os-compute-api-version "
                f"{compute.MICROVERSION}."
            )
        return parsed_args

    # cliff gives display commands' hooks the columns in place of the return code.
    def after(self, parsed_args: argparse.Namespace, return_code: Any) -> Any:
        """Return the columns and values with the fields added, in sorted order.

        :param return_code: column names and values, as the stock command made them
        """
        if parsed_args.diagnostics or not compute.chosen_microversion(self._conn):
            return return_code
        data = dict(zip(*return_code, strict=True))
        server = compute.get_server(self._conn, data["id"])
        if not server.knows_quiesce:
            return return_code
        data |= {field: getattr(server, field) for field in FIELDS}
        columns = sorted(data)
        return tuple(columns), tuple(data[column] for column in columns)

    @property
    def _conn(self) -> Any:
        return self.cmd.app.client_manager.nova_ext  # type: ignore[attr-defined]


def _asked(parsed_args: argparse.Namespace) -> list[str]:
    """Return which of the fields are asked for by name, as cliff reads names."""
    if parsed_args.diagnostics:
        return []
    names = (name.lower().strip().replace(" ", "_") for name in parsed_args.columns)
    return [name for name in names if name in FIELDS]
