# SPDX-License-Identifier: Apache-2.0
"""What nova's libvirt driver knows, put together with what is done to devices."""

import json
import pathlib
import types
from collections.abc import Iterator
from typing import Any

import nova.conf
import pytest

from nova_ext import conf
from nova_ext.privsep import pmem as privileged
from nova_ext.virt import pmem as contract
from nova_ext.virt.libvirt.pmem import host as pmem_host
from tests.unit import pmem_hosts
from tests.unit.pmem_hosts import MIB, content

CONF = nova.conf.CONF
UUID = "0d4b1e9c-9f2f-4d2a-8b0c-6b0a3a4f7c11"
SERVER: Any = types.SimpleNamespace(uuid=UUID)
HERE, THERE = "192.0.2.1", "192.0.2.2"
SIZE = 3 * MIB


class Driver:
    """The part of nova's libvirt driver that knows devices."""

    def __init__(self, memory: pmem_hosts.Memory) -> None:
        self._vpmems_by_name = {
            name: types.SimpleNamespace(
                name=name, label="L", devpath=made.path, size=SIZE, align=made.align
            )
            for name, made in (
                ("ns_0", memory.device("dax0.0", b"s" * SIZE)),
                ("ns_1", memory.device("dax0.1", b"t" * SIZE)),
            )
        }
        self.asked: list[Any] = []

    def get_host_ip_addr(self) -> str:
        return HERE

    def _get_vpmems(self, instance: Any, prefix: str | None = None) -> list[Any]:
        self.asked.append((instance, prefix))
        return [self._vpmems_by_name["ns_0"]]


@pytest.fixture
def driver(memory: pmem_hosts.Memory) -> Driver:
    return Driver(memory)


@pytest.fixture
def host(driver: Driver, tmp_path: pathlib.Path) -> Iterator[pmem_host.LibvirtPmemHost]:
    conf.register_opts(CONF)
    CONF.set_override("state_path", str(tmp_path / "state"))
    CONF.set_override("host", "compute1")
    CONF.set_override("pmem_copy_timeout", 20, "nova_ext")
    yield pmem_host.LibvirtPmemHost(driver)
    for option in ("pmem_copy_timeout", *OPTIONS):
        CONF.clear_override(option, "nova_ext")
    CONF.clear_override("state_path")
    CONF.clear_override("host")


OPTIONS = {
    "pmem_ssh_user": "copier",
    "pmem_ssh_identity_file": "/etc/nova/key",
    "pmem_ssh_options": ["Port=2222", "ServerAliveInterval=9"],
    "pmem_ssh_ciphers": ["a", "b"],
    "pmem_remote_command_prefix": ["env", "--"],
}


def target(driver: Driver) -> contract.Device:
    return pmem_host._device(driver._vpmems_by_name["ns_1"])


def test_devices_of_a_server(host: pmem_host.LibvirtPmemHost, driver: Driver) -> None:
    path = driver._vpmems_by_name["ns_0"].devpath
    expected = [contract.Device("ns_0", "L", path, SIZE, 2 * MIB)]
    assert host.devices(SERVER) == expected
    assert host.devices(SERVER, prefix="new") == expected
    assert driver.asked == [(SERVER, None), (SERVER, "new")]


def test_devices_are_what_the_kernel_has(
    host: pmem_host.LibvirtPmemHost, memory: pmem_hosts.Memory
) -> None:
    memory.kernel_says("dax0.0", "dev", "252:0")
    with pytest.raises(contract.CopyError, match="252:0"):
        host.devices(SERVER)


def test_namespace_that_left_the_configuration(
    host: pmem_host.LibvirtPmemHost, driver: Driver
) -> None:
    del driver._vpmems_by_name["ns_0"]
    with pytest.raises(contract.CopyError, match=r"'ns_0' is not in \[libvirt\]"):
        host.devices(SERVER)


def test_copy_on_this_host_needs_no_ssh(
    host: pmem_host.LibvirtPmemHost, driver: Driver, memory: pmem_hosts.Memory
) -> None:
    (memory.here / "ssh").unlink()
    host.copy([target(driver)], SERVER, HERE, lambda done: None).run()
    assert content(target(driver)) == b"s" * SIZE


def test_copy_to_another_host(
    host: pmem_host.LibvirtPmemHost, driver: Driver, memory: pmem_hosts.Memory
) -> None:
    host.copy([target(driver)], SERVER, THERE, lambda done: None).run()
    assert content(target(driver)) == b"s" * SIZE
    _pid, mark, words = json.loads(memory.calls()[0])
    assert mark == UUID
    assert words[-2] == THERE
    assert words[:4] == ["-T", "-x", "-c", ",".join(CONF.nova_ext.pmem_ssh_ciphers)]
    assert words[4:-2] == [
        *["-o", "BatchMode=yes", "-o", "Compression=no", "-o", "ConnectTimeout=10"],
        *["-o", "ControlPath=none", "-o", "ServerAliveCountMax=3"],
        *["-o", "ServerAliveInterval=5"],
    ]


def test_options_of_ssh(
    host: pmem_host.LibvirtPmemHost, driver: Driver, memory: pmem_hosts.Memory
) -> None:
    for option, value in OPTIONS.items():
        CONF.set_override(option, value, "nova_ext")
    host.copy([target(driver)], SERVER, THERE, lambda done: None).run()
    _pid, _mark, words = json.loads(memory.calls()[0])
    assert words[:8] == ["-T", "-x", "-c", "a,b", "-l", "copier", "-i", "/etc/nova/key"]
    # Of an option that comes twice, ssh takes the first.
    assert words[8:12] == ["-o", "Port=2222", "-o", "ServerAliveInterval=9"]
    assert words[-1].startswith("env -- daxio -o ")


def test_copy_that_does_not_fit(
    host: pmem_host.LibvirtPmemHost, driver: Driver
) -> None:
    with pytest.raises(contract.CopyError, match="no device for label L"):
        host.copy([], SERVER, THERE, lambda done: None)


def test_digest(host: pmem_host.LibvirtPmemHost, driver: Driver) -> None:
    path = driver._vpmems_by_name["ns_1"].devpath
    assert host.digest("ns_1", 5, 7) == privileged.digest(path, 5, 7, 20)
    with pytest.raises(contract.CopyError, match="no namespace ns_2"):
        host.digest("ns_2", 0, 1)
    with pytest.raises(contract.CopyError, match="ends at"):
        host.digest("ns_1", SIZE, 1)


def test_each_host_of_a_shared_state_path_has_its_own_tracker(
    host: pmem_host.LibvirtPmemHost, driver: Driver, tmp_path: pathlib.Path
) -> None:
    host.expect_copy(["ns_1"], "owner")
    CONF.set_override("host", "compute2")
    assert pmem_host.LibvirtPmemHost(driver).pending_sanitize() == []
    CONF.set_override("host", "compute1")
    again = pmem_host.LibvirtPmemHost(driver)
    assert again.pending_sanitize() == ["ns_1"]
    again.sanitize(["ns_1"], "owner")
    assert content(target(driver)) == bytes(SIZE)
    assert host.pending_sanitize() == []


def test_namespace_that_this_host_has_no_more_is_remembered(
    host: pmem_host.LibvirtPmemHost,
) -> None:
    host.expect_copy(["gone"])
    with pytest.raises(contract.CopyError, match="gone"):
        host.sanitize(["gone"])
    assert host.pending_sanitize() == ["gone"]
    host.forget(["gone"])
    assert host.pending_sanitize() == []
