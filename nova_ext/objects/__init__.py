# SPDX-License-Identifier: Apache-2.0
"""Owns the list of the extension's versioned objects."""

import importlib


def register_all() -> None:
    """Make every object known to this process, so that it can be received by RPC."""
    importlib.import_module("nova_ext.objects.instance_action")
    importlib.import_module("nova_ext.objects.pmem_copy")
    importlib.import_module("nova_ext.objects.quiesce_window")
    importlib.import_module("nova_ext.objects.state")
