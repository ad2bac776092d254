# SPDX-License-Identifier: Apache-2.0
"""Owns quiesce in the compute API: what is checked before an RPC."""

from collections.abc import Callable
from typing import Any

import nova.conf
import oslo_messaging as messaging
from nova import exception
from nova.compute import api, instance_actions, task_states, vm_states
from oslo_log import log as logging
from oslo_utils import strutils, uuidutils
from typing_extensions import override

from nova_ext import exception as ext_exception
from nova_ext.compute import task_state
from nova_ext.compute.quiesce import rpc
from nova_ext.objects import capability
from nova_ext.objects.quiesce_window import QuiesceStatus, QuiesceWindow

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

#: What the refusal says after the status.
_REMEDY = {
    QuiesceStatus.QUIESCING: "unquiesce first, once it is quiesced",
    QuiesceStatus.QUIESCED: "unquiesce first",
    QuiesceStatus.UNQUIESCING: "wait until it is thawed, or stop or hard reboot it",
}

#: What a frozen guest cannot do, by the action that nova's API records for it. Rebuild
#: is not among them: by then nova has saved more than the task state, which cannot be
#: taken back. It ends the window, and ``unquiesce`` says so.
_REFUSED = {
    instance_actions.CHANGE_PASSWORD: "set_admin_password",
    instance_actions.LIVE_MIGRATION: "live_migrate",
    instance_actions.MIGRATE: "resize",
    instance_actions.PAUSE: "pause",
    instance_actions.REBOOT: "reboot",
    instance_actions.RESCUE: "rescue",
    instance_actions.RESIZE: "resize",
    instance_actions.SHELVE: "shelve",
    instance_actions.START: "start",
    instance_actions.STOP: "stop",
    instance_actions.SUSPEND: "suspend",
}

#: How often a change of the row is tried when others change it at the same time.
_TRIES = 10


def find(context: Any, instance: Any) -> QuiesceWindow | None:
    """The row of a server, or None; a cell without the database has none.

    :param context: targeted at the server's cell
    """
    try:
        return QuiesceWindow.find(context, instance.uuid)
    except ext_exception.StateDatabaseMissing as exc:
        LOG.debug("Counting a server as not quiesced: %s", exc, instance=instance)
        return None


def visible(context: Any, instance: Any) -> QuiesceWindow | None:
    """The row of a server if the server counts as quiesced, else None."""
    row = find(context, instance)
    return row if row is not None and row.visible else None


def _check(row: QuiesceWindow | None, name: str, forced: bool = False) -> None:
    """Refuse the operation ``name`` with 409 for a server that is quiesced.

    :param forced: whether it forces the guest off. While the host still tries to thaw
        (``unquiescing``), that is let through: it is the remedy when the agent never
        answers.
    """
    if row is None or (forced and row.status is QuiesceStatus.UNQUIESCING):
        return
    raise exception.InstanceInvalidState(
        attr="quiesce_status",
        instance_uuid=row.instance_uuid,
        state=f"{row.status.value}; {_REMEDY[row.status]}",
        method=name,
    )


def _refused_while_quiesced(name: str) -> Callable[..., Any]:
    """nova's method ``name``, refused with 409 for a server that is quiesced."""

    def method(
        self: "QuiesceAPI", context: Any, instance: Any, *args: Any, **kwargs: Any
    ) -> Any:
        forced = name == "stop" or (name == "reboot" and "HARD" in args)
        _check(visible(context, instance), name, forced)
        return getattr(super(QuiesceAPI, self), name)(
            context, instance, *args, **kwargs
        )

    method.__name__ = name
    method.__doc__ = f"nova's ``{name}``, refused while the server is quiesced."
    return override(method)


