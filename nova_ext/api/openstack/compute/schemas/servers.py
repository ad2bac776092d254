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
