# SPDX-License-Identifier: Apache-2.0
"""Owns what persistent memory changes in nova's libvirt driver, and no more."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import oslo_messaging as messaging
from nova import exception, objects
from nova.compute import power_state, task_states, vm_states
from nova.virt.libvirt import driver
from oslo_log import log as logging
from typing_extensions import override

from nova_ext.virt import pmem as contract
from nova_ext.virt.libvirt.pmem import host

LOG = logging.getLogger(__name__)

#: Set while a guest is powered off for a migration: what to do once it is off.
_once_off: contextvars.ContextVar[Callable[[], None] | None] = contextvars.ContextVar(
    "nova_ext_once_off", default=None
)

#: Set while a guest is destroyed only to be started again.
_restarting: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "nova_ext_restarting", default=False
)

#: Set while what a server has had on this host is cleaned up: its uuid.
_cleaned: contextvars.ContextVar[str] = contextvars.ContextVar(
    "nova_ext_cleaned", default=""
)


class PmemCopies(Protocol):
    """What the driver needs of nova-compute's PMEM manager."""

    def ordered(self, context: Any, instance: Any) -> bool:
        """Whether this request asks for a copy of the server's devices."""

    def prepared_copy(
        self, context: Any, instance: Any, address: str
    ) -> contextlib.AbstractContextManager[Any]:
        """Prepare a copy, and discard what it has done if the body fails."""

    def copy(self, move: Any) -> None:
        """Copy; the guest is off."""

    def stop(self, uuid: str, reason: str) -> None:
        """Make the copy of a server, if there is one, fail soon."""

    def adopt_devices(self, instance: Any, migration: Any, names: list[str]) -> None:
        """Make sure that a server finds in its devices what it should."""

    def unfinished(self, instance: Any) -> bool:
        """Whether a copy of the server had begun, and nobody works on it."""

    def forget(self, instance: Any, migration: Any) -> None:
        """A migration's copy is done with."""


