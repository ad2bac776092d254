# SPDX-License-Identifier: Apache-2.0
"""What the two commands do with one server and with several."""

import datetime
import functools
import json

import pytest
from osc_lib import exceptions

from nova_ext.client import compute
from nova_ext.client.v1 import server_quiesce
from tests.unit.client import openstack_cli
from tests.unit.client.fake_compute import NEVER, Looks


@pytest.fixture
def run(conn):
    """Return a runner: real parser, real command, the connection of the fake cloud."""
    return functools.partial(openstack_cli.here, conn)


def looks(cloud):
    """Return the looks at servers and their actions that the cloud has seen."""
    return [text for text in cloud.requests if text.startswith("GET compute /servers/")]


@pytest.fixture
def refuse(cloud):
    """Return how a cloud refuses the actions of a server."""

    def refuse(name, code, message):
        cloud.fault(f"/servers/{name}/action", refuse=(code, message))

    return refuse


@pytest.fixture
def frozen(cloud):
    """Return a maker of servers that are frozen."""

    def make(*names, **behaviour):
        for name in names:
            cloud.compute.freeze(cloud.compute.add(name, **behaviour))

    return make


@pytest.fixture
def quiesce(run):
    return lambda *arguments: run(server_quiesce.QuiesceServer, *arguments)


@pytest.fixture
def unquiesce(run):
    return lambda *arguments: run(server_quiesce.UnquiesceServer, *arguments)


@pytest.mark.parametrize("arguments", [[], ["-f", "json"]])
def test_quiesce_without_wait_prints_nothing_and_does_not_look(
    cloud, quiesce, arguments
):
    cloud.compute.add("db", freeze_takes=NEVER)
    assert quiesce("db", *arguments) == ""
    assert looks(cloud) == []


def test_quiesce_asks_in_the_given_order(cloud, quiesce):
    for name in ("a", "b", "c"):
        cloud.compute.add(name)
    quiesce("--timeout", "30", "c", "a", "b")
    body = {"quiesce": {"timeout": 30}}
    assert cloud.actions() == [(name, body, "2.105") for name in ("c", "a", "b")]


def test_quiesce_with_wait_freezes_one_before_it_asks_the_next(cloud, quiesce, clock):
    cloud.compute.now = lambda: datetime.datetime(2026, 11, 21, 10, 0)
    server = cloud.compute.add("a", freeze_takes=Looks(1))
    cloud.compute.add("b")
    rows = json.loads(quiesce("--wait", "-f", "json", "a", "b"))
    assert [row["Name"] for row in rows] == ["a", "b"]
    assert rows[0] == {
        "ID": server.id,
        "Name": "a",
        "Quiesced At": "2026-11-21T10:00:00Z",
        "Unquiesce At": "2026-11-21T10:01:00Z",
    }
    steps = [text.partition("/servers/")[2] for text in cloud.requests]
    steps = [step.partition("-actions")[0] for step in steps if step]
    look = "os-instance"
    assert steps == [
        *("a/action quiesce", f"a/{look}", f"a/{look}", "a"),
        *("b/action quiesce", f"b/{look}", "b"),
    ]


def test_quiesce_waits_as_long_as_its_timeout_allows(cloud, quiesce, clock):
    cloud.compute.add("a", freeze_takes=NEVER)
    with pytest.raises(exceptions.CommandError, match="within 70 seconds"):
        quiesce("--wait", "--timeout", "10", "a")


def test_quiesce_names_what_cannot_be_frozen_unless_it_may_be_partial(
    cloud, quiesce, clock
):
    cloud.compute.add("db", unfreezable="/boot/efi")
    with pytest.raises(exceptions.CommandError, match="could not be frozen: /boot/efi"):
        quiesce("--wait", "db")
    assert "db" in quiesce("--wait", "--partial", "--timeout", "30", "db")
    body = {"quiesce": {"timeout": 30, "partial": True}}
    assert cloud.actions() == [
        ("db", {"quiesce": None}, "2.105"),
        ("db", body, "2.105"),
    ]


@pytest.mark.parametrize("timeout", ["0", "-1", "1.5", "soon"])
def test_quiesce_refuses_a_timeout_that_is_no_positive_number(
    cloud, quiesce, capsys, timeout
):
    with pytest.raises(SystemExit):
        quiesce(f"--timeout={timeout}", "db")
    assert "not a whole number from 1 up" in capsys.readouterr().err


def test_quiesce_freezes_nothing_when_a_name_is_wrong(cloud, quiesce):
    cloud.compute.add("a")
    with pytest.raises(exceptions.CommandError, match="name or ID typo"):
        quiesce("a", "typo")
    assert cloud.actions() == []


def test_quiesce_freezes_nothing_when_a_server_is_given_twice(cloud, quiesce):
    server = cloud.compute.add("a")
    with pytest.raises(exceptions.CommandError, match="more than once"):
        quiesce("a", server.id)
    assert cloud.actions() == []


def test_quiesce_stops_at_a_refusal_and_says_how_to_thaw(cloud, refuse, quiesce):
    for name in ("a", "b", "c", "d"):
        cloud.compute.add(name)
    refuse("c", 409, "It is paused")
    with pytest.raises(exceptions.CommandError) as caught:
        quiesce("a", "b", "c", "d")
    assert "It is paused. " in str(caught.value)
    assert str(caught.value).endswith(
        "Quiesced already: a, b. Thaw with: openstack server unquiesce b a"
    )
    assert "\n" not in str(caught.value)
    assert [name for name, _body, _version in cloud.actions()] == ["a", "b", "c"]


