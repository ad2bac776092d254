# SPDX-License-Identifier: Apache-2.0
"""Owns what Ceilometer needs to keep the notifications of this project."""
