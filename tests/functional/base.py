# SPDX-License-Identifier: Apache-2.0
"""Owns the base of the functional tests: nova in one process, with the extension.

API, conductor, scheduler, nova-compute, placement and the guard are real; libvirt is
nova's own fake. The guest agents are those of :mod:`tests.functional.agents`.
"""

import datetime
import json
import pathlib
import sys
import uuid
from collections.abc import Callable
from typing import Any

import fixtures
from nova import context as nova_context
from nova import objects
from nova.db.main import api as main_api
from nova.tests.fixtures import libvirt as libvirt_fixture
from nova.tests.functional.api import client as api_client
from nova.tests.functional.libvirt import base

from nova_ext import install
from nova_ext.db import migration
from nova_ext.guard.loop import Loop
from nova_ext.guard.records import Record, Records
from nova_ext.objects.quiesce_window import QuiesceWindow
from tests.functional.agents import FakeAgents

FACTORY = "nova_ext.wsgi.paste:osapi_compute_app_v21"
STOCK_FACTORY = "nova.api.openstack.compute:APIRouterV21.factory"


def paste_with_extension(directory: str) -> str:
    """nova's api-paste.ini with the one line that an operator changes."""
    stock = pathlib.Path(sys.prefix, "etc/nova/api-paste.ini").read_text()
    assert STOCK_FACTORY in stock
    path = pathlib.Path(directory, "api-paste.ini")
    path.write_text(stock.replace(STOCK_FACTORY, FACTORY))
    return str(path)


