# SPDX-License-Identifier: Apache-2.0
"""Two virtual machines with persistent memory and the real daxio; see `run --help`."""
