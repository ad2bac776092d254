# SPDX-License-Identifier: Apache-2.0
"""How long it is until a deadline, whatever the wall clock says."""

import time

import pytest

from nova_ext.guard import clock
from nova_ext.guard.clock import Moment

NOW = Moment("boot", 1000.0, 1e9)


def test_a_deadline_comes_nearer_and_stays_past() -> None:
    due = NOW.after(60)
    assert due == Moment("boot", 1060.0, 1e9 + 60)
    assert due.left(NOW) == 60
    assert due.left(NOW.after(59.5)) == 0.5
    assert due.left(NOW.after(60)) == 0
    assert due.left(NOW.after(3600)) == 0


def test_nothing_is_left_in_another_boot() -> None:
    """The time since the boot is less than it was, and says nothing."""
    assert NOW.after(60).left(Moment("another boot", 5.0, 1e9 + 1)) == 0


@pytest.mark.parametrize("hours", [-1, 1])
def test_the_wall_clock_does_not_matter(hours: int) -> None:
    later = NOW.after(10)
    shifted = Moment(later.boot_id, later.monotonic, later.wall + 3600 * hours)
    assert NOW.after(60).left(shifted) == 50


def test_now_is_of_this_boot_and_goes_on() -> None:
    first, second = clock.now(), clock.now()
    assert first.boot_id == second.boot_id
    assert len(first.boot_id) == 36
    assert first.monotonic < second.monotonic
    assert abs(first.wall - time.time()) < 5


def test_the_wall_clock_is_asked_for_people_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    due = clock.now().after(60)
    back = time.time() - 3600
    monkeypatch.setattr(time, "time", lambda: back)
    assert clock.now().wall == back
    assert 55 < due.left(clock.now()) <= 60


def test_the_clock_is_the_one_that_counts_sleep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    readings = {time.CLOCK_BOOTTIME: 7200.0}
    monkeypatch.setattr(time, "clock_gettime", readings.__getitem__)
    assert clock.now().monotonic == 7200
