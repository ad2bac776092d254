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

"""Owns the base of the functional tests: nova in one process, with the extension.

API, conductor, scheduler, nova-compute and placement are real; libvirt is nova's own
fake. The guest agent is :class:`FakeFreezer`.
"""

import datetime
import json
import pathlib
import sys
import threading
import uuid
from typing import Any

import fixtures
from nova import context as nova_context
from nova import objects
from nova.tests.functional.api import client as api_client
from nova.tests.functional.libvirt import base

from nova_ext import install
from nova_ext.compute import mark
from nova_ext.virt import freezer

FACTORY = "nova_ext.api.openstack.compute.routes:APIRouterV21.factory"
STOCK_FACTORY = "nova.api.openstack.compute:APIRouterV21.factory"


class FakeFreezer:
    """A guest agent that does what a test says.

    :ivar frozen: UUIDs of the guests that are frozen
    :ivar calls: what was asked of the agent, in order
    :ivar freeze_gate: a freeze waits until it is set
    :ivar freeze_error: raised by the next freezes
    :ivar thaw_errors: raised by the next thaws, one each
    :ivar breach: what the next thaw finds wrong with the window
    """

    def __init__(self) -> None:
        self.frozen: set[str] = set()
        self.calls: list[str] = []
        self.freeze_gate = threading.Event()
        self.freeze_gate.set()
        self.freeze_error: freezer.FreezeError | None = None
        self.thaw_errors: list[Exception] = []
        self.breach: str | None = None

    def freeze(self, uuid: str) -> freezer.Evidence:
        self.calls.append("freeze")
        assert self.freeze_gate.wait(30)
        if self.freeze_error:
            raise self.freeze_error
        self.frozen.add(uuid)
        return freezer.Evidence(domain_id=1, frozen=2, written=3)

    def thaw(self, uuid: str, evidence: freezer.Evidence | None) -> str | None:
        self.calls.append("thaw")
        if self.thaw_errors:
            raise self.thaw_errors.pop(0)
        self.frozen.discard(uuid)
        return self.breach


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
        self.freezer = FakeFreezer()
        self.useFixture(
            fixtures.MockPatch(
                "nova_ext.virt.libvirt.quiesce.LibvirtGuestFreezer",
                return_value=self.freezer,
            )
        )
        self.api.microversion = self.microversion
        self.admin_api.microversion = self.microversion

    def tearDown(self) -> None:
        self.kill_windows()  # they would go on in the next test's cloud
        super().tearDown()

    def _clear_attrs(self) -> None:
        super()._clear_attrs()
        # nova drops all attributes of a test; pytest expects to drop this one itself.
        setattr(self, self._testMethodName, None)

    def boot(self, agent: bool = True, **kwargs: Any) -> str:
        """A running server, by default with a guest agent; its UUID."""
        if "compute1" not in self.computes:
            self.start_compute("compute1")
        image = self.glance.create(
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
                "properties": {"hw_qemu_guest_agent": "yes"} if agent else {},
            },
        )
        server = self._create_server(image_uuid=image["id"], networks="none", **kwargs)
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

    def clear_mark(self, server: str) -> None:
        """Remove the mark behind the back of nova-compute."""
        instance = self.instance(server)
        mark.write(instance, None)
        instance.save()

    def age_mark(self, server: str, seconds: int) -> None:
        """Let the window of ``server`` have begun ``seconds`` earlier."""
        instance = self.instance(server)
        current = mark.read(instance)
        assert current is not None
        assert current.quiesced_at is not None
        earlier = current.quiesced_at - datetime.timedelta(seconds=seconds)
        mark.write(instance, current.replace(quiesced_at=earlier))
        instance.save()

    def windows(self) -> dict[str, Any]:
        """The windows that nova-compute on compute1 has."""
        manager = self.computes["compute1"].manager.quiesce_manager
        return dict(manager._windows)

    def until_idle(self, server: str) -> None:
        """Wait until nova-compute has written all records of the window."""
        self._wait_for_assert(
            lambda: self.assertNotIn(server, self.windows()), max_retries=100, sleep=0.1
        )

    def kill_windows(self) -> None:
        """Let the threads of all windows be as dead as after a SIGKILL."""

        def die(*args: Any) -> Any:
            raise SystemExit

        for service in self.computes.values():
            manager = getattr(service.manager, "quiesce_manager", None)
            if manager is None:
                continue  # a stock nova-compute
            for name in ("_finish", "_thaw", "_save_mark", "_save_quiesced", "_notify"):
                setattr(manager, name, die)
            for window in list(manager._windows.values()):
                window.wake.set()

    def wait_status(self, server: str, status: str | None) -> dict[str, Any]:
        """Wait until ``quiesce_status`` is ``status``; the server."""
        shown: dict[str, Any] = {}

        def reached() -> None:
            shown.update(self.api.get_server(server))
            self.assertEqual(status, shown["quiesce_status"])

        self._wait_for_assert(reached, max_retries=100, sleep=0.1)
        return shown

    def wait_event(self, server: str, action: str) -> Any:
        """Wait until the newest action ``action`` has a finished event; the event."""
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
            events = [e for e in detail["events"] if e["result"]]
            self.assertTrue(events)
            found[:] = events

        self._wait_for_assert(finished, max_retries=100, sleep=0.1)
        return found[0]

    def quiesced(self, timeout: int | None = None, **kwargs: Any) -> str:
        """A server that is quiesced; its UUID."""
        server = self.boot(**kwargs)
        self.accepted(server, "quiesce", {"timeout": timeout} if timeout else None)
        # Not for the status: a short window may be over before anybody looks.
        event = self.wait_event(server, "quiesce")
        self.assertEqual("Success", event["result"])
        return server


OpenStackApiException = api_client.OpenStackApiException
