# SPDX-License-Identifier: Apache-2.0
"""Whether chaos finds what it looks for: a round that did not go well is told."""

import pathlib
import random
import sys
from typing import Any
from unittest import mock

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[3] / "tools"))

from aiolib import chaos_quiesce, windows
from aiolib.chaos_quiesce import Fault, Order, Request

FREEZE, THAW, WRITE = "H freeze", "H thaw", "W"


def judged(
    seen: list[tuple[float, str]],
    faults: list[Fault] | None = None,
    unquiesced: float | None = None,
) -> Any:
    """A round of one guest, frozen until 10, which said this on its console."""
    order = Order(quiesce=1, timeout=8, unquiesce=unquiesced)
    found = chaos_quiesce.Round(mock.Mock(), ["a"], [order], faults or [])
    found.dues["a"] = 10.0
    if unquiesced is not None:
        request = Request("unquiesce", unquiesced, "req-1", "Success")
        found.requests["a"].append(request)
    witness = windows.Witness.__new__(windows.Witness)
    witness.seen = seen
    found._judge("a", witness, 0.0)
    return found


def test_window_that_ends_at_its_deadline_is_well() -> None:
    found = judged([(1, WRITE), (2, FREEZE), (10.1, THAW), (10.2, WRITE)])
    assert found.violations == []
    assert found.late_guarded == [pytest.approx(0.1)]


def test_guest_that_is_frozen_for_too_long_is_told() -> None:
    assert "after its deadline" in judged([(2, FREEZE), (41, THAW)]).violations[0]


def test_guest_that_is_never_thawed_is_told() -> None:
    assert "never thawed" in judged([(2, FREEZE)]).violations[0]


def test_time_in_which_nothing_could_thaw_a_guest_does_not_count() -> None:
    libvirt = Fault(f"libvirtd-{chaos_quiesce.HOST}", "stop", 5, 20)
    found = judged([(2, FREEZE), (41, THAW)], [libvirt])
    assert (found.violations, found.late_guarded) == ([], [])


@pytest.mark.parametrize("gap", [[(4, WRITE)], [(4, THAW), (4.1, FREEZE)]])
def test_success_of_a_window_with_a_gap_is_told(gap: list[tuple[float, str]]) -> None:
    seen = [(2, FREEZE), *gap, (6.2, THAW), (6.3, WRITE)]
    assert "Success, but" in judged(seen, unquiesced=6).violations[0]


def test_success_of_a_whole_window_is_well() -> None:
    seen = [(2, FREEZE), (2.1, WRITE), (6.2, THAW), (6.3, WRITE)]
    assert judged(seen, unquiesced=6).violations == []


def test_seed_decides_what_is_done() -> None:
    one, other = (
        [chaos_quiesce.plan(random.Random(seed), 3) for seed in (1, 2, 3)]  # noqa: S311
        for _ in range(2)
    )
    assert one == other
    assert one[0] != one[1]
