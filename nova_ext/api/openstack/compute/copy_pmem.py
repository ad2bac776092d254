# SPDX-License-Identifier: Apache-2.0
"""Owns ``copy_pmem_devices`` in the bodies of ``resize`` and ``migrate``."""

from typing import Any

from nova.api.openstack import api_version_request
from oslo_utils import strutils

from nova_ext import exception
from nova_ext.api.openstack.compute import versions

NAME = "copy_pmem_devices"


def pop_copy_pmem_devices(
    req: Any, action: str, body: dict[str, Any], strict_from: str
) -> tuple[bool, dict[str, Any]]:
    """Whether the body asks for a copy, and the body as stock nova takes it.

    :param body: validated if the request knows ``copy_pmem_devices``
    :param strict_from: the microversion from which on nova refuses what it does not
        know; before, and in the legacy v2 API, it would drop it, and the data
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
