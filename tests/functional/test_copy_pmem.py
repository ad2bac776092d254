# SPDX-License-Identifier: Apache-2.0
"""The copy of persistent memory through the whole of nova, with devices in memory.

API, conductor, scheduler, both compute managers and placement are real. libvirt is
nova's own fake, and the hosts are in one process, so that the data goes from device to
device without ssh.
"""

import datetime
import os
import pathlib
import threading
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import fixtures
import nova.conf
import oslo_messaging as messaging
from nova import context as nova_context
from nova import exception, objects
from nova.compute import power_state, task_states
from oslo_utils import fixture as utils_fixture

from nova_ext.objects.pmem_copy import PmemCopy, PmemCopyStatus
from nova_ext.privsep import pmem as privileged
from tests.functional import pmem

CONF = nova.conf.CONF

SIZE = 6 << 20
#: Per host: label of each namespace, in the order of the device numbers.
SPACES = {"compute1": ("SMALL", "BIG", "SMALL"), "compute2": ("BIG", "SMALL", "SMALL")}


class Devices:
    """The devices of all hosts, and root's view of them.

    :ivar content: the bytes of each device, by path
    :ivar before: called with the name of each privileged function before it works
    """

    def __init__(self) -> None:
        self.content: dict[str, bytearray] = {}
        self.before: Callable[..., None] = lambda *args: None

    def check(self, path: str) -> tuple[int, int]:
        if path not in self.content:
            raise privileged.DeviceError(f"{path} is not there")
        return len(self.content[path]), pmem.ALIGN

    def copy(
        self, source: str, at: int, target: str, seek: int, length: int, timeout: float
    ) -> None:
        self.before("copy", source, target)
        data = self.content[source][at : at + length]
        self.content[target][seek : seek + length] = data

    def zero(self, target: str, seek: int, length: int, timeout: float) -> None:
        self.before("zero", target)
        self.content[target][seek : seek + length] = bytes(length)

    def scan(
        self, source: str, offset: int, length: int, timeout: float
    ) -> list[tuple[int, int]]:
        return [(offset, length)]

    def digest(self, path: str, offset: int, length: int, timeout: float) -> str:
        self.before("digest", path)
        return bytes(self.content[path][offset : offset + length]).hex()

    def cleanup(self, path: str) -> None:
        """nova's own way to zero a device."""
        self.before("cleanup", path)
        self.content[path][:] = bytes(len(self.content[path]))


