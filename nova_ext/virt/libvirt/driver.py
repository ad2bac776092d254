# SPDX-License-Identifier: Apache-2.0
"""Owns which wings the libvirt driver has, and what they publish together."""

from typing import Any

from nova.virt.libvirt import driver
from typing_extensions import override

from nova_ext.objects import capability
from nova_ext.virt.libvirt.pmem.driver import PmemDriver
from nova_ext.virt.libvirt.quiesce.driver import QuiesceDriver


class LibvirtDriver(QuiesceDriver, PmemDriver, driver.LibvirtDriver):
    """nova's libvirt driver, with a quiescer and a copy of persistent memory."""

    #: Whether this host reaches the tables of the extension, as the compute manager
    #: has last seen; None until it has reached them for the first time.
    state_reachable: bool | None = None

    @override
    def get_available_resource(self, nodename: str) -> dict[str, Any]:
        """nova's resources, and what the extension can do on this host."""
        resources: dict[str, Any] = super().get_available_resource(nodename)
        if self.state_reachable:
            quiescer = self.guest_quiescer
            capability.publish(
                resources,
                self._vpmems_by_name.values(),
                guarded=quiescer.guarded() if quiescer else None,
            )
        return resources
