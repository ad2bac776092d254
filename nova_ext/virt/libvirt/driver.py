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

"""Owns the libvirt driver of the extension: what it changes in nova's, and no more."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any, Protocol

import nova.conf
from nova import exception
from nova.virt.libvirt import driver

from nova_ext.compute import capability
from nova_ext.virt.libvirt import quiesce

CONF = nova.conf.CONF

#: Set while an assisted volume snapshot of a guest that the user has frozen is taken.
_frozen_by_user: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "nova_ext_frozen_by_user", default=False
)


class QuiesceWindows(Protocol):
    """What the driver needs of :class:`nova_ext.compute.quiesce.QuiesceManager`."""

    def interrupt(self, uuid: str, reason: str) -> None:
        """The guest stops running: its window cannot be kept."""

    def holds(self, instance: Any) -> bool:
        """Whether the user has frozen the guest."""


class LibvirtDriver(driver.LibvirtDriver):
    """nova's libvirt driver with a freezer, and respect for a user's freeze."""

    #: Set by the compute manager once it is built.
    quiesce_windows: QuiesceWindows | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.guest_freezer = None
        if CONF.libvirt.virt_type in ("kvm", "qemu"):
            self.guest_freezer = quiesce.LibvirtGuestFreezer(
                lambda uuid: self._host.get_connection().lookupByUUIDString(uuid),
                lambda: int(CONF.nova_ext.quiesce_agent_timeout),
            )

    def get_available_resource(self, nodename: str) -> dict[str, Any]:
        """nova's resources, and the extension's compute service version."""
        resources: dict[str, Any] = super().get_available_resource(nodename)
        capability.publish(resources)
        return resources

    # An image of a guest that the user has frozen neither freezes nor thaws it.

    def quiesce(self, context: Any, instance: Any, image_meta: Any) -> None:
        """Freeze for an image, unless the user's own freeze holds."""
        if not self._frozen_by_user(instance):
            super().quiesce(context, instance, image_meta)

    def unquiesce(self, context: Any, instance: Any, image_meta: Any) -> None:
        """Thaw after an image, unless the user's own freeze holds."""
        if not self._frozen_by_user(instance):
            super().unquiesce(context, instance, image_meta)

    def _volume_snapshot_create(
        self, context: Any, instance: Any, *args: Any, **kwargs: Any
    ) -> None:
        with self._frozen_already(instance):
            super()._volume_snapshot_create(context, instance, *args, **kwargs)

    def _can_quiesce(self, instance: Any, image_meta: Any) -> None:
        if _frozen_by_user.get():
            raise exception.InstanceQuiesceNotSupported(instance_id=instance.uuid)
        super()._can_quiesce(instance, image_meta)

    def _requires_quiesce(self, image_meta: Any) -> bool:
        return not _frozen_by_user.get() and bool(super()._requires_quiesce(image_meta))

    def _frozen_by_user(self, instance: Any) -> bool:
        return self.quiesce_windows is not None and self.quiesce_windows.holds(instance)

    @contextlib.contextmanager
    def _frozen_already(self, instance: Any) -> Iterator[None]:
        token = _frozen_by_user.set(self._frozen_by_user(instance))
        try:
            yield
        finally:
            _frozen_by_user.reset(token)

    # A guest that stops running does not keep its window.

    # Signatures as in nova's ComputeDriver, which other drivers have to keep too.

    def reboot(
        self,
        context: Any,
        instance: Any,
        network_info: Any,
        reboot_type: str,
        block_device_info: Any = None,
        bad_volumes_callback: Any = None,
        accel_info: Any = None,
        share_info: Any = None,
    ) -> Any:
        """Reboot, which ends a window."""
        self._interrupt(instance, "the server was rebooted")
        return super().reboot(
            context,
            instance,
            network_info,
            reboot_type,
            block_device_info=block_device_info,
            bad_volumes_callback=bad_volumes_callback,
            accel_info=accel_info,
            share_info=share_info,
        )

    def power_off(
        self, instance: Any, timeout: int = 0, retry_interval: int = 0
    ) -> None:
        """Power off, which ends a window: a frozen guest could not shut down."""
        self._interrupt(instance, "the server was powered off")
        super().power_off(instance, timeout, retry_interval)

    def destroy(
        self,
        context: Any,
        instance: Any,
        network_info: Any,
        block_device_info: Any = None,
        destroy_disks: bool = True,
        destroy_secrets: bool = True,
    ) -> None:
        """Destroy the guest, which ends a window."""
        self._interrupt(instance, "the guest was destroyed")
        super().destroy(
            context,
            instance,
            network_info,
            block_device_info=block_device_info,
            destroy_disks=destroy_disks,
            destroy_secrets=destroy_secrets,
        )

    def _interrupt(self, instance: Any, reason: str) -> None:
        if self.quiesce_windows is not None:
            self.quiesce_windows.interrupt(instance.uuid, reason)