class CopyPmemTest(pmem.PmemTest):
    """Two hosts with two SMALL and a BIG device each, and servers with one of them."""

    ADMIN_API = True
    CAST_AS_CALL = False  # what fails, fails after the API has answered

    #: Where the clock of the whole cloud stands still.
    NOW: datetime.datetime | None = None

    def setUp(self) -> None:
        super().setUp()
        if self.NOW is not None:
            self.useFixture(utils_fixture.TimeFixture(self.NOW))
        self.devices = Devices()
        for name in ("check", "copy", "digest", "scan", "zero"):
            self.useFixture(
                fixtures.MockPatch(
                    f"nova_ext.privsep.pmem.{name}", getattr(self.devices, name)
                )
            )
        self.useFixture(
            fixtures.MockPatch(
                "nova.privsep.libvirt.cleanup_vpmem", self.devices.cleanup
            )
        )
        driver = "nova.virt.libvirt.LibvirtDriver"
        self.useFixture(
            fixtures.MockPatch(f"{driver}._get_instance_disk_info", return_value=[])
        )
        self.rename = self.useFixture(fixtures.MockPatch("os.rename")).mock
        self.flags(state_path=self.useFixture(fixtures.TempDir()).path)
        self.small = self.flavor("SMALL")
        self.both = self.flavor("BIG,SMALL")
        for number, host in enumerate(SPACES):
            self.host(host, number)

    def host(self, name: str, number: int) -> None:
        """Start a host whose devices are daxNUMBER.0, 1 and 2."""
        with self.namespaces(self.spaces(name, number)):
            self.start_compute(name)

    def spaces(self, name: str, number: int) -> list[pmem.Space]:
        """The namespaces of a host, which get a device the first time."""
        found = [
            pmem.Space(
                label, SIZE, name=f"{name}_{minor}", chardev=f"dax{number}.{minor}"
            )
            for minor, label in enumerate(SPACES[name])
        ]
        for space in found:
            self.devices.content.setdefault(f"/dev/{space.chardev}", bytearray(SIZE))
        return found

    # What a test looks at.

    def used(self, server: str) -> list[str]:
        """The paths of the devices that the server has on its host, by label."""
        instance = self.instance(server)
        driver = self.computes[instance.host].manager.driver
        vpmems = driver._get_vpmems(instance)
        return [v.devpath for v in sorted(vpmems, key=lambda v: str(v.label))]

    def booted(self, flavor: str | None = None) -> tuple[str, str]:
        """A running server on compute1 whose SMALL device is full; both."""
        server = self.boot(
            flavor_id=flavor or self.small, host="compute1", name="guest"
        )
        path = self.used(server)[-1]
        self.devices.content[path][:] = b"tenant" * (SIZE // 6)
        return server, path

    def dirty(self) -> list[str]:
        """The devices that hold something."""
        return sorted(path for path, data in self.devices.content.items() if any(data))

    def tracked(self) -> list[str]:
        """The namespaces with an entry in the tracker of any host."""
        root = pathlib.Path(CONF.state_path, "nova_ext", "pmem")
        return sorted(path.name for path in root.glob("*/*"))

    def power(self, server: str) -> int:
        """The power state of the server's guest on compute1, as libvirt has it."""
        driver = self.computes["compute1"].manager.driver
        return int(driver.get_info(self.instance(server)).state)

    def migrate(self, server: str, state: str = "VERIFY_RESIZE") -> dict[str, Any]:
        """Migrate with a copy; the server once it has this state and no task."""
        self.accepted(server, "migrate", {"copy_pmem_devices": True})
        return self.until(server, state)

    def until(self, server: str, state: str) -> dict[str, Any]:
        return self._wait_for_server_parameter(
            {"id": server}, {"status": state, "OS-EXT-STS:task_state": None}
        )

    def migration(self, server: str) -> Any:
        """The newest migration of the server."""
        migrations = objects.MigrationList.get_by_filters(
            nova_context.get_admin_context(), {"instance_uuid": server}
        )
        return max(migrations, key=lambda each: each.id)

    def event(self, server: str, name: str, action: str = "migrate") -> Any:
        """The event ``name`` of the newest action, once it is finished."""
        request = next(
            a for a in self.api.get_instance_actions(server) if a["action"] == action
        )["request_id"]
        found: list[Any] = []

        def finished() -> None:
            detail = self.admin_api.api_get(
                f"/servers/{server}/os-instance-actions/{request}"
            ).body["instanceAction"]
            found[:] = [
                event
                for event in detail["events"]
                if event["event"] == name and event["result"]
            ]
            self.assertTrue(found)

        self._wait_for_assert(finished)
        return found[0]

    def assert_back(self, server: str, path: str) -> None:
        """The server runs on compute1 with its data; nothing of it is elsewhere."""
        self.assertEqual("compute1", self.instance(server).host)
        self.assertEqual([path], self.used(server))
        self.assertEqual([path], self.dirty())
        self.assertEqual(b"tenant" * (SIZE // 6), self.devices.content[path])
        self.assertEqual([], self.tracked())
        self.assertIsNone(self.row(server))
        self.assert_allocated(server, "compute1")

    def tidy(self, host: str) -> None:
        """Let the periodic tasks of a host run."""
        context = nova_context.get_admin_context()
        self.computes[host].manager.update_available_resource(context)
        self.computes[host].manager._reconcile(context)

    def assert_allocated(self, server: str, host: str) -> None:
        """Exactly the devices of the server are taken in placement, on ``host``."""
        allocations = self._get_allocations_by_server_uuid(server)
        self.assertEqual([self._get_provider_uuid_by_host(host)], list(allocations))

    def break_(self, name: str, *hit: str) -> None:
        """Let privileged functions fail, at one of these paths if given."""

        def before(what: str, *paths: str) -> None:
            if what in name.split() and (not hit or set(hit) & set(paths)):
                raise privileged.DaxioError(f"{what} failed")

        self.devices.before = before

    def heal(self) -> None:
        self.devices.before = lambda *args: None


class FollowTest(CopyPmemTest):
    def test_the_data_goes_along_and_confirm_zeroes_the_source(self) -> None:
        server, source = self.booted()
        shown = self.migrate(server)
        self.assertEqual("compute2", shown["OS-EXT-SRV-ATTR:host"])
        (target,) = self.used(server)
        self.assertEqual(self.devices.content[source], self.devices.content[target])
        self.assertEqual(sorted([source, target]), self.dirty())
        self.assertEqual("Success", self.event(server, "compute_copy_pmem")["result"])
        self._confirm_resize({"id": server})
        self.assertEqual([target], self.dirty())
        self.assertEqual([], self.tracked())
        self.assertIsNone(self.row(server))

    def test_without_the_flag_the_data_stays_and_is_zeroed_by_confirm(self) -> None:
        server, source = self.booted()
        self.accepted(server, "migrate", {"copy_pmem_devices": False})
        self.until(server, "VERIFY_RESIZE")
        self.assertEqual([source], self.dirty())
        self._confirm_resize({"id": server})
        self.assertEqual([], self.dirty())

    def test_revert_goes_back_to_the_data_and_zeroes_the_destination(self) -> None:
        server, source = self.booted()
        self.migrate(server)
        (target,) = self.used(server)
        self.devices.content[target][:3] = b"new"
        self._revert_resize({"id": server})
        self.until(server, "ACTIVE")
        self.assert_back(server, source)

    def test_resize_pairs_devices_by_label(self) -> None:
        server, source = self.booted()
        self.accepted(
            server, "resize", {"flavorRef": self.both, "copy_pmem_devices": "yes"}
        )
        self.until(server, "VERIFY_RESIZE")
        big, small = self.used(server)
        self.assertEqual(self.devices.content[source], self.devices.content[small])
        self.assertFalse(any(self.devices.content[big]))
        # The source is kept for a revert, and nothing is left to do on the destination.
        memory = self.computes["compute1"].manager.driver.pmem_host
        self.assertEqual([server], list(memory.reserved().values()))
        self.assertEqual(list(memory.reserved()), self.tracked())
        self._revert_resize({"id": server})
        self.until(server, "ACTIVE")
        self.assert_back(server, source)

    def test_two_devices_of_a_server(self) -> None:
        server, _source = self.booted(self.both)
        big, small = self.used(server)
        self.devices.content[big][:] = b"bigger" * (SIZE // 6)
        self.migrate(server)
        new_big, new_small = self.used(server)
        self.assertEqual(self.devices.content[big], self.devices.content[new_big])
        self.assertEqual(self.devices.content[small], self.devices.content[new_small])
        self._confirm_resize({"id": server})
        self.assertEqual(sorted([new_big, new_small]), self.dirty())

    def test_resize_on_the_same_host(self) -> None:
        self.flags(allow_resize_to_same_host=True)
        self.boot(flavor_id=self.both, host="compute2")  # no BIG is left there
        server, source = self.booted()
        self.accepted(
            server, "resize", {"flavorRef": self.both, "copy_pmem_devices": True}
        )
        shown = self.until(server, "VERIFY_RESIZE")
        self.assertEqual("compute1", shown["OS-EXT-SRV-ATTR:host"])
        _big, small = self.used(server)
        self.assertNotEqual(source, small)
        self.assertEqual(self.devices.content[source], self.devices.content[small])
        self._confirm_resize({"id": server})
        self.assertEqual([small], self.dirty())

    def test_a_stopped_server_stays_stopped_and_starts_with_its_data(self) -> None:
        server, source = self.booted()
        self._stop_server({"id": server})
        self.migrate(server)
        self.accepted_as(204, server, "confirmResize")
        self.until(server, "SHUTOFF")
        (target,) = self.used(server)
        self.assertNotEqual(source, target)
        self._start_server({"id": server})
        self.assertEqual([target], self.dirty())

    def test_delete_while_the_resize_waits_for_confirmation(self) -> None:
        server, _source = self.booted()
        self.migrate(server)
        self._delete_server({"id": server})
        self.assertEqual([], self.dirty())
        self.assertEqual([], self.tracked())

    def test_two_servers_at_once(self) -> None:
        first, _ = self.booted()
        second, path = self.booted()
        self.devices.content[path][:] = b"second" * (SIZE // 6)
        both = threading.Barrier(2, timeout=30)
        met: set[int] = set()

        def before(what: str, *paths: str) -> None:
            # Both are in the middle of their copies at the same time.
            if what == "copy" and threading.get_ident() not in met:
                met.add(threading.get_ident())
                both.wait()

        self.devices.before = before
        self.flags(pmem_copy_streams=1, group="nova_ext")
        orders = [
            threading.Thread(
                target=self.accepted, args=(s, "migrate", {"copy_pmem_devices": True})
            )
            for s in (first, second)
        ]
        for order in orders:
            order.start()
        for order in orders:
            order.join(60)
        for server, data in ((first, b"tenant"), (second, b"second")):
            self.until(server, "VERIFY_RESIZE")
            (target,) = self.used(server)
            self.assertEqual(data * (SIZE // 6), self.devices.content[target])

    def test_digests_are_compared(self) -> None:
        self.flags(pmem_verify="digest", group="nova_ext")
        server, source = self.booted()

        def before(what: str, *paths: str) -> None:
            if what == "digest" and paths != (source,):
                self.devices.content[paths[0]][SIZE - 1] = 0xFF

        self.devices.before = before
        self.migrate(server, "ACTIVE")
        self.assertIn("differ", self.event(server, "compute_copy_pmem")["details"])
        self.assert_back(server, source)
        self.heal()
        self.migrate(server)


class FailureTest(CopyPmemTest):
    def test_a_failed_copy_leaves_the_server_where_it_is(self) -> None:
        server, source = self.booted()
        self.break_("copy")
        self.migrate(server, "ACTIVE")
        self.assertEqual(power_state.RUNNING, self.power(server))
        self.assertEqual("error", self.migration(server).status)
        event = self.event(server, "compute_copy_pmem")
        self.assertEqual("Error", event["result"])
        self.assertIn("copy failed", event["details"])
        self.assert_back(server, source)
        self.heal()
        self.migrate(server)

    def test_a_failed_copy_of_a_stopped_server_does_not_start_it(self) -> None:
        server, source = self.booted()
        self._stop_server({"id": server})
        self.break_("copy")
        self.migrate(server, "SHUTOFF")
        self.assertEqual(power_state.SHUTDOWN, self.power(server))
        self.assert_back(server, source)

    def test_the_guest_runs_on_when_the_destination_cannot_be_written(self) -> None:
        server, source = self.booted()
        self.break_("zero", *self.paths("compute2"))
        driver = self.computes["compute1"].manager.driver
        with mock.patch.object(driver, "power_off") as power_off:
            self.migrate(server, "ACTIVE")
        power_off.assert_not_called()
        self.assertIn(
            "zero failed", self.event(server, "compute_resize_instance")["details"]
        )
        self.heal()
        self.tidy("compute2")
        self.assert_back(server, source)

    def paths(self, host: str) -> list[str]:
        return [
            vpmem.devpath
            for vpmem in self.computes[host].manager.driver._vpmems_by_name.values()
        ]

    def test_a_missing_device_is_seen_before_the_guest_is_off(self) -> None:
        server, source = self.booted()
        for path in self.paths("compute2"):
            del self.devices.content[path]
        self.migrate(server, "ACTIVE")
        self.assertIn(
            "is not there", self.event(server, "compute_resize_instance")["details"]
        )
        self.assert_back(server, source)

    def test_what_cannot_be_zeroed_is_zeroed_before_the_next_server(self) -> None:
        server, source = self.booted()
        targets = self.paths("compute2")

        def before(what: str, *paths: str) -> None:
            if what == "copy":  # half of it arrives, then the host is gone
                self.devices.content[paths[1]][:] = b"leaked" * (SIZE // 6)
                self.break_("zero", *targets)
                raise privileged.DaxioError("copy failed")

        self.devices.before = before
        self.migrate(server, "ACTIVE")
        self.assertEqual(1, len(self.tracked()))
        (leaked,) = set(self.dirty()) - {source}
        # The next server gets the device, and does not find the data in it.
        self.computes["compute2"].manager.update_available_resource(
            nova_context.get_admin_context()
        )
        self.heal()
        for _ in range(2):
            self.boot(flavor_id=self.small, host="compute2")
        self.assertFalse(any(self.devices.content[leaked]))
        self.assertEqual([], self.tracked())

    def test_a_next_server_is_refused_a_device_that_cannot_be_zeroed(self) -> None:
        self.flags(max_attempts=1, group="scheduler")
        memory = self.computes["compute2"].manager.driver.pmem_host
        memory.expect_copy(["compute2_1", "compute2_2"])
        self.break_("zero cleanup")
        server = self._create_server(
            flavor_id=self.small,
            host="compute2",
            networks="none",
            expected_state="ERROR",
        )
        self.assertIn(
            "zero failed",
            self.admin_api.get_server(server["id"])["fault"].get("details", "")
            + self.admin_api.get_server(server["id"])["fault"]["message"],
        )
        self.assertEqual(2, len(self.tracked()))

    def test_a_failure_after_the_copy_starts_the_guest_on_the_source(self) -> None:
        server, source = self.booted()
        self.rename.side_effect = OSError("no space")
        self.migrate(server, "ACTIVE")
        self.assertEqual(power_state.RUNNING, self.power(server))
        self.assertEqual("Success", self.event(server, "compute_copy_pmem")["result"])
        event = self.event(server, "compute_resize_instance")
        self.assertEqual("Error", event["result"])
        self.assertEqual("OSError", event["details"])
        self.assert_back(server, source)

    def test_a_failed_finish_brings_the_server_back(self) -> None:
        server, source = self.booted()
        driver = self.computes["compute2"].manager.driver
        with mock.patch.object(
            driver, "_create_guest_with_network", side_effect=ValueError("no guest")
        ):
            self.migrate(server, "ACTIVE")
        event = self.event(server, "compute_finish_resize")
        self.assertEqual("Error", event["result"])
        self.assertEqual("ValueError", event["details"])
        self.assertEqual(power_state.RUNNING, self.power(server))
        self.assertEqual("reverted", self.migration(server).status)
        self.assert_back(server, source)
        self.migrate(server)

    def test_a_failed_finish_of_a_resize_gives_the_old_flavor_back(self) -> None:
        server, source = self.booted()
        driver = self.computes["compute2"].manager.driver
        with mock.patch.object(
            driver, "_create_guest_with_network", side_effect=ValueError("no guest")
        ):
            self.accepted(
                server, "resize", {"flavorRef": self.both, "copy_pmem_devices": True}
            )
            self.until(server, "ACTIVE")
        self.assertEqual("pmem SMALL", self.instance(server).flavor.name)
        self.assert_back(server, source)

    def lost(self) -> tuple[str, str]:
        """A server whose finish_resize and revert failed; and its data's device."""
        server, source = self.booted()
        manager = self.computes["compute2"].manager
        with (
            mock.patch.object(
                manager.driver, "_create_guest_with_network", side_effect=ValueError
            ),
            mock.patch.object(manager.driver, "destroy", side_effect=ValueError),
        ):
            self.migrate(server, "ERROR")
            self.event(server, "compute_revert_resize")
        self.tidy("compute1")
        return server, source

    def audit(self, server: str) -> None:
        """What ``nova-manage placement audit --delete`` does after such a failure."""
        consumer = self.migration(server).uuid
        response = self.placement.delete(f"/allocations/{consumer}", version="1.28")
        self.assertEqual(204, response.status)

    def test_a_failed_finish_and_revert_keep_the_data_for_the_server(self) -> None:
        self.boot(flavor_id=self.small, host="compute1")
        server, source = self.lost()
        self.audit(server)  # nova believes now that the device is free
        self.flags(max_attempts=1, group="scheduler")
        refused = self._create_server(
            flavor_id=self.small,
            host="compute1",
            networks="none",
            expected_state="ERROR",
        )
        fault = self.admin_api.get_server(refused["id"])["fault"]
        self.assertIn(
            f"still holds the data of server {server}",
            fault["message"] + fault.get("details", ""),
        )
        self._delete_server(refused)
        self.tidy("compute1")
        self.assertEqual(b"tenant" * (SIZE // 6), self.devices.content[source])

    def test_the_data_of_a_lost_server_is_zeroed_once_it_is_deleted(self) -> None:
        server, source = self.lost()
        self.assertEqual(b"tenant" * (SIZE // 6), self.devices.content[source])
        self.audit(server)
        self._delete_server({"id": server, "status": "ERROR"})
        self.tidy("compute1")
        self.assertEqual([], self.dirty())
        self.assertEqual([], self.tracked())
        for _ in range(2):
            self.boot(flavor_id=self.small, host="compute1")

    def test_without_a_copy_a_failed_finish_is_as_in_nova(self) -> None:
        server, _source = self.booted()
        driver = self.computes["compute2"].manager.driver
        with mock.patch.object(
            driver, "_create_guest_with_network", side_effect=ValueError("no guest")
        ):
            self.accepted(server, "migrate")
            self.until(server, "ERROR")
        self.assertEqual("compute2", self.instance(server).host)

    def test_a_data_that_vanished_is_not_taken_for_the_server(self) -> None:
        server, source = self.booted()
        manager = self.computes["compute2"].manager
        finish = manager.finish_resize

        def lose(*args: Any, **kwargs: Any) -> Any:
            for name in manager.driver.pmem_host.pending_sanitize():
                manager.driver.pmem_host.sanitize([name])
            return finish(*args, **kwargs)

        with mock.patch.object(manager, "finish_resize", lose):
            self.migrate(server, "ACTIVE")
        self.assertIn(
            "does not hold", self.event(server, "compute_finish_resize")["details"]
        )
        self.assert_back(server, source)

    def test_a_reschedule_copies_to_the_host_that_takes_the_server(self) -> None:
        self.host_three()
        server, source = self.booted()
        refusing: list[str] = []

        def refuse(manager: Any, *args: Any, **kwargs: Any) -> Any:
            if not refusing:
                refusing.append(manager.host)
                raise exception.ComputeResourcesUnavailable(reason="not here")
            return original(manager, *args, **kwargs)

        original = type(self.computes["compute2"].manager)._prep_resize
        with mock.patch.object(
            type(self.computes["compute2"].manager), "_prep_resize", refuse
        ):
            shown = self.migrate(server)
        self.assertNotEqual(refusing[0], shown["OS-EXT-SRV-ATTR:host"])
        (target,) = self.used(server)
        self.assertEqual(sorted([source, target]), self.dirty())

    def host_three(self) -> None:
        with mock.patch.dict(SPACES, {"compute3": SPACES["compute2"]}):
            self.host("compute3", 2)


class RestartTest(CopyPmemTest):
    """nova-compute ends in the middle, as by SIGKILL, and is started again."""

    def die(
        self, owner: Any, name: str, before: Callable[[], None] = lambda: None
    ) -> Any:
        """Let nova-compute die when it calls a method, after ``before``."""

        def method(*args: Any, **kwargs: Any) -> Any:
            before()
            self.died.set()
            raise SystemExit  # which nothing in nova catches

        self.died = threading.Event()
        return mock.patch.object(owner, name, method)

    def order(self, server: str, task_state: str) -> None:
        """Order a migration with a copy, and wait until the server has this task."""
        self.accepted(server, "migrate", {"copy_pmem_devices": True})
        self._wait_for_server_parameter(
            {"id": server}, {"OS-EXT-STS:task_state": task_state}
        )

    def restart(self, host: str) -> None:
        number = list(SPACES).index(host)
        self.computes[host].stop()
        with self.namespaces(self.spaces(host, number)):
            self.restart_compute_service(host)

    def half(self, source: str) -> None:
        """Half of the data arrives."""
        memory = self.computes["compute2"].manager.driver.pmem_host
        (target,) = [memory._find(name).path for name in memory.pending_sanitize()]
        self.devices.content[target][: SIZE // 2] = self.devices.content[source][
            : SIZE // 2
        ]

    def test_the_source_ends_in_the_middle_of_a_copy(self) -> None:
        server, source = self.booted()
        manager = self.computes["compute1"].manager.pmem_manager
        with self.die(manager, "_run", lambda: self.half(source)):
            self.order(server, task_states.RESIZE_MIGRATING)
            self.assertTrue(self.died.wait(30))
        self.assertEqual(2, len(self.dirty()))
        self.assertIs(PmemCopyStatus.COPYING, self.row(server).status)
        self.restart("compute1")
        self.until(server, "ACTIVE")
        self.assertEqual(power_state.RUNNING, self.power(server))
        self.assertEqual("error", self.migration(server).status)
        self.assertIn("ended", self.event(server, "compute_copy_pmem")["details"])
        self.assert_back(server, source)
        self.migrate(server)

    def test_the_source_ends_after_the_copy(self) -> None:
        server, source = self.booted()
        with self.die(os, "rename"):
            self.order(server, task_states.RESIZE_MIGRATING)
            self.assertTrue(self.died.wait(30))
        self.assertEqual(2, len(self.dirty()))
        self.restart("compute1")
        self.until(server, "ACTIVE")
        self.assert_back(server, source)

    def test_a_copy_that_cannot_be_aborted_yet_is_aborted_later(self) -> None:
        server, source = self.booted()
        with self.die(os, "rename"):
            self.order(server, task_states.RESIZE_MIGRATING)
            self.assertTrue(self.died.wait(30))
        report = "nova.scheduler.client.report.SchedulerReportClient"
        with mock.patch(f"{report}.move_allocations", return_value=None) as down:
            self.restart("compute1")
            self.until(server, "ACTIVE")
            self.computes["compute1"].manager._reconcile(
                nova_context.get_admin_context()
            )
            self.assertGreater(down.call_count, 1)
        self.assertIsNotNone(self.row(server))
        self.restart("compute1")  # what is left to do is not lost with the process
        self.tidy("compute1")
        self.assertEqual("error", self.migration(server).status)
        self.assert_back(server, source)
        self.migrate(server)

    def test_the_source_ends_before_the_guest_is_off(self) -> None:
        server, source = self.booted()
        manager = self.computes["compute1"].manager
        with self.die(manager.driver, "power_off"):
            self.order(server, task_states.RESIZE_MIGRATING)
            self.assertTrue(self.died.wait(30))
        self.assertEqual(1, len(self.tracked()))
        self.restart("compute1")
        self.until(server, "ACTIVE")
        self.assertEqual(power_state.RUNNING, self.power(server))
        self.assert_back(server, source)

    def test_the_destination_ends_while_it_finishes(self) -> None:
        server, source = self.booted()
        driver = self.computes["compute2"].manager.driver
        with self.die(driver, "_create_guest_with_network"):
            self.order(server, task_states.RESIZE_FINISH)
            self.assertTrue(self.died.wait(30))
        self.assertEqual(2, len(self.dirty()))
        self.restart("compute2")
        manager = self.computes["compute2"].manager
        manager._reconcile(nova_context.get_admin_context())
        self.until(server, "ACTIVE")
        self.assertEqual(power_state.RUNNING, self.power(server))
        self.assertEqual("reverted", self.migration(server).status)
        self.assert_back(server, source)

    def test_the_message_to_finish_comes_too_late(self) -> None:
        server, source = self.booted()
        rpcapi = "nova.compute.rpcapi.ComputeAPI.finish_resize"
        with mock.patch(rpcapi) as cast:
            self.order(server, task_states.RESIZE_MIGRATED)
        _context, instance, migration, image, disk_info, _host, spec = cast.call_args[0]
        manager = self.computes["compute2"].manager
        context = nova_context.get_admin_context()
        manager._reconcile(context)
        self.assertEqual(
            task_states.RESIZE_MIGRATED, self.instance(server).task_state, "too soon"
        )
        with mock.patch("time.monotonic", return_value=time.monotonic() + 3600):
            manager._reconcile(context)
        self.until(server, "ACTIVE")
        self.assert_back(server, source)
        manager.finish_resize(context, disk_info, image, instance, migration, spec)
        self.until(server, "ACTIVE")
        self.assertEqual(power_state.RUNNING, self.power(server))
        self.assert_back(server, source)

    def test_the_bus_is_gone_when_the_copy_has_ended(self) -> None:
        server, source = self.booted()
        save = objects.Instance.save
        gone: list[bool] = []

        def lost(instance: Any, *args: Any, **kwargs: Any) -> None:
            if gone or self.devices.content[source] in self.others(source):
                gone.append(True)
                raise messaging.MessagingTimeout
            save(instance, *args, **kwargs)

        store = PmemCopy.save

        def lost_row(row: Any, change_id: str) -> None:
            if gone or self.devices.content[source] in self.others(source):
                gone.append(True)
                raise messaging.MessagingTimeout
            store(row, change_id)

        with (
            mock.patch.object(objects.Instance, "save", lost),
            mock.patch.object(PmemCopy, "save", lost_row),
        ):
            self.order(server, task_states.RESIZE_MIGRATING)
            self._wait_for_assert(
                lambda: self.assertEqual("error", self.migration(server).status)
            )
        manager = self.computes["compute1"].manager

        def brought_back() -> None:
            # Not before the move has ended here, which is after its last record.
            manager._reconcile(nova_context.get_admin_context())
            self.assertEqual("ACTIVE", self.api.get_server(server)["status"])

        self._wait_for_assert(brought_back)
        self.until(server, "ACTIVE")
        self.assertEqual(power_state.RUNNING, self.power(server))
        self.assert_back(server, source)

    def others(self, source: str) -> list[bytearray]:
        return [data for path, data in self.devices.content.items() if path != source]


class KeepTest(CopyPmemTest):
    """What nova by itself does to the data of a server."""

    def test_stop_and_start_keep_the_data(self) -> None:
        server, path = self.booted()
        self._stop_server({"id": server})
        self.assertEqual([path], self.dirty())
        self._start_server({"id": server})
        self.assertEqual([path], self.dirty())

    def test_a_hard_reboot_keeps_the_data(self) -> None:
        server, path = self.booted()
        self.accepted(server, "reboot", {"type": "HARD"})
        self.until(server, "ACTIVE")
        self.assertEqual([path], self.dirty())

    def test_the_start_of_the_host_keeps_the_data(self) -> None:
        server, path = self.booted()
        driver = self.computes["compute1"].manager.driver
        instance = self.instance(server)
        driver._host.get_guest(instance).poweroff()
        driver.resume_state_on_host_boot(
            nova_context.get_admin_context(), instance, instance.get_network_info(), []
        )
        self.assertEqual(power_state.RUNNING, self.power(server))
        self.assertEqual([path], self.dirty())

    def test_delete_zeroes_the_data(self) -> None:
        server, _path = self.booted()
        self._delete_server({"id": server})
        self.assertEqual([], self.dirty())

    def test_confirm_that_cannot_zero_the_source_does_so_later(self) -> None:
        server, source = self.booted()
        self.accepted(server, "migrate")
        self.until(server, "VERIFY_RESIZE")
        self.break_("cleanup", source)
        self.accepted_as(204, server, "confirmResize")
        self.until(server, "ERROR")
        self._wait_for_assert(
            lambda: self.assertEqual("error", self.migration(server).status)
        )
        self.assertEqual(1, len(self.tracked()))
        self.heal()
        self.tidy("compute1")
        self.assertEqual([], self.dirty())
        self.assertEqual([], self.tracked())
