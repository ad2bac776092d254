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

"""Owns ``backup.failures``: Ceilometer makes no sample of an ERROR by itself."""

import collections
import contextlib
import importlib.resources
import threading
from collections.abc import Iterable
from typing import Any

from ceilometer import declarative
from ceilometer.meter import notifications
from stevedore import extension

# The bus delivers at least once. What comes again comes soon, so that the failures of
# the last hours are enough to know it.
_REMEMBERED = 1000


class BackupFailures(notifications.ProcessMeterNotifications):
    """Makes a sample of each failed operation of a backup.

    The agent loads it through the entry point ``ceilometer.sample.endpoint``. Whatever
    an endpoint raises makes the agent take the same message again, for ever.
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
        """Leave it to Ceilometer's own endpoint."""

    def sample(self, notifications: Iterable[Any]) -> None:
        """Leave it to Ceilometer's own endpoint."""

    def error(self, notifications: Iterable[Any]) -> None:
        """Publish one sample for each failure that was not counted yet."""
        for message in notifications:
            # The base class has logged it with its traceback.
            with contextlib.suppress(Exception):
                if self._is_new(message):
                    self.process_notifications("error", [message])

    def _is_new(self, message: dict[str, Any]) -> bool:
        """An operation fails once, however often its message is sent and delivered."""
        operation = message["metadata"]["message_id"]
        if isinstance(message["payload"], dict):
            operation = message["payload"].get("operation_id") or operation
        with self._lock:
            if operation in self._counted:
                return False
            self._counted.append(operation)
            return True
