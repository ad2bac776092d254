# SPDX-License-Identifier: Apache-2.0
"""How the functions on an SDK connection talk to the compute API."""

import datetime

import pytest
from keystoneauth1 import exceptions as ks_exceptions
from openstack import exceptions as sdk_exceptions

from nova_ext.client import compute, exceptions, resources
from tests.unit.client.fake_compute import NEVER, Looks


def test_quiesce_sends_null_without_timeout_and_returns_the_request_id(cloud, conn):
    server = cloud.compute.add("db")
    assert [compute.quiesce(conn, server.id)] == list(server.actions)
    assert cloud.actions() == [("db", {"quiesce": None}, "2.105")]


def test_quiesce_sends_the_timeout(cloud, conn):
    compute.quiesce(conn, cloud.compute.add("db").id, timeout=30)
    assert cloud.actions() == [("db", {"quiesce": {"timeout": 30}}, "2.105")]


def test_quiesce_sends_partial_only_if_it_is_wanted(cloud, conn):
    server = cloud.compute.add("db", unfreezable="/boot/efi")
    compute.quiesce(conn, server.id, partial=False)
    compute.quiesce(conn, server.id, partial=True)
    compute.quiesce(conn, cloud.compute.add("web").id, 30, partial=True)
    assert [body["quiesce"] for _name, body, _version in cloud.actions()] == [
        None,
        {"partial": True},
        {"timeout": 30, "partial": True},
    ]


def test_unquiesce_sends_null_and_returns_the_request_id(cloud, conn):
    server = cloud.compute.add("db")
    cloud.compute.freeze(server)
    assert [compute.unquiesce(conn, server.id)] == list(server.actions)
    assert cloud.actions() == [("db", {"unquiesce": None}, "2.105")]


@pytest.mark.parametrize("chosen", [None, "2"])
def test_negotiate_uses_2_105_when_none_is_chosen(cloud, connect, chosen):
    cloud.compute.maximum = "2.110"
    assert compute.negotiate(connect(chosen)) == "2.105"


def test_negotiate_keeps_a_higher_choice(cloud, connect):
    cloud.compute.maximum = "2.110"
    assert compute.negotiate(connect("2.106")) == "2.106"


@pytest.mark.parametrize("chosen", ["2.1", "2.79", "2.104"])
def test_negotiate_refuses_a_lower_choice_and_says_what_to_do(cloud, connect, chosen):
    with pytest.raises(exceptions.MicroversionTooLow) as caught:
        compute.negotiate(connect(chosen))
    assert f"{chosen} was asked for" in str(caught.value)
    assert "use --os-compute-api-version 2.105" in str(caught.value)


@pytest.mark.parametrize("chosen", [None, "2.105", "2.106"])
def test_a_cloud_without_2_105_lacks_the_extension(cloud, connect, chosen):
    cloud.compute.maximum = "2.104"
    with pytest.raises(exceptions.MicroversionNotOffered) as caught:
        compute.negotiate(connect(chosen))
    assert str(caught.value) == (
        f"This cloud's compute API does not offer microversion {chosen or '2.105'} "
        "(its maximum is 2.104): ask its operator to enable nova_ext in the compute "
        "API."
    )


def test_a_choice_above_the_clouds_maximum_says_nothing_of_the_extension(
    cloud, connect
):
    cloud.compute.maximum = "2.107"
    with pytest.raises(exceptions.MicroversionNotOffered) as caught:
        compute.negotiate(connect("2.200"))
    assert str(caught.value) == (
        "This cloud's compute API does not offer microversion 2.200 (its maximum is "
        "2.107): use --os-compute-api-version 2.105, or choose none."
    )


def test_a_maximum_that_cannot_be_read_is_not_taken_for_a_low_one(cloud, conn):
    cloud.fault("GET compute /v2.1$|GET compute /$", refuse=(503, "Out"), times=None)
    with pytest.raises(exceptions.MicroversionNotOffered) as caught:
        compute.negotiate(conn)
    assert "(its maximum is not known): try again" in str(caught.value)


