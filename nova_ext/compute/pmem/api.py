# SPDX-License-Identifier: Apache-2.0
"""Owns ``copy_pmem_devices`` in the compute API."""

import contextlib
import copy
from typing import Any

from nova import exception
from nova.compute import api, flavors, instance_actions, task_states, vm_states
from nova.virt import hardware
from oslo_utils import uuidutils
from typing_extensions import override

from nova_ext import exception as ext_exception
from nova_ext.compute import task_state
from nova_ext.compute.pmem import gate
from nova_ext.objects.pmem_copy import PmemCopy, PmemCopyStatus


class PmemAPI(api.API):
    """nova's compute API, whose ``resize`` may copy the PMEM devices."""

    #: Whether this object was made for a request that asks for a copy.
    _copy_pmem = False

    def with_copy_pmem(self, copy_pmem: bool) -> "PmemAPI":
        """This API for one request, whose ``resize`` copies the PMEM devices or not."""
        clone = copy.copy(self)
        clone._copy_pmem = copy_pmem
        return clone

    @override
    def resize(
        self, context: Any, instance: Any, flavor_id: Any = None, **kwargs: Any
    ) -> None:
        """nova's ``resize``, which without a flavor is a cold migration.

        :raises: as nova's; NotSupported (of ``nova_ext.exception``) when a copy of PMEM
            was asked for and cannot be done
        """
        if self._copy_pmem:
            self._resize_with_copy(context, instance, flavor_id, **kwargs)
        else:
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
        devices = gate.devices(instance)
        if flavor_id:
            flavor = flavors.get_flavor_by_flavor_id(
                context, flavor_id, read_deleted="no"
            )
            gate.check_flavor(instance, flavor, devices)
        PmemCopy.find(context, instance.uuid)  # refuses a cell without the database
        gate.check_source(context, instance)
        asked = copy.copy(self)
        if host_name is not None:
            gate.check_host(context, instance, host_name, devices)
        else:
            stay = self._allow_resize_to_same_host(not flavor_id, instance)
            asked.compute_task_api = gate.AvoidingComputeTaskAPI(
                self.compute_task_api,
                gate.unfit_hosts(context, instance, devices, stay),
            )
        super(PmemAPI, asked).resize(
            context, instance, flavor_id, host_name=host_name, **kwargs
        )

    @override
    def _record_action_start(self, context: Any, instance: Any, action: str) -> None:
        """nova's, which nova calls once it has the server's task state for the action.

        The order is written here: this request alone moves the server now, so that no
        order of a request that lost takes the place of the winner's.
        """
        if action in (instance_actions.RESIZE, instance_actions.MIGRATE):
            with task_state.given_back(instance):
                self._order(context, instance)
        super()._record_action_start(context, instance, action)

    def _order(self, context: Any, instance: Any) -> None:
        if self._copy_pmem:
            row = PmemCopy(
                context,
                instance_uuid=instance.uuid,
                change_id=uuidutils.generate_uuid(),
                status=PmemCopyStatus.ORDERED,
                request_id=context.request_id,
                migration_id=None,
            )
            try:
                row.order([task_states.RESIZE_PREP])
            except exception.InstanceNotFound as exc:
                raise self._overtaken(instance, task_states.DELETING) from exc
            except exception.UnexpectedTaskStateError as exc:
                state = exc.kwargs["actual"]["task_state"]
                raise self._overtaken(instance, state) from exc
        elif hardware.get_vpmems(instance.flavor):
            # What is left of an earlier move; void, since it names another request.
            with contextlib.suppress(ext_exception.StateDatabaseMissing):
                PmemCopy.destroy_by_instance_uuid(context, instance.uuid)

    @staticmethod
    def _overtaken(instance: Any, state: str | None) -> exception.InstanceInvalidState:
        """What nova's controllers answer with 409; others would become 500."""
        return exception.InstanceInvalidState(
            attr="task_state",
            instance_uuid=instance.uuid,
            state=str(state),
            method="resize",
        )

    @override
    def _local_delete(
        self, context: Any, instance: Any, bdms: Any, delete_type: str, cb: Any
    ) -> None:
        super()._local_delete(context, instance, bdms, delete_type, cb)
        with contextlib.suppress(ext_exception.StateDatabaseMissing):
            PmemCopy.destroy_by_instance_uuid(context, instance.uuid)

    @override
    def _allow_cross_cell_resize(self, *args: Any) -> bool:
        # Between cells nova never asks the source host to move a disk.
        return not self._copy_pmem and bool(super()._allow_cross_cell_resize(*args))
