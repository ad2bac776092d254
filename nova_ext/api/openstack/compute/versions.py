# SPDX-License-Identifier: Apache-2.0
"""Owns the microversions of the extension.

* 2.105 - the server actions ``quiesce`` and ``unquiesce``; ``quiesce_status``,
  ``quiesced_at`` and ``unquiesce_at`` in the server view; ``copy_pmem_devices`` of the
  server actions ``resize`` and ``migrate``.
"""

#: The greatest microversion of the nova that this extension was built for.
UPSTREAM = "2.104"

QUIESCE = "2.105"
COPY_PMEM = "2.105"

#: The greatest microversion with the extension.
MAX = QUIESCE
