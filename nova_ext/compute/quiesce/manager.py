# SPDX-License-Identifier: Apache-2.0
"""Owns the freeze windows of the guests on this compute host.

Windows begin with an RPC request, and are taken up again from their rows when
nova-compute starts and whenever a row is found that no window here belongs to.
"""

import threading
from collections.abc import Callable
from typing import Any

from nova import context as nova_context
from nova import exception, objects
from nova.compute import vm_states
from oslo_log import log as logging
from oslo_utils import uuidutils

from nova_ext import exception as ext_exception
from nova_ext.compute import action_records
from nova_ext.compute.quiesce import window as freeze_window
from nova_ext.compute.quiesce.window import FreezeWindow
from nova_ext.guard.records import Phase, Record
from nova_ext.objects import quiesce_window
from nova_ext.objects.quiesce_window import QuiesceStatus as Status
from nova_ext.virt import guest_quiescer

LOG = logging.getLogger(__name__)

#: Seconds in which the database says whether a window may begin.
_DECISION = 60


class QuiesceManager:
    """All freeze windows of this host.

    :param host: the compute host's name
    :param quiescer: the virt driver's quiescer, or None if it has none
    """

    def __init__(
        self, host: str, quiescer: guest_quiescer.GuestQuiescer | None
    ) -> None:
        self._host = host
        self._quiescer = quiescer
        self._records = action_records.ActionRecords(host)
        self._windows: dict[str, FreezeWindow] = {}
        self._lock = threading.Lock()

    # What an RPC asks for.

    def quiesce(self, context: Any, instance: Any, timeout: int, partial: bool) -> None:
        """Begin a window; returns once its row is there, before the guest is frozen.

        :param timeout: seconds until this host thaws by itself
        :param partial: also if some writable file system cannot be frozen
        :raises: nova.exception.InstanceInvalidState when there is a window already, or
            when the instance is not active or has a task
        :raises: nova.exception.InstanceQuiesceNotSupported
        :raises: nova_ext.exception.StateDatabaseMissing or ConductorTooOld
        """
        if self._quiescer is None:
            raise exception.InstanceQuiesceNotSupported(instance_id=instance.uuid)
        row = quiesce_window.QuiesceWindow(
            context=context.elevated(),
            instance_uuid=instance.uuid,
            window_id=uuidutils.generate_uuid(),
            change_id=uuidutils.generate_uuid(),
            status=Status.QUIESCING,
            request_id=context.request_id,
            timeout=timeout,
            partial=partial,
            quiesced_at=None,
            left_out=None,
            reason="",
        )
        window = self._reserve(instance, row)
        try:
            self._tell_last(window.uuid, self._quiescer)
            row.create(self._host, [vm_states.ACTIVE], [None])
            window.recorded.set()
            window.put_action_start(context, freeze_window.QUIESCE)
            begun = window.put_mark()
            self._start(window, window.freeze_and_hold, context.elevated())
            # Who asked finds the action, if the bus works.
            begun.wait(freeze_window.PATIENCE)
        except exception.InstanceUpdateConflict as exc:
            self._remove(window)
            actual: dict[str, Any] = exc.kwargs.get("actual") or {}
            raise exception.InstanceInvalidState(
                attr=" and ".join(actual) or "state",
                instance_uuid=window.uuid,
                state=" and ".join(str(value) for value in actual.values()),
                method=freeze_window.QUIESCE,
            ) from exc
        except ext_exception.QuiesceWindowExists as exc:
            self._remove(window)
            raise freeze_window.conflict(
                instance, freeze_window.QUIESCE, exc.kwargs["status"]
            ) from exc
        except Exception:
            # The row may have reached the database all the same.
            window.forget()
            self._remove(window)
            raise

    def unquiesce(self, context: Any, instance: Any) -> None:
        """Ask for the end of the window; returns before the guest is thawed.

        :raises: nova.exception.InstanceInvalidState when there is no window, or it is
            not frozen yet, or ends already
        """
        with self._lock:
            window = self._windows.get(instance.uuid)
        if window is None:
            self._unquiesce_without_window(context, instance)
        else:
            window.end(context, instance)

    def release(self, context: Any, instance: Any, window_id: str) -> None:
        """Thaw a guest whose state os-resetState has cleared."""
        with self._lock:
            window = self._windows.get(instance.uuid)
        if window is not None:
            if window.window_id == window_id:
                window.released = True
                window.interrupt(freeze_window.RELEASED)
            return
        row = self._row(context, instance.uuid)
        if row is not None and row.window_id == window_id:
            self._resume(instance, row)

    # What nova-compute and the virt driver tell.

    def reconcile(self, context: Any) -> None:
        """Make rows, windows and records of this host agree; at start and now and then.

        A row without a window was left by a nova-compute that died, or its message got
        lost. A window whose row is gone was cleared by somebody, and so was a record.

        :raises: what stands between this host and its rows
        """
        recorded = self._quiescer.recorded() if self._quiescer else {}
        with self._lock:
            known = {u: w for u, w in self._windows.items() if w.recorded.is_set()}
        rows = {
            row.instance_uuid: row
            for row in quiesce_window.QuiesceWindowList.get_by_host(context, self._host)
        }
        for uuid, row in rows.items():
            if uuid in known:
                if row.status == Status.RELEASED and not known[uuid].released:
                    known[uuid].released = True
                    known[uuid].interrupt(freeze_window.RELEASED)
                continue
            if row.status == Status.BROKEN:
                if recorded.get(uuid) == row.window_id:
                    self._settle(uuid, row.window_id)
                continue
            try:
                instance = objects.Instance.get_by_uuid(
                    context, uuid, expected_attrs=freeze_window.ATTRIBUTES
                )
                self._resume(instance, row)
            except exception.InstanceNotFound:
                continue
            except exception.InstanceInvalidState:
                continue  # one began in the meantime
        for uuid in known.keys() - rows.keys():
            known[uuid].interrupt("its record was removed")
        for uuid in recorded.keys() - rows.keys():
            with self._lock:
                if uuid in self._windows:
                    continue
            self._settle(uuid, recorded[uuid])
        quiesce_window.QuiesceWindowList.destroy_of_deleted(context, self._host)

    def _settle(self, uuid: str, window_id: str) -> None:
        """Thaw a guest that the database has for thawed, and forget its record.

        A nova-compute that died may have removed the row, but not told how it ended.
        """
        assert self._quiescer is not None  # it has told of the record
        try:
            if self._quiescer.record(uuid, window_id) is None:
                return  # its window has ended since
            record = self._quiescer.thaw(uuid, window_id, "its record was removed")
            if record.request_id:
                self._tell_again(record)
            self._quiescer.forget(uuid, window_id)
        except (guest_quiescer.ThawError, OSError) as exc:
            LOG.warning("Could not thaw instance %s yet: %s", uuid, exc)

    def _tell_last(self, uuid: str, quiescer: guest_quiescer.GuestQuiescer) -> None:
        """Tell how the last window ended, before its record is replaced.

        A nova-compute that died may have removed its row, and told nobody.
        """
        try:
            record = quiescer.record(uuid)
        except guest_quiescer.ThawError:
            return  # the freeze says what is wrong with it
        if record is not None and record.phase is Phase.THAWED and record.request_id:
            self._tell_again(record)

    def _tell_again(self, record: Record) -> None:
        admin = nova_context.get_admin_context()
        try:
            instance = objects.Instance.get_by_uuid(admin, record.uuid)
        except exception.InstanceNotFound:
            return
        context = freeze_window.owner_context(instance, record.request_id)
        event = freeze_window.EVENTS[freeze_window.UNQUIESCE]
        self._records.event_finish(
            context, record.uuid, event, freeze_window.failure_of(record)
        )

    def interrupt(self, uuid: str, reason: str) -> None:
        """End the window of instance ``uuid``, if it has one, as broken."""
        with self._lock:
            window = self._windows.get(uuid)
        if window is not None:
            window.interrupt(reason)

    def lose(self, uuid: str, reason: str) -> None:
        """The memory of the guest is lost, and with it what was frozen."""
        with self._lock:
            window = self._windows.get(uuid)
        if window is not None:
            window.lose(reason)
        elif self._quiescer is not None:
            self._lose_recorded(self._quiescer, uuid, reason)

    @staticmethod
    def _lose_recorded(
        quiescer: guest_quiescer.GuestQuiescer, uuid: str, reason: str
    ) -> None:
        """End a record that no window belongs to; it goes when rows are looked at."""
        try:
            record = quiescer.record(uuid)
            if record is not None:
                quiescer.lost(uuid, record.window_id, reason)
        except guest_quiescer.ThawError as exc:
            LOG.warning("Could not record that %s was lost: %s", uuid, exc)

    def refuse(self, instance: Any, method: str, forced: bool = False) -> None:
        """Refuse what a frozen guest cannot do.

        :param forced: whether it forces the guest off, which is the remedy when the
            agent never says that the guest is thawed
        :raises: nova.exception.InstanceInvalidState
        """
        with self._lock:
            window = self._windows.get(instance.uuid)
        if window is None:
            return
        # It is there before the database has decided whether it may be.
        window.recorded.wait(_DECISION)
        with self._lock:
            if self._windows.get(instance.uuid) is not window or window.released:
                return
        status = window.state.status
        if status != Status.BROKEN and not (forced and status == Status.UNQUIESCING):
            raise freeze_window.conflict(instance, method, status)

    def holds(self, instance: Any) -> bool:
        """Whether the user's own freeze holds, so that an image need not freeze.

        :raises: nova.exception.InstanceQuiesceFailed while the freeze is under way
        """
        with self._lock:
            window = self._windows.get(instance.uuid)
        if window is None:
            return False
        if window.state.status == Status.QUIESCING:
            raise exception.InstanceQuiesceFailed(
                reason="the server is being quiesced; try again when it is"
            )
        return window.holds()

    # The register of windows.

    def _resume(self, instance: Any, row: quiesce_window.QuiesceWindow) -> None:
        """Take up the window of an instance that nobody here takes care of.

        :raises: nova.exception.InstanceInvalidState if somebody does by now
        """
        if row.status == Status.BROKEN:
            return
        if self._quiescer is None:
            LOG.warning(
                "The server is marked %s, but this host cannot thaw guests any more: "
                "thaw it by hand and reset its state.",
                row.status,
                instance=instance,
            )
            return
        LOG.info("Taking up the window that is %s.", row.status, instance=instance)
        window = self._reserve(instance, row)
        window.recorded.set()
        try:
            self._start(window, window.resume)
        except Exception:
            self._remove(window)
            raise

    def _unquiesce_without_window(self, context: Any, instance: Any) -> None:
        row = self._row(context, instance.uuid)
        if row is None or row.status != Status.BROKEN:
            if row is not None:
                self._resume(instance, row)  # not known here: see to its end
            raise freeze_window.conflict(
                instance, freeze_window.UNQUIESCE, row.status if row else None
            )
        window = self._reserve(instance, row)
        try:
            window.tell_broken(context)
        finally:
            self._remove(window)

    @staticmethod
    def _row(context: Any, uuid: str) -> quiesce_window.QuiesceWindow | None:
        return quiesce_window.QuiesceWindow.find(context.elevated(), uuid)

    def _reserve(
        self, instance: Any, row: quiesce_window.QuiesceWindow
    ) -> FreezeWindow:
        assert self._quiescer is not None  # the callers have looked
        with self._lock:
            taken = self._windows.get(instance.uuid)
            if taken is not None:
                raise freeze_window.conflict(
                    instance, freeze_window.QUIESCE, taken.state.status
                )
            window = FreezeWindow(
                self._host, self._quiescer, self._records, instance, row
            )
            self._windows[instance.uuid] = window
        return window

    def _remove(self, window: FreezeWindow) -> None:
        def remove() -> None:
            with self._lock:
                self._windows.pop(window.uuid, None)
            window.recorded.set()

        window.queue.put(remove)
        window.queue.close()

    def _start(
        self, window: FreezeWindow, run: Callable[..., None], *args: Any
    ) -> None:
        def live() -> None:
            try:
                run(*args)
            finally:
                self._remove(window)

        threading.Thread(
            target=live, name=f"quiesce-{window.uuid}", daemon=True
        ).start()
