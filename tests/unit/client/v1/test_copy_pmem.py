# SPDX-License-Identifier: Apache-2.0
"""--copy-pmem-devices of the stock commands, through the installed entry points."""

import io
import types

import pytest
from openstack import exceptions as sdk_exceptions
from openstackclient.compute.v2 import server as stock
from osc_lib import exceptions

from nova_ext.client import compute
from tests.unit.client.fake_compute import NEVER, Looks

COMMANDS = {"resize": stock.ResizeServer, "migrate": stock.MigrateServer}
RESIZE = {"resize": {"flavorRef": "f2", "copy_pmem_devices": True}}
MIGRATE = {"migrate": {"copy_pmem_devices": True}}
MIGRATE_HOST = {"migrate": {"copy_pmem_devices": True, "host": "h"}}
OPTION = "--copy-pmem-devices"


def command(name, app, hooks=True):
    return COMMANDS[name](app, None, f"server {name}" if hooks else None)


@pytest.fixture
def run(connect):
    """Return a runner: the stock command with the hook, on the fake cloud."""

    def run(name, *arguments, microversion=None):
        conn = connect(microversion)
        manager = types.SimpleNamespace(nova_ext=conn, compute=conn.compute)
        app = types.SimpleNamespace(
            client_manager=manager,
            command_manager=types.SimpleNamespace(namespace="openstack.cli"),
            stdout=io.StringIO(),
        )
        one = command(name, app)
        assert not one.run(one.get_parser("openstack").parse_args(arguments))
        return app.stdout.getvalue()

    return run


def options(parser):
    return {
        tuple(action.option_strings) or action.dest: (
            type(action),
            action.dest,
            action.nargs,
            action.const,
            action.default,
            action.required,
            action.help,
        )
        for action in parser._actions
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_the_parser_is_the_stock_one_and_the_option(name):
    app = types.SimpleNamespace(
        command_manager=types.SimpleNamespace(namespace="openstack.cli")
    )
    theirs = options(command(name, app, hooks=False).get_parser("openstack"))
    ours = options(command(name, app).get_parser("openstack"))
    added = ours.pop((OPTION,))
    assert added[1] == "copy_pmem_devices"
    assert "2.105" in added[-1]
    assert ours == theirs


@pytest.mark.parametrize(
    ("name", "arguments", "body"),
    [
        ("resize", ["--flavor", "big"], RESIZE),
        ("migrate", [], MIGRATE),
        ("migrate", ["--host", "h"], MIGRATE_HOST),
    ],
)
@pytest.mark.parametrize("chosen", [None, "2.105", "2.106"])
def test_the_option_orders_the_copy(cloud, run, name, arguments, body, chosen):
    cloud.compute.maximum = "2.106"
    cloud.compute.add("db")
    assert run(name, *arguments, OPTION, "db", microversion=chosen) == ""
    assert cloud.actions() == [("db", body, chosen or "2.105")]


@pytest.mark.parametrize(
    ("name", "arguments", "body"),
    [("resize", ["--flavor", "big"], RESIZE), ("migrate", [], MIGRATE)],
)
def test_wait_ends_when_the_server_is_there(cloud, run, clock, name, arguments, body):
    cloud.compute.add(
        "db", statuses=["RESIZE"] * 100 + ["VERIFY_RESIZE"], move_takes=NEVER
    )
    assert run(name, *arguments, OPTION, "--wait", "db") == "Complete\n"
    assert cloud.actions() == [("db", body, "2.105")]
    assert clock.now == 100 * compute.MOVE_POLL_INTERVAL


def test_wait_takes_a_server_that_was_confirmed_at_once(cloud, run, clock):
    cloud.compute.add("db", statuses=["RESIZE", "ACTIVE"], move_takes=Looks(2))
    assert run("migrate", OPTION, "--wait", "db") == "Complete\n"


@pytest.mark.parametrize("back", ["ACTIVE", "SHUTOFF"])
def test_wait_tells_that_a_copy_failed(cloud, run, clock, back):
    cloud.compute.add(
        "db",
        statuses=["RESIZE", back],
        move_takes=Looks(3),
        move_fails="ssh: no route",
    )
    with pytest.raises(exceptions.CommandError, match="failed: ssh: no route") as told:
        run("resize", "--flavor", "big", OPTION, "--wait", "db")
    assert "\n" not in str(told.value)


def test_wait_tells_that_no_host_was_found(cloud, run, clock):
    cloud.compute.add("db", statuses=["ACTIVE"], has_events=False, move_fails="no host")
    with pytest.raises(exceptions.CommandError, match="server event show"):
        run("migrate", OPTION, "--wait", "db")


@pytest.mark.parametrize("status", ["ACTIVE", "ERROR"])
def test_wait_does_not_wait_for_a_record_that_never_comes(cloud, run, clock, status):
    cloud.compute.add("db", statuses=["RESIZE", status], move_takes=NEVER)
    with pytest.raises(exceptions.CommandError, match=f"It is {status}"):
        run("migrate", OPTION, "--wait", "db")
    assert clock.now <= 60


def test_wait_tells_that_the_server_is_gone(cloud, run, clock, monkeypatch):
    cloud.compute.add("db")
    order = compute.migrate_copying_pmem

    def order_and_delete(*arguments):
        request_id = order(*arguments)
        cloud.fault("GET compute /servers/db$", refuse=(404, "gone"), times=None)
        return request_id

    monkeypatch.setattr(compute, "migrate_copying_pmem", order_and_delete)
    with pytest.raises(exceptions.CommandError, match="No server with the name or ID"):
        run("migrate", OPTION, "--wait", "db")


def test_wait_survives_an_api_that_is_away_for_a_moment(cloud, run, clock):
    cloud.compute.add("db")
    cloud.fault("os-instance-actions", refuse=(503, "Out for lunch"), times=3)
    assert run("migrate", OPTION, "--wait", "db") == "Complete\n"


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("resize", ["--confirm"], "goes with --flavor only"),
        ("resize", ["--revert"], "goes with --flavor only"),
        ("migrate", ["--live-migration"], "does not go with --live-migration"),
    ],
)
def test_what_does_not_go_with_a_copy(cloud, run, name, arguments, said):
    cloud.compute.add("db")
    with pytest.raises(exceptions.CommandError, match=said):
        run(name, *arguments, OPTION, "db")
    assert cloud.actions() == []


