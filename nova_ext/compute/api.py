# SPDX-License-Identifier: Apache-2.0
"""Owns which wings the compute API has."""

from nova_ext.compute.pmem.api import PmemAPI
from nova_ext.compute.quiesce.api import QuiesceAPI


class API(QuiesceAPI, PmemAPI):
    """nova's compute API, with quiesce, unquiesce and the copy of PMEM devices."""
