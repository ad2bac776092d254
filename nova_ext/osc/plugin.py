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

"""Owns what openstackclient asks of a plugin; the commands are in ``v1``.

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
