# SPDX-License-Identifier: Apache-2.0

import io
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cinder_ext.backup import driver
from cinder_ext.objects import operation

SIZE = 1 << 20


class Transfer:
    def __init__(self) -> None:
        self.progress = operation.Progress(SIZE)
        self.seen: list[float | None] = []
        self.chunks = 0
        self.by_count = False

    def moved(self) -> None:
        self.seen.append(self.progress.percent)

    def counted(self) -> None:
        self.chunks += 1


class Watcher:
    def __init__(self) -> None:
        self.now: Transfer | None = None
        self.all: list[Transfer] = []

    @contextmanager
    def transfer(self, backup: Any) -> Iterator[Transfer]:
        self.now = Transfer()
        self.all.append(self.now)
        try:
            yield self.now
        finally:
            self.now = None

    def current_transfer(self) -> Transfer | None:
        return self.now


class ThirdParty:
    """A driver that cinder does not have: no chunks, and a size by seeking."""

    def __init__(self, context: Any) -> None:
        self.context = context
        self.enable_progress_timer = True

    def backup(
        self, backup: Any, volume_file: Any, backup_metadata: Any = False
    ) -> Any:
        volume_file.seek(0, 2)
        size = volume_file.tell()
        volume_file.seek(0)
        while volume_file.read(SIZE // 4):
            pass
        return {"size": size, "metadata": backup_metadata}

    def restore(
        self, backup: Any, volume_id: Any, volume_file: Any, volume_is_new: Any
    ) -> Any:
        for offset in (0, SIZE // 2):
            volume_file.seek(offset)
            volume_file.write(b"x" * (SIZE // 4))


class Chunked(ThirdParty):
    """What is special about cinder's chunked drivers."""

    def backup(
        self, backup: Any, volume_file: Any, backup_metadata: Any = False
    ) -> Any:
        with self._get_object_writer("c", "chunk-1") as writer:
            writer.write(b"x" * 10)
        self._send_progress_notification(self.context, backup, {"list": []}, 1, 1)
        self._send_progress_end(self.context, backup, {"list": []})

    def restore(
        self, backup: Any, volume_id: Any, volume_file: Any, volume_is_new: Any
    ) -> Any:
        for name in ("b_metadata", "b-1", "b-2", "b-3", "b_sha256file"):
            with self._get_object_reader("c", name):
                pass

    def _get_object_writer(self, container: str, name: str) -> Any:
        return io.BytesIO()

    def _get_object_reader(self, container: str, name: str) -> Any:
        return io.BytesIO()

    def _send_progress_notification(self, *args: Any) -> None:
        raise AssertionError("cinder's own progress")

    _send_progress_end = _send_progress_notification


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


@pytest.fixture
def volume(tmp_path: pathlib.Path) -> Iterator[Any]:
    path = tmp_path / "volume"
    path.write_bytes(b"x" * SIZE)
    with path.open("r+b") as file:
        yield file


def made(kind: type, watcher: Watcher) -> Any:
    return driver.instrumented(kind, watcher)("context")


def test_the_driver_stays_what_it_is(watcher: Watcher) -> None:
    one = made(ThirdParty, watcher)
    assert isinstance(one, ThirdParty)
    assert one.context == "context"
    assert (type(one).__module__, type(one).__name__) == (__name__, "ThirdParty")
    assert not hasattr(one, "_send_progress_end")


def test_cinders_timer_is_off(watcher: Watcher) -> None:
    """It would go on after a failure until the service is restarted."""
    assert made(ThirdParty, watcher).enable_progress_timer is False


def test_the_driver_class_itself_is_not_changed(watcher: Watcher) -> None:
    made(ThirdParty, watcher)
    assert ThirdParty("context").enable_progress_timer is True


def test_progress_of_any_driver_that_reads(watcher: Watcher, volume: Any) -> None:
    result = made(ThirdParty, watcher).backup(None, volume, backup_metadata=True)
    assert result == {"size": SIZE, "metadata": True}
    assert watcher.all[0].seen == [25.0, 50.0, 75.0, 99.9, 99.9]


def test_progress_of_any_driver_that_writes(watcher: Watcher, volume: Any) -> None:
    made(ThirdParty, watcher).restore(None, "id", volume, False)
    (transfer,) = watcher.all
    assert not transfer.by_count
    assert transfer.seen == [25.0, 75.0]
    assert transfer.progress.bytes_written == SIZE // 2


def test_a_failure_of_the_driver_passes(watcher: Watcher) -> None:
    with pytest.raises(TypeError):
        made(ThirdParty, watcher).restore(None, "id", io.StringIO(), False)
    assert watcher.now is None


def test_chunks_are_counted(watcher: Watcher, volume: Any) -> None:
    made(Chunked, watcher).backup(None, volume)
    (transfer,) = watcher.all
    assert transfer.by_count
    assert transfer.chunks == 1
    assert transfer.progress.bytes_stored == 10


def test_objects_with_data_are_counted_once_they_are_done(
    watcher: Watcher, volume: Any
) -> None:
    """Blocks of zeros are not written to a new volume: positions say less."""
    made(Chunked, watcher).restore(None, "id", volume, True)
    assert watcher.all[0].progress.objects_done == 2


def test_objects_beside_a_transfer_are_not_counted(watcher: Watcher) -> None:
    one = made(Chunked, watcher)
    with one._get_object_writer("c", "x") as writer:
        writer.write(b"x")
    with one._get_object_reader("c", "x"):
        pass
    one._send_progress_notification()
    assert watcher.all == []


class Rbd(io.RawIOBase):
    """What cinder hands over for a volume in Ceph."""

    rbd_image = "image"

    def tell(self) -> int:
        raise OSError("unknown")

    def read(self, size: int = -1) -> bytes:
        return b"x"


def test_the_attributes_of_the_volume_pass_through() -> None:
    """The Ceph driver knows a volume in RBD by one of them."""
    file = driver.ObservedFile(Rbd(), Transfer())
    assert file.rbd_image == "image"
    assert not hasattr(driver.ObservedFile(io.BytesIO(), Transfer()), "rbd_image")
    with pytest.raises(io.UnsupportedOperation):
        file.fileno()


def test_a_volume_that_does_not_know_its_position_has_no_progress() -> None:
    transfer = Transfer()
    assert driver.ObservedFile(Rbd(), transfer).read(1) == b"x"
    assert transfer.seen == []
    assert transfer.progress.percent is None


def test_the_position_is_asked_for_only_after_a_seek(volume: Any) -> None:
    """Each question goes through a native thread."""
    asked = []

    class File(io.BytesIO):
        def tell(self) -> int:
            asked.append(1)
            return super().tell()

    file = driver.ObservedFile(File(b"x" * 100), Transfer())
    for _each in range(5):
        file.read(10)
    assert len(asked) == 1
    file.seek(0)
    file.read(10)
    assert len(asked) == 2
