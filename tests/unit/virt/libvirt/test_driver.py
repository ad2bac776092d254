# SPDX-License-Identifier: Apache-2.0
"""What the libvirt driver publishes of its wings."""

import types
from typing import Any

import pytest
from nova.virt.libvirt import driver as nova_driver

from nova_ext.objects import capability
from nova_ext.virt.libvirt import driver


def published(
    monkeypatch: pytest.MonkeyPatch, quiescer: Any, state_reachable: bool | None = True
) -> dict[str, str]:
    monkeypatch.setattr(
        nova_driver.LibvirtDriver, "get_available_resource", lambda self, node: {}
    )
    made = driver.LibvirtDriver.__new__(driver.LibvirtDriver)
    made._vpmems_by_name = {}
    made.guest_quiescer = quiescer
    made.state_reachable = state_reachable
    stats: dict[str, str] = made.get_available_resource("node").get("stats", {})
    return stats


@pytest.mark.parametrize(("guarded", "said"), [(True, "1"), (False, "0")])
def test_a_host_says_whether_a_guard_runs_now(
    monkeypatch: pytest.MonkeyPatch, guarded: bool, said: str
) -> None:
    quiescer = types.SimpleNamespace(guarded=lambda: guarded)
    assert published(monkeypatch, quiescer) == {
        capability.STATS_KEY: str(capability.VERSION),
        capability.GUARD_STATS_KEY: said,
    }


def test_a_host_that_freezes_no_guests_says_nothing_of_a_guard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert capability.GUARD_STATS_KEY not in published(monkeypatch, None)


def test_a_host_without_its_tables_publishes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quiescer = types.SimpleNamespace(guarded=lambda: True)
    assert published(monkeypatch, quiescer, state_reachable=False) == {}
