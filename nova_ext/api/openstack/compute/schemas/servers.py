# SPDX-License-Identifier: Apache-2.0
"""Owns the fields that the server view gains with microversion 2.105."""

from typing import Any

server_v2105_properties: dict[str, Any] = {
    "quiesce_status": {
        "type": ["string", "null"],
        "enum": [None, "quiescing", "quiesced", "unquiescing"],
    },
    "quiesced_at": {"type": ["string", "null"], "format": "date-time"},
    "unquiesce_at": {"type": ["string", "null"], "format": "date-time"},
}
