# SPDX-License-Identifier: Apache-2.0
"""Owns how the work of a backup driver is watched, whatever driver it is.

The bytes of a volume go through one file object, and chunked drivers read a backup
object by object; both are counted. The driver class is subclassed, not changed, and its
own progress notifications are replaced: their percentage is wrong, they contain
checksums, and their timer keeps running after a failure.
"""

import contextlib
from typing import Any, Protocol

from cinder_ext.backup.transfer import Transfer
from cinder_ext.objects import operation

#: What a chunked driver reads in addition to the objects with data.
_NO_DATA = ("_metadata", "_sha256file")


class Watcher(Protocol):
    """What a watched driver reports to; never raises."""

    def transfer(self, backup: Any) -> contextlib.AbstractContextManager[Transfer]:
        """Return the context in which the driver works."""

    def current_transfer(self) -> Transfer | None:
        """Return the transfer of this thread."""


class ObservedFile:
    """A volume, as a driver sees it; everything but reads and writes passes through.

    It wraps Cinder's proxy, which works in native threads, where nothing may be
    logged.
    """

    def __init__(self, file: Any, transfer: Transfer) -> None:
        self._file = file
        self._transfer = transfer
        self._position: int | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, *args: Any) -> Any:
        """Read, and use the new position for the progress."""
        data = self._file.read(*args)
        self._moved(len(data))
        return data

    def write(self, data: Any) -> Any:
        """Write, and use the new position for the progress."""
        result = self._file.write(data)
        progress = self._transfer.progress
        progress.bytes_written = (progress.bytes_written or 0) + len(data)
        self._moved(len(data))
        return result

    def seek(self, *args: Any) -> Any:
        """Seek, which is no progress: drivers seek to the end to get the size."""
        self._position = None
        return self._file.seek(*args)

    def _moved(self, length: int) -> None:
        if self._position is None:
            try:
                self._position = self._file.tell()
            except Exception:
                # Not every file knows its position: the progress stays unknown.
                return
        else:
            self._position += length
        self._transfer.progress.reached_byte(self._position)
        self._transfer.moved()


class _CountedWriter:
    """The writer of one object, which counts what goes to the backup store."""

    def __init__(self, writer: Any, progress: operation.Progress) -> None:
        self._writer = writer
        self._progress = progress

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    def __enter__(self) -> "_CountedWriter":
        self._entered = self._writer.__enter__()
        return self

    def __exit__(self, *args: Any) -> Any:
        return self._writer.__exit__(*args)

    def write(self, data: Any) -> Any:
        result = self._entered.write(data)
        self._progress.bytes_stored = (self._progress.bytes_stored or 0) + len(data)
        return result


class _Instrumented:
    """Watches any driver."""

    watcher: Watcher
    counts_chunks = False
    enable_progress_timer: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.enable_progress_timer = False

    def backup(self, backup: Any, volume_file: Any, *args: Any, **kwargs: Any) -> Any:
        with self.watcher.transfer(backup) as transfer:
            transfer.by_count = self.counts_chunks
            file = ObservedFile(volume_file, transfer)
            return super().backup(backup, file, *args, **kwargs)  # type: ignore[misc]

    def restore(
        self, backup: Any, volume_id: str, volume_file: Any, *args: Any, **kwargs: Any
    ) -> Any:
        with self.watcher.transfer(backup) as transfer:
            file = ObservedFile(volume_file, transfer)
            return super().restore(  # type: ignore[misc]
                backup, volume_id, file, *args, **kwargs
            )


class _InstrumentedChunked(_Instrumented):
    """Watches a chunked driver in more detail."""

    counts_chunks = True

    def _send_progress_notification(self, *args: Any, **kwargs: Any) -> None:
        if transfer := self.watcher.current_transfer():
            transfer.counted()

    def _send_progress_end(self, *args: Any, **kwargs: Any) -> None:
        """All data is read, which is not yet success."""

    def _get_object_writer(self, *args: Any, **kwargs: Any) -> Any:
        writer = super()._get_object_writer(*args, **kwargs)  # type: ignore[misc]
        transfer = self.watcher.current_transfer()
        return _CountedWriter(writer, transfer.progress) if transfer else writer

    def _get_object_reader(
        self, container: Any, object_name: str, *args: Any, **kwargs: Any
    ) -> Any:
        transfer = self.watcher.current_transfer()
        if transfer and not object_name.endswith(_NO_DATA):
            # The objects before this one are written: blocks of zeros are skipped, so
            # that the position in the volume says less.
            opened = transfer.progress.objects_opened
            transfer.progress.objects_opened = opened + 1
            transfer.progress.reached_object(opened)
            transfer.moved()
        return super()._get_object_reader(  # type: ignore[misc]
            container, object_name, *args, **kwargs
        )


def instrumented(driver_class: type, watcher: Watcher) -> type:
    """Return a subclass of a backup driver whose work is watched.

    It has the name of the driver, which appears in logs.
    """
    chunked = hasattr(driver_class, "_get_object_reader")
    kind = _InstrumentedChunked if chunked else _Instrumented
    return type(
        driver_class.__name__,
        (kind, driver_class),
        {"__module__": driver_class.__module__, "watcher": watcher},
    )