def test_quiesce_with_wait_stops_at_an_error_event(cloud, quiesce, clock):
    cloud.compute.add("a")
    cloud.compute.add("b", freeze_fails="agent dead")
    cloud.compute.add("c")
    with pytest.raises(exceptions.CommandError) as caught:
        quiesce("--wait", "a", "b", "c")
    assert "agent dead" in str(caught.value)
    assert str(caught.value).endswith(
        "Quiesced already: a. Thaw with: openstack server unquiesce a"
    )


def test_quiesce_names_a_server_whose_fate_is_open(cloud, quiesce, clock):
    cloud.compute.add("a")
    cloud.compute.add("b", freeze_takes=NEVER)
    with pytest.raises(exceptions.CommandError) as caught:
        quiesce("--wait", "--timeout", "1", "a", "b")
    assert str(caught.value).endswith(
        "Quiesced already: a. May be quiesced: b. "
        "Thaw with: openstack server unquiesce b a"
    )


def test_quiesce_reports_the_group_after_a_server_error(cloud, refuse, quiesce):
    cloud.compute.add("a")
    cloud.compute.add("b")
    refuse("b", 500, "Oops")
    with pytest.raises(exceptions.CommandError, match="May be quiesced: b"):
        quiesce("a", "b")


def test_quiesce_reports_the_group_after_an_interrupt(cloud, quiesce, monkeypatch):
    def interrupt(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(compute, "wait_quiesced", interrupt)
    cloud.compute.add("a")
    with pytest.raises(exceptions.CommandError) as caught:
        quiesce("--wait", "a")
    assert str(caught.value) == (
        "Interrupted. May be quiesced: a. Thaw with: openstack server unquiesce a"
    )


def test_a_single_refusal_says_nothing_of_a_group(cloud, refuse, quiesce):
    cloud.compute.add("a")
    refuse("a", 409, "It is paused")
    with pytest.raises(exceptions.CommandError) as caught:
        quiesce("a")
    assert "Thaw with" not in str(caught.value)
    assert "uiesced already" not in str(caught.value)


def test_unquiesce_asks_in_the_given_order_and_prints_nothing(cloud, frozen, unquiesce):
    frozen("a", "b", "c")
    assert unquiesce("c", "b", "a") == ""
    body = {"unquiesce": None}
    assert cloud.actions() == [(name, body, "2.105") for name in ("c", "b", "a")]


def test_unquiesce_tries_all_and_lists_the_failures(
    cloud, frozen, refuse, unquiesce, caplog
):
    frozen("a", "b")
    refuse("a", 409, "It is not quiesced")
    with pytest.raises(exceptions.CommandError, match=r"2 of 3 .*: typo, a$"):
        unquiesce("typo", "a", "b")
    assert [name for name, _body, _version in cloud.actions()] == ["a", "b"]
    assert "It is not quiesced" in caplog.text
    assert "name or ID typo" in caplog.text


@pytest.mark.parametrize("wait", [[], ["--wait"]])
def test_unquiesce_asks_once_for_a_server_that_is_given_twice(
    cloud, frozen, unquiesce, clock, wait
):
    frozen("a", "b")
    (server,) = cloud.compute.by_name("a")
    assert unquiesce(*wait, "a", "b", "a", server.id) == ""
    assert [name for name, _body, _version in cloud.actions()] == ["a", "b"]


def test_unquiesce_counts_a_server_that_is_given_twice_once(
    cloud, frozen, refuse, unquiesce, caplog
):
    frozen("a", "b")
    refuse("a", 409, "It is not quiesced")
    (server,) = cloud.compute.by_name("a")
    with pytest.raises(exceptions.CommandError, match=r"2 of 3 .*: typo, a$"):
        unquiesce("typo", "a", "typo", "b", server.id)
    assert caplog.text.count("It is not quiesced") == 1
    with pytest.raises(exceptions.CommandError, match="in quiesce_status null"):
        unquiesce("b", "b")


def test_unquiesce_of_one_server_reports_its_reason(cloud, unquiesce):
    cloud.compute.add("a")
    with pytest.raises(exceptions.CommandError, match="in quiesce_status null"):
        unquiesce("a")


def test_unquiesce_with_wait_asks_all_before_it_waits(
    cloud, frozen, unquiesce, clock, monkeypatch
):
    monkeypatch.setitem(compute.wait_unquiesced.__kwdefaults__, "interval", 20)
    frozen("a", thaw_takes=NEVER)
    frozen("b")
    with pytest.raises(exceptions.CommandError, match=r"1 of 2 .*: a$"):
        unquiesce("--wait", "a", "b")
    kinds = [
        text.split()[0]
        for text in cloud.requests
        if "/action" in text or "os-instance-actions" in text
    ]
    assert kinds[:3] == ["POST", "POST", "GET"]
    assert clock.now == compute.WAIT_LIMIT


def test_unquiesce_with_wait_reports_a_broken_window(frozen, unquiesce, clock):
    frozen("a", thaw_takes=Looks(1), unfit="The switch fired")
    with pytest.raises(exceptions.CommandError, match="The switch fired"):
        unquiesce("--wait", "a")


def test_unquiesce_without_wait_does_not_look(cloud, frozen, unquiesce):
    frozen("a", unfit="The switch fired")
    unquiesce("a")
    assert looks(cloud) == []
