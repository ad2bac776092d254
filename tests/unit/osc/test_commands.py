#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

"""What the two commands do with one server and with several."""

import functools
import json

import pytest
from osc_lib import exceptions

from nova_ext import client
from nova_ext.osc.v1 import server_quiesce
from tests.unit import openstack_cli


@pytest.fixture
def run(conn):
    """Return a runner: real parser, real command, the connection of the fake cloud."""
    return functools.partial(openstack_cli.here, conn)


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
    cloud.add("db", results=[None])
    assert quiesce("db", *arguments) == ""
    assert not any("os-instance-actions" in path for path, _version in cloud.gets())


def test_quiesce_asks_in_the_given_order(cloud, quiesce):
    for name in ("a", "b", "c"):
        cloud.add(name)
    quiesce("--timeout", "30", "c", "a", "b")
    body = {"quiesce": {"timeout": 30}}
    assert cloud.posts() == [(name, body, "2.105") for name in ("c", "a", "b")]


def test_quiesce_with_wait_freezes_one_before_it_asks_the_next(cloud, quiesce, clock):
    cloud.add("a", results=[None, "Success"])
    cloud.add("b")
    rows = json.loads(quiesce("--wait", "-f", "json", "a", "b"))
    assert [row["Name"] for row in rows] == ["a", "b"]
    assert rows[0] == {
        "ID": "00000000-0000-4000-8000-000000000001",
        "Name": "a",
        "Quiesced At": "2026-11-21T10:00:00Z",
        "Unquiesce At": "2026-11-21T10:01:00Z",
    }
    steps = [
        path.rpartition("/")[2]
        for _method, path, _body, _version in cloud.requests
        if path.endswith("/action") or "os-instance-actions" in path
    ]
    looks_at_a = ["req-quiesce-a-0"] * 2
    assert steps == ["action", *looks_at_a, "action", "req-quiesce-b-0"]


def test_quiesce_waits_as_long_as_its_timeout_allows(cloud, quiesce, clock):
    cloud.add("a", results=[None])
    with pytest.raises(exceptions.CommandError, match="within 70 seconds"):
        quiesce("--wait", "--timeout", "10", "a")


@pytest.mark.parametrize("timeout", ["0", "-1", "1.5", "soon"])
def test_quiesce_refuses_a_timeout_that_is_no_positive_number(
    cloud, quiesce, capsys, timeout
):
    with pytest.raises(SystemExit):
        quiesce(f"--timeout={timeout}", "db")
    assert "not a whole number from 1 up" in capsys.readouterr().err


def test_quiesce_freezes_nothing_when_a_name_is_wrong(cloud, quiesce):
    cloud.add("a")
    with pytest.raises(exceptions.CommandError, match="name or ID typo"):
        quiesce("a", "typo")
    assert cloud.posts() == []


def test_quiesce_freezes_nothing_when_a_server_is_given_twice(cloud, quiesce):
    server = cloud.add("a")
    with pytest.raises(exceptions.CommandError, match="more than once"):
        quiesce("a", server.id)
    assert cloud.posts() == []


def test_quiesce_stops_at_a_refusal_and_says_how_to_thaw(cloud, quiesce):
    for name in ("a", "b", "d"):
        cloud.add(name)
    cloud.add("c", refuse=(409, "It is paused"))
    with pytest.raises(exceptions.CommandError) as caught:
        quiesce("a", "b", "c", "d")
    assert "It is paused. " in str(caught.value)
    assert str(caught.value).endswith(
        "Quiesced already: a, b. Thaw with: openstack server unquiesce b a"
    )
    assert "\n" not in str(caught.value)
    assert [name for name, _body, _version in cloud.posts()] == ["a", "b", "c"]


