# SPDX-License-Identifier: Apache-2.0
"""Owns what quiesce changes in nova's libvirt driver, and no more."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any, Protocol

import nova.conf
from nova import exception
from nova.compute import utils
from nova.virt.libvirt import driver
from oslo_log import log as logging
from typing_extensions import override

from nova_ext.guard import host as guard
from nova_ext.virt.guest_quiescer import FreezeError
from nova_ext.virt.libvirt.quiesce import quiescer

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

#: Set while an assisted volume snapshot of a guest that the user has frozen is taken.
_frozen_by_user: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "nova_ext_frozen_by_user", default=False
)


class FreezeWindows(Protocol):
    """What the driver needs of nova-compute's quiesce manager."""

    def interrupt(self, uuid: str, reason: str) -> None:
        """The guest is to stop: its window cannot be kept."""

    def lose(self, uuid: str, reason: str) -> None:
        """The memory of the guest is lost, and with it what was frozen."""

    def refuse(self, instance: Any, method: str, forced: bool = False) -> None:
        """Raise InstanceInvalidState for what a frozen guest cannot do."""

    def holds(self, instance: Any) -> bool:
        """Whether the user has frozen the guest."""


class QuiesceDriver(driver.LibvirtDriver):
    """nova's libvirt driver, which can freeze a guest and knows when one is frozen."""

    #: Set by the compute manager once it is built.
    quiesce_windows: FreezeWindows | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.guest_quiescer = None
        if CONF.libvirt.virt_type in ("kvm", "qemu"):
            thawer = guard.thawer(CONF, guard.NOVA_COMPUTE, self._uri())
            self.guest_quiescer = quiescer.LibvirtGuestQuiescer(thawer)

    @override
    def init_host(self, host: str) -> None:
        """nova's; then guests are thawed at their deadlines.

        That is before anything here asks for the message bus or the database.
        """
        super().init_host(host)
        if self.guest_quiescer is not None:
            self.guest_quiescer.start_guard()

    # An image of a guest that the user has frozen neither freezes nor thaws it.

    @override
    def quiesce(self, context: Any, instance: Any, image_meta: Any) -> None:
        """Freeze for an image, unless the user's own freeze holds."""
        if self._frozen_by_user(instance):
            return
        with self._settled(instance):
            super().quiesce(context, instance, image_meta)

    @override
    def unquiesce(self, context: Any, instance: Any, image_meta: Any) -> None:
        """Thaw after an image, unless the user's own freeze holds."""
        if not self._frozen_by_user(instance):
            super().unquiesce(context, instance, image_meta)

    @override
    def _volume_snapshot_create(
        self, context: Any, instance: Any, *args: Any, **kwargs: Any
    ) -> None:
        with self._frozen_already(instance):
            super()._volume_snapshot_create(context, instance, *args, **kwargs)

    @override
    def _can_quiesce(self, instance: Any, image_meta: Any) -> None:
        if _frozen_by_user.get():
            raise exception.InstanceQuiesceNotSupported(instance_id=instance.uuid)
        super()._can_quiesce(instance, image_meta)

    @override
    def _requires_quiesce(self, image_meta: Any) -> bool:
        return not _frozen_by_user.get() and bool(super()._requires_quiesce(image_meta))

    @contextlib.contextmanager
    def _settled(self, instance: Any) -> Iterator[None]:
        """Keep the guard away from a freeze of nova's own."""
        if self.guest_quiescer is None:
            yield
            return
        try:
            with self.guest_quiescer.not_while_frozen(instance.uuid):
                yield
        except FreezeError as exc:
            raise exception.InstanceQuiesceFailed(reason=str(exc)) from exc

    def _frozen_by_user(self, instance: Any) -> bool:
        return self.quiesce_windows is not None and self.quiesce_windows.holds(instance)

    @contextlib.contextmanager
    def _frozen_already(self, instance: Any) -> Iterator[None]:
        """Let libvirt freeze for a volume, unless the user's own freeze holds."""
        frozen = self._frozen_by_user(instance)
        token = _frozen_by_user.set(frozen)
        with contextlib.ExitStack() as stack:
            stack.callback(_frozen_by_user.reset, token)
            try:
                if not frozen:
                    stack.enter_context(self._settled(instance))
            except exception.InstanceQuiesceFailed as exc:
                if self._requires_quiesce(instance.image_meta):
                    raise
                LOG.info("Not freezing for a volume: %s", exc, instance=instance)
            yield

    # A guest that stops running does not keep its window.

    # Signatures as in nova's ComputeDriver, which other drivers have to keep too.

    @override
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
        result = super().reboot(
            context,
            instance,
            network_info,
            reboot_type,
            block_device_info=block_device_info,
            bad_volumes_callback=bad_volumes_callback,
            accel_info=accel_info,
            share_info=share_info,
        )
        self._lose(instance, "the server was rebooted")
        return result

    @override
    def power_off(
        self, instance: Any, timeout: int = 0, retry_interval: int = 0
    ) -> None:
        """Power off, which ends a window: a frozen guest could not shut down."""
        self._interrupt(instance, "the server was powered off")
        super().power_off(instance, timeout, retry_interval)
        self._lose(instance, "the server was powered off")

    @override
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
        self._lose(instance, "the guest was destroyed")

    def _interrupt(self, instance: Any, reason: str) -> None:
        if self.quiesce_windows is not None:
            self.quiesce_windows.interrupt(instance.uuid, reason)

    def _lose(self, instance: Any, reason: str) -> None:
        if self.quiesce_windows is not None:
            self.quiesce_windows.lose(instance.uuid, reason)

    # What would take a frozen guest away, ordered by an API that does not know of it.

    @override
    def check_can_live_migrate_source(
        self, context: Any, instance: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """nova's, refused for a frozen guest."""
        self._refuse_to_migrate(instance)
        return super().check_can_live_migrate_source(context, instance, *args, **kwargs)

    @override
    def live_migration(
        self,
        context: Any,
        instance: Any,
        dest: str,
        post_method: Any,
        recover_method: Any,
        block_migration: bool = False,
        migrate_data: Any = None,
    ) -> None:
        """nova's, refused for a guest that has been frozen since it was checked."""
        try:
            self._refuse_to_migrate(instance)
        except exception.MigrationPreCheckError as exc:
            self._take_back(context, instance, exc)
            recover_method(context, instance, dest, migrate_data=migrate_data)
            return
        super().live_migration(
            context,
            instance,
            dest,
            post_method,
            recover_method,
            block_migration,
            migrate_data,
        )

    def _take_back(self, context: Any, instance: Any, reason: Exception) -> None:
        """Tell why a live migration that nova has begun is taken back.

        By an event of its own: nova takes an exception for the end of the server.
        """
        LOG.warning("Refused: %s", reason, instance=instance)
        event = "compute_live_migration_refused"
        with (
            contextlib.suppress(type(reason)),
            utils.EventReporter(context, event, CONF.host, instance.uuid),
        ):
            raise reason

    @override
    def migrate_disk_and_power_off(
        self, context: Any, instance: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """nova's, refused for a frozen guest, which then runs on where it is."""
        try:
            self._refuse_to_migrate(instance, "resize")
        except exception.MigrationPreCheckError as exc:
            raise exception.InstanceFaultRollback(inner_exception=exc) from exc
        return super().migrate_disk_and_power_off(context, instance, *args, **kwargs)

    # Here, because nova gives a volume back that its driver did not take.

    @override
    def attach_volume(
        self, context: Any, connection_info: Any, instance: Any, *args: Any, **kw: Any
    ) -> None:
        """nova's, refused for a frozen guest."""
        self._refuse(instance, "attach_volume")
        super().attach_volume(context, connection_info, instance, *args, **kw)

    @override
    def swap_volume(
        self,
        context: Any,
        old_connection_info: Any,
        new_connection_info: Any,
        instance: Any,
        mountpoint: str,
        resize_to: int,
    ) -> None:
        """nova's, refused for a frozen guest."""
        self._refuse(instance, "swap_volume")
        super().swap_volume(
            context,
            old_connection_info,
            new_connection_info,
            instance,
            mountpoint,
            resize_to,
        )

    def _refuse(self, instance: Any, method: str) -> None:
        if self.quiesce_windows is not None:
            self.quiesce_windows.refuse(instance, method)

    def _refuse_to_migrate(self, instance: Any, method: str = "live_migrate") -> None:
        try:
            self._refuse(instance, method)
        except exception.InstanceInvalidState as exc:
            raise exception.MigrationPreCheckError(reason=exc.format_message()) from exc
