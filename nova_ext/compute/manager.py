# SPDX-License-Identifier: Apache-2.0
"""Owns which wings nova-compute's manager has."""

from nova_ext.compute.pmem.compute_manager import PmemComputeManager
from nova_ext.compute.quiesce.compute_manager import QuiesceComputeManager


class ComputeManager(QuiesceComputeManager, PmemComputeManager):
    """nova's manager, with freeze windows and copies of persistent memory."""
