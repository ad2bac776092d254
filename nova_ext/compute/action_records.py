# SPDX-License-Identifier: Apache-2.0
"""Owns what is recorded as instance actions and their events, on the compute host."""

from collections.abc import Mapping
from typing import Any

from nova import context as nova_context
from nova import exception, objects
from oslo_log import log as logging

from nova_ext.objects.instance_action import DetailedActionEvent

LOG = logging.getLogger(__name__)

#: How many of the last actions of an instance may have been left open.
_LAST_ACTIONS = 20


class ActionRecords:
    """Writes instance actions and events; each may be repeated when its answer is lost.

    Only what may be there already (``again``) is looked for first: each look is an RPC.

    :param host: the compute host's name
    """

    def __init__(self, host: str) -> None:
        self._host = host

    def action_start(
        self, context: Any, uuid: str, action: str, again: bool = True
    ) -> None:
        """Begin an action of instance ``uuid``, named as in the API, if it was not."""
        if again and self._action(context, uuid) is not None:
            return
        objects.InstanceAction.action_start(context, uuid, action, want_result=False)

    def event_start(
        self, context: Any, uuid: str, event: str, again: bool = True
    ) -> None:
        """Begin an event of the action of the context's request, if there is one."""
        try:
            if again and self._begun(context, uuid, event):
                return
            objects.InstanceActionEvent.event_start(
                context, uuid, event, want_result=False, host=self._host
            )
        except exception.InstanceActionNotFound:
            LOG.debug("The event %s of %s has no action.", event, uuid)

    def _begun(self, context: Any, uuid: str, event: str) -> bool:
        action = self._action(context, uuid)
        return action is not None and event in [
            each.event for each in _events(context, action)
        ]

    def event_finish(
        self,
        context: Any,
        uuid: str,
        event: str,
        failure: Exception | None,
        details: str | None = None,
    ) -> None:
        """End an event: with Success, or with Error and the reason.

        One that a nova-compute that died did not come to begin is begun first.

        :param details: what is to be known of a success
        """
        reason, traceback = details, None
        if failure is not None:
            reason = (
                failure.format_message()
                if isinstance(failure, exception.NovaException)
                else str(failure)
            )
            # nova records an event without a traceback as a success.
            traceback = failure.__traceback__ or ""
        try:
            try:
                self._finish(context, uuid, event, reason, traceback)
            except exception.InstanceActionEventNotFound:
                self.event_start(context, uuid, event)
                self._finish(context, uuid, event, reason, traceback)
        except (
            exception.InstanceActionNotFound,
            exception.InstanceActionEventNotFound,
        ):
            LOG.debug("The event %s of %s has no action.", event, uuid)

    def finish_open(
        self,
        context: Any,
        uuid: str,
        events: Mapping[str, str],
        failure: Exception | None,
        details: str | None = None,
    ) -> None:
        """End the event of the context's request, unless it has ended.

        :param events: the event of each action
        :param details: as for :meth:`event_finish`
        """
        action = self._action(context, uuid)
        if action is None:
            return
        event = events[action.action]
        known = _events(context, action)
        if not any(each.event == event and each.finish_time for each in known):
            self.event_finish(context, uuid, event, failure, details)

    def finish_left(
        self,
        context: Any,
        uuid: str,
        events: Mapping[str, str],
        failure: Exception,
    ) -> None:
        """End the events that a nova-compute that died has left open.

        :param context: of any request
        :param events: the event of each action
        """
        listed = objects.InstanceActionList.get_by_instance_uuid(
            context, uuid, limit=_LAST_ACTIONS
        )
        for action in listed:
            if action.action not in events:
                continue
            own = nova_context.RequestContext.from_dict(context.to_dict())
            own.request_id = action.request_id
            self.finish_open(own, uuid, events, failure)

    @staticmethod
    def _action(context: Any, uuid: str) -> Any:
        """The action of the context's request, or None.

        nova would make a second one, and of two events with the same name it finishes
        one: whoever waits for both waits for ever.
        """
        return objects.InstanceAction.get_by_request_id(
            context, uuid, context.request_id
        )

    @staticmethod
    def _finish(
        context: Any, uuid: str, event: str, reason: str | None, traceback: Any
    ) -> None:
        # A nova-conductor that is stock, still, knows nova's object only.
        detailed = reason is not None and traceback is None
        kind = DetailedActionEvent if detailed else objects.InstanceActionEvent
        kind.event_finish_with_failure(
            context, uuid, event, exc_val=reason, exc_tb=traceback, want_result=False
        )


def _events(context: Any, action: Any) -> Any:
    return objects.InstanceActionEventList.get_by_action(context, action.id)
