# SPDX-License-Identifier: Apache-2.0
"""What a real Ceilometer keeps of the backups of a real Cinder.

Volumes are on RBD and NFS, backups go to files, to Ceph and to S3, over a real bus.
"""

import json
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from aiolib import telemetry
from aiolib.client import Cloud
from aiolib.volumes import GIB, Volumes

from tests.e2e import steps

pytestmark = pytest.mark.xdist_group("backups")

PART = 256 << 20  # bytes of the volume that are not zeros
FLAT, VERSIONED = "backup.", "volume_backup."


class Backups:
    """A volume with known content, and what Ceilometer hears of its backups."""

    def __init__(self, cloud: Cloud, tenant: Any, admin: Any) -> None:
        self.cloud, self.admin = cloud, admin
        self.agent = telemetry.Ceilometer(cloud.settings)
        self.volumes = Volumes(cloud, tenant)
        self.volume = self.volumes.make("e2e-backup", "rbd")
        self.digest = self.volumes.fill(self.volume, PART)
        self._made: list[Any] = []

    def order(self, service: str = "cinder-backup", **more: Any) -> Any:
        backup = self.volumes.order(self.volume, service, **more)
        self._made.append(backup)
        return backup

    def made(self, service: str = "cinder-backup", **more: Any) -> Any:
        """A backup that is done."""
        return self.volumes.wait(self.order(service, **more))

    def told(
        self, backup: Any, action: str = "create", killed: bool = False
    ) -> list[telemetry.Event]:
        """The events of an operation, once it has its last one.

        They are in order in both formats, which say the same.

        :param killed: the service was killed, maybe between the two of a progress
        """
        self.agent.wait(backup.id, telemetry.ended(action))
        phases = {}
        for prefix in (VERSIONED, FLAT):
            found = self.of(backup, action, prefix)
            assert telemetry.faults(found, f"{prefix}{action}.") == []
            phases[prefix] = [
                event.phase
                for event in found
                if not (killed and event.phase == "progress")
            ]
        assert phases[FLAT] == phases[VERSIONED]
        return found

    def of(self, backup: Any, action: str, prefix: str = FLAT) -> list[telemetry.Event]:
        return [
            event
            for event in self.agent.events(backup.id, prefix)
            if event.type.startswith(f"{prefix}{action}.")
        ]

    def until_progress(self, backup: Any) -> None:
        self.agent.wait(
            backup.id, lambda found: found and found[-1].phase == "progress"
        )

    def end(self) -> None:
        for backup in reversed(self._made):
            self.volumes.delete_backup(backup)
        self.volumes.api.delete_volume(self.volume)


@pytest.fixture(scope="module")
def backups(cloud: Cloud, tenant: Any, admin: Any) -> Iterator[Backups]:
    found = Backups(cloud, tenant, admin)
    yield found
    found.end()


@pytest.mark.parametrize(
    ("service", "percent"),
    [
        pytest.param("cinder-backup", True, id="posix"),
        pytest.param("cinder-backup-s3", True, id="s3"),
        # RBD to Ceph is one export-diff: nobody sees its bytes
        pytest.param("cinder-backup-ceph", False, id="ceph"),
    ],
)
def test_backup_restore_and_delete(
    backups: Backups, service: str, percent: bool
) -> None:
    backup = backups.made(service, name=f"e2e-{service}")
    *_, end = created = backups.told(backup)
    assert end.phase == "end"
    assert end.traits["size"] == 1
    assert end.traits["display_name"] == f"e2e-{service}"
    assert end.traits["volume_id"] == backups.volume.id
    seen = [event.traits.get("percent") for event in created]
    assert seen[-1] == 100
    if percent:
        assert end.traits["bytes_read"] == GIB
        assert any(0 < value < 100 for value in seen if value is not None)
    else:
        assert set(seen[:-1]) == {None}

    restored = backups.volumes.make(f"e2e-{service}-restored", "rbd")
    try:
        backups.volumes.restore(backup, volume_id=restored.id)
        assert backups.volumes.digest(restored) == backups.digest
    finally:
        backups.volumes.api.delete_volume(restored)
    *_, end = backups.told(backup, "restore")
    assert (end.phase, end.traits["restore_volume_id"]) == ("end", restored.id)

    backups.volumes.delete_backup(backup)
    begin, end = backups.told(backup, "delete")
    assert (begin.phase, end.phase) == ("start", "end")