@pytest.mark.parametrize("name", COMMANDS)
def test_a_microversion_that_is_too_low_is_refused(cloud, run, name):
    cloud.compute.add("db")
    arguments = ["--flavor", "big"] if name == "resize" else []
    with pytest.raises(
        exceptions.CommandError, match=r"use --os-compute-api-version 2\.105"
    ):
        run(name, *arguments, OPTION, "db", microversion="2.104")
    assert cloud.actions() == []


def test_a_cloud_without_the_extension_is_refused(cloud, run):
    cloud.compute.maximum = "2.104"
    cloud.compute.add("db")
    with pytest.raises(exceptions.CommandError, match=r"not offer .* 2\.105"):
        run("migrate", OPTION, "db")
    assert cloud.actions() == []


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (400, sdk_exceptions.BadRequestException),
        (403, sdk_exceptions.ForbiddenException),
        (409, sdk_exceptions.ConflictException),
    ],
)
def test_a_refusal_is_the_one_of_the_stock_command(cloud, run, code, kind):
    cloud.compute.add("db")
    cloud.fault("/servers/db/action", refuse=(code, "It is not possible"), times=None)
    caught = []
    for arguments in ([], [OPTION], [OPTION, "--wait"]):
        with pytest.raises(kind) as refusal:
            run("migrate", *arguments, "db")
        caught.append(str(refusal.value))
    assert caught[0] == caught[1] == caught[2]
    assert "It is not possible" in caught[0]


def test_a_command_that_would_send_in_another_way_does_not_send(
    cloud, run, monkeypatch
):
    def take_action(self, parsed_args):
        compute = self.app.client_manager.compute
        server = compute.find_server(parsed_args.server, ignore_missing=False)
        compute.post(f"/servers/{server.id}/action", json={"migrate": None})

    monkeypatch.setattr(stock.MigrateServer, "take_action", take_action)
    cloud.compute.add("db")
    run("migrate", "db")
    assert len(cloud.actions()) == 1
    with pytest.raises(AttributeError):
        run("migrate", OPTION, "db")
    assert len(cloud.actions()) == 1
