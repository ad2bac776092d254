# SPDX-License-Identifier: Apache-2.0
"""Owns volumes with known content, and their backups, on the running cloud."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import openstack.exceptions

from aiolib import ceph, reports, waiting
from aiolib.client import Cloud
from aiolib.config import BACKUP_SERVICES, backup_host
from aiolib.settings import STORAGE_HOST, Failure

GIB = 1 << 30
_TIMEOUT = 120  # s; for each step of a volume or a backup

# Debian's Python has the modules for Ceph.
_CEPH = """
import hashlib, os, sys, rados, rbd
what, conf, name = sys.argv[1:4]
with rados.Rados(conffile=conf, rados_id=sys.argv[4]) as cluster:
    with cluster.open_ioctx("volumes") as pool, rbd.Image(pool, name) as image:
        if what == "fill":
            for at in range(0, int(sys.argv[5]), 1 << 22):
                image.write(os.urandom(1 << 22), at)
        digest = hashlib.md5()
        for at in range(0, image.size(), 1 << 22):
            digest.update(image.read(at, 1 << 22))
print(digest.hexdigest())
"""


class Volumes:
    """Volumes of a tenant.

    :param connection: an openstacksdk connection of the tenant
    """

    def __init__(self, cloud: Cloud, connection: Any) -> None:
        self._cloud = cloud
        self.api = connection.block_storage

    def start_service(self, admin: Any, name: str = "cinder-backup") -> None:
        """Start a backup service, and wait until it has cleaned up and takes orders."""
        self._cloud.start(name)
        who = f"cinder-backup on {backup_host(name)}"

        def reported() -> bool:
            return who not in reports.late(self._cloud.settings, admin)

        waiting.until(f"a report of {name}", reported, _TIMEOUT, 0.5)

    def make(self, name: str, kind: str, size: int = 1) -> Any:
        """A volume of so many GiB."""
        made = self.api.create_volume(name=name, size=size, volume_type=kind)
        return self.api.wait_for_status(made, "available", ["error"], 1, _TIMEOUT)

    def fill(self, volume: Any, size: int) -> str:
        """Write ``size`` random bytes to an RBD volume; its digest."""
        return self._ceph("fill", volume.id, str(size))

    def digest(self, volume: Any) -> str:
        """MD5 of the whole volume."""
        if volume.volume_type == "rbd":
            return self._ceph("read", volume.id)
        path = self._cloud.settings.state("cinder") / "share" / f"volume-{volume.id}"
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()

    def _ceph(self, what: str, volume_id: str, *more: str) -> str:
        conf = str(ceph.config_path(self._cloud.settings))
        words = [*self._cloud.in_host(STORAGE_HOST), "/usr/bin/python3", "-c", _CEPH]
        words += [what, conf, f"volume-{volume_id}", ceph.USER, *more]
        done = subprocess.run(words, capture_output=True, text=True, timeout=_TIMEOUT)
        if done.returncode:
            raise Failure(f"Ceph: {done.stderr.strip()[-300:]}")
        return done.stdout.strip()

    def order(
        self,
        volume: Any,
        service: str = "cinder-backup",
        *,
        patient: bool = True,
        **more: Any,
    ) -> Any:
        """Ask for a backup by a backup service, and do not wait for it.

        The scheduler does not know a service that was started a moment ago: ask again.
        """
        if zone := BACKUP_SERVICES[service]:
            more["availability_zone"] = zone
        end = time.monotonic() + _TIMEOUT
        while True:
            self.wait_free(volume)
            made = self.api.create_backup(volume_id=volume.id, force=True, **more)
            if not patient:
                return made
            time.sleep(1)  # the scheduler says no within a moment
            reason = self.api.get_backup(made.id).fail_reason or ""
            if "Service not found" not in reason or time.monotonic() > end:
                return made
            self.api.delete_backup(made)

    def wait(self, backup: Any, status: str = "available") -> Any:
        """Wait until a backup has a status.

        :raises openstack.exceptions.ResourceFailure: it is in error instead
        """
        bad = [] if status == "error" else ["error"]
        return self.api.wait_for_status(backup, status, bad, 0.5, _TIMEOUT)

    def wait_free(self, volume: Any) -> None:
        """Wait until no backup works on the volume."""
        found = self.api.get_volume(volume.id)
        self.api.wait_for_status(found, "available", ["error"], 0.5, _TIMEOUT)

    def restore(self, backup: Any, **target: Any) -> Any:
        """Restore a backup, and wait for that; the volume that it went to.

        :param target: ``volume_id`` of a volume, or ``name`` of one to make; the latter
            has the default type
        """
        answer = self.api.restore_backup(self.api.get_backup(backup.id), **target)
        volume = self.api.get_volume(answer.volume_id)
        self.api.wait_for_status(volume, "available", ["error_restoring"], 1, _TIMEOUT)
        return self.api.get_volume(volume.id)

    def delete_backup(self, backup: Any) -> None:
        """Delete a backup once nothing works on it, and wait for that."""
        status = ""

        def gone() -> bool:
            nonlocal status
            found = self.api.find_backup(backup.id)
            if found is None:
                return True
            status = found.status
            if status in ("available", "error"):
                with contextlib.suppress(openstack.exceptions.NotFoundException):
                    self.api.delete_backup(found, ignore_missing=False)
            return False

        told = f"the end of backup {backup.id}"
        waiting.until(lambda: f"{told}, which is {status}", gone, _TIMEOUT, 0.5)

    def seconds(self, backup: Any) -> float:
        """How long the posix driver wrote: from the first object to the last word."""
        directory = self._cloud.settings.state("cinder") / "backup"
        files = directory.rglob(f"*{backup.id}*")
        times = sorted(path.stat().st_mtime_ns for path in files)
        return (times[-1] - times[0]) / 1e9

    @contextlib.contextmanager
    def little_space(self, size: int) -> Iterator[None]:
        """Leave the posix driver so many bytes for backups."""
        directory = self._cloud.settings.state("cinder") / "backup"
        inside = self._cloud.in_host(STORAGE_HOST)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(directory)]
        subprocess.run([*inside, *mount], check=True, timeout=30)
        try:
            yield
        finally:
            end = ["umount", "--lazy", str(directory)]
            subprocess.run([*inside, *end], check=True, timeout=30)
