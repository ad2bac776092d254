# SPDX-License-Identifier: Apache-2.0
"""Who asks the API, and nova's enforcer that judges them by the default policies."""

import functools
from collections.abc import Mapping
from typing import Any

import nova.policies
import pytest
from nova import context as nova_context
from nova import policy
from oslo_config import cfg
from oslo_policy import policy as oslo_policy

from nova_ext import policies

PROJECT, OTHER_PROJECT = "project", "other-project"
OWNER = "owner"


@functools.cache
def _enforcer() -> Any:
    """nova's enforcer with its policies and those of the extension, as shipped."""
    conf = cfg.ConfigOpts()
    conf([], project="nova", default_config_files=[], default_config_dirs=[])
    enforcer = oslo_policy.Enforcer(conf)
    enforcer.suppress_deprecation_warnings = True
    enforcer.suppress_default_change_warnings = True
    enforcer.register_defaults([*nova.policies.list_rules(), *policies.list_rules()])
    enforcer.load_rules()
    return enforcer


def enforce(monkeypatch: pytest.MonkeyPatch, changed: Mapping[str, str] = {}) -> None:
    """Let nova judge by its policies and those of the extension, as after install().

    :param changed: rules that an operator's policy.yaml has otherwise
    """
    monkeypatch.setattr(policy, "_ENFORCER", _enforcer())
    for name, rule in changed.items():
        check = oslo_policy.RuleDefault(name, rule).check
        monkeypatch.setitem(_enforcer().rules, name, check)


def someone(
    *roles: str, project: str | None = PROJECT, user: str = "somebody", **values: Any
) -> Any:
    """The context of a request; ``roles`` with those that keystone adds to them."""
    return nova_context.RequestContext(user, project, roles=list(roles), **values)


def member(**values: Any) -> Any:
    return someone("member", "reader", **values)


def admin(**values: Any) -> Any:
    return someone("admin", "manager", "member", "reader", **values)


def reader(**values: Any) -> Any:
    return someone("reader", **values)
