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

"""Owns the extension's own compute service version and how it is published.

Each nova-compute with the extension publishes its version in the ``stats`` of its
compute node, which nova rewrites at each resource audit: the version vanishes by itself
when the extension does. nova's ``SERVICE_VERSION`` is not touched.
"""

from typing import Any

from nova import objects

#: What each version brought. A new one is added at the end, never changed.
VERSION_HISTORY = ((1, "quiesce and unquiesce"),)

VERSION = VERSION_HISTORY[-1][0]
QUIESCE = 1

STATS_KEY = "nova_ext"


def publish(resources: dict[str, Any]) -> None:
    """Add the version to the resources that a virt driver reports."""
    resources.setdefault("stats", {})[STATS_KEY] = str(VERSION)


def of_instance(context: Any, instance: Any) -> int:
    """The version of the compute service that runs ``instance``; 0 without extension.

    :raises: nova.exception.ComputeHostNotFound when the host has no compute node
    """
    node = objects.ComputeNode.get_by_host_and_nodename(
        context, instance.host, instance.node
    )
    try:
        return int((node.stats or {}).get(STATS_KEY, 0))
    except ValueError:
        return 0
