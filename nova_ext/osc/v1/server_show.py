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

"""Owns the quiesce fields of ``openstack server show``, from 2.105 on.

openstacksdk's ``Server`` drops body attributes that it does not know, and
openstackclient shows what the SDK kept. A command of the same name in our own group
would replace the stock one, but cliff then warns of a duplicate at *every*
``openstack`` command. So this is a cliff command hook (entry point group
``openstack.cli.server_show``): the stock command runs as it is, and the hook adds the
three fields, from one more GET, to the columns that it returns. Below 2.105, or
without ``--os-compute-api-version``, the hook changes nothing and sends nothing.
cliff looks hooks up by the words as typed: an abbreviated ``server sho`` has none.
"""

import argparse
from typing import Any

from cliff import hooks

from nova_ext import client

FIELDS = ("quiesce_status", "quiesced_at", "unquiesce_at")


class QuiesceFields(hooks.CommandHook):
    """Adds quiesce_status, quiesced_at and unquiesce_at to the shown server."""

    def get_parser(self, parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        """Return the parser unchanged: there are no options of its own."""
        return parser

    def get_epilog(self) -> str:
        """Return the line for the help of ``server show``."""
        return (
            f"Specify --os-compute-api-version {client.MICROVERSION} or higher to see "
            f"{', '.join(FIELDS)}."
        )

    def before(self, parsed_args: argparse.Namespace) -> argparse.Namespace:
        """Return the arguments unchanged."""
        return parsed_args

    # cliff gives display commands' hooks the columns in place of the return code.
    def after(self, parsed_args: argparse.Namespace, return_code: Any) -> Any:
        """Return the columns and values with the fields added, in sorted order.

        :param return_code: column names and values, as the stock command made them
        """
        conn = self.cmd.app.client_manager.nova_ext  # type: ignore[attr-defined]
        if parsed_args.diagnostics or not client.chosen_microversion(conn):
            return return_code
        data = dict(zip(*return_code, strict=True))
        state = client.get_state(conn, data["id"])
        if not state.known:
            return return_code
        data |= {field: getattr(state, field) for field in FIELDS}
        columns = sorted(data)
        return tuple(columns), tuple(data[column] for column in columns)