def test_negotiate_reports_a_low_choice_that_the_cloud_lacks_as_low(cloud, connect):
    cloud.compute.maximum = "2.60"
    with pytest.raises(exceptions.MicroversionTooLow, match=r"2\.79"):
        compute.negotiate(connect("2.79"))


def test_nothing_is_sent_when_the_microversion_is_not_offered(cloud, conn):
    cloud.compute.maximum = "2.104"
    with pytest.raises(exceptions.MicroversionNotOffered):
        compute.quiesce(conn, cloud.compute.add("db").id)
    assert cloud.actions() == []


@pytest.mark.parametrize("verb", [compute.quiesce, compute.unquiesce])
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (400, exceptions.RequestUnsupported),
        (403, exceptions.RequestForbidden),
        (404, exceptions.ServerNotFound),
        (409, exceptions.WrongState),
    ],
)
def test_a_refusal_has_a_class_and_one_line(cloud, conn, code, reason, verb):
    server = cloud.compute.add("db")
    cloud.fault("/servers/db/action", refuse=(code, "It is\nnot possible"))
    with pytest.raises(reason) as caught:
        verb(conn, server.id)
    assert server.id in str(caught.value)
    assert "\n" not in str(caught.value)
    assert code == 404 or "It is not possible." in str(caught.value)
    assert not caught.value.may_be_frozen


def test_a_conflict_with_an_instance_action_may_freeze(cloud, conn):
    server = cloud.compute.add("db")
    cloud.fault("/servers/db/action", lost=(409, "No answer"))
    with pytest.raises(exceptions.WrongState) as caught:
        compute.quiesce(conn, server.id)
    assert caught.value.may_be_frozen


def test_a_conflict_whose_instance_action_cannot_be_read_may_freeze(cloud, conn):
    server = cloud.compute.add("db")
    cloud.fault("/servers/db/action", refuse=(409, "No answer"))
    cloud.fault("os-instance-actions", refuse=(503, "Out for lunch"))
    with pytest.raises(exceptions.WrongState) as caught:
        compute.quiesce(conn, server.id)
    assert caught.value.may_be_frozen


def test_a_refused_unquiesce_is_not_looked_after(cloud, conn):
    server = cloud.compute.add("db")
    with pytest.raises(exceptions.WrongState):
        compute.unquiesce(conn, server.id)
    assert asked(cloud) == ["POST compute /servers/db/action unquiesce"]


def test_a_server_error_is_not_taken_for_a_refusal(cloud, conn):
    server = cloud.compute.add("db")
    cloud.fault("/servers/db/action", refuse=(500, "Oops"))
    with pytest.raises(sdk_exceptions.HttpException, match="Oops"):
        compute.quiesce(conn, server.id)


def test_a_missing_request_id_is_reported(cloud, conn):
    cloud.request_ids = False
    with pytest.raises(exceptions.RequestIdMissing) as caught:
        compute.quiesce(conn, cloud.compute.add("db").id)
    assert caught.value.may_be_frozen


def test_find_takes_name_or_id(cloud, conn):
    server = cloud.compute.add("db")
    assert compute.find(conn, "db") == (server.id, "db")
    assert compute.find(conn, server.id) == (server.id, "db")


def test_find_sends_one_request(cloud, conn):
    server = cloud.compute.add("db")
    cloud.compute.add("db-2")
    for name in ("db", server.id):
        compute.find(conn, name)
    assert asked(cloud) == ["GET compute /servers", "GET compute /servers/db"]


def test_find_takes_a_name_that_looks_like_an_id(cloud, conn):
    name = "3b5e6f0c-6d0c-4c47-9a54-0f3a3f1d2c77"
    server = cloud.compute.add(name)
    assert compute.find(conn, name) == (server.id, name)


def test_find_refuses_an_unknown_and_an_ambiguous_name(cloud, conn):
    cloud.compute.add("web")
    cloud.compute.add("web")
    with pytest.raises(exceptions.ServerNotFound, match="db"):
        compute.find(conn, "db")
    with pytest.raises(exceptions.ServerAmbiguous, match="use its ID"):
        compute.find(conn, "web")


