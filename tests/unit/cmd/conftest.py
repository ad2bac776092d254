# SPDX-License-Identifier: Apache-2.0
"""Owns the databases that the commands are tried on."""

from tests.unit.db.conftest import (  # noqa: F401
    bare,
    new_name,
)
