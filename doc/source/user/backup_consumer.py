# SPDX-License-Identifier: Apache-2.0
"""Prints what becomes of each backup, without repetitions and without old news.

Usage: backup_consumer.py rabbit://USER:PASSWORD@HOST:5672/
"""

import collections
import sys
import threading

import oslo_messaging
from oslo_config import cfg


class News:
    """Distinguishes new notifications from repeated and late ones.

    :param limit: operations that are remembered
    """

    def __init__(self, limit=10000):
        self._limit = limit
        self._newest = collections.OrderedDict()

    def is_new(self, payload):
        """Whether nothing newer of this operation, nor this one, was here before."""
        operation, sequence = payload["operation_id"], payload["sequence"]
        if sequence <= self._newest.get(operation, 0):
            return False
        self._newest[operation] = sequence
        self._newest.move_to_end(operation)
        if len(self._newest) > self._limit:
            self._newest.popitem(last=False)
        return True


class Endpoint:
    """Takes the notifications of all priorities."""

    # createprogress repeats others; what lacks an operation_id is cinder's own.
    filter_rule = oslo_messaging.NotificationFilter(
        event_type=r"^backup\.(create|restore|delete|import|export)\.",
        payload={"operation_id": "."},
    )

    def __init__(self):
        self._news = News()
        self._lock = threading.Lock()

    def info(self, context, publisher_id, event_type, payload, metadata):
        """Print it, if it is new."""
        percent = payload.get("backup_percent")
        reason = (payload.get("error") or {}).get("code")
        # The listener has several threads.
        with self._lock:
            if self._news.is_new(payload):
                print(payload["occurred_at"], payload["backup_id"], event_type, end=" ")
                print(percent if reason is None else reason, flush=True)

    warn = error = info


def main():
    """Listen until interrupted."""
    transport = oslo_messaging.get_notification_transport(cfg.ConfigOpts(), sys.argv[1])
    listener = oslo_messaging.get_notification_listener(
        transport,
        [oslo_messaging.Target(exchange="cinder", topic="notifications")],
        [Endpoint()],
        executor="threading",
        # A pool gets copies. Without it Ceilometer would miss what is taken here.
        pool="backup-consumer",
    )
    listener.start()
    listener.wait()


if __name__ == "__main__":
    main()
