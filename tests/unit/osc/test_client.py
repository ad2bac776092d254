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

"""How the functions on an SDK connection talk to the compute API."""

import pytest
from openstack import exceptions as sdk_exceptions

from nova_ext import client


def test_quiesce_sends_null_without_timeout_and_returns_the_request_id(cloud, conn):
    server = cloud.add("db")
    assert client.quiesce(conn, server.id) == "req-quiesce-db-0"
    assert cloud.posts() == [("db", {"quiesce": None}, "2.105")]


def test_quiesce_sends_the_timeout(cloud, conn):
    client.quiesce(conn, cloud.add("db").id, timeout=30)
    assert cloud.posts() == [("db", {"quiesce": {"timeout": 30}}, "2.105")]


def test_unquiesce_sends_null_and_returns_the_request_id(cloud, conn):
    assert client.unquiesce(conn, cloud.add("db").id) == "req-unquiesce-db-0"
    assert cloud.posts() == [("db", {"unquiesce": None}, "2.105")]


@pytest.mark.parametrize("chosen", [None, "2"])
def test_negotiate_uses_2_105_when_none_is_chosen(cloud, connect, chosen):
    cloud.maximum = "2.110"
    assert client.negotiate(connect(chosen)) == "2.105"


def test_negotiate_keeps_a_higher_choice(cloud, connect):
    cloud.maximum = "2.110"
    assert client.negotiate(connect("2.106")) == "2.106"


@pytest.mark.parametrize("chosen", ["2.1", "2.79", "2.104"])
def test_negotiate_refuses_a_lower_choice_and_says_what_to_do(cloud, connect, chosen):
    with pytest.raises(client.MicroversionTooLow) as caught:
        client.negotiate(connect(chosen))
    assert f"{chosen} was asked for" in str(caught.value)
    assert "use --os-compute-api-version 2.105" in str(caught.value)


def test_negotiate_says_that_the_cloud_does_not_offer_2_105(cloud, conn):
    cloud.maximum = "2.104"
    with pytest.raises(client.MicroversionNotOffered, match=r"maximum is 2\.104"):
        client.negotiate(conn)


def test_negotiate_says_that_the_cloud_does_not_offer_the_choice(cloud, connect):
    cloud.maximum = "2.104"
    with pytest.raises(client.MicroversionNotOffered, match=r"not offer .* 2\.106"):
        client.negotiate(connect("2.106"))


def test_negotiate_reports_a_low_choice_that_the_cloud_lacks_as_low(cloud, connect):
    cloud.maximum = "2.60"
    with pytest.raises(client.MicroversionTooLow, match=r"2\.79"):
        client.negotiate(connect("2.79"))


def test_nothing_is_sent_when_the_microversion_is_not_offered(cloud, conn):
    cloud.maximum = "2.104"
    with pytest.raises(client.MicroversionNotOffered):
        client.quiesce(conn, cloud.add("db").id)
    assert cloud.posts() == []


@pytest.mark.parametrize("verb", [client.quiesce, client.unquiesce])
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (400, client.RequestUnsupported),
        (403, client.RequestForbidden),
        (404, client.ServerNotFound),
        (409, client.WrongState),
    ],
)
def test_a_refusal_has_a_class_and_one_line(cloud, conn, code, reason, verb):
    server = cloud.add("db", refuse=(code, "It is\nnot possible"))
    with pytest.raises(reason) as caught:
        verb(conn, server.id)
    assert server.id in str(caught.value)
    assert "\n" not in str(caught.value)
    assert code == 404 or "It is not possible." in str(caught.value)
    assert not caught.value.may_be_frozen


@pytest.mark.parametrize("hiccups", [0, 1])
def test_a_conflict_with_an_instance_action_may_freeze(cloud, conn, hiccups):
    server = cloud.add(
        "db", refuse=(409, "No answer"), taken_up=hiccups == 0, hiccups=hiccups
    )
    with pytest.raises(client.WrongState) as caught:
        client.quiesce(conn, server.id)
    assert caught.value.may_be_frozen


def test_a_server_error_is_not_taken_for_a_refusal(cloud, conn):
    server = cloud.add("db", refuse=(500, "Oops"))
    with pytest.raises(sdk_exceptions.HttpException, match="Oops"):
        client.quiesce(conn, server.id)


def test_a_missing_request_id_is_reported(cloud, conn):
    cloud.request_ids = False
    with pytest.raises(client.RequestIdMissing) as caught:
        client.quiesce(conn, cloud.add("db").id)
    assert caught.value.may_be_frozen


