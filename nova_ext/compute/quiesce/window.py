# SPDX-License-Identifier: Apache-2.0
"""Owns the life of one freeze window on its compute host, from request to record.

A window begins with a row in the database, written ahead, and has a thread of its own
that reads from top to bottom: freeze, wait for the request or the deadline, thaw until
the agent says thawed. What it records goes through a retry queue, so that neither the
freeze nor the thaw waits for the message bus.
"""

import datetime
import json
import threading
import time
from typing import Any

import nova.conf
from nova import context as nova_context
from nova import exception, objects
from nova.compute import task_states
from oslo_log import log as logging
from oslo_utils import uuidutils

from nova_ext import exception as ext_exception
from nova_ext.compute import action_records, retry_queue
from nova_ext.guard import thaw
from nova_ext.guard.records import Phase, Record
from nova_ext.notifications.objects import instance_quiesce as notification
from nova_ext.objects.quiesce_window import QuiesceStatus as Status
from nova_ext.objects.quiesce_window import QuiesceWindow
from nova_ext.virt import guest_quiescer

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

QUIESCE = "quiesce"
UNQUIESCE = "unquiesce"
EVENTS = {
    QUIESCE: "compute_quiesce_instance",
    UNQUIESCE: "compute_unquiesce_instance",
}

RELEASED = "os-resetState cleared the marker"

#: How the status of a window changes on its host, and why:
#: a window ends with its row removed, or BROKEN until somebody asks for its end.
NEXT = {
    Status.QUIESCING: {
        Status.QUIESCED,  # the agent has frozen the file systems
        Status.UNQUIESCING,  # the freeze failed and may have to be undone
    },
    Status.QUIESCED: {
        Status.UNQUIESCING,  # a request, the deadline, or the guest stopped running
    },
    Status.UNQUIESCING: {
        Status.BROKEN,  # thawed, but nobody had asked for it
    },
}

#: Tasks that may start while a server is quiesced; any other ends the window.
_HARMLESS_TASKS = [
    None,
    task_states.IMAGE_BACKUP,
    task_states.IMAGE_SNAPSHOT,
    task_states.IMAGE_SNAPSHOT_PENDING,
    task_states.IMAGE_PENDING_UPLOAD,
    task_states.IMAGE_UPLOADING,
]

#: Seconds between two tries to thaw a guest.
_RETRY = 1

#: Seconds for the thaw hook of a guest. The guest is thawed when it runs, but its agent
#: says nothing before it has ended.
_HOOK = 30

#: Seconds in which the action of a request is begun, unless the bus is down.
PATIENCE = 2

_THAWED_UNASKED = "it was thawed unasked"
_RESTARTED = "nova-compute was restarted in the meantime"

#: Seconds in which a request that came at the same moment as quiesce gives back the
#: task state that it took, because it found the row.
_GIVE_BACK = 5

ATTRIBUTES = ["flavor", "info_cache", "metadata", "system_metadata"]

#: Seconds between two looks at the record of a frozen guest, which the guard may thaw.
_LOOK = 0.2


