# SPDX-License-Identifier: Apache-2.0
"""Owns the policies of the ``quiesce`` and ``unquiesce`` server actions."""

from typing import Any

from nova.policies import base
from oslo_policy import policy

POLICY_ROOT = "os_compute_api:os-quiesce-server:%s"

quiesce_server_policies = [
    policy.DocumentedRuleDefault(
        name=POLICY_ROOT % "quiesce",
        check_str=base.PROJECT_MEMBER_OR_ADMIN,
        description="Freeze the file systems of a server",
        operations=[
            {"method": "POST", "path": "/servers/{server_id}/action (quiesce)"}
        ],
        scope_types=["project"],
    ),
    policy.DocumentedRuleDefault(
        name=POLICY_ROOT % "unquiesce",
        check_str=base.PROJECT_MEMBER_OR_ADMIN,
        description="Thaw the file systems of a quiesced server",
        operations=[
            {"method": "POST", "path": "/servers/{server_id}/action (unquiesce)"}
        ],
        scope_types=["project"],
    ),
]


def list_rules() -> list[Any]:
    """The rules of this module."""
    return quiesce_server_policies
