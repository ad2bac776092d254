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

"""Owns the extension's part of the compute API: what is checked before an RPC."""

import copy
from collections.abc import Callable
from typing import Any

import nova.conf
import oslo_messaging as messaging
from nova import exception
from nova.compute import api, flavors, vm_states
from oslo_utils import strutils

from nova_ext import exception as ext_exception
from nova_ext.compute import capability, mark, pmem_gate, pmem_mark, rpcapi

CONF = nova.conf.CONF


#: What the refusal says after the status.
_REMEDY = {
    mark.Status.QUIESCING: "unquiesce first, once it is quiesced",
    mark.Status.QUIESCED: "unquiesce first",
    mark.Status.UNQUIESCING: "wait until it is thawed, or stop or hard reboot it",
}


def _check_not_quiesced(instance: Any, name: str, forced: bool = False) -> None:
    """Refuse the operation ``name`` with 409 for a server that is quiesced.

    :param forced: whether it forces the guest off. While the host still tries to thaw
        (``unquiescing``), that is let through: it is the remedy when the agent never
        answers.
    """
    window = mark.visible(instance)
    if window is not None and not (forced and window.status is mark.Status.UNQUIESCING):
        raise exception.InstanceInvalidState(
            attr="quiesce_status",
            instance_uuid=instance.uuid,
            state=f"{window.status}; {_REMEDY[window.status]}",
            method=name,
        )


def _refused_while_quiesced(name: str) -> Callable[..., Any]:
    """nova's method ``name``, refused with 409 for a server that is quiesced."""

    def method(
        self: "API", context: Any, instance: Any, *args: Any, **kwargs: Any
    ) -> Any:
        forced = name == "stop" or (name == "reboot" and "HARD" in args)
        _check_not_quiesced(instance, name, forced)
        return getattr(super(API, self), name)(context, instance, *args, **kwargs)

    method.__name__ = name
    method.__doc__ = f"nova's ``{name}``, refused while the server is quiesced."
    return method


class API(api.API):
    """nova's compute API, with quiesce, unquiesce and the copy of PMEM devices."""

    #: Whether this object was made for a request that orders a copy.
    _copy_pmem = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.quiesce_rpcapi = rpcapi.QuiesceComputeAPI()

    live_migrate = _refused_while_quiesced("live_migrate")
    pause = _refused_while_quiesced("pause")
    reboot = _refused_while_quiesced("reboot")
    rebuild = _refused_while_quiesced("rebuild")
    rescue = _refused_while_quiesced("rescue")
    set_admin_password = _refused_while_quiesced("set_admin_password")
    shelve = _refused_while_quiesced("shelve")
    start = _refused_while_quiesced("start")
    stop = _refused_while_quiesced("stop")
    suspend = _refused_while_quiesced("suspend")

    @api.check_instance_lock
    @api.check_instance_state(vm_state=[vm_states.ACTIVE])
    @api.check_instance_host(check_is_up=True)
    def quiesce(self, context: Any, instance: Any, timeout: int | None = None) -> None:
        """Freeze the file systems of a server; returns when its host took the order.

        :param timeout: seconds until the host thaws by itself; None for the default
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
        if capability.of_instance(context, instance) < capability.QUIESCE:
            raise ext_exception.QuiesceComputeTooOld(instance_uuid=instance.uuid)
        window = mark.visible(instance)
        if window is not None:
            raise self._invalid(instance, "quiesce", window)
        self._call(self.quiesce_rpcapi.quiesce_instance, context, instance, timeout)

    @api.check_instance_lock
    @api.check_instance_host(check_is_up=True)
    def unquiesce(self, context: Any, instance: Any) -> None:
        """Thaw a quiesced server; returns when its host took the order.

        A window that was broken meanwhile is accepted too, once: its action then ends
        with the reason.

        :raises: as :meth:`quiesce`
        """
        window = mark.read(instance)
        if window is None or window.status not in (
            mark.Status.QUIESCED,
            mark.Status.BROKEN,
        ):
            raise self._invalid(instance, "unquiesce", mark.visible(instance))
        self._call(self.quiesce_rpcapi.unquiesce_instance, context, instance)

    def release_quiesced(self, context: Any, instance: Any) -> None:
        """Clear the marker of a server; its host thaws it, now or when it is back."""
        window = mark.visible(instance)
        if window is None:
            return
        mark.write(instance, window.replace(status=mark.Status.RELEASED))
        instance.save()
        if instance.host:
            self.quiesce_rpcapi.release_instance(context, instance)

    def evacuate(self, context: Any, instance: Any, *args: Any, **kwargs: Any) -> Any:
        """nova's ``evacuate``; the guest starts anew, so that the marker goes."""
        mark.write(instance, None)  # saved by nova together with the task state
        return super().evacuate(context, instance, *args, **kwargs)

    def with_copy_pmem(self, copy_pmem: bool) -> "API":
        """This API for one request, whose ``resize`` copies the PMEM devices or not."""
        clone = copy.copy(self)
        clone._copy_pmem = copy_pmem
        return clone

    def resize(
        self, context: Any, instance: Any, flavor_id: Any = None, **kwargs: Any
    ) -> None:
        """nova's ``resize``, which without a flavor is a cold migration.

        :raises: as nova's; NotSupported (of ``nova_ext.exception``) when a copy of PMEM
            was ordered and cannot be done
        """
        _check_not_quiesced(instance, "resize")
        if self._copy_pmem:
            self._resize_with_copy(context, instance, flavor_id, **kwargs)
        else:
            # The order of an earlier request; saved by nova with the task state.
            pmem_mark.write(instance, None)
            super().resize(context, instance, flavor_id, **kwargs)

    # nova's own checks of resize, so that they come before those of the copy.
    @api.check_instance_lock
    @api.check_instance_state(vm_state=[vm_states.ACTIVE, vm_states.STOPPED])
    @api.check_instance_host(check_is_up=True)
    def _resize_with_copy(
        self,
        context: Any,
        instance: Any,
        flavor_id: Any,
        host_name: str | None = None,
        **kwargs: Any,
    ) -> None:
        devices = pmem_gate.devices(instance)
        if flavor_id:
            flavor = flavors.get_flavor_by_flavor_id(
                context, flavor_id, read_deleted="no"
            )
            pmem_gate.check_flavor(instance, flavor, devices)
        pmem_gate.check_source(context, instance)
        ordered = copy.copy(self)
        if host_name is not None:
            pmem_gate.check_host(context, instance, host_name, devices)
        else:
            stay = self._allow_resize_to_same_host(not flavor_id, instance)
            ordered.compute_task_api = pmem_gate.AvoidingComputeTaskAPI(
                self.compute_task_api,
                pmem_gate.unfit_hosts(context, instance, devices, stay),
            )
        pmem_mark.write(
            instance, pmem_mark.PmemMark(pmem_mark.Status.ORDERED, context.request_id)
        )
        super(API, ordered).resize(
            context, instance, flavor_id, host_name=host_name, **kwargs
        )

    def _allow_cross_cell_resize(self, *args: Any) -> bool:
        # Between cells nova never asks the source host to move a disk.
        return not self._copy_pmem and bool(super()._allow_cross_cell_resize(*args))

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
        instance: Any, method: str, window: mark.Mark | None
    ) -> exception.InstanceInvalidState:
        return exception.InstanceInvalidState(
            attr="quiesce_status",
            instance_uuid=instance.uuid,
            state=window.status.value if window else "null",
            method=method,
        )