class FreezeWindow:
    """One window of one guest: what its thread and the RPC threads share.

    :ivar instance: the instance as it was last read or sent here
    :ivar state: the row as this host knows it, which the database follows; never
        changed in place
    :ivar request: the request that asked for the end, once there is one
    :ivar interruption: why the window ends without a request, once it does
    :ivar recorded: the row is known to be in the database, or not to come there
    :ivar released: somebody cleared the row: no trace of the window shall stay
    :ivar ending: the thread has left the wait; no request is taken any more

    :param host: the compute host's name
    :param quiescer: freezes and thaws the guest
    :param records: writes the instance actions
    """

    def __init__(
        self,
        host: str,
        quiescer: guest_quiescer.GuestQuiescer,
        records: action_records.ActionRecords,
        instance: Any,
        state: QuiesceWindow,
    ) -> None:
        self._host = host
        self._quiescer = quiescer
        self._records = records
        self.instance = instance
        self.uuid: str = instance.uuid
        self.window_id: str = state.window_id
        self.state = state
        #: The change that the database has; only for the queue's thread.
        self._stored: str = state.change_id
        self.request: Any = None
        self.interruption = ""
        self.recorded = threading.Event()
        self.released = state.status == Status.RELEASED
        self.ending = False
        self._told = False
        self._resumed = False
        self.lock = threading.Lock()
        self.wake = threading.Event()
        self.queue = retry_queue.RetryQueue(f"quiesce-records-{self.uuid}")

    def context(self, request_id: str | None = None) -> Any:
        """A context of the server's owner with the rights of the compute host."""
        return owner_context(self.instance, request_id)

    # What other threads tell.

    def interrupt(self, reason: str) -> None:
        """End the window as broken."""
        self.interruption = self.interruption or reason
        self.wake.set()

    def lose(self, reason: str) -> None:
        """End the window of a guest whose memory is lost."""
        self.interruption = self.interruption or reason
        try:
            self._quiescer.lost(self.uuid, self.window_id, reason)
        except guest_quiescer.ThawError as exc:
            LOG.warning("Could not record that %s was lost: %s", self.uuid, exc)
        self.wake.set()

    def end(self, context: Any, instance: Any) -> None:
        """End the window for a request; returns before the guest is thawed.

        :raises: nova.exception.InstanceInvalidState when it is not frozen yet, or ends
            already
        """
        with self.lock:
            if not self._holds():
                raise conflict(instance, UNQUIESCE, self.state.status)
            self.instance = instance
            self._become(Status.UNQUIESCING, request_id=context.request_id)
            # First what a nova-compute that takes over goes by; and all of it before
            # the thread knows of the request, and tells more of it.
            self._put_state(self.state)
            self.put_action_start(context)
            begun = self.put_mark()
            self.request = context.elevated()
        # Nothing on the way to the thaw waits for the message bus or the database.
        self.wake.set()
        # Who asked finds the action, if the bus works.
        begun.wait(PATIENCE)

    def _holds(self) -> bool:
        """Whether the guest is frozen and nobody has begun to thaw it."""
        if self.state.status != Status.QUIESCED or self.ending or self.interruption:
            return False
        record = self._record()
        return (
            record is not None
            and record.phase is Phase.FROZEN
            and self._quiescer.in_time(record)
        )

    def holds(self) -> bool:
        """Whether the user's own freeze holds, so that an image need not freeze."""
        with self.lock:
            return self._holds()

    # The thread: how a window begins, or goes on after a restart.

    def freeze_and_hold(self, context: Any) -> None:
        """Freeze, then hold until the end."""
        self._put_event_start(context, QUIESCE)
        self._put_notify(context, QUIESCE, "start")
        try:
            frozen = self._quiescer.freeze(
                self.uuid, self.window_id, self.state.timeout, self.state.partial
            )
        except Exception as exc:
            failure = _raised(
                ext_exception.QuiesceFailed(instance_uuid=self.uuid, reason=str(exc))
            )
            LOG.warning(failure.format_message())
            maybe_frozen = True
            if isinstance(exc, guest_quiescer.FreezeError):
                maybe_frozen = exc.maybe_frozen
            else:
                LOG.exception("Unexpected error while freezing %s.", self.uuid)
            self._fail_quiesce(context, failure, maybe_frozen)
            return
        if frozen.left_out:
            LOG.warning(
                "Instance %s is quiesced without its file systems %s.",
                self.uuid,
                ", ".join(frozen.left_out),
            )
        with self.lock:
            self._become(
                Status.QUIESCED,
                quiesced_at=_frozen_at(frozen.record, self.state.timeout),
                left_out=json.dumps(frozen.left_out) if frozen.left_out else None,
            )
        self._put_state(self.state, _HARMLESS_TASKS)
        self._put_event_finish(context, QUIESCE, None)
        self._put_notify(context, QUIESCE, "end")
        self.hold()

    def resume(self) -> None:
        """Go on where a nova-compute that died has left the window."""
        self._resumed = True
        status = self.state.status
        if status == Status.QUIESCED:
            self._put_open(None)
            self.hold()
        elif status == Status.QUIESCING:
            failure = _raised(
                ext_exception.QuiesceFailed(instance_uuid=self.uuid, reason=_RESTARTED)
            )
            context = self.context(self.state.request_id)
            self._fail_quiesce(context, failure, maybe_frozen=True)
        elif status == Status.RELEASED:
            self.interruption = RELEASED
            self._finish()
        elif self.state.quiesced_at is None:
            self._thaw_failed_freeze()
        else:
            if not self.state.reason:  # a request is on its way to its end
                self.request = self.context(self.state.request_id)
                self.put_action_start(self.request)
            self._finish()

    def tell_broken(self, context: Any) -> None:
        """Tell the request for the end of a window that broke earlier why it did.

        It gets its answer when it has been told: the row is all that would do it again.
        """
        context = context.elevated()
        event = EVENTS[UNQUIESCE]
        failure = _broken(self.uuid, self.state.reason)
        self._records.action_start(context, self.uuid, UNQUIESCE)
        self._records.event_start(context, self.uuid, event)
        self._notify(context, UNQUIESCE, "start", self.state, None)
        self._records.event_finish(context, self.uuid, event, failure)
        self._notify(context, UNQUIESCE, "error", self.state, failure)
        self.forget()

    def hold(self) -> None:
        """Wait for a request, or until somebody thaws the guest, then end the window.

        The deadline is the guard's.
        """
        while not (self.request or self.interruption):
            record = self._record()
            if record is None or record.phase is not Phase.FROZEN:
                break
            if not self._quiescer.in_time(record):
                self._become_overdue(record)
            self.wake.wait(_LOOK)
            self.wake.clear()
        with self.lock:
            self.ending = True
        self._finish()

    def _become_overdue(self, record: Record) -> None:
        """Let the guest be stopped or reset while the guard cannot thaw it."""
        with self.lock:
            if self.state.status != Status.QUIESCED or self.request is not None:
                return
            self._become_unasked(thaw.deadline_passed(record))
        self._put_state(self.state)

    def _record(self) -> Record | None:
        try:
            return self._quiescer.record(self.uuid, self.window_id)
        except guest_quiescer.ThawError as exc:
            LOG.warning("Ending the window of %s: %s", self.uuid, exc)
            return None

    def _fail_quiesce(
        self, context: Any, failure: exception.NovaException, maybe_frozen: bool
    ) -> None:
        if maybe_frozen:
            with self.lock:
                self._become(Status.UNQUIESCING)
        self._put_event_finish(context, QUIESCE, failure)
        if maybe_frozen:
            # After the event: such a row says that the event has been told.
            self._put_state(self.state)
        self._put_notify(context, QUIESCE, "error", failure)
        if maybe_frozen:
            self._thaw_failed_freeze()
        else:
            self.forget()

    def _thaw_failed_freeze(self) -> None:
        self._thaw("its freeze did not end well")
        self.forget()

    def _finish(self) -> None:
        """Thaw, and tell whoever asked for it, or everybody, how it went."""
        if self.request is not None:
            context = self.request
            self._put_begin(context)
            record = self._thaw(f"request {context.request_id}", context.request_id)
        else:
            by = self.interruption or self.state.reason or _THAWED_UNASKED
            with self.lock:
                if self.state.status == Status.QUIESCED:
                    self._become_unasked(by)
                    self._put_state(self.state)
            record = self._thaw(by)
            # A nova-compute that has died since may have taken a request.
            unasked = self.state.status == Status.UNQUIESCING  # else: released
            own = self.state.request_id if unasked else None
            context = self.context(record.request_id or own)
            self.queue.put(self._reload)
            self.put_action_start(context)
            self._put_begin(context)
        asked = self.request is not None or record.request_id
        broken = bool(record.breach and not asked and not self.released)
        released = self.state.status == Status.RELEASED
        if not broken and not released:
            # First, so that whoever hears of the end may begin anew.
            self._put_forget()
        self._put_outcome(context, failure_of(record))
        if released:
            self._put_open(_broken(self.uuid, RELEASED))
            self._put_forget()
        if broken:
            # After the outcome: such a row says that it has been told.
            with self.lock:
                self._become(Status.BROKEN, reason=record.breach)
            self._put_state_last(self.state)
            self.queue.put(self._forget_if_released)
        self._put_forget_record()

    def _put_begin(self, context: Any) -> None:
        self._put_event_start(context, UNQUIESCE)
        self._put_notify(context, UNQUIESCE, "start")

    def _put_outcome(
        self, context: Any, failure: exception.NovaException | None
    ) -> None:
        """Have it told how the window ended, unless something else was told already."""
        if self._told:
            return
        self._told = True
        phase = "error" if failure else "end"
        if failure:
            LOG.warning(failure.format_message())
        self._put_event_finish(context, UNQUIESCE, failure)
        self._put_notify(context, UNQUIESCE, phase, failure)

    def _thaw(self, by: str, request_id: str = "") -> Record:
        """Thaw until the agent says thawed; who asked for it is told if it takes long.

        :param by: who wants it, and why
        """
        patience = time.monotonic() + 2 * CONF.nova_ext.quiesce_agent_timeout + _HOOK
        complaint = ""
        while True:
            self.wake.clear()
            try:
                return self._quiescer.thaw(self.uuid, self.window_id, by, request_id)
            except Exception as exc:
                # Whatever went wrong: a guest must not stay frozen for it.
                if str(exc) != complaint:
                    complaint = str(exc)
                    LOG.warning("Could not thaw instance %s yet: %s", self.uuid, exc)
                if not isinstance(exc, guest_quiescer.ThawError):
                    LOG.exception("Unexpected error while thawing %s.", self.uuid)
                if request_id and time.monotonic() > patience:
                    reason = f"it is not thawed yet and is being retried: {exc}"
                    self._put_outcome(self.request, _broken(self.uuid, reason))
                self.wake.wait(_RETRY)

    def _become_unasked(self, reason: str) -> None:
        """Begin the end that nobody asked for, which is an action all the same."""
        request_id = self.context().request_id  # a new one
        self._become(Status.UNQUIESCING, reason=reason, request_id=request_id)

    def _become(self, status: Status, **changes: Any) -> None:
        """Change the state; the caller holds the lock, and has it stored."""
        if self.state.status != Status.RELEASED:
            assert status in NEXT[Status(self.state.status)]
        self.state = self.state.replace(status=status, **changes)

    # The records; the queue's thread writes them.

    def forget(self) -> None:
        """Have the row removed, and the record after it.

        They stay when something could not be written: the periodic task tells it again.
        """
        self._put_forget()
        self._put_forget_record()

    def _put_forget(self) -> None:
        self.queue.put_last(self._forget)

    def _put_forget_record(self) -> None:
        if self._resumed:
            failure = _broken(self.uuid, self.interruption or _RESTARTED)
            context = self.context(self.state.request_id)
            self.queue.put(
                self._records.finish_left, context, self.uuid, EVENTS, failure
            )
        self.queue.put_last(self._quiescer.forget, self.uuid, self.window_id)

    def _put_state(
        self, state: QuiesceWindow, expected_task_states: list[str | None] | None = None
    ) -> None:
        change_id = uuidutils.generate_uuid()  # the same in each retry
        self.queue.put(self._save, state, change_id, expected_task_states)

    def _put_state_last(self, state: QuiesceWindow) -> None:
        self.queue.put_last(self._save, state, uuidutils.generate_uuid(), None)

    def put_action_start(self, context: Any, action: str = UNQUIESCE) -> None:
        """Have the action of a request begun."""
        self.queue.put(
            lambda: self._records.action_start(
                context, self.uuid, action, self._may_be_there()
            )
        )

    def put_mark(self) -> threading.Event:
        """Something that is set once all that was put before is recorded."""
        mark = threading.Event()
        self.queue.put(mark.set)
        return mark

    def _put_event_start(self, context: Any, action: str) -> None:
        self.queue.put(
            lambda: self._records.event_start(
                context, self.uuid, EVENTS[action], self._may_be_there()
            )
        )

    def _may_be_there(self) -> bool:
        """Whether what is to be begun may have been begun before."""
        return self._resumed or self.queue.repeating

    def _put_event_finish(
        self, context: Any, action: str, failure: exception.NovaException | None
    ) -> None:
        self.queue.put(
            self._records.event_finish,
            context,
            self.uuid,
            EVENTS[action],
            failure,
            self._details(),
        )

    def _put_open(self, failure: exception.NovaException | None) -> None:
        """Tell the row's request, if a nova-compute that died did not come to it."""
        context = self.context(self.state.request_id)
        self.queue.put(
            self._records.finish_open,
            context,
            self.uuid,
            EVENTS,
            failure,
            self._details(),
        )

    def _details(self) -> str | None:
        """What a success does not stand for."""
        left_out = ", ".join(self.state.mount_points_left_out)
        return f"without the file systems {left_out}" if left_out else None

    def _put_notify(
        self,
        context: Any,
        action: str,
        phase: str,
        failure: exception.NovaException | None = None,
    ) -> None:
        self.queue.put(self._notify, context, action, phase, self.state, failure)

    def _save(
        self,
        state: QuiesceWindow,
        change_id: str,
        expected_task_states: list[str | None] | None,
    ) -> None:
        patience = time.monotonic() + _GIVE_BACK
        while not self.released:
            row = state.replace(change_id=self._stored)
            row._context = nova_context.get_admin_context()
            try:
                row.save(
                    change_id,
                    host=self._host,
                    expected_task_states=expected_task_states,
                )
            except exception.UnexpectedTaskStateError as exc:
                if time.monotonic() < patience:
                    time.sleep(_GIVE_BACK / 50)
                    continue
                actual = exc.kwargs.get("actual") or {}
                self.interrupt(
                    f"the server became {actual.get('task_state')} in the meantime"
                )
                return
            except ext_exception.QuiesceWindowChanged:
                self._follow()
            else:
                self._stored = change_id
                return

    def _forget(self) -> None:
        while True:
            row = self.state.replace(change_id=self._stored)
            row._context = nova_context.get_admin_context()
            try:
                row.destroy()
                return
            except ext_exception.QuiesceWindowChanged:
                if self._follow() != self.window_id:
                    return  # it is another window's, which has its own end

    def _forget_if_released(self) -> None:
        if self.released:
            self._forget()

    def _follow(self) -> str | None:
        """Take over what somebody else made of the row.

        That is an administrator's os-resetState, or a backup of the database that was
        restored: then this host knows better, and writes again.

        :returns: the window that the row is of; None if it has gone
        """
        try:
            row = QuiesceWindow.get_by_instance_uuid(
                nova_context.get_admin_context(), self.uuid
            )
        except ext_exception.QuiesceWindowNotFound:
            self.released = True
            self.interrupt("its record was removed")
            return None
        self._stored = row.change_id
        if row.status == Status.RELEASED:
            self.released = True
            self.interrupt(RELEASED)
        return str(row.window_id)

    def _reload(self) -> None:
        self.instance = objects.Instance.get_by_uuid(
            nova_context.get_admin_context(), self.uuid, expected_attrs=ATTRIBUTES
        )

    def _notify(
        self,
        context: Any,
        action: str,
        phase: str,
        state: QuiesceWindow,
        failure: exception.NovaException | None,
    ) -> None:
        try:
            notification.emit(
                context, self.instance, self._host, action, phase, state, failure
            )
        except Exception:
            # The state of the guest matters more than that somebody hears of it.
            LOG.exception("Could not send the notification %s.%s.", action, phase)


