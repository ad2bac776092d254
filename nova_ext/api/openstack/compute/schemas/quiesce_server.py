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
