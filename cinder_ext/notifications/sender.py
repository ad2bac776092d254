# SPDX-License-Identifier: Apache-2.0
"""Owns the last step of a notification: from an event to oslo.messaging."""

from typing import Any

import oslo_messaging as messaging
from cinder import context as cinder_context
from cinder import rpc
from oslo_log import log as logging
from oslo_messaging import transport as messaging_transport

from cinder_ext.notifications import emitter
from cinder_ext.notifications.objects import backup as versioned

LOG = logging.getLogger(__name__)

#: Cinder's own event type of progress, under which these events are sent first.
_LEGACY_PROGRESS = "backup.createprogress"
_LEGACY = ("backup.create.progress", "backup.create.end")


class _Transport(messaging_transport.NotificationTransport):
    """A transport that remembers a failure.

    The notification drivers of oslo.messaging log a failure and do not raise it, but an
    end must stay in the journal until the message bus has accepted it.
    """

    failure: Exception | None = None

    def _send_notification(self, *args: Any, **kwargs: Any) -> None:
        try:
            super()._send_notification(*args, **kwargs)
        except Exception as error:
            self.failure = error
            raise


def _context(event: emitter.Event) -> Any:
    return cinder_context.RequestContext(
        **event.context, is_admin=False, overwrite=False
    )


def _versioned(event: emitter.Event) -> tuple[str, dict[str, Any]] | None:
    """The versioned event, or None: retrying would block all events that follow."""
    try:
        return versioned.notification(event)
    except Exception:
        LOG.exception("Could not make a versioned %s.", event.event_type)
        return None


def connect(conf: Any, host: str, binary: str) -> emitter.Send:
    """Return a function that sends one event in the configured formats.

    It has its own connection: the one that Cinder made may belong to another process.

    :param binary: the publisher of versioned notifications
    """
    options = conf.backup_notifications
    upstream = messaging.get_notification_transport(
        conf, allowed_remote_exmods=rpc.get_allowed_exmods()
    )
    transport = _Transport(upstream._driver)

    def notifier(publisher: str, **more: Any) -> Any:
        return messaging.Notifier(
            transport,
            publisher_id=f"{publisher}{host}",
            serializer=rpc.RequestContextSerializer(messaging.JsonPayloadSerializer()),
            # With 0, oslo.messaging would retry without end.
            retry=options.retries,
            **more,
        )

    flat = notifier("backup.")
    objects = notifier(f"{binary}:", topics=[options.versioned_topic])

    def send(event: emitter.Event) -> None:
        transport.failure = None
        if options.format != "versioned":
            emit = getattr(flat, event.priority)
            if (
                options.legacy_progress
                and event.event_type in _LEGACY
                and "backup_percent" in event.payload
            ):
                emit(_context(event), _LEGACY_PROGRESS, event.payload)
            emit(_context(event), event.event_type, event.payload)
        if options.format != "unversioned" and (made := _versioned(event)):
            getattr(objects, event.priority)(_context(event), *made)
        if transport.failure:
            raise transport.failure

    return send
