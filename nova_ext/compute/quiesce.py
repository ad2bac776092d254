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

"""Owns the quiesce windows of the guests on this compute host, from order to record.

A window begins with a mark in the database, written ahead, and has a thread of its
own that reads from top to bottom: freeze, wait for the order or the deadline, thaw
until the agent says thawed. What it records goes through a journal, so that neither
the freeze nor the thaw waits for the message bus. Windows are taken up again from their
marks when nova-compute starts.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

import nova.conf
from nova import context as nova_context
from nova import exception, objects
from nova.compute import task_states, vm_states
from oslo_log import log as logging
from oslo_utils import timeutils

from nova_ext import exception as ext_exception
from nova_ext.compute import journal, mark
from nova_ext.compute.mark import Status
from nova_ext.notifications.objects import instance_quiesce as notification
from nova_ext.virt import freezer

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

QUIESCE = "quiesce"
UNQUIESCE = "unquiesce"
EVENTS = {
    QUIESCE: "compute_quiesce_instance",
    UNQUIESCE: "compute_unquiesce_instance",
}

#: Tasks that may start while a server is quiesced; any other ends the window.
_IMAGE_TASKS = (
    task_states.IMAGE_BACKUP,
    task_states.IMAGE_SNAPSHOT,
    task_states.IMAGE_SNAPSHOT_PENDING,
    task_states.IMAGE_PENDING_UPLOAD,
    task_states.IMAGE_UPLOADING,
)
_DELETING = (task_states.DELETING, task_states.SOFT_DELETING)

_LONGEST_WAIT = 30


class Window:
    """One window of one guest: what its thread and the RPC threads share.

    :ivar instance: the instance as it was last read or sent here
    :ivar mark: the mark as this host knows it, which the database follows
    :ivar order: the request that ordered the end, once there is one
    :ivar interruption: why the window ended without an order, once it has
    :ivar released: os-resetState cleared the marker: no trace of it shall stay
    :ivar ending: the thread has left the wait; no order is taken any more
    :ivar frozen: the guest is frozen, as far as this host knows
    """

    def __init__(self, instance: Any, current: mark.Mark) -> None:
        self.instance = instance
        self.uuid: str = instance.uuid
        self.project_id = instance.project_id
        self.user_id = instance.user_id
        self.mark = current
        self.order: Any = None
        self.interruption = ""
        self.released = current.status is Status.RELEASED
        self.ending = False
        self.frozen = current.status is Status.QUIESCED
        self.lock = threading.Lock()
        self.wake = threading.Event()
        self.journal = journal.Journal(f"quiesce-journal-{self.uuid}")

    def context(self, request_id: str | None = None) -> Any:
        """A context of the server's owner with the rights of the compute host."""
        return nova_context.RequestContext(
            user_id=self.user_id,
            project_id=self.project_id,
            is_admin=True,
            request_id=request_id,
        )


