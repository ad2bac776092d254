# SPDX-License-Identifier: Apache-2.0
"""The parts of tools/aio, the cloud on one machine."""
