# SPDX-License-Identifier: Apache-2.0
"""The driver between nova's own and the persistent memory; nova's does nothing here."""

import contextlib
import os
import pathlib
import types
from collections.abc import Iterator
from typing import Any

import nova.conf
import nova.privsep.libvirt
import oslo_messaging as messaging
import pytest
from nova import exception, objects
from nova.compute import power_state
from nova.virt.libvirt import driver as nova_driver

from nova_ext import conf
from nova_ext.virt import pmem as contract
from nova_ext.virt.libvirt import driver
from nova_ext.virt.libvirt.pmem import host as pmem_host
from tests.unit import pmem_hosts
from tests.unit.pmem_hosts import MIB, content

CONF = nova.conf.CONF
UUID = "0d4b1e9c-9f2f-4d2a-8b0c-6b0a3a4f7c11"
BUS_DOWN = messaging.MessagingTimeout("the bus is down")
FAILED = contract.CopyError("ssh ended with 255")
SIZE = 2 * MIB

objects.register_all()


class Steps(list[Any]):
    """What happened, in order; ``fails`` maps a step to what it raises."""

    def __init__(self) -> None:
        super().__init__()
        self.fails: dict[Any, Exception] = {}

    def __call__(self, step: Any) -> None:
        self.append(step)
        if step in self.fails:
            raise self.fails[step]


class Copies:
    """The PmemManager.

    :ivar recorded: whether the database has a row of the copy
    """

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self.is_ordered = True
        self.recorded = True

    def ordered(self, context: Any, instance: Any) -> bool:
        return self.is_ordered

    @contextlib.contextmanager
    def prepared_copy(self, context: Any, instance: Any, address: str) -> Iterator[str]:
        try:
            self._steps(f"prepare {address}")
            yield "the move"
        except Exception:
            self._steps("discard")
            raise

    def copy(self, move: str) -> None:
        assert move == "the move"
        self._steps("copy")

    def stop(self, uuid: str, reason: str) -> None:
        self._steps(f"stop {uuid}")

    def adopt_devices(self, instance: Any, migration: Any, names: list[str]) -> None:
        self._steps(f"adopt {' '.join(names)}")

    def unfinished(self, instance: Any) -> bool:
        return self.recorded

    def forget(self, instance: Any, migration: Any) -> None:
        assert migration == "migration"
        self.recorded = False


class Instance(types.SimpleNamespace):
    def __init__(self, steps: Steps) -> None:
        super().__init__(
            uuid=UUID,
            task_state="resize_migrating",
            system_metadata={"old_vm_state": "active"},
            flavor="flavor",
            old_flavor="old flavor",
            resources=objects.ResourceList(objects=[resource("ns_0"), resource(None)]),
            migration_context=objects.MigrationContext(
                old_resources=objects.ResourceList(objects=[resource("ns_0")]),
                new_resources=objects.ResourceList(objects=[resource("ns_1")]),
            ),
            found={},
            steps=steps,
        )

    def refresh(self) -> None:
        self.steps("refresh")
        vars(self).update(self.found)


def resource(name: str | None) -> Any:
    """A device of persistent memory, or with None something else."""
    made = objects.Resource(
        provider_uuid=UUID, resource_class="CUSTOM_X", identifier=name or "gpu"
    )
    if name:
        made.metadata = objects.LibvirtVPMEMDevice(
            label="L", name=name, size=SIZE, devpath="/dev/dax0.0", align=2 * MIB
        )
    return made


@pytest.fixture
def steps() -> Steps:
    return Steps()


@pytest.fixture
def copies(steps: Steps) -> Copies:
    return Copies(steps)


@pytest.fixture
def instance(steps: Steps) -> Instance:
    return Instance(steps)


