# SPDX-License-Identifier: Apache-2.0
"""Owns what must happen before cinder's test package is imported.

cinder still defaults to eventlet; with OS_CINDER_DISABLE_EVENTLET_PATCHING=1 the same
tests run native threads.
"""

import cinder.tests.unit  # noqa: F401 - patches threading first, or not at all
