# SPDX-License-Identifier: Apache-2.0
"""Owns how a configuration file of oslo.config is written."""

from __future__ import annotations

import pathlib

Ini = dict[str, dict[str, object]]


def write(path: pathlib.Path, content: Ini) -> None:
    lines = []
    for section, options in content.items():
        lines.append(f"[{section}]")
        lines += [f"{name} = {value}" for name, value in options.items()]
        lines.append("")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))
