# SPDX-License-Identifier: Apache-2.0
"""How long one looks, and what ends it; time is a fake clock's."""

import threading

import pytest
from keystoneauth1 import exceptions as ks_exceptions
from openstack import exceptions as sdk_exceptions

from nova_ext.client import polling


def test_the_first_look_is_at_once_and_its_answer_ends_it(clock):
    assert polling.until(lambda: "yes", 10, interval=1) == "yes"
    assert clock.now == 0


def test_an_answer_that_is_false_is_one(clock):
    assert polling.until(lambda: False, 10, interval=1) is False


def test_the_last_look_is_at_the_limit(clock):
    looks = []

    def look():
        looks.append(clock.now)

    with pytest.raises(polling.Expired):
        polling.until(look, 5, interval=2)
    assert looks == [0, 2, 4, 5]


def test_the_pause_grows_from_the_first_to_the_interval(clock):
    looks = []

    def look():
        looks.append(clock.now)

    with pytest.raises(polling.Expired):
        polling.until(look, 20, interval=5, first=2)
    assert looks == [0, 2, 5, 9.5, 14.5, 19.5, 20]


def test_the_first_pause_is_not_longer_than_the_interval(clock):
    looks = []

    def look():
        looks.append(clock.now)

    with pytest.raises(polling.Expired):
        polling.until(look, 3, interval=1, first=2)
    assert looks == [0, 1, 2, 3]


def test_a_limit_of_nothing_is_worth_one_look(clock):
    assert polling.until(lambda: 1, 0, interval=2) == 1
    with pytest.raises(polling.Expired):
        polling.until(lambda: None, -1, interval=2)


def test_without_a_limit_it_takes_as_long_as_it_takes(clock):
    answer = polling.until(lambda: clock.now > 10**6 or None, None, interval=1000)
    assert answer is True


def test_the_time_of_day_is_not_asked(clock):
    # The fake clock has none, so that a look at it would fail.
    assert not hasattr(clock, "time")
    assert polling.until(lambda: clock.now >= 3 or None, 5, interval=1)


@pytest.mark.parametrize(
    "passing",
    [
        ks_exceptions.ConnectFailure("no\nroute"),
        sdk_exceptions.HttpException("out", http_status=503),
    ],
)
def test_errors_that_pass_are_waited_out_and_the_last_is_told(clock, passing):
    def look():
        if clock.now < 3:
            raise passing
        return "yes"

    assert polling.until(look, 5, interval=1) == "yes"
    clock.now = 0
    with pytest.raises(polling.Expired) as caught:
        polling.until(look, 2, interval=1)
    assert caught.value.last == " ".join(str(passing).split())


def test_an_error_before_a_good_look_is_not_told(clock):
    def look():
        if clock.now < 1:
            raise ks_exceptions.ConnectFailure("no route")

    with pytest.raises(polling.Expired) as caught:
        polling.until(look, 3, interval=1)
    assert caught.value.last == ""


@pytest.mark.parametrize(
    "error",
    [
        sdk_exceptions.NotFoundException("gone", http_status=404),
        sdk_exceptions.HttpException("no answer"),
        ValueError("a bug"),
    ],
)
def test_other_errors_end_it(clock, error):
    def look():
        raise error

    with pytest.raises(type(error)):
        polling.until(look, 5, interval=1)
    assert clock.now == 0


def test_nobody_looks_once_it_is_stopped(clock):
    stop = threading.Event()
    looks = []

    def look():
        looks.append(clock.now)
        stop.set()

    with pytest.raises(polling.Stopped):
        polling.until(look, 5, interval=1, stop=stop)
    assert looks == [0]