def test_find_takes_name_or_id(cloud, conn):
    server = cloud.add("db")
    assert client.find(conn, "db") == (server.id, "db")
    assert client.find(conn, server.id) == (server.id, "db")


def test_find_refuses_an_unknown_and_an_ambiguous_name(cloud, conn):
    cloud.add("web")
    cloud.add("web")
    with pytest.raises(client.ServerNotFound, match="db"):
        client.find(conn, "db")
    with pytest.raises(client.ServerAmbiguous, match="use its ID"):
        client.find(conn, "web")


def quiesced(conn, server, **kwargs):
    return client.wait_quiesced(
        conn, server.id, client.quiesce(conn, server.id), **kwargs
    )


def unquiesced(conn, server, **kwargs):
    client.wait_unquiesced(conn, server.id, client.unquiesce(conn, server.id), **kwargs)


def test_wait_quiesced_returns_the_deadline(cloud, conn, clock):
    server = cloud.add("db", results=[None, None, "Success"])
    assert quiesced(conn, server, interval=2) == client.ServerState(
        id=server.id,
        name="db",
        quiesce_status="quiesced",
        quiesced_at="2026-11-21T10:00:00Z",
        unquiesce_at="2026-11-21T10:01:00Z",
    )
    assert clock.now == 4


def test_wait_quiesced_goes_by_the_server_when_the_event_lags(cloud, conn, clock):
    server = cloud.add("db", results=[None])
    request_id = client.quiesce(conn, server.id)
    server.state = dict(server.after_quiesce)
    state = client.wait_quiesced(conn, server.id, request_id)
    assert state.quiesce_status == "quiesced"


def test_wait_quiesced_reports_the_reason_of_the_event(cloud, conn, clock):
    server = cloud.add("db", results=[None, "Error"], details="agent\nis dead")
    with pytest.raises(client.QuiesceFailed, match=r"not quiesced: agent is dead\. "):
        quiesced(conn, server)


@pytest.mark.parametrize("no_event", [True, False])
def test_wait_quiesced_falls_back_to_the_message(cloud, conn, clock, no_event):
    server = cloud.add("db", results=["Error"], message="Error", no_event=no_event)
    with pytest.raises(client.QuiesceFailed, match=r"Error\. An administrator sees"):
        quiesced(conn, server)


def test_wait_quiesced_notices_that_the_freeze_is_over(cloud, conn, clock):
    server = cloud.add("db", after_quiesce={"quiesce_status": None})
    with pytest.raises(client.FreezeLost, match="longer timeout"):
        quiesced(conn, server)


def test_wait_quiesced_ends_when_the_server_is_deleted(cloud, conn, clock):
    server = cloud.add("db", results=[None], deleted=True)
    with pytest.raises(client.ServerNotFound):
        quiesced(conn, server)


def test_wait_quiesced_gives_up_at_the_limit(cloud, conn, clock):
    server = cloud.add("db", results=[None])
    with pytest.raises(client.WaitTimeout, match="within 20 seconds") as caught:
        quiesced(conn, server, limit=20)
    assert caught.value.may_be_frozen
    assert clock.now == 20


def test_wait_survives_an_api_restart(cloud, conn, clock):
    server = cloud.add("db", hiccups=3)
    assert quiesced(conn, server).quiesce_status == "quiesced"


def test_wait_names_the_error_that_did_not_pass(cloud, conn, clock):
    server = cloud.add("db", hiccups=1000)
    with pytest.raises(client.WaitTimeout, match=r"last error: .*Out for lunch"):
        quiesced(conn, server, limit=5)


def test_wait_unquiesced_returns_on_success(cloud, conn, clock):
    server = cloud.add("db", results=[None, None, "Success"])
    unquiesced(conn, server, interval=3)
    assert clock.now == 6


def test_wait_unquiesced_reports_a_broken_window(cloud, conn, clock):
    server = cloud.add("db", results=["Error"], details="The guest rebooted")
    with pytest.raises(
        client.UnquiesceFailed, match=r"The guest rebooted\. Do not rely"
    ):
        unquiesced(conn, server)


def test_wait_unquiesced_gives_up_at_the_limit(cloud, conn, clock):
    with pytest.raises(client.WaitTimeout, match="unquiesce of server"):
        unquiesced(conn, cloud.add("db", results=[None]), limit=20)


@pytest.mark.parametrize(
    ("timeout", "limit"), [(None, 300), (1, 61), (240, 300), (100000, 300)]
)
def test_the_wait_for_a_quiesce_follows_its_timeout(timeout, limit):
    assert client.quiesce_wait_limit(timeout) == limit