class PmemDriver(driver.LibvirtDriver):
    """nova's libvirt driver, with which persistent memory goes along on a move."""

    #: Set by the compute manager once it is built.
    pmem_copies: PmemCopies | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pmem_host = host.LibvirtPmemHost(self)

    @override
    def power_off(
        self, instance: Any, timeout: int = 0, retry_interval: int = 0
    ) -> None:
        """nova's; what waits for the guest to be off is done then."""
        super().power_off(instance, timeout, retry_interval)
        once_off = _once_off.get()
        if once_off is not None:
            once_off()

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
        """nova's, which ends a copy that is under way."""
        if self.pmem_copies is not None and not _restarting.get():
            self.pmem_copies.stop(instance.uuid, "the guest was destroyed")
        super().destroy(
            context,
            instance,
            network_info,
            block_device_info=block_device_info,
            destroy_disks=destroy_disks,
            destroy_secrets=destroy_secrets,
        )

    # Persistent memory goes along with a migration.

    @override
    def migrate_disk_and_power_off(
        self,
        context: Any,
        instance: Any,
        dest: str,
        flavor: Any,
        network_info: Any,
        block_device_info: Any = None,
        timeout: int = 0,
        retry_interval: int = 0,
    ) -> str:
        """nova's; if it was ordered, the persistent memory is copied once it is off.

        :raises: nova.exception.InstanceFaultRollback when that failed; the guest runs
            on then, with its data
        """
        copies = self.pmem_copies
        begun = False

        def migrate() -> str:
            return str(
                super(PmemDriver, self).migrate_disk_and_power_off(
                    context,
                    instance,
                    dest,
                    flavor,
                    network_info,
                    block_device_info=block_device_info,
                    timeout=timeout,
                    retry_interval=retry_interval,
                )
            )

        if copies is None or not copies.ordered(context, instance):
            return migrate()
        try:
            with copies.prepared_copy(context, instance, dest) as move:
                token = _once_off.set(lambda: copies.copy(move))
                begun = True
                try:
                    return migrate()
                finally:
                    _once_off.reset(token)
        except exception.InstanceFaultRollback:
            raise
        except Exception as exc:
            LOG.exception("The migration failed.", instance=instance)
            if begun and not self._runs(instance):
                self._run_on(context, instance, network_info, block_device_info)
            raise exception.InstanceFaultRollback(exc) from exc

    def _run_on(
        self, context: Any, instance: Any, network_info: Any, block_device_info: Any
    ) -> None:
        """Start a guest again on the source of a migration that failed.

        :raises: nova.exception.InstanceNotFound when it was deleted meanwhile
        """
        shares = None
        # Without the message bus, the guest is as it was when the migration began.
        with contextlib.suppress(messaging.MessagingException):
            instance.refresh()
            shares = objects.ShareMappingList.get_by_instance_uuid(
                context, instance.uuid
            )
        if instance.task_state != task_states.RESIZE_MIGRATING:
            raise exception.InstanceNotFound(instance_id=instance.uuid)
        if instance.system_metadata.get("old_vm_state") != vm_states.STOPPED:
            self.power_on(
                context, instance, network_info, block_device_info, share_info=shares
            )

    @override
    def finish_migration(
        self,
        context: Any,
        migration: Any,
        instance: Any,
        disk_info: str,
        network_info: Any,
        image_meta: Any,
        resize_instance: bool,
        allocations: Any,
        block_device_info: Any = None,
        power_on: bool = True,
        share_info: Any = None,
    ) -> None:
        """nova's, once the devices hold the copied data, or nobody's."""
        self._adopt(instance, migration)
        super().finish_migration(
            context,
            migration,
            instance,
            disk_info,
            network_info,
            image_meta,
            resize_instance,
            allocations,
            block_device_info=block_device_info,
            power_on=power_on,
            share_info=share_info,
        )

    @override
    def confirm_migration(
        self, context: Any, migration: Any, instance: Any, network_info: Any
    ) -> None:
        """nova's; the copy is done with."""
        super().confirm_migration(context, migration, instance, network_info)
        if self.pmem_copies is not None:
            self.pmem_copies.forget(instance, migration)

    @override
    def finish_revert_migration(
        self,
        context: Any,
        instance: Any,
        network_info: Any,
        migration: Any,
        block_device_info: Any = None,
        power_on: bool = True,
        share_info: Any = None,
    ) -> None:
        """nova's; the copy is done with, unless nova-compute still has to give it up.

        nova calls it for a migration that nova-compute did not survive too, without the
        old flavor, which it needs.
        """
        cut_short = instance.old_flavor is None
        copies = self.pmem_copies
        if (
            cut_short
            and self._runs(instance)
            and copies is not None
            and copies.unfinished(instance)
        ):
            return
        if cut_short:
            instance.old_flavor = instance.flavor
        else:
            self.pmem_host.release(instance.uuid)
            if copies is not None:
                copies.forget(instance, migration)
        try:
            super().finish_revert_migration(
                context,
                instance,
                network_info,
                migration,
                block_device_info=block_device_info,
                power_on=power_on,
                share_info=share_info,
            )
        finally:
            if cut_short:
                instance.old_flavor = None

    def _runs(self, instance: Any) -> bool:
        with contextlib.suppress(exception.InstanceNotFound):
            return bool(self.get_info(instance).state == power_state.RUNNING)
        return False

    # What a device held before does not reach the next guest.

    @override
    def spawn(
        self,
        context: Any,
        instance: Any,
        image_meta: Any,
        injected_files: Any,
        admin_password: Any,
        allocations: Any,
        network_info: Any = None,
        block_device_info: Any = None,
        power_on: bool = True,
        accel_info: Any = None,
    ) -> None:
        """nova's, once the devices hold no data of nobody."""
        self._sanitize(self._pmem_names(instance))
        super().spawn(
            context,
            instance,
            image_meta,
            injected_files,
            admin_password,
            allocations,
            network_info=network_info,
            block_device_info=block_device_info,
            power_on=power_on,
            accel_info=accel_info,
        )

    @override
    def pre_live_migration(
        self,
        context: Any,
        instance: Any,
        block_device_info: Any,
        network_info: Any,
        disk_info: Any,
        migrate_data: Any,
    ) -> Any:
        """nova's, once the devices hold no data of nobody."""
        self._sanitize(self._pmem_names(instance, "new"))
        return super().pre_live_migration(
            context,
            instance,
            block_device_info,
            network_info,
            disk_info,
            migrate_data,
        )

    def _adopt(self, instance: Any, migration: Any) -> None:
        names = self._pmem_names(instance)
        if self.pmem_copies is not None and names:
            self.pmem_copies.adopt_devices(instance, migration, names)

    def _sanitize(self, names: list[str]) -> None:
        try:
            self.pmem_host.sanitize(names)
        except contract.CopyError as exc:
            raise exception.VPMEMCleanupFailed(
                dev=", ".join(names), error=str(exc)
            ) from exc

    def _pmem_names(self, instance: Any, prefix: str | None = None) -> list[str]:
        resources = self._get_resources(instance, prefix=prefix)
        return [each.identifier for each in self._get_vpmem_resources(resources)]

    # What nova zeroes, and when.

    @override
    def _cleanup_vpmems(self, vpmems: Any) -> None:
        """nova's; a device that could not be zeroed is zeroed later.

        nova also destroys a guest to start it again, and its data with it. And it does
        so to a guest that was refused a device because of what another has in it.
        """
        if _restarting.get():
            return
        owner, reserved = _cleaned.get(), self.pmem_host.reserved()
        vpmems = [each for each in vpmems if reserved.get(each.name, owner) == owner]
        names = [vpmem.name for vpmem in vpmems]
        self.pmem_host.expect_copy(names)
        super()._cleanup_vpmems(vpmems)
        self.pmem_host.forget(names)

    @override
    def _cleanup(self, context: Any, instance: Any, *args: Any, **kwargs: Any) -> None:
        with self._cleaning(instance):
            super()._cleanup(context, instance, *args, **kwargs)

    @override
    def _cleanup_resize(self, context: Any, instance: Any, network_info: Any) -> None:
        with self._cleaning(instance):
            super()._cleanup_resize(context, instance, network_info)

    @contextlib.contextmanager
    def _cleaning(self, instance: Any) -> Iterator[None]:
        token = _cleaned.set(instance.uuid)
        try:
            yield
        finally:
            _cleaned.reset(token)

    @override
    def _hard_reboot(self, *args: Any, **kwargs: Any) -> None:
        """nova's, as which it also starts a guest; the guest keeps its data."""
        token = _restarting.set(True)
        try:
            super()._hard_reboot(*args, **kwargs)
        finally:
            _restarting.reset(token)

    @override
    def _get_resources(self, instance: Any, prefix: str | None = None) -> Any:
        """nova's, which confirm calls with a prefix that names nothing.

        Devices of the source would not be zeroed then, and go to the next server with
        the data in them.
        """
        if prefix and not prefix.endswith("_"):
            prefix += "_"
        return super()._get_resources(instance, prefix=prefix)