def asked(cloud):
    """Return what the compute API was asked about servers."""
    return [text for text in cloud.requests if "/servers" in text]


def quiesced(conn, server, **kwargs):
    request_id = compute.quiesce(conn, server.id)
    compute.wait_quiesced(conn, server.id, request_id, **kwargs)


def unquiesced(conn, server, **kwargs):
    request_id = compute.unquiesce(conn, server.id)
    compute.wait_unquiesced(conn, server.id, request_id, **kwargs)


@pytest.fixture
def frozen(cloud):
    """Return a maker of servers that are frozen."""

    def make(**behaviour):
        server = cloud.compute.add("db", **behaviour)
        cloud.compute.freeze(server)
        return server

    return make


def test_the_deadline_is_on_the_server(cloud, conn, clock):
    cloud.compute.now = lambda: datetime.datetime(2026, 11, 21, 10, 0)
    server = cloud.compute.add("db", freeze_takes=Looks(2))
    quiesced(conn, server)
    found = compute.get_quiesced(conn, server.id)
    assert (found.id, found.name, found.quiesce_status) == (server.id, "db", "quiesced")
    assert found.quiesced_at == "2026-11-21T10:00:00Z"
    assert found.unquiesce_at == "2026-11-21T10:01:00Z"


def test_wait_quiesced_sends_one_request_for_each_look(cloud, conn, clock):
    quiesced(conn, cloud.compute.add("db", freeze_takes=Looks(2)))
    first, *looks = asked(cloud)
    assert first == "POST compute /servers/db/action quiesce"
    assert len(looks) == 3
    assert {look.rpartition("/")[0] for look in looks} == {
        "GET compute /servers/db/os-instance-actions"
    }


def test_waits_look_soon_and_then_less_often(cloud, conn, clock):
    quiesced(conn, cloud.compute.add("db", freeze_takes=Looks(1)))
    assert clock.now == compute.FIRST_POLL_INTERVAL
    server = cloud.compute.add("web", freeze_takes=NEVER)
    with pytest.raises(exceptions.WaitTimeout):
        quiesced(conn, server, limit=100)
    looks = [text for text in asked(cloud) if "/servers/web/os-inst" in text]
    assert len(looks) == pytest.approx(100 / compute.POLL_INTERVAL, abs=10)


def test_wait_quiesced_reports_the_reason_of_the_event(cloud, conn, clock):
    server = cloud.compute.add(
        "db", freeze_takes=Looks(1), freeze_fails="agent\nis dead"
    )
    with pytest.raises(
        exceptions.QuiesceFailed, match=r"not quiesced: agent is dead\. "
    ):
        quiesced(conn, server)


@pytest.mark.parametrize("has_events", [True, False])
def test_wait_quiesced_falls_back_to_the_message(cloud, conn, clock, has_events):
    server = cloud.compute.add(
        "db", freeze_fails="secret", says_why=False, has_events=has_events
    )
    with pytest.raises(
        exceptions.QuiesceFailed, match=r"Error\. An administrator sees"
    ):
        quiesced(conn, server)


def test_a_freeze_that_is_over_has_no_deadline(cloud, conn, clock):
    server = cloud.compute.add("db")
    request_id = compute.quiesce(conn, server.id)
    cloud.compute.break_window(server, "the server was rebooted")
    compute.wait_quiesced(conn, server.id, request_id)
    with pytest.raises(exceptions.FreezeLost, match="longer timeout"):
        compute.get_quiesced(conn, server.id)


def test_wait_quiesced_ends_when_the_server_is_deleted(cloud, conn, clock):
    server = cloud.compute.add("db", freeze_takes=NEVER)
    cloud.fault("GET compute /servers/db$", refuse=(404, "gone"), times=None)
    with pytest.raises(exceptions.ServerNotFound):
        quiesced(conn, server)


