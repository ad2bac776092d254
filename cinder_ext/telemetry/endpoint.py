# SPDX-License-Identifier: Apache-2.0
"""Owns ``backup.failures``: Ceilometer does not sample messages of priority ERROR."""

import collections
import contextlib
import importlib.resources
import threading
from collections.abc import Iterable
from typing import Any

from ceilometer import declarative
from ceilometer.meter import notifications
from stevedore import extension

# The bus delivers at least once. Duplicates arrive soon, so that it is enough to
# remember the failures of the last hours.
_REMEMBERED = 1000


class BackupFailures(notifications.ProcessMeterNotifications):
    """Makes a sample of each failed operation on a backup.

    The agent loads it through the entry point ``ceilometer.sample.endpoint``. An
    exception of an endpoint makes the agent process the same message again, without
    end.
    """

    event_types = [r"backup\.[a-z]+\.error$"]

    def __init__(self, conf: Any, publisher: Any) -> None:
        super().__init__(conf, publisher)
        self._lock = threading.Lock()
        self._counted: collections.deque[str] = collections.deque(maxlen=_REMEMBERED)

    def _load_definitions(self) -> list[notifications.MeterDefinition]:
        plugins: extension.ExtensionManager[Any] = extension.ExtensionManager(
            namespace="ceilometer.event.trait_plugin"
        )
        data = importlib.resources.files(__package__) / "data" / "failures.yaml"
        with importlib.resources.as_file(data) as path:
            metrics = declarative.load_definitions(self.conf, {}, str(path))["metric"]
        return [
            notifications.MeterDefinition(metric, self.conf, plugins)
            for metric in metrics
        ]

    def info(self, notifications: Iterable[Any]) -> None:
        """Left to Ceilometer's own endpoint."""

    def sample(self, notifications: Iterable[Any]) -> None:
        """Left to Ceilometer's own endpoint."""

    def error(self, notifications: Iterable[Any]) -> None:
        """Publish one sample for each failure that has not been counted yet."""
        for message in notifications:
            # The base class has logged it with its traceback.
            with contextlib.suppress(Exception):
                if self._is_new(message):
                    self.process_notifications("error", [message])

    def _is_new(self, message: dict[str, Any]) -> bool:
        """Whether the failure is no duplicate of one that was counted."""
        operation = message["metadata"]["message_id"]
        if isinstance(message["payload"], dict):
            operation = message["payload"].get("operation_id") or operation
        with self._lock:
            if operation in self._counted:
                return False
            self._counted.append(operation)
            return True