@pytest.fixture
def libvirt(
    steps: Steps,
    copies: Copies,
    memory: pmem_hosts.Memory,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[driver.LibvirtDriver]:
    """The driver, with nova's methods that only say that they were called."""
    conf.register_opts(CONF)
    CONF.set_override("state_path", str(tmp_path / "state"))

    def stub(name: str) -> None:
        monkeypatch.setattr(
            nova_driver.LibvirtDriver,
            name,
            lambda self, *args, **kwargs: steps(f"nova {name}"),
        )

    for name in ("power_off", "finish_migration", "confirm_migration", "spawn"):
        stub(name)
    stub("pre_live_migration")

    def migrate(
        self: Any, context: Any, instance: Any, dest: str, *args: Any, **kwargs: Any
    ) -> str:
        steps("check")
        self.power_off(instance, kwargs["timeout"], kwargs["retry_interval"])
        steps("disks")
        return "disk info"

    def power_on(
        self: Any, context: Any, instance: Any, *args: Any, share_info: Any
    ) -> None:
        self._hard_reboot(context, instance, *args)
        steps(("power_on", share_info))

    def hard_reboot(self: Any, context: Any, instance: Any, *args: Any) -> None:
        self.destroy(context, instance, "network", destroy_disks=False)
        steps("nova _hard_reboot")

    def destroy(
        self: Any, context: Any, instance: Any, *args: Any, **kwargs: Any
    ) -> None:
        self._cleanup_vpmems(self._get_vpmems(instance))
        steps("nova destroy")

    def revert(
        self: Any, context: Any, instance: Any, *args: Any, **kwargs: Any
    ) -> None:
        steps(("nova revert", instance.old_flavor))

    def get_info(self: Any, instance: Any) -> Any:
        off = "nova power_off" in steps and "nova power_off" not in steps.fails
        state = power_state.SHUTDOWN if off else power_state.RUNNING
        return types.SimpleNamespace(state=state)

    monkeypatch.setattr(nova_driver.LibvirtDriver, "get_info", get_info)
    monkeypatch.setattr(
        nova_driver.LibvirtDriver, "migrate_disk_and_power_off", migrate
    )
    monkeypatch.setattr(nova_driver.LibvirtDriver, "power_on", power_on)
    monkeypatch.setattr(nova_driver.LibvirtDriver, "_hard_reboot", hard_reboot)
    monkeypatch.setattr(nova_driver.LibvirtDriver, "destroy", destroy)
    monkeypatch.setattr(nova_driver.LibvirtDriver, "finish_revert_migration", revert)

    def zero(path: str) -> None:
        # The host remembers the device while it is zeroed.
        node = os.path.basename(path)
        assert f"ns_{node[-1]}" in made.pmem_host.pending_sanitize()
        steps(f"zero {node}")
        pathlib.Path(path).write_bytes(bytes(SIZE))

    monkeypatch.setattr(nova.privsep.libvirt, "cleanup_vpmem", zero)
    monkeypatch.setattr(
        objects,
        "ShareMappingList",
        types.SimpleNamespace(get_by_instance_uuid=lambda context, uuid: "shares"),
    )
    made = driver.LibvirtDriver.__new__(driver.LibvirtDriver)
    made.pmem_copies = copies
    made._vpmems_by_name = {
        f"ns_{i}": objects.LibvirtVPMEMDevice(
            label="L",
            name=f"ns_{i}",
            size=SIZE,
            devpath=memory.device(f"dax0.{i}", b"x" * SIZE).path,
            align=2 * MIB,
        )
        for i in range(2)
    }
    made.pmem_host = pmem_host.LibvirtPmemHost(made)
    yield made
    CONF.clear_override("state_path")


def data(libvirt: driver.LibvirtDriver, name: str) -> bytes:
    return content(pmem_host._device(libvirt._vpmems_by_name[name]))


def migrate(libvirt: driver.LibvirtDriver, instance: Instance) -> str:
    return libvirt.migrate_disk_and_power_off(
        "context", instance, "192.0.2.2", "flavor", "network", "bdms", 60, 10
    )


# The source host


def test_copy_is_made_when_the_guest_is_off_and_nothing_else_is_touched(
    libvirt: driver.LibvirtDriver, instance: Instance, steps: Steps
) -> None:
    assert migrate(libvirt, instance) == "disk info"
    assert steps == [
        "prepare 192.0.2.2",
        "check",
        "nova power_off",
        "copy",
        "disks",
    ]


@pytest.mark.parametrize("without", ["order", "manager"])
def test_migration_without_a_copy_is_novas_own(
    libvirt: driver.LibvirtDriver,
    instance: Instance,
    steps: Steps,
    copies: Copies,
    without: str,
) -> None:
    if without == "order":
        copies.is_ordered = False
    else:
        libvirt.pmem_copies = None
    steps.fails["disks"] = OSError("no space")
    with pytest.raises(OSError, match="no space"):
        migrate(libvirt, instance)
    assert steps == ["check", "nova power_off", "disks"]


def test_power_off_afterwards_copies_nothing(
    libvirt: driver.LibvirtDriver, instance: Instance, steps: Steps
) -> None:
    migrate(libvirt, instance)
    steps.clear()
    libvirt.power_off(instance)
    assert steps == ["nova power_off"]


def rolled_back(libvirt: driver.LibvirtDriver, instance: Instance) -> Exception:
    with pytest.raises(exception.InstanceFaultRollback) as caught:
        migrate(libvirt, instance)
    inner: Exception = caught.value.inner_exception
    assert inner is caught.value.__cause__
    return inner


@pytest.mark.parametrize("step", ["copy", "disks"])
@pytest.mark.parametrize("was", ["active", "stopped", None])
def test_failure_starts_the_guest_again_if_it_was_on(
    libvirt: driver.LibvirtDriver,
    instance: Instance,
    steps: Steps,
    step: str,
    was: str | None,
) -> None:
    instance.system_metadata["old_vm_state"] = was
    steps.fails[step] = FAILED
    assert rolled_back(libvirt, instance) is FAILED
    # The destination is told first, so that it need not wait for the guest.
    assert steps[steps.index(step) :][:3] == [step, "discard", "refresh"]
    if was == "stopped":
        assert steps[-1] == "refresh"
    else:
        assert steps[-1] == ("power_on", "shares")
        assert "stop" not in str(steps)
    # nova starts a guest with a hard reboot, which destroys it first.
    assert data(libvirt, "ns_0") == b"x" * SIZE


def test_failure_before_the_guest_is_off_leaves_it_alone(
    libvirt: driver.LibvirtDriver, instance: Instance, steps: Steps
) -> None:
    for step in ("prepare 192.0.2.2", "check", "nova power_off"):
        steps.clear()
        steps.fails = {step: FAILED}
        assert rolled_back(libvirt, instance) is FAILED
        assert steps[-2:] == [step, "discard"]


def test_guest_is_started_though_its_power_off_is_told_as_failed(
    libvirt: driver.LibvirtDriver,
    instance: Instance,
    steps: Steps,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps.fails["nova power_off"] = FAILED
    shut = types.SimpleNamespace(state=power_state.SHUTDOWN)
    monkeypatch.setattr(libvirt, "get_info", lambda instance: shut)
    assert rolled_back(libvirt, instance) is FAILED
    assert steps[-1] == ("power_on", "shares")


def test_refusal_of_nova_is_passed_on(
    libvirt: driver.LibvirtDriver, instance: Instance, steps: Steps
) -> None:
    refusal = exception.InstanceFaultRollback(exception.ResizeError(reason="down"))
    steps.fails["check"] = refusal
    with pytest.raises(exception.InstanceFaultRollback) as caught:
        migrate(libvirt, instance)
    assert caught.value is refusal
    assert steps[-1] == "discard"


@pytest.mark.parametrize("how", ["deleting", "gone"])
def test_guest_that_is_deleted_meanwhile_is_not_started(
    libvirt: driver.LibvirtDriver, instance: Instance, steps: Steps, how: str
) -> None:
    steps.fails["copy"] = FAILED
    if how == "deleting":
        instance.found = {"task_state": "deleting"}
    else:
        steps.fails["refresh"] = exception.InstanceNotFound(instance_id=UUID)
    with pytest.raises(exception.InstanceNotFound):
        migrate(libvirt, instance)
    assert steps[-1] == "refresh"


def test_guest_is_started_though_the_bus_is_down(
    libvirt: driver.LibvirtDriver, instance: Instance, steps: Steps
) -> None:
    steps.fails.update({"copy": FAILED, "refresh": BUS_DOWN})
    assert rolled_back(libvirt, instance) is FAILED
    assert steps[-1] == ("power_on", None)


def test_guest_that_does_not_start_is_an_error(
    libvirt: driver.LibvirtDriver, instance: Instance, steps: Steps
) -> None:
    broken = exception.InternalError("no power")
    steps.fails.update({"copy": FAILED, ("power_on", "shares"): broken})
    with pytest.raises(exception.InternalError):
        migrate(libvirt, instance)


# What is zeroed, and what is not


def test_hard_reboot_keeps_data_and_copy(
    libvirt: driver.LibvirtDriver, instance: Instance, steps: Steps
) -> None:
    libvirt._hard_reboot("context", instance)
    assert steps == ["nova destroy", "nova _hard_reboot"]
    assert data(libvirt, "ns_0") == b"x" * SIZE
    assert libvirt.pmem_host.pending_sanitize() == []


def test_destroy_zeroes_and_ends_the_copy(
    libvirt: driver.LibvirtDriver, instance: Instance, steps: Steps
) -> None:
    libvirt.destroy("context", instance, "network")
    assert steps == [f"stop {UUID}", "zero dax0.0", "nova destroy"]
    assert data(libvirt, "ns_0") == bytes(SIZE)
    assert data(libvirt, "ns_1") == b"x" * SIZE
    assert libvirt.pmem_host.pending_sanitize() == []


def test_what_is_reserved_for_another_server_is_not_zeroed(
    libvirt: driver.LibvirtDriver,
    instance: Instance,
    steps: Steps,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A guest that was refused a device is cleaned up by nova like any other."""

    def clean(self: Any, context: Any, instance: Any, network: Any) -> None:
        self._cleanup_vpmems(self._get_vpmems(instance))

    monkeypatch.setattr(nova_driver.LibvirtDriver, "_cleanup", clean)
    monkeypatch.setattr(nova_driver.LibvirtDriver, "_cleanup_resize", clean)
    memory = libvirt.pmem_host
    for clean_up in (libvirt._cleanup, libvirt._cleanup_resize):
        memory.reserve(["ns_0"], "another")
        clean_up("context", instance, "network")
        assert steps == []
        assert memory.reserved() == {"ns_0": "another"}
        assert data(libvirt, "ns_0") == b"x" * SIZE
    memory.reserve(["ns_0"], UUID)
    libvirt._cleanup_resize("context", instance, "network")
    assert steps == ["zero dax0.0"]
    assert memory.reserved() == {}
    assert memory.pending_sanitize() == []


def test_destroy_after_a_hard_reboot_that_failed_zeroes(
    libvirt: driver.LibvirtDriver, instance: Instance, steps: Steps
) -> None:
    steps.fails["nova _hard_reboot"] = exception.InternalError("no power")
    with pytest.raises(exception.InternalError):
        libvirt._hard_reboot("context", instance)
    libvirt.destroy("context", instance, "network")
    assert data(libvirt, "ns_0") == bytes(SIZE)


def test_device_that_cannot_be_zeroed_is_remembered(
    libvirt: driver.LibvirtDriver, instance: Instance, steps: Steps
) -> None:
    steps.fails["zero dax0.0"] = OSError("daxio is broken")
    with pytest.raises(exception.VPMEMCleanupFailed):
        libvirt.destroy("context", instance, "network")
    assert libvirt.pmem_host.pending_sanitize() == ["ns_0"]
    # A later nova-compute knows it too.
    assert pmem_host.LibvirtPmemHost(libvirt).pending_sanitize() == ["ns_0"]


def test_one_device_that_cannot_be_zeroed_keeps_both_entries(
    libvirt: driver.LibvirtDriver, steps: Steps
) -> None:
    steps.fails["zero dax0.0"] = OSError("daxio is broken")
    with pytest.raises(exception.VPMEMCleanupFailed):
        libvirt._cleanup_vpmems(libvirt._vpmems_by_name.values())
    assert libvirt.pmem_host.pending_sanitize() == ["ns_0", "ns_1"]


@pytest.mark.parametrize(
    ("prefix", "names"),
    [
        (None, ["ns_0"]),
        ("old", ["ns_0"]),
        ("old_", ["ns_0"]),
        ("new", ["ns_1"]),
        ("new_", ["ns_1"]),
    ],
)
def test_devices_of_a_migration_are_found_with_any_prefix(
    libvirt: driver.LibvirtDriver,
    instance: Instance,
    prefix: str | None,
    names: list[str],
) -> None:
    """nova's confirm asks with "old", and zeroes nothing then."""
    assert libvirt._pmem_names(instance, prefix) == names
    assert [each.name for each in libvirt._get_vpmems(instance, prefix)] == names


def test_confirm_of_nova_zeroes_the_old_devices(
    libvirt: driver.LibvirtDriver,
    instance: Instance,
    steps: Steps,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
) -> None:
    instance.resources = instance.migration_context.new_resources
    instance.name = "instance-1"
    CONF.set_override("instances_path", str(tmp_path / "instances"))
    monkeypatch.setattr(
        libvirt, "_cleanup_resize_vtpm", lambda *args: steps("the rest")
    )
    steps.fails["the rest"] = exception.InternalError("not of interest")
    try:
        with pytest.raises(exception.InternalError):
            nova_driver.LibvirtDriver._cleanup_resize(
                libvirt, "context", instance, "network"
            )
    finally:
        CONF.clear_override("instances_path")
    assert steps == ["zero dax0.0", "the rest"]
    assert data(libvirt, "ns_1") == b"x" * SIZE


# The destination host, and the end


def test_devices_are_adopted_before_the_guest_is_built(
    libvirt: driver.LibvirtDriver, instance: Instance, steps: Steps
) -> None:
    def finish() -> None:
        libvirt.finish_migration(
            "context", "migration", instance, "disks", "network", "image", True, {}
        )

    finish()
    assert steps == ["adopt ns_0", "nova finish_migration"]
    steps.clear()
    steps.fails["adopt ns_0"] = FAILED
    with pytest.raises(contract.CopyError):
        finish()
    assert steps == ["adopt ns_0"]
    steps.clear()
    instance.resources = None
    finish()
    assert steps == ["nova finish_migration"]


@pytest.mark.parametrize("method", ["spawn", "pre_live_migration"])
def test_guest_gets_no_device_with_data_of_nobody(
    libvirt: driver.LibvirtDriver,
    instance: Instance,
    steps: Steps,
    memory: pmem_hosts.Memory,
    method: str,
) -> None:
    name = "ns_0" if method == "spawn" else "ns_1"
    libvirt.pmem_host.expect_copy(["ns_0", "ns_1"], "somebody")
    call = getattr(libvirt, method)
    arguments = ["context", instance, *[None] * (5 if method == "spawn" else 4)]
    call(*arguments)
    assert steps == [f"nova {method}"]
    assert data(libvirt, name) == bytes(SIZE)
    assert name not in libvirt.pmem_host.pending_sanitize()
    assert len(libvirt.pmem_host.pending_sanitize()) == 1

    (memory.here / "daxio").unlink()
    libvirt.pmem_host.expect_copy([name])
    with pytest.raises(exception.VPMEMCleanupFailed, match="pmdk-tools"):
        call(*arguments)
    assert steps == [f"nova {method}"]


def test_device_without_entry_is_left_as_it_is(
    libvirt: driver.LibvirtDriver, instance: Instance
) -> None:
    libvirt.spawn("context", instance, "image", [], "password", {})
    assert data(libvirt, "ns_0") == b"x" * SIZE


def test_confirm_removes_the_row_once_it_is_done(
    libvirt: driver.LibvirtDriver,
    instance: Instance,
    steps: Steps,
    copies: Copies,
) -> None:
    steps.fails["nova confirm_migration"] = OSError("busy")
    with pytest.raises(OSError, match="busy"):
        libvirt.confirm_migration("context", "migration", instance, "network")
    assert copies.recorded
    steps.fails.clear()
    libvirt.confirm_migration("context", "migration", instance, "network")
    assert not copies.recorded


def test_revert_removes_the_row(
    libvirt: driver.LibvirtDriver,
    instance: Instance,
    steps: Steps,
    copies: Copies,
) -> None:
    libvirt.pmem_host.reserve(["ns_0"], UUID)
    libvirt.finish_revert_migration("context", instance, "network", "migration")
    assert steps == [("nova revert", "old flavor")]
    assert libvirt.pmem_host.reserved() == {}
    assert not copies.recorded
    assert instance.old_flavor == "old flavor"


@pytest.mark.parametrize("info", ["off", "gone"])
@pytest.mark.parametrize("fails", [False, True])
def test_revert_of_a_migration_that_was_cut_short(
    libvirt: driver.LibvirtDriver,
    instance: Instance,
    steps: Steps,
    copies: Copies,
    monkeypatch: pytest.MonkeyPatch,
    info: str,
    fails: bool,
) -> None:
    def get_info(instance: Any) -> Any:
        if info == "gone":
            raise exception.InstanceNotFound(instance_id=UUID)
        return types.SimpleNamespace(state=power_state.SHUTDOWN)

    monkeypatch.setattr(libvirt, "get_info", get_info)
    instance.old_flavor = None
    if fails:
        steps.fails[("nova revert", "flavor")] = OSError("busy")
    with contextlib.suppress(OSError):
        libvirt.finish_revert_migration("context", instance, "network", "migration")
    assert steps == [("nova revert", "flavor")]
    assert instance.old_flavor is None
    assert copies.recorded  # nova-compute still has to abort the copy


def test_guest_that_runs_needs_no_revert(
    libvirt: driver.LibvirtDriver,
    instance: Instance,
    steps: Steps,
    copies: Copies,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running = types.SimpleNamespace(state=power_state.RUNNING)
    monkeypatch.setattr(libvirt, "get_info", lambda instance: running)
    instance.old_flavor = None
    libvirt.finish_revert_migration("context", instance, "network", "migration")
    assert steps == []
    assert copies.recorded
