# SPDX-License-Identifier: Apache-2.0
"""How uv is told where to look: it reads none of pip's configuration."""

from __future__ import annotations

import ast
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
    done = subprocess.run(
        [*pip, "config", "list"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    listed = dict(line.split("=", 1) for line in done.stdout.splitlines())
    for option, name in _NAMES.items():
        for scope in ("global", "install", ":env:"):
            value = listed.get(f"{scope}.{option}")
            if value is not None and name not in os.environ:
                separator = "," if option == "find-links" else " "
                found[name] = separator.join(ast.literal_eval(value).split())
    return found
