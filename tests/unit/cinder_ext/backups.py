# SPDX-License-Identifier: Apache-2.0
"""Owns plain objects in the place of Cinder's backup, context and options."""

import types
import uuid
from typing import Any

from tests.backup_keys import UPSTREAM

NOW = 1000.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def usage(backup: Any) -> dict[str, Any]:
    """The keys that Cinder tells of a backup."""
    values = dict.fromkeys(UPSTREAM)
    return {**values, "backup_id": backup.id, "status": backup.status}


def backup(**more: Any) -> Any:
    values: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "volume_id": str(uuid.uuid4()),
        "restore_volume_id": None,
        "snapshot_id": None,
        "parent_id": None,
        "user_id": "user",
        "project_id": "project",
        "status": "creating",
        "size": 1,
        "service": "driver",
        "object_count": 3,
        "created_at": "2026-11-21 10:00:00",
        "data_timestamp": None,
    }
    return types.SimpleNamespace(**values | more)


def context(request_id: str = "req-1") -> Any:
    return types.SimpleNamespace(request_id=request_id)


def options(**more: Any) -> Any:
    values: dict[str, Any] = {
        "min_interval": 0,
        "max_interval": 120,
        "min_percent_step": 0.01,
        "stalled_priority": "warn",
        "include_service_metadata": True,
    }
    return types.SimpleNamespace(**values | more)
