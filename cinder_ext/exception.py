# SPDX-License-Identifier: Apache-2.0
"""Owns the exceptions of the extension: one class per reason, with its remedy.

Nothing here imports Cinder, which cannot be imported without eventlet.
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
