# SPDX-License-Identifier: Apache-2.0
"""Owns what the API checks before it accepts the order to copy PMEM devices.

What is asked: will the source copy, and where can the data go? It is answered from the
database alone, so that a user gets 400 before anything happens. Whether a device is
free is left to placement, and whether it is there to the hosts.
"""

import collections
from collections.abc import Iterable, Sequence
from typing import Any

from nova import exception, objects
from nova.virt import hardware

from nova_ext import exception as ext_exception
from nova_ext.objects import capability


def devices(instance: Any) -> list[Any]:
    """The PMEM devices of a server, as nova's ``LibvirtVPMEMDevice`` objects.

    :raises: nova_ext.exception.CopyPmemNoDevices
    """
    metadata = [
        resource.metadata
        for resource in instance.resources or ()
        if "metadata" in resource
    ]
    found = [each for each in metadata if isinstance(each, objects.LibvirtVPMEMDevice)]
    if not found:
        raise ext_exception.CopyPmemNoDevices(instance_uuid=instance.uuid)
    return found


def check_flavor(instance: Any, flavor: Any, needed: Sequence[Any]) -> None:
    """Refuse a new flavor that has no place for a device.

    :param needed: what :func:`devices` gave
    :raises: nova_ext.exception.CopyPmemLabelMissing
    """
    missing = collections.Counter(device.label for device in needed)
    missing.subtract(hardware.get_vpmems(flavor))
    labels = sorted((+missing).elements())
    if labels:
        raise ext_exception.CopyPmemLabelMissing(
            instance_uuid=instance.uuid, labels=", ".join(labels)
        )


def check_source(context: Any, instance: Any) -> None:
    """Refuse a source host that would ignore the order, and so lose the data.

    :raises: nova_ext.exception.CopyPmemComputeTooOld
    """
    try:
        version = capability.of_instance(context, instance)
    except exception.ComputeHostNotFound:
        version = 0
    if version < capability.COPY_PMEM:
        raise ext_exception.CopyPmemComputeTooOld(instance_uuid=instance.uuid)


def check_host(context: Any, instance: Any, host: str, needed: Sequence[Any]) -> None:
    """Refuse a destination that the user has named.

    :raises: nova_ext.exception.CopyPmemCrossCell, CopyPmemHostTooOld or
        CopyPmemHostUnfit; nova.exception.CannotMigrateToSameHost or ComputeHostNotFound
    """
    if host == instance.host:
        raise exception.CannotMigrateToSameHost()
    try:
        node = objects.ComputeNode.get_first_node_by_host_for_old_compat(context, host)
    except exception.ComputeHostNotFound:
        if _is_mapped(context, host):
            raise ext_exception.CopyPmemCrossCell(
                host=host, instance_uuid=instance.uuid
            ) from None
        raise
    if capability.of_node(node) < capability.COPY_PMEM:
        raise ext_exception.CopyPmemHostTooOld(host=host)
    if not _fits(node, needed):
        raise ext_exception.CopyPmemHostUnfit(host=host, devices=_wanted(needed))


def unfit_hosts(
    context: Any, instance: Any, needed: Sequence[Any], stay: bool
) -> list[str]:
    """The hosts of the server's cell that the scheduler must not choose.

    :param stay: whether the server's own host may be chosen
    :raises: nova_ext.exception.CopyPmemNoHost when no other is left
    """
    nodes = [node for node in objects.ComputeNodeList.get_all(context) if node.host]
    unfit = {node.host for node in nodes if not _fits(node, needed)}
    left = {node.host for node in nodes} - unfit
    if not stay:
        left.discard(instance.host)
    if not left:
        raise ext_exception.CopyPmemNoHost(
            instance_uuid=instance.uuid, devices=_wanted(needed)
        )
    return sorted(unfit)


class AvoidingComputeTaskAPI:
    """nova-conductor's client for one request, which keeps the scheduler off hosts."""

    def __init__(self, compute_task_api: Any, hosts: Iterable[str]) -> None:
        self._compute_task_api = compute_task_api
        self._hosts = list(hosts)

    def resize_instance(
        self, context: Any, instance: Any, *, request_spec: Any, **kwargs: Any
    ) -> None:
        """nova's ``resize_instance``, with more hosts to ignore.

        nova writes ``ignore_hosts`` anew for each request, and does not store it.
        """
        request_spec.ignore_hosts = [*(request_spec.ignore_hosts or ()), *self._hosts]
        self._compute_task_api.resize_instance(
            context, instance, request_spec=request_spec, **kwargs
        )


def _fits(node: Any, needed: Iterable[Any]) -> bool:
    if capability.of_node(node) < capability.COPY_PMEM:
        return False
    shapes = capability.pmem_of_node(node)
    return all(
        any(
            size >= device.size and align == device.align
            for size, align in shapes.get(device.label, ())
        )
        for device in needed
    )


def _is_mapped(context: Any, host: str) -> bool:
    try:
        objects.HostMapping.get_by_host(context, host)
    except exception.HostMappingNotFound:
        return False
    return True


def _wanted(needed: Iterable[Any]) -> str:
    return ", ".join(
        f"{device.label} of at least {device.size} bytes, aligned to {device.align}"
        for device in needed
    )
