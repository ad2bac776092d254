# SPDX-License-Identifier: Apache-2.0
"""What openstackclient asks of a plugin; the commands are in ``v1``.

openstackclient reads these names from every module in the entry point group
``openstack.cli.extension`` and then loads the commands of ``openstack.nova_ext.v1``.
There is no API version option: the compute service's own
``--os-compute-api-version`` decides.
"""

import argparse
from typing import Any

API_NAME = "nova_ext"
API_VERSION_OPTION = "os_nova_ext_api_version"
API_VERSIONS = ("1",)
DEFAULT_API_VERSION = "1"


def make_client(instance: Any) -> Any:
    """Return what ``client_manager.nova_ext`` is: the shell's SDK connection.

    :param instance: openstackclient's ``ClientManager``
    """
    return instance.sdk_connection


def build_option_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Return the parser of the shell as it is: there are no global options."""
    return parser
