# SPDX-License-Identifier: Apache-2.0
"""Owns what must happen before nova's test package is imported."""

import os

# nova's own tests still default to eventlet; its services run native threads.
os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "true"

import nova.tests.functional  # noqa: F401 - patches threading first