def owner_context(instance: Any, request_id: str | None) -> Any:
    """A context of a server's owner with the rights of the compute host."""
    return nova_context.RequestContext(
        user_id=instance.user_id,
        project_id=instance.project_id,
        is_admin=True,
        request_id=request_id,
    )


def _frozen_at(record: Record, seconds: int) -> datetime.datetime:
    """When the guest was frozen by the wall clock, which is for people only."""
    assert record.due is not None  # a frozen guest has a deadline
    return datetime.datetime.fromtimestamp(record.due.wall - seconds, datetime.UTC)


def _broken(uuid: str, reason: str) -> exception.NovaException:
    return _raised(ext_exception.QuiesceWindowBroken(instance_uuid=uuid, reason=reason))


def failure_of(record: Record) -> exception.NovaException | None:
    """What is told of a window that is no proof; None for one that is."""
    return _broken(record.uuid, record.breach) if record.breach else None


def conflict(
    instance: Any, method: str, status: str | None
) -> exception.InstanceInvalidState:
    """The refusal of ``method`` because of the status of the server's window."""
    return exception.InstanceInvalidState(
        attr="quiesce_status",
        instance_uuid=instance.uuid,
        state=str(status) if status else "null",
        method=method,
    )


def _raised(exc: exception.NovaException) -> exception.NovaException:
    """``exc`` with a traceback, of which nova's notifications tell."""
    try:
        raise exc
    except type(exc) as raised:
        return raised
