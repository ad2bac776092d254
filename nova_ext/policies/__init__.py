# SPDX-License-Identifier: Apache-2.0
"""Owns the list of the extension's policies."""

import itertools
from typing import Any

from nova_ext.policies import quiesce_server


def list_rules() -> Any:
    """All policy rules of the extension, for oslo.policy and for nova."""
    return itertools.chain(quiesce_server.list_rules())