def test_what_is_counted(backups: Backups) -> None:
    backup = backups.made()
    backups.told(backup)
    steps.until(
        "a sample of the end",
        lambda: len(backups.agent.samples("backup.size", backup.id)) == 2,
    )
    (took,) = backups.agent.samples("backup.create.duration", backup.id)
    assert 0 < took["volume"] < 120
    (stored,) = backups.agent.samples("backup.bytes", backup.id)
    assert stored["volume"] == GIB
    percent = [
        sample["volume"]
        for sample in backups.agent.samples("backup.progress", backup.id)
    ]
    assert percent == sorted(percent)
    assert percent[-1] == 100


def test_incremental_backup_in_ceph(backups: Backups) -> None:
    backups.made("cinder-backup-ceph")
    backup = backups.made("cinder-backup-ceph", is_incremental=True)
    *_, end = backups.told(backup)
    assert (end.phase, end.traits["is_incremental"]) == ("end", "True")


def test_no_space(backups: Backups) -> None:
    with backups.volumes.little_space(PART // 4):
        backup = backups.order()
        backups.volumes.wait(backup, "error")
    *_, last = backups.told(backup)
    assert last.phase == "error"
    assert last.traits["error_code"] == "no_space"
    assert len(backups.agent.samples("backup.failures", backup.id)) == 1


def test_killed_service(backups: Backups) -> None:
    backup = backups.order()
    backups.until_progress(backup)
    backups.cloud.kill("cinder-backup")
    backups.volumes.start_service(backups.admin)
    backups.volumes.wait(backup, "error")
    *_, last = backups.told(backup, killed=True)
    assert last.phase == "error"
    assert last.traits["error_code"] == "service_restart"


def test_cancelled_backup(backups: Backups) -> None:
    backup = backups.order()
    backups.until_progress(backup)
    api = backups.admin.block_storage
    api.delete_backup(backup, force=True)
    api.wait_for_delete(backup, 0.5, 60)
    assert backups.told(backup)[-1].phase == "cancelled"
    assert backups.told(backup, "delete")[-1].phase == "end"


def test_no_backup_service(backups: Backups) -> None:
    # It stays: cinder finds no service for its deletion either.
    backup = backups.volumes.order(
        backups.volume, patient=False, availability_zone="nowhere"
    )
    *_, last = backups.told(backup)
    assert last.phase == "error"
    assert last.traits["error_code"] == "scheduler_no_host"
    assert last.traits["error_phase"] == "schedule"


@pytest.mark.disturbs
def test_backup_does_not_wait_for_a_bus_that_hangs(backups: Backups) -> None:
    """RabbitMQ stands still in the middle, and takes nothing from anybody."""
    usual = time.monotonic()
    backups.made()
    usual = time.monotonic() - usual
    backup = backups.order()
    backups.until_progress(backup)
    directory = backups.cloud.settings.state("cinder") / "backup"
    backups.cloud.kill("rabbitmq", signal.SIGSTOP)
    begin = time.monotonic()
    try:
        written = steps.until(
            "its last object", lambda: _metadata(directory, backup), 60
        )
        took = time.monotonic() - begin
    finally:
        backups.cloud.kill("rabbitmq", signal.SIGCONT)
    assert json.loads(written)["backup_id"] == backup.id
    assert took < usual + 5
    backups.volumes.wait(backup)
    assert backups.told(backup)[-1].phase == "end"


def _metadata(directory: Any, backup: Any) -> str | None:
    """What the driver writes last, once it is there."""
    for path in directory.rglob(f"*{backup.id}*_metadata"):
        return str(path.read_text())
    return None