class FunctionalTest(base.ServersTestBase):
    """A cloud of one compute host with the extension."""

    microversion = "2.105"
    ADMIN_API = False

    def setUp(self) -> None:
        install.install()
        self.flags(
            api_paste_config=paste_with_extension(
                self.useFixture(fixtures.TempDir()).path
            ),
            group="wsgi",
        )
        super().setUp()
        self.flags(compute_driver="nova_ext.LibvirtDriver")
        self.guards = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.records = Records(self.guards / "compute1")
        self.agents = FakeAgents()
        self.loops: list[Loop] = []
        start = Loop.start
        self.useFixture(
            fixtures.MonkeyPatch(
                "nova_ext.guard.loop.Loop.start",
                lambda loop: (self.loops.append(loop), start(loop)),
            )
        )
        self.useFixture(
            fixtures.MockPatch(
                "nova_ext.guard.host.LibvirtGuests", side_effect=self.agents.of_host
            )
        )
        launch = libvirt_fixture.Domain.createWithFlags

        def with_new_memory(domain: Any, flags: Any) -> Any:
            if not domain._has_saved_state:
                self.agents.frozen.discard(domain.UUIDString())
            return launch(domain, flags)

        self.useFixture(
            fixtures.MonkeyPatch(
                "nova.tests.fixtures.libvirt.Domain.createWithFlags", with_new_memory
            )
        )
        self.api.microversion = self.microversion
        self.admin_api.microversion = self.microversion

    def tearDown(self) -> None:
        self.kill()  # its threads would go on in the next test's cloud
        super().tearDown()

    def _clear_attrs(self) -> None:
        super()._clear_attrs()
        # nova drops all attributes of a test; pytest expects to drop this one itself.
        setattr(self, self._testMethodName, None)

    # nova's helpers wait for 1 to 5 s, which a busy machine needs for a request.

    def _wait_for_assert(
        self, assert_func: Callable[[], Any], max_retries: int = 600, sleep: float = 0.1
    ) -> Any:
        return super()._wait_for_assert(assert_func, max_retries, sleep)

    def _wait_for_server_parameter(
        self, server: Any, expected_params: Any, max_retries: int = 120, **kwargs: Any
    ) -> Any:
        return super()._wait_for_server_parameter(
            server, expected_params, max_retries, **kwargs
        )

    def _wait_for_state_change(
        self, server: Any, expected_status: str, max_retries: int = 120, **kwargs: Any
    ) -> Any:
        return super()._wait_for_state_change(
            server, expected_status, max_retries, **kwargs
        )

    def image(self, **properties: str) -> str:
        """A new image with these properties; its ID."""
        made = self.glance.create(
            None,
            {
                "id": str(uuid.uuid4()),
                "name": "guest",
                "status": "active",
                "disk_format": "raw",
                "container_format": "raw",
                "size": 1,
                "min_disk": 0,
                "min_ram": 0,
                "visibility": "public",
                "properties": properties,
            },
        )
        return str(made["id"])

    def boot(self, agent: bool = True, **kwargs: Any) -> str:
        """A running server, by default with a guest agent; its UUID."""
        if "compute1" not in self.computes:
            self.start_compute("compute1")
        image = self.image(**({"hw_qemu_guest_agent": "yes"} if agent else {}))
        server = self._create_server(image_uuid=image, networks="none", **kwargs)
        return str(server["id"])

    def act(
        self, server: str, action: str, argument: Any = None, api: Any = None
    ) -> Any:
        """POST a server action; the response, whatever its status."""
        return (api or self.api).api_request(
            f"/servers/{server}/action",
            method="POST",
            body=json.dumps({action: argument}),
            headers={"content-type": "application/json"},
        )

    def refused(
        self, status: int, server: str, action: str, argument: Any = None
    ) -> str:
        """POST a server action that must be refused; the message."""
        response = self.act(server, action, argument)
        self.assertEqual(status, response.status_code, response.text)
        return str(next(iter(response.json().values()))["message"])

    def accepted(self, server: str, action: str, argument: Any = None) -> None:
        """POST a server action that must be accepted."""
        response = self.act(server, action, argument)
        self.assertEqual(202, response.status_code, response.text)
        self.assertEqual(b"", response.content)

    def accepted_as(
        self, status: int, server: str, action: str, argument: Any = None
    ) -> None:
        """POST a stock server action that must be accepted with ``status``."""
        response = self.act(server, action, argument)
        self.assertEqual(status, response.status_code, response.text)

    def instance(self, server: str) -> Any:
        """The instance of ``server`` as the database has it."""
        return objects.Instance.get_by_uuid(
            nova_context.get_admin_context(),
            server,
            expected_attrs=["flavor", "info_cache", "metadata", "system_metadata"],
        )

    def start_service(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "conductor":
            # Before any service writes: SQLite has one lock for a whole database.
            self.sync_databases()
        if name == "compute":
            # What lies below is another host's as little as its disks are.
            directory = str(self.guards / kwargs.get("host", "compute"))
            self.flags(guard_directory=directory, group="nova_ext")
        return super().start_service(name, *args, **kwargs)

    def sync_databases(self) -> None:
        """Make the extension's tables in every cell, as nova-ext-manage does."""
        context = nova_context.get_admin_context()
        for cell in self.cell_mappings.values():
            with nova_context.target_cell(context, cell) as targeted:
                engine = main_api.get_engine(context=targeted)
                migration.upgrade(engine, migration.MAIN)

    def row(self, server: str) -> QuiesceWindow | None:
        """The freeze window of ``server`` as the database has it."""
        return QuiesceWindow.find(nova_context.get_admin_context(), server)

    def clear_row(self, server: str) -> None:
        """Remove the row behind the back of nova-compute."""
        QuiesceWindow.destroy_by_instance_uuid(nova_context.get_admin_context(), server)

    def record(self, server: str) -> Record:
        """The guard's record of ``server`` on compute1, which there must be."""
        record = self.records.read(server)
        assert record is not None
        return record

    def age(self, server: str, seconds: int) -> None:
        """Let the window of ``server`` have begun ``seconds`` earlier."""
        row, record = self.row(server), self.record(server)
        assert row is not None
        assert row.quiesced_at is not None
        row.quiesced_at -= datetime.timedelta(seconds=seconds)
        row.save(row.change_id)
        assert record.due is not None
        self.records.write(record.replace(due=record.due.after(-seconds)))

    def windows(self) -> dict[str, Any]:
        """The windows that nova-compute on compute1 has."""
        manager = self.computes["compute1"].manager.quiesce_manager
        return dict(manager._windows)

    def until_idle(self, server: str) -> None:
        """Wait until nova-compute has written all records of the window."""
        self._wait_for_assert(lambda: self.assertNotIn(server, self.windows()))

    def kill(self) -> None:
        """Let every nova-compute be as dead as after a SIGKILL, its guard too."""

        def die(*args: Any, **kwargs: Any) -> Any:
            raise SystemExit

        self.agents.leave_hosts()
        for loop in self.loops:
            loop.look = die  # type: ignore[method-assign]
        for service in self.computes.values():
            manager = getattr(service.manager, "quiesce_manager", None)
            if manager is None:
                continue  # a stock nova-compute
            for window in list(manager._windows.values()):
                # What was not written is lost.
                window.queue._retry.sleep = die
                window.queue._retry = die
                window._record = window._thaw = die
                window.wake.set()

    def restart_compute_service(self, *args: Any, **kwargs: Any) -> Any:
        """nova's; what the old nova-compute was about goes with it."""
        self.kill()
        return super().restart_compute_service(*args, **kwargs)

    def status(self, server: str) -> str | None:
        """``quiesce_status`` now."""
        status: str | None = self.api.get_server(server)["quiesce_status"]
        return status

    def wait_status(self, server: str, status: str | None) -> dict[str, Any]:
        """Wait until ``quiesce_status`` is ``status``; the server."""
        shown: dict[str, Any] = {}

        def reached() -> None:
            shown.update(self.api.get_server(server))
            self.assertEqual(status, shown["quiesce_status"])

        self._wait_for_assert(reached)
        return shown

    def wait_event(self, server: str, action: str) -> Any:
        """Wait until each event of the newest action ``action`` is finished; one."""
        found: list[Any] = []

        def finished() -> None:
            actions = [
                a
                for a in self.api.get_instance_actions(server)
                if a["action"] == action
            ]
            self.assertTrue(actions)
            detail = self.admin_api.api_get(
                f"/servers/{server}/os-instance-actions/{actions[0]['request_id']}"
            ).body["instanceAction"]
            events = detail["events"]
            self.assertTrue(events)
            self.assertTrue(all(each["result"] for each in events), detail)
            found[:] = events

        self._wait_for_assert(finished)
        return found[0]

    def assert_no_trace(self, server: str) -> None:
        """The guest is thawed, and nothing is left of its window."""
        self.wait_status(server, None)
        self.until_idle(server)
        self.assertNotIn(server, self.agents.frozen)
        self.assertIsNone(self.row(server))
        self.assertEqual([], self.records.uuids())

    def quiesced(self, timeout: int | None = None, **kwargs: Any) -> str:
        """A server that is quiesced; its UUID."""
        server = self.boot(**kwargs)
        self.accepted(server, "quiesce", {"timeout": timeout} if timeout else None)
        # Not for the status: a short window may be over before anybody looks.
        event = self.wait_event(server, "quiesce")
        self.assertEqual("Success", event["result"])
        return server


OpenStackApiException = api_client.OpenStackApiException
