# SPDX-License-Identifier: Apache-2.0
"""`tools/aio demo backup`: what Ceilometer hears of backups, good and bad ones."""

from __future__ import annotations

import re
import signal
import time
from typing import Any

from aiolib import telemetry
from aiolib.demos import Stage
from aiolib.volumes import GIB, Volumes

# fingerprints of content, keys, command lines and paths have no place in an event
_FORBIDDEN = re.compile(
    r"[0-9a-f]{32}\b(?!-)|md5|encryption_key|Command:|object_meta|/var/|/etc/|/mnt/"
)
_HANG = 60  # s
_MOST = 1.5  # of the usual time; what a busy machine adds
_SHOWN = ("percent", "bytes_done", "duration", "error_code", "error_message", "status")


class _Story:
    def __init__(self, stage: Stage) -> None:
        self.say, self.cleanup, self.cloud = stage.say, stage.cleanup, stage.cloud
        self.agent = telemetry.Ceilometer(self.cloud.settings)
        self.admin: Any = self.cloud.admin
        self.volumes = Volumes(self.cloud, self.cloud.tenant)

    def volume(self, name: str, kind: str = "rbd") -> Any:
        made = self.volumes.make(name, kind)
        self.cleanup.callback(self.volumes.api.delete_volume, made)
        return made

    def order(self, volume: Any, name: str, service: str = "cinder-backup") -> Any:
        backup = self.volumes.order(volume, service, name=name)
        self.cleanup.callback(self.volumes.delete_backup, backup)
        return backup

    def check(self, backup: Any, action: str, last: str, **traits: Any) -> None:
        """Show the events of one operation, and check what they are and carry."""
        agent, say = self.agent, self.say
        agent.wait(backup.id, telemetry.ended(action))
        for prefix in ("backup.", "volume_backup."):
            found = [
                event
                for event in agent.events(backup.id, prefix)
                if event.type.startswith(f"{prefix}{action}.")
            ]
            for event in found if prefix == "backup." else ():
                shown = {k: event.traits[k] for k in _SHOWN if k in event.traits}
                say(f"  {event.type} {shown}")
            wrong = telemetry.faults(found, f"{prefix}{action}.")
            wrong += [
                f"{event.type} carries {match[0]}"
                for event in found
                if (match := _FORBIDDEN.search(_without_owner(event)))
            ]
            say.check(not wrong, f"{prefix}{action}.*: in order {wrong or ''}")
            say.check(found[-1].phase == last, f"the last one is {last}")
            for name, value in traits.items():
                seen = found[-1].traits.get(name)
                say.check(seen == value, f"{name} is {seen}")


def _without_owner(event: telemetry.Event) -> str:
    """The line of an event without the ids that look like a checksum."""
    line = event.line
    for name in ("project_id", "tenant_id", "user_id"):
        line = line.replace(event.traits[name], name)
    return line


def tell(stage: Stage) -> None:
    """Make backups that succeed and some that do not."""
    story = _Story(stage)
    say, volumes = story.say, story.volumes
    say("Filling a volume of 1 GiB")
    volume = story.volume("demo-backup")
    before = volumes.fill(volume, GIB)
    say(f"  MD5 {before}")

    say("A backup with the posix driver")
    backup = story.order(volume, "demo-good")
    volumes.wait(backup)
    story.check(backup, "create", "end", status="available", bytes_read=GIB)
    sizes = story.agent.samples("backup.size", backup.id)
    say.check(len(sizes) == 2, f"{len(sizes)} samples of backup.size: start and end")

    usual = volumes.seconds(backup)

    say("Its restore to a new volume")
    restored = volumes.restore(backup, name="demo-restored")
    story.cleanup.callback(volumes.api.delete_volume, restored)
    after = volumes.digest(restored)
    say.check(after == before, f"the new volume has MD5 {after}")
    story.check(backup, "restore", "end", restore_volume_id=restored.id)

    say("Its deletion")
    volumes.delete_backup(backup)
    story.check(backup, "delete", "end")

    say(f"A backup in the middle of which RabbitMQ stands still for {_HANG} s")
    backup = story.order(volume, "demo-hang")
    _wait_for_progress(story, backup)
    story.cloud.kill("rabbitmq", signal.SIGSTOP)
    time.sleep(_HANG)
    story.cloud.kill("rabbitmq", signal.SIGCONT)
    volumes.wait(backup)
    ratio = volumes.seconds(backup) / usual
    say.check(
        ratio < _MOST, f"the driver took {ratio:.2f} times the usual {usual:.1f} s"
    )
    story.check(backup, "create", "end", status="available")

    say("A backup for which there is no space")
    with volumes.little_space(GIB // 4):
        backup = story.order(volume, "demo-full")
        volumes.wait(backup, "error")
    story.check(backup, "create", "error", error_code="no_space", status="error")
    failures = story.agent.samples("backup.failures", backup.id)
    say.check(len(failures) == 1, f"{len(failures)} sample of backup.failures")

    say("A backup whose service is killed with SIGKILL")
    backup = story.order(volume, "demo-killed")
    _wait_for_progress(story, backup)
    story.cloud.kill("cinder-backup")
    volumes.start_service(story.admin)
    volumes.wait(backup, "error")
    story.check(backup, "create", "error", error_code="service_restart")

    say("A backup that is cancelled")
    backup = story.order(volume, "demo-cancelled")
    _wait_for_progress(story, backup)
    api = story.admin.block_storage
    api.delete_backup(backup, force=True)
    api.wait_for_delete(backup, 0.5, 60)
    story.check(backup, "create", "cancelled")

    say("A backup in Ceph, of which a copy within Ceph shows no bytes")
    backup = story.order(volume, "demo-ceph", "cinder-backup-ceph")
    volumes.wait(backup)
    story.check(backup, "create", "end", status="available")


def _wait_for_progress(story: _Story, backup: Any) -> None:
    story.agent.wait(
        backup.id,
        lambda events: any(event.type == "backup.create.progress" for event in events),
    )
