# SPDX-License-Identifier: Apache-2.0
"""Owns the schemas of ``resize`` and ``migrate`` from 2.105 on.

They are nova's with one more property, so that what nova takes is taken.
"""

import copy
from typing import Any

from nova.api.openstack.compute.schemas import migrate_server, servers
from nova.api.validation import parameter_types


def _extended(schema: dict[str, Any], action: str) -> dict[str, Any]:
    extended = copy.deepcopy(schema)
    properties = extended["properties"][action]["properties"]
    properties["copy_pmem_devices"] = parameter_types.boolean
    return extended


migrate: dict[str, Any] = _extended(migrate_server.migrate, "migrate")

resize: dict[str, Any] = _extended(servers.resize, "resize")