class QuiesceManager:
    """All quiesce windows of this host.

    :param host: the compute host's name
    :param guest_freezer: the virt driver's freezer, or None if it has none
    """

    def __init__(self, host: str, guest_freezer: freezer.GuestFreezer | None) -> None:
        self._host = host
        self._freezer = guest_freezer
        self._windows: dict[str, Window] = {}
        self._lock = threading.Lock()

    # What an RPC orders.

    def quiesce(self, context: Any, instance: Any, timeout: int) -> None:
        """Begin a window; returns once it is marked, before the guest is frozen.

        :param timeout: seconds until this host thaws by itself
        :raises: nova.exception.InstanceInvalidState when there is a window already, or
            when the instance is not active or has a task
        :raises: nova.exception.InstanceQuiesceNotSupported
        """
        if self._freezer is None:
            raise exception.InstanceQuiesceNotSupported(instance_id=instance.uuid)
        begun = mark.Mark(Status.QUIESCING, context.request_id, timeout)
        window = self._reserve(instance, begun)
        try:
            mark.write(instance, begun)
            instance.save(
                expected_vm_state=[vm_states.ACTIVE], expected_task_state=[None]
            )
            self._action_start(context, window.uuid, QUIESCE)
        except exception.InstanceUpdateConflict as exc:
            self._remove(window)
            actual: dict[str, Any] = exc.kwargs.get("actual") or {}
            raise exception.InstanceInvalidState(
                attr=" and ".join(actual) or "state",
                instance_uuid=window.uuid,
                state=" and ".join(str(value) for value in actual.values()),
                method=QUIESCE,
            ) from exc
        except Exception:
            # The mark may have reached the database all the same.
            window.journal.put(self._save_mark, window, None)
            self._remove(window)
            raise
        self._start(window, self._freeze_and_hold, context.elevated())

    def unquiesce(self, context: Any, instance: Any) -> None:
        """Order the end of the window; returns before the guest is thawed.

        :raises: nova.exception.InstanceInvalidState when there is no window, or it is
            not frozen yet, or ends already
        """
        with self._lock:
            window = self._windows.get(instance.uuid)
        if window is None:
            self._unquiesce_without_window(context, instance)
            return
        with window.lock:
            if window.mark.status is not Status.QUIESCED or window.ending:
                raise _conflict(instance, UNQUIESCE, window.mark.status)
            window.order = context.elevated()
            window.instance = instance
            window.mark = window.mark.replace(
                status=Status.UNQUIESCING, request_id=context.request_id
            )
        window.journal.put(self._save_mark, window, window.mark)
        try:
            self._action_start(context, window.uuid, UNQUIESCE)
        finally:
            # The user wants it thawed, even if that could not be recorded.
            window.wake.set()

    def release(self, context: Any, instance: Any) -> None:
        """Thaw a guest whose marker os-resetState has cleared."""
        with self._lock:
            window = self._windows.get(instance.uuid)
        if window is None:
            self.resume(instance)
            return
        window.released = True
        self.interrupt(window.uuid, "os-resetState cleared the marker")

    # What nova-compute and the virt driver tell.

    def resume(self, instance: Any) -> None:
        """Take up the window of an instance after nova-compute was restarted."""
        current = mark.read(instance)
        if current is None or current.status is Status.BROKEN:
            return
        if self._freezer is None:
            LOG.warning(
                "The server is marked %s, but this host cannot thaw guests any more: "
                "thaw it by hand and reset its state.",
                current.status,
                instance=instance,
            )
            return
        LOG.info("Taking up the window that is %s.", current.status, instance=instance)
        window = self._reserve(instance, current)
        if current.status is Status.QUIESCED:
            self._start(window, self._hold)
        elif current.status is Status.QUIESCING:
            self._start(window, self._take_back)
        elif current.status is Status.RELEASED:
            window.interruption = "os-resetState cleared the marker"
            self._start(window, self._finish)
        elif current.reason:  # nobody ordered the thaw that was under way
            window.interruption = current.reason
            self._start(window, self._finish)
        elif current.evidence:
            window.order = window.context(current.request_id)
            self._start(window, self._finish)
        else:
            self._start(window, self._thaw_failed_freeze)

    def interrupt(self, uuid: str, reason: str) -> None:
        """End the window of instance ``uuid``, if it has one, as broken."""
        with self._lock:
            window = self._windows.get(uuid)
        if window is not None:
            window.interruption = window.interruption or reason
            window.wake.set()

    def holds(self, instance: Any) -> bool:
        """Whether the user's own freeze holds, so that an image need not freeze.

        :raises: nova.exception.InstanceQuiesceFailed while the freeze is under way
        """
        with self._lock:
            window = self._windows.get(instance.uuid)
        if window is None:
            return False
        if not window.frozen and window.mark.status is Status.QUIESCING:
            raise exception.InstanceQuiesceFailed(
                reason="the server is being quiesced; try again when it is"
            )
        return window.frozen

    # The thread of a window.

    def _freeze_and_hold(self, window: Window, context: Any) -> None:
        window.journal.put(self._event_start, context, window.uuid, QUIESCE)
        window.journal.put(self._notify, context, window, QUIESCE, "start", window.mark)
        assert self._freezer is not None  # quiesce() checked it
        try:
            evidence = self._freezer.freeze(window.uuid)
        except Exception as exc:
            failure = _raised(
                ext_exception.QuiesceFailed(instance_uuid=window.uuid, reason=str(exc))
            )
            LOG.warning(failure.format_message())
            maybe_frozen = True
            if isinstance(exc, freezer.FreezeError):
                maybe_frozen = exc.maybe_frozen
            else:
                LOG.exception("Unexpected error while freezing %s.", window.uuid)
            self._fail_quiesce(window, context, failure, maybe_frozen)
            return
        window.frozen = True
        with window.lock:
            window.mark = window.mark.replace(
                status=Status.QUIESCED,
                quiesced_at=timeutils.utcnow(with_timezone=True),
                evidence=evidence,
            )
        window.journal.put(self._save_quiesced, window, window.mark)
        window.journal.put(self._event_finish, context, window.uuid, QUIESCE, None)
        window.journal.put(self._notify, context, window, QUIESCE, "end", window.mark)
        self._hold(window)

    def _take_back(self, window: Window) -> None:
        failure = _raised(
            ext_exception.QuiesceFailed(
                instance_uuid=window.uuid, reason="nova-compute was restarted meanwhile"
            )
        )
        context = window.context(window.mark.request_id)
        self._fail_quiesce(window, context, failure, maybe_frozen=True)

    def _fail_quiesce(
        self,
        window: Window,
        context: Any,
        failure: exception.NovaException,
        maybe_frozen: bool,
    ) -> None:
        if maybe_frozen:
            with window.lock:
                window.mark = window.mark.replace(status=Status.UNQUIESCING)
            # After the event: such a mark says that the event has been told.
            last = window.mark
        else:
            last = None
        put = window.journal.put
        put(self._event_finish, context, window.uuid, QUIESCE, failure)
        put(self._save_mark, window, last)
        put(self._notify, context, window, QUIESCE, "error", window.mark, failure)
        if maybe_frozen:
            self._thaw_failed_freeze(window)

    def _thaw_failed_freeze(self, window: Window) -> None:
        self._thaw(window, lambda reason: None)
        window.journal.put(self._save_mark, window, None)

    def _hold(self, window: Window) -> None:
        deadline = window.mark.unquiesce_at
        assert deadline is not None  # a quiesced mark has the time of its freeze
        left = timeutils.delta_seconds(timeutils.utcnow(with_timezone=True), deadline)
        window.wake.wait(max(0, left))
        with window.lock:
            window.ending = True
            if window.order is None:
                window.interruption = window.interruption or (
                    f"it was not unquiesced by {deadline:%Y-%m-%dT%H:%M:%SZ}, so the "
                    "compute host thawed it"
                )
                window.mark = window.mark.replace(
                    status=Status.UNQUIESCING, reason=window.interruption
                )
        self._finish(window)

    def _finish(self, window: Window) -> None:
        """Thaw, and tell whoever ordered it, or everybody, how it went."""
        context, ordered = window.order, window.order is not None
        window.ending = True
        if context is None:
            context = window.context()
            window.journal.put(self._action_start, context, window.uuid, UNQUIESCE)
            if not window.released:
                window.journal.put(self._save_mark, window, window.mark)
        window.journal.put(self._event_start, context, window.uuid, UNQUIESCE)
        window.journal.put(
            self._notify, context, window, UNQUIESCE, "start", window.mark
        )
        told = False

        def tell(reason: str) -> None:
            nonlocal told
            if told:
                return
            told = True
            failure = _raised(
                ext_exception.QuiesceWindowBroken(
                    instance_uuid=window.uuid, reason=reason
                )
            )
            LOG.warning(failure.format_message())
            window.journal.put(
                self._event_finish, context, window.uuid, UNQUIESCE, failure
            )
            window.journal.put(
                self._notify, context, window, UNQUIESCE, "error", window.mark, failure
            )

        breach = self._thaw(window, tell)
        reason = window.interruption or breach or ""
        last = None
        if reason and not ordered and not window.released:
            last = window.mark.replace(
                status=Status.BROKEN, evidence=None, reason=reason
            )
        window.journal.put(self._save_mark, window, last)
        if reason:
            tell(reason)
        elif not told:
            window.journal.put(
                self._event_finish, context, window.uuid, UNQUIESCE, None
            )
            window.journal.put(
                self._notify, context, window, UNQUIESCE, "end", window.mark
            )

    def _thaw(self, window: Window, tell: Callable[[str], None]) -> str | None:
        """Thaw until the agent says thawed; ``tell`` why, if that takes long.

        :returns: why the guest was not frozen all the time, or None if it was
        """
        assert self._freezer is not None  # else there would be no window
        patience = time.monotonic() + 2 * CONF.nova_ext.quiesce_agent_timeout
        wait = 1
        while True:
            window.wake.clear()
            try:
                breach = self._freezer.thaw(window.uuid, window.mark.evidence)
            except freezer.GuestGone as exc:
                breach = str(exc)
            except Exception as exc:
                # Whatever went wrong: a guest must not stay frozen for it.
                LOG.warning("Could not thaw instance %s yet: %s", window.uuid, exc)
                if not isinstance(exc, freezer.ThawError):
                    LOG.exception("Unexpected error while thawing %s.", window.uuid)
                if time.monotonic() > patience:
                    tell(f"it is not thawed yet and is being retried: {exc}")
                window.wake.wait(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
                continue
            window.frozen = False
            return breach

    # The records of a window.

    def _load(self, window: Window) -> Any:
        """The instance as the database has it now.

        :raises: nova.exception.InstanceNotFound when it is deleted, being deleted, or
            not on this host any more
        """
        instance = objects.Instance.get_by_uuid(
            nova_context.get_admin_context(),
            window.uuid,
            expected_attrs=["flavor", "info_cache", "metadata", "system_metadata"],
        )
        if instance.host != self._host or instance.task_state in _DELETING:
            raise exception.InstanceNotFound(instance_id=window.uuid)
        window.instance = instance
        return instance

    def _save_mark(self, window: Window, current: mark.Mark | None) -> None:
        instance = self._load(window)
        mark.write(instance, current)
        instance.save()

    def _save_quiesced(self, window: Window, current: mark.Mark) -> None:
        instance = self._load(window)
        if instance.task_state not in (None, *_IMAGE_TASKS):
            self.interrupt(
                window.uuid, f"the server became {instance.task_state} meanwhile"
            )
            return
        with window.lock:
            if window.released or window.mark is not current:
                return  # the end was ordered already, and has its own record
            mark.write(instance, current)
        instance.save()

    def _action_start(self, context: Any, uuid: str, action: str) -> None:
        objects.InstanceAction.action_start(context, uuid, action, want_result=False)

    def _event_start(self, context: Any, uuid: str, action: str) -> None:
        objects.InstanceActionEvent.event_start(
            context, uuid, EVENTS[action], want_result=False, host=self._host
        )

    def _event_finish(
        self,
        context: Any,
        uuid: str,
        action: str,
        failure: exception.NovaException | None,
    ) -> None:
        try:
            objects.InstanceActionEvent.event_finish_with_failure(
                context,
                uuid,
                EVENTS[action],
                exc_val=failure and failure.format_message(),
                exc_tb=failure and failure.__traceback__,
                want_result=False,
            )
        except (
            exception.InstanceActionNotFound,
            exception.InstanceActionEventNotFound,
        ):
            LOG.debug("The %s of %s left no action to finish.", action, uuid)

    def _notify(
        self,
        context: Any,
        window: Window,
        action: str,
        phase: str,
        current: mark.Mark,
        failure: exception.NovaException | None = None,
    ) -> None:
        try:
            notification.emit(
                context, window.instance, self._host, action, phase, current, failure
            )
        except Exception:
            # The state of the guest matters more than that somebody hears of it.
            LOG.exception("Could not send the notification %s.%s.", action, phase)

    # The register of windows.

    def _reserve(self, instance: Any, current: mark.Mark) -> Window:
        with self._lock:
            taken = self._windows.get(instance.uuid)
            if taken is not None:
                raise _conflict(instance, QUIESCE, taken.mark.status)
            window = Window(instance, current)
            self._windows[instance.uuid] = window
        return window

    def _remove(self, window: Window) -> None:
        window.journal.put(self._windows.pop, window.uuid, None)
        window.journal.close()

    def _start(self, window: Window, run: Callable[..., None], *args: Any) -> None:
        def live() -> None:
            try:
                run(window, *args)
            finally:
                self._remove(window)

        threading.Thread(
            target=live, name=f"quiesce-{window.uuid}", daemon=True
        ).start()

    def _unquiesce_without_window(self, context: Any, instance: Any) -> None:
        current = mark.read(instance)
        if current is None or current.status is not Status.BROKEN:
            if current is not None:
                self.resume(instance)  # marked, but not known here: see to its end
            raise _conflict(instance, UNQUIESCE, current.status if current else None)
        window = self._reserve(instance, current)
        window.order = context.elevated()
        try:
            self._action_start(context, window.uuid, UNQUIESCE)
        except Exception:
            self._remove(window)
            raise
        failure = _raised(
            ext_exception.QuiesceWindowBroken(
                instance_uuid=window.uuid, reason=current.reason
            )
        )
        put = window.journal.put
        put(self._event_start, window.order, window.uuid, UNQUIESCE)
        put(self._notify, window.order, window, UNQUIESCE, "start", window.mark)
        put(self._save_mark, window, None)
        put(self._event_finish, window.order, window.uuid, UNQUIESCE, failure)
        put(
            self._notify, window.order, window, UNQUIESCE, "error", window.mark, failure
        )
        self._remove(window)


def _conflict(
    instance: Any, method: str, status: Status | None
) -> exception.InstanceInvalidState:
    return exception.InstanceInvalidState(
        attr="quiesce_status",
        instance_uuid=instance.uuid,
        state=status.value if status else "null",
        method=method,
    )


def _raised(exc: exception.NovaException) -> exception.NovaException:
    """``exc`` with a traceback, without which nova records an event as a success."""
    try:
        raise exc
    except type(exc) as raised:
        return raised
