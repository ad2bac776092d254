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

"""Owns ``copy_pmem_devices`` in the bodies of ``resize`` and ``migrate``."""

from typing import Any

from nova.api.openstack import api_version_request
from oslo_utils import strutils

from nova_ext import exception
from nova_ext.api.openstack.compute import versions

NAME = "copy_pmem_devices"


def take(
    req: Any, action: str, body: dict[str, Any], strict_from: str
) -> tuple[bool, dict[str, Any]]:
    """Whether the body orders a copy, and the body as stock nova takes it.

    :param body: validated if the request knows ``copy_pmem_devices``
    :param strict_from: the microversion from which on nova refuses what it does not
        know; before, and in the legacy v2 API, it would drop an order and the data
    :raises: nova_ext.exception.CopyPmemMicroversion
    """
    argument = body[action]
    if not isinstance(argument, dict) or NAME not in argument:
        return False, body
    if not api_version_request.is_supported(req, versions.COPY_PMEM):
        if api_version_request.is_supported(req, strict_from):
            return False, body
        raise exception.CopyPmemMicroversion(needed=versions.COPY_PMEM)
    rest = {name: value for name, value in argument.items() if name != NAME}
    return strutils.bool_from_string(argument[NAME], strict=True), {action: rest}