def test_quiesce_with_wait_stops_at_an_error_event(cloud, quiesce, clock):
    cloud.add("a")
    cloud.add("b", results=["Error"], details="agent dead")
    cloud.add("c")
    with pytest.raises(exceptions.CommandError) as caught:
        quiesce("--wait", "a", "b", "c")
    assert "agent dead" in str(caught.value)
    assert str(caught.value).endswith(
        "Quiesced already: a. Thaw with: openstack server unquiesce a"
    )


def test_quiesce_names_a_server_whose_fate_is_open(cloud, quiesce, clock):
    cloud.add("a")
    cloud.add("b", results=[None])
    with pytest.raises(exceptions.CommandError) as caught:
        quiesce("--wait", "a", "b")
    assert str(caught.value).endswith(
        "Quiesced already: a. May be quiesced: b. "
        "Thaw with: openstack server unquiesce b a"
    )


def test_quiesce_reports_the_group_after_a_server_error(cloud, quiesce):
    cloud.add("a")
    cloud.add("b", refuse=(500, "Oops"))
    with pytest.raises(exceptions.CommandError, match="May be quiesced: b"):
        quiesce("a", "b")


def test_quiesce_reports_the_group_after_an_interrupt(cloud, quiesce, monkeypatch):
    def interrupt(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "wait_quiesced", interrupt)
    cloud.add("a")
    with pytest.raises(exceptions.CommandError) as caught:
        quiesce("--wait", "a")
    assert str(caught.value) == (
        "Interrupted. May be quiesced: a. Thaw with: openstack server unquiesce a"
    )


def test_a_single_refusal_says_nothing_of_a_group(cloud, quiesce):
    cloud.add("a", refuse=(409, "It is paused"))
    with pytest.raises(exceptions.CommandError) as caught:
        quiesce("a")
    assert "Thaw with" not in str(caught.value)
    assert "uiesced already" not in str(caught.value)


def test_unquiesce_asks_in_the_given_order_and_prints_nothing(cloud, unquiesce):
    for name in ("a", "b", "c"):
        cloud.add(name)
    assert unquiesce("c", "b", "a") == ""
    body = {"unquiesce": None}
    assert cloud.posts() == [(name, body, "2.105") for name in ("c", "b", "a")]


def test_unquiesce_tries_all_and_lists_the_failures(cloud, unquiesce, caplog):
    cloud.add("a", refuse=(409, "It is not quiesced"))
    cloud.add("b")
    with pytest.raises(exceptions.CommandError, match=r"2 of 3 .*: typo, a$"):
        unquiesce("typo", "a", "b")
    assert [name for name, _body, _version in cloud.posts()] == ["a", "b"]
    assert "It is not quiesced" in caplog.text
    assert "name or ID typo" in caplog.text


def test_unquiesce_of_one_server_reports_its_reason(cloud, unquiesce):
    cloud.add("a", refuse=(409, "It is not quiesced"))
    with pytest.raises(exceptions.CommandError, match="It is not quiesced"):
        unquiesce("a")


def test_unquiesce_with_wait_asks_all_before_it_waits(cloud, unquiesce, clock):
    cloud.add("a", results=[None])
    cloud.add("b")
    with pytest.raises(exceptions.CommandError, match=r"1 of 2 .*: a$"):
        unquiesce("--wait", "a", "b")
    kinds = [
        method
        for method, path, _body, _version in cloud.requests
        if path.endswith("/action") or "os-instance-actions" in path
    ]
    assert kinds[:3] == ["POST", "POST", "GET"]
    assert clock.now == client.WAIT_LIMIT


def test_unquiesce_with_wait_reports_a_broken_window(cloud, unquiesce, clock):
    cloud.add("a", results=[None, "Error"], details="The switch fired")
    with pytest.raises(exceptions.CommandError, match="The switch fired"):
        unquiesce("--wait", "a")


def test_unquiesce_without_wait_does_not_look(cloud, unquiesce):
    cloud.add("a", results=["Error"])
    unquiesce("a")
    assert not any("os-instance-actions" in path for path, _version in cloud.gets())
