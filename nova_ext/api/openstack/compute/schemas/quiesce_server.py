# SPDX-License-Identifier: Apache-2.0
"""Owns the schemas of the ``quiesce`` and ``unquiesce`` server actions."""

from typing import Any

quiesce: dict[str, Any] = {
    "type": "object",
    "properties": {
        "quiesce": {
            "type": ["object", "null"],
            "properties": {
                # The greatest value is an option, checked in the compute API.
                "timeout": {"type": "integer", "minimum": 1},
                "partial": {"type": "boolean"},
            },
            "additionalProperties": False,
        },
    },
    "required": ["quiesce"],
    "additionalProperties": False,
}

unquiesce: dict[str, Any] = {
    "type": "object",
    "properties": {"unquiesce": {"type": "null"}},
    "required": ["unquiesce"],
    "additionalProperties": False,
}

quiesce_response: dict[str, Any] = {"type": "null"}

unquiesce_response: dict[str, Any] = {"type": "null"}