class QuiesceAPI(api.API):
    """nova's compute API, with quiesce and unquiesce."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.quiesce_rpcapi = rpc.QuiesceRPCAPI()

    attach_interface = _refused_while_quiesced("attach_interface")
    attach_volume = _refused_while_quiesced("attach_volume")
    detach_interface = _refused_while_quiesced("detach_interface")
    detach_volume = _refused_while_quiesced("detach_volume")
    live_migrate = _refused_while_quiesced("live_migrate")
    pause = _refused_while_quiesced("pause")
    reboot = _refused_while_quiesced("reboot")
    rebuild = _refused_while_quiesced("rebuild")
    rescue = _refused_while_quiesced("rescue")
    resize = _refused_while_quiesced("resize")
    set_admin_password = _refused_while_quiesced("set_admin_password")
    shelve = _refused_while_quiesced("shelve")
    start = _refused_while_quiesced("start")
    stop = _refused_while_quiesced("stop")
    suspend = _refused_while_quiesced("suspend")
    swap_volume = _refused_while_quiesced("swap_volume")
    trigger_crash_dump = _refused_while_quiesced("trigger_crash_dump")

    @override
    def _record_action_start(self, context: Any, instance: Any, action: str) -> None:
        """nova's, which nova calls once it has the server's task state for the action.

        A quiesce that came between the first look at the row and that has its row by
        now; one that comes later finds the task state. So this look decides.
        """
        if action in _REFUSED and instance.task_state is not None:
            forced = action == instance_actions.STOP or (
                instance.task_state == task_states.REBOOTING_HARD
            )
            with task_state.given_back(instance):
                _check(visible(context, instance), _REFUSED[action], forced)
        elif action == instance_actions.EVACUATE:
            self._forget_window(context, instance)  # the guest starts anew
        super()._record_action_start(context, instance, action)

    @override
    def _local_delete(
        self, context: Any, instance: Any, bdms: Any, delete_type: str, cb: Any
    ) -> None:
        super()._local_delete(context, instance, bdms, delete_type, cb)
        self._forget_window(context, instance)

    @staticmethod
    def _forget_window(context: Any, instance: Any) -> None:
        try:
            QuiesceWindow.destroy_by_instance_uuid(context, instance.uuid)
        except ext_exception.StateDatabaseMissing as exc:
            LOG.debug("There is no window to forget: %s", exc, instance=instance)

    @api.check_instance_lock
    @api.check_instance_state(vm_state=[vm_states.ACTIVE])
    @api.check_instance_host(check_is_up=True)
    def quiesce(
        self,
        context: Any,
        instance: Any,
        timeout: int | None = None,
        partial: bool = False,
    ) -> None:
        """Freeze the file systems of a server; returns when its host accepted it.

        :param timeout: seconds until the host thaws by itself; None for the default
        :param partial: also if some writable file system cannot be frozen
        :raises: nova.exception.InstanceInvalidState, NotSupported (of
            ``nova_ext.exception``: what is missing where) or ServiceUnavailable;
            nova_ext.exception.QuiesceComputeUnavailable
        """
        limit = CONF.nova_ext.quiesce_max_timeout
        if timeout is None:
            timeout = min(CONF.nova_ext.quiesce_default_timeout, limit)
        if timeout > limit:
            raise ext_exception.QuiesceTimeoutTooLong(timeout=timeout, max=limit)
        if not strutils.bool_from_string(
            instance.system_metadata.get("image_hw_qemu_guest_agent")
        ):
            raise ext_exception.QuiesceAgentNotEnabled(instance_uuid=instance.uuid)
        row = QuiesceWindow.find(context, instance.uuid)
        if capability.of_instance(context, instance) < capability.QUIESCE:
            raise ext_exception.QuiesceComputeTooOld(instance_uuid=instance.uuid)
        if row is not None and row.visible:
            raise self._invalid(instance, "quiesce", row)
        self._call(
            self.quiesce_rpcapi.quiesce_instance, context, instance, timeout, partial
        )

    @api.check_instance_lock
    @api.check_instance_host(check_is_up=True)
    def unquiesce(self, context: Any, instance: Any) -> None:
        """Thaw a quiesced server; returns when its host accepted it.

        A window that was broken in the meantime is accepted too, once: its action then
        ends with the reason.

        :raises: as :meth:`quiesce`
        """
        row = QuiesceWindow.find(context, instance.uuid)
        if row is None or row.status not in (
            QuiesceStatus.QUIESCED,
            QuiesceStatus.BROKEN,
        ):
            raise self._invalid(
                instance, "unquiesce", row if row and row.visible else None
            )
        self._call(self.quiesce_rpcapi.unquiesce_instance, context, instance)

    def release_quiesced(self, context: Any, instance: Any) -> None:
        """Clear the state of a server; its host thaws it, now or when it is back.

        :raises: nova_ext.exception.QuiesceWindowChanged when the host changes it all
            the time
        """
        for left in reversed(range(_TRIES)):
            row = visible(context, instance)
            if row is None:
                return
            try:
                row.replace(status=QuiesceStatus.RELEASED).save(
                    uuidutils.generate_uuid()
                )
                break
            except ext_exception.QuiesceWindowChanged:
                if not left:
                    raise
        if instance.host and row is not None:
            try:
                self.quiesce_rpcapi.release_instance(context, instance, row.window_id)
            except messaging.MessagingException as exc:
                # It is written down: the host thaws when it looks at its rows.
                LOG.warning(
                    "Could not tell the host to thaw: %s", exc, instance=instance
                )

    @staticmethod
    def _call(function: Callable[..., None], *args: Any) -> None:
        instance = args[1]
        try:
            function(*args)
        except messaging.UnsupportedVersion as exc:
            raise ext_exception.QuiesceComputeTooOld(
                instance_uuid=instance.uuid
            ) from exc
        except exception.InstanceQuiesceNotSupported as exc:
            raise ext_exception.QuiesceNotSupported(
                instance_uuid=instance.uuid
            ) from exc
        except messaging.MessagingException as exc:
            raise ext_exception.QuiesceComputeUnavailable(
                instance_uuid=instance.uuid
            ) from exc

    @staticmethod
    def _invalid(
        instance: Any, method: str, row: QuiesceWindow | None
    ) -> exception.InstanceInvalidState:
        return exception.InstanceInvalidState(
            attr="quiesce_status",
            instance_uuid=instance.uuid,
            state=row.status.value if row else "null",
            method=method,
        )