def test_wait_quiesced_gives_up_at_the_limit(cloud, conn, clock):
    server = cloud.compute.add("db", freeze_takes=NEVER)
    with pytest.raises(exceptions.WaitTimeout, match="within 20 seconds") as caught:
        quiesced(conn, server, limit=20)
    assert caught.value.may_be_frozen
    assert clock.now == 20


def test_wait_survives_an_api_restart(cloud, conn, clock):
    server = cloud.compute.add("db")
    cloud.fault("GET compute /servers/db/", refuse=(503, "Out for lunch"), times=3)
    quiesced(conn, server)
    assert compute.get_server(conn, server.id).quiesce_status == "quiesced"


def test_wait_names_the_error_that_did_not_pass(cloud, conn, clock):
    server = cloud.compute.add("db")
    cloud.fault("GET compute /servers/db/", refuse=(503, "Out for lunch"), times=None)
    with pytest.raises(exceptions.WaitTimeout, match=r"last error: .*Out for lunch"):
        quiesced(conn, server, limit=5)


def test_wait_unquiesced_returns_on_success(cloud, frozen, conn, clock):
    server = frozen(thaw_takes=Looks(2))
    unquiesced(conn, server)
    looks = asked(cloud)[1:]
    assert [text.rpartition("/")[2] for text in looks] == ["req-unquiesce-db"] * 3


def test_wait_unquiesced_reports_a_broken_window(frozen, conn, clock):
    server = frozen(unfit="The guest rebooted")
    with pytest.raises(
        exceptions.UnquiesceFailed, match=r"The guest rebooted\. Do not rely"
    ):
        unquiesced(conn, server)


def test_wait_unquiesced_gives_up_at_the_limit(frozen, conn, clock):
    with pytest.raises(exceptions.WaitTimeout, match="unquiesce of server"):
        unquiesced(conn, frozen(thaw_takes=NEVER), limit=20)


@pytest.mark.parametrize(
    ("timeout", "limit"), [(None, 300), (1, 61), (240, 300), (100000, 300)]
)
def test_the_wait_for_a_quiesce_follows_its_timeout(timeout, limit):
    assert compute.quiesce_wait_limit(timeout) == limit


@pytest.mark.parametrize(
    "send",
    [
        lambda server, session: server.quiesce(session),
        lambda server, session: server.create_image(session, "image"),
        lambda server, session: server.migrate_copying_pmem(session),
    ],
)
@pytest.mark.parametrize("lost", [True, (503, "A proxy gave up")])
def test_an_action_is_sent_once_whatever_retries_the_user_has_chosen(
    cloud, connect, send, lost
):
    conn = connect(connect_retries=3, status_code_retries=3)
    server = cloud.compute.add("db")
    cloud.fault("/servers/db/action", lost=lost, times=None)
    found = resources.Server.new(id=server.id)
    with pytest.raises((ks_exceptions.ConnectFailure, sdk_exceptions.HttpException)):
        send(found, conn.compute)
    assert len(cloud.actions()) == 1


def test_what_may_be_repeated_follows_the_retries_that_the_user_has_chosen(
    cloud, connect
):
    conn = connect(status_code_retries=1)
    server = cloud.compute.add("db")
    cloud.fault("GET compute /servers/db$", refuse=(503, "Out for lunch"))
    assert compute.get_server(conn, server.id).name == "db"


def test_a_server_has_the_fields_and_those_of_the_sdk(cloud, conn):
    server = cloud.compute.add("db")
    cloud.compute.freeze(server)
    found = compute.get_server(conn, server.id)
    assert isinstance(found, resources.Server)
    assert (found.quiesce_status, found.status) == ("quiesced", "ACTIVE")
    assert found.to_dict()["unquiesce_at"] == found.unquiesce_at
    assert found.knows_quiesce


def test_another_2_105_is_told_from_ours(cloud, conn):
    cloud.compute.knows_quiesce = False
    found = compute.get_server(conn, cloud.compute.add("db").id)
    assert (found.quiesce_status, found.knows_quiesce) == (None, False)
