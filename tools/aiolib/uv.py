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

"""How uv is told where to look: it reads none of pip's configuration."""

from __future__ import annotations

import os
import subprocess

# pip's options by the name of uv's environment variable for the same thing
_NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
}


def environment(pip: list[str]) -> dict[str, str]:
    """The environment for uv, with what pip is configured with.

    :param pip: the words before a pip command
    """
    found = {"UV_INDEX_STRATEGY": "unsafe-best-match", **os.environ}
    for option, name in _NAMES.items():
        for scope in ("global", "install", ":env:"):
            command = [*pip, "config", "get", f"{scope}.{option}"]
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=60, check=False
            )
            if done.returncode == 0 and name not in os.environ:
                separator = "," if option == "find-links" else " "
                found[name] = separator.join(done.stdout.split())
    return found
