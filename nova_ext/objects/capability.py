# SPDX-License-Identifier: Apache-2.0
"""Owns the extension's own compute service version and how it is published.

Each nova-compute with the extension publishes its version, whether nova-ext-guard runs
beside it, and the PMEM devices that it can copy to, in the ``stats`` of its compute
node, which nova rewrites at each resource audit: what is published vanishes by itself
when the extension does. nova's ``SERVICE_VERSION`` is not touched.
"""

import json
from collections.abc import Iterable
from typing import Any

from nova import objects

#: What each version brought. A new one is added at the end, never changed.
VERSION_HISTORY = (
    (1, "quiesce and unquiesce"),
    (2, "copy_pmem_devices on resize and cold migration"),
)

VERSION = VERSION_HISTORY[-1][0]
QUIESCE = 1
COPY_PMEM = 2

STATS_KEY = "nova_ext"
PMEM_STATS_KEY = "nova_ext_pmem"
GUARD_STATS_KEY = "nova_ext_guard"

#: Size and alignment in bytes, of which a label has one or more.
PmemShapes = dict[str, set[tuple[int, int]]]


def publish(
    resources: dict[str, Any],
    vpmems: Iterable[Any] = (),
    guarded: bool | None = None,
) -> None:
    """Add what the extension can do on this host to what a virt driver reports.

    :param guarded: whether nova-ext-guard runs; None if this host freezes no guests
    :param vpmems: nova's ``LibvirtVPMEMDevice`` objects of the host. Sizes and
        alignments are published, not how many there are: placement counts them.
    """
    stats = resources.setdefault("stats", {})
    stats[STATS_KEY] = str(VERSION)
    if guarded is not None:
        stats[GUARD_STATS_KEY] = str(int(guarded))
    shapes: PmemShapes = {}
    for vpmem in vpmems:
        shapes.setdefault(vpmem.label, set()).add((vpmem.size, vpmem.align))
    if shapes:
        stats[PMEM_STATS_KEY] = json.dumps(
            {label: sorted(found) for label, found in sorted(shapes.items())},
            separators=(",", ":"),
        )


def of_instance(context: Any, instance: Any) -> int:
    """The version of the compute service that runs ``instance``; 0 without extension.

    :raises: nova.exception.ComputeHostNotFound when the host has no compute node
    """
    node = objects.ComputeNode.get_by_host_and_nodename(
        context, instance.host, instance.node
    )
    return of_node(node)


def of_node(node: Any) -> int:
    """The version of the compute service of a compute node; 0 without extension."""
    try:
        return int((node.stats or {}).get(STATS_KEY) or 0)
    except ValueError:
        return 0


def lacks_guard(node: Any) -> bool:
    """Whether guests are frozen on a compute node, and no nova-ext-guard runs."""
    return (node.stats or {}).get(GUARD_STATS_KEY) == "0"


def pmem_of_node(node: Any) -> PmemShapes:
    """The PMEM devices that a compute node publishes; what is unreadable is none."""
    text = (node.stats or {}).get(PMEM_STATS_KEY)
    try:
        return {
            label: {(int(size), int(align)) for size, align in found}
            for label, found in json.loads(text or "{}").items()
        }
    except (AttributeError, TypeError, ValueError):
        return {}
