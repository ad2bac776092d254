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

"""Owns the exceptions of the extension: one class per reason, with its remedy.

Nothing here imports cinder, which cannot be imported without eventlet.
"""


class InvalidOptions(ValueError):
    """Options of ``[backup_notifications]`` that contradict each other."""


class ServiceRestarted(Exception):
    """The service ended before the operation did; only ever announced, not raised."""

    def __init__(self) -> None:
        super().__init__("The backup service was restarted during the operation.")


class NoBackupService(Exception):
    """The scheduler found no backup service; only ever announced, not raised."""

    def __init__(self) -> None:
        super().__init__("No backup service was found for the backup.")


class Abandoned(Exception):
    """A stalled backup whose status was reset; only ever announced, not raised."""

    def __init__(self) -> None:
        super().__init__("The backup stalled, and its status was reset.")
