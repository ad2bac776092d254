# SPDX-License-Identifier: Apache-2.0
"""Owns how quiesce hooks into nova-compute's manager."""

from collections.abc import Callable
from typing import Any

import oslo_messaging as messaging
from nova import exception
from nova.compute import manager, power_state
from oslo_log import log as logging
from typing_extensions import override

from nova_ext.compute import wing
from nova_ext.compute.quiesce import manager as quiesce
from nova_ext.compute.quiesce import rebuild, rpc

LOG = logging.getLogger(__name__)


def _nothing() -> None:
    """What most orders need undone."""


def _refusal(name: str) -> Callable[..., None]:
    """Refuses nova's method ``name``: the server is as it was, and its action says why.

    A refusal before nova's own method lies outside what nova does when that fails. The
    refusal, which is called with it, undoes what nova's API has done by then; if that
    fails, the action says so.
    """

    def refuse(
        self: "QuiesceComputeManager",
        context: Any,
        instance: Any,
        failure: Exception,
        undo: Callable[[], object],
    ) -> None:
        undo()
        raise failure

    refuse.__name__ = name  # the event of the action is named after it
    decorated: Callable[..., None] = manager.wrap_exception()(
        manager.reverts_task_state(
            manager.wrap_instance_event(prefix="compute")(
                manager.wrap_instance_fault(refuse)
            )
        )
    )
    return decorated


_refuse_to_detach = _refusal("detach_volume")
_refuse_to_rebuild = _refusal("rebuild_instance")


def _refused_while_quiesced(name: str) -> Callable[..., Any]:
    """nova's method ``name``, refused for a guest that is frozen.

    The API refuses it, too, but a stock one that stands beside it does not.
    """
    refuse = _refusal(name)

    def method(
        self: "QuiesceComputeManager",
        context: Any,
        instance: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        hard = name == "reboot_instance" and "HARD" in (*args, *kwargs.values())
        try:
            self.refuse_if_frozen(instance, name, name == "stop_instance" or hard)
        except exception.InstanceInvalidState as exc:
            refuse(self, context, instance, exc, _nothing)
        return getattr(super(QuiesceComputeManager, self), name)(
            context, instance, *args, **kwargs
        )

    method.__name__ = name
    method.__doc__ = f"nova's ``{name}``, refused while the guest is frozen."
    return override(method)


class QuiesceComputeManager(wing.WingComputeManager):
    """nova's manager, with freeze windows."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.quiesce_manager = quiesce.QuiesceManager(
            self.host, getattr(self.driver, "guest_quiescer", None)
        )
        self.driver.quiesce_windows = self.quiesce_manager
        self.additional_endpoints.append(rpc.QuiesceEndpoint(self.quiesce_manager))

    attach_interface = _refused_while_quiesced("attach_interface")
    detach_interface = _refused_while_quiesced("detach_interface")
    pause_instance = _refused_while_quiesced("pause_instance")
    prep_snapshot_based_resize_at_source = _refused_while_quiesced(
        "prep_snapshot_based_resize_at_source"
    )
    reboot_instance = _refused_while_quiesced("reboot_instance")
    rescue_instance = _refused_while_quiesced("rescue_instance")
    set_admin_password = _refused_while_quiesced("set_admin_password")
    shelve_instance = _refused_while_quiesced("shelve_instance")
    shelve_offload_instance = _refused_while_quiesced("shelve_offload_instance")
    stop_instance = _refused_while_quiesced("stop_instance")
    suspend_instance = _refused_while_quiesced("suspend_instance")
    trigger_crash_dump = _refused_while_quiesced("trigger_crash_dump")

    @override
    def detach_volume(
        self, context: Any, volume_id: str, instance: Any, attachment_id: Any
    ) -> None:
        """nova's, refused while the guest is frozen; the volume stays in use."""
        try:
            self.refuse_if_frozen(instance, "detach_volume", False)
        except exception.InstanceInvalidState as exc:
            _refuse_to_detach(
                self,
                context,
                instance,
                exc,
                lambda: self.volume_api.roll_detaching(context, volume_id),
            )
        super().detach_volume(context, volume_id, instance, attachment_id)

    @override
    def rebuild_instance(
        self,
        context: Any,
        instance: Any,
        orig_image_ref: str,
        image_ref: str,
        injected_files: Any,
        new_pass: Any,
        orig_sys_metadata: dict[str, str],
        bdms: Any,
        recreate: bool,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """nova's, refused while the guest is frozen, unless it is evacuated to here."""
        try:
            if not recreate:
                self.refuse_if_frozen(instance, "rebuild_instance", False)
        except exception.InstanceInvalidState as exc:
            _refuse_to_rebuild(
                self,
                context,
                instance,
                exc,
                lambda: rebuild.give_image_back(
                    context, instance, orig_image_ref, orig_sys_metadata
                ),
            )
        super().rebuild_instance(
            context,
            instance,
            orig_image_ref,
            image_ref,
            injected_files,
            new_pass,
            orig_sys_metadata,
            bdms,
            recreate,
            *args,
            **kwargs,
        )

    def refuse_if_frozen(self, instance: Any, method: str, forced: bool) -> None:
        """Refuse ``method`` for a guest that runs and is frozen.

        A guest that has ended by itself is stopped by nova, and may be.

        :param forced: whether it forces the guest off
        :raises: nova.exception.InstanceInvalidState
        """
        try:
            self.quiesce_manager.refuse(instance, method, forced)
        except exception.InstanceInvalidState:
            if self._get_power_state(instance) == power_state.RUNNING:
                raise

    @override
    def post_live_migration_at_destination(
        self, context: Any, instance: Any, *args: Any, **kwargs: Any
    ) -> None:
        """nova's; then a guest that has come here frozen is thawed."""
        super().post_live_migration_at_destination(context, instance, *args, **kwargs)
        if self.driver.state_reachable:
            self._reconcile_windows(context.elevated())

    def _reconcile(self, context: Any) -> None:
        super()._reconcile(context)
        if self.driver.state_reachable:
            self._reconcile_windows(context)

    def _reconcile_windows(self, context: Any) -> None:
        try:
            self.quiesce_manager.reconcile(context)
        except (exception.NovaException, messaging.MessagingException, OSError) as exc:
            LOG.warning("Could not look after the freeze windows yet: %s", exc)
