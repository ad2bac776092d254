# SPDX-License-Identifier: Apache-2.0
"""Owns what of persistent memory is copied, in which order, and if it arrived whole.

It knows devices and a target, nothing of servers, ssh or RPC. The devices are split
into batches, which streams work off side by side; a batch is split into pieces of data
and of zeros, so that zeros need not travel.

A guest sees the last :data:`LABEL` bytes of a device as its label area, so that these
go to the end of a destination that is bigger.
"""

import contextlib
import dataclasses
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Protocol

from nova_ext.privsep import pmem as privileged
from nova_ext.virt.pmem import CopyError, Device

#: The size in bytes of the label area that nova gives each NVDIMM of a guest.
LABEL = 2 << 20

#: The most bytes that one command moves.
PIECE = 256 << 20

#: The most bytes that a stream takes at once.
BATCH = 4 << 30

#: Batches begin at multiples of this.
_GRAIN = 2 << 20


@dataclasses.dataclass(frozen=True)
class Piece:
    """A range of bytes on its way.

    :ivar source: offset in the source, or None for zeros
    :ivar target: offset in the target
    """

    source: int | None
    target: int
    length: int


Batch = tuple[Device, Device, Piece]


class Target(Protocol):
    """Where the data goes.

    :ivar timeout: seconds in which a piece has to be there
    """

    timeout: float

    def probe(self, devices: Sequence[Device]) -> None:
        """Zero a little of each device, to know that it can be written.

        :raises: CopyError
        """

    def write(
        self, source: Device, target: Device, pieces: Sequence[Piece]
    ) -> Iterator[int]:
        """Copy the pieces in order; yields the bytes of each when it is on its way.

        When the iteration ends, all of them have arrived.

        :raises: CopyError, nova_ext.privsep.pmem.DeviceError or DaxioError
        """

    def stop(self) -> None:
        """Make all writes fail soon."""


def check(device: Device) -> None:
    """Make sure that a device of this host is what nova believes.

    :raises: CopyError
    """
    try:
        size, align = privileged.check(device.path)
    except privileged.DeviceError as exc:
        raise CopyError(str(exc)) from exc
    if size < device.size or align != device.align:
        raise CopyError(
            f"{device.path} has {size} bytes aligned to {align}, but namespace "
            f"{device.name} was said to have {device.size} aligned to {device.align}: "
            "restart nova-compute on its host"
        )


def pair(
    sources: Sequence[Device], targets: Sequence[Device]
) -> list[tuple[Device, Device]]:
    """Each source with the first target of its label that is not taken.

    :raises: CopyError when one has none, or one that cannot take its data
    """
    left = list(targets)
    pairs = []
    for source in sources:
        target = next((each for each in left if each.label == source.label), None)
        if target is None:
            raise CopyError(f"the destination has no device for label {source.label}")
        if target.size < source.size or target.align != source.align:
            raise CopyError(
                f"the device for label {source.label} has {source.size} bytes aligned "
                f"to {source.align}, its destination {target.path} has {target.size} "
                f"aligned to {target.align}"
            )
        left.remove(target)
        pairs.append((source, target))
    return pairs


class Copy:
    """The copy of all devices of a server; runs once.

    :param pairs: source and target of each device
    :param streams: how many batches are on their way at the same time
    :param progress: is told how many bytes are done; from several threads, one by one
    """

    def __init__(
        self,
        pairs: Sequence[tuple[Device, Device]],
        target: Target,
        streams: int,
        progress: Callable[[int], None],
    ) -> None:
        #: Bytes, with the zeros behind the data of a smaller source.
        self.total = sum(target.size for _source, target in pairs)
        self._pairs = pairs
        self._target = target
        self._streams = streams
        self._progress = progress
        self._lock = threading.Lock()
        self._done = 0
        self._failure: Exception | None = None

    def probe(self) -> None:
        """See :meth:`nova_ext.virt.pmem.Copy.probe`."""
        self._target.probe([target for _source, target in self._pairs])

    def run(self) -> None:
        """See :meth:`nova_ext.virt.pmem.Copy.run`."""
        work: queue.SimpleQueue[Batch] = queue.SimpleQueue()
        for batch in self._batches():
            work.put(batch)
        with futures.ThreadPoolExecutor(self._streams) as pool:
            for _ in range(self._streams):
                pool.submit(self._stream, work)
        if self._failure is not None:
            raise CopyError(str(self._failure)) from self._failure
        if self._done != self.total:
            raise CopyError(f"{self._done} of {self.total} bytes were copied")

    def verify(self, digest: Callable[[Device, int, int], str]) -> None:
        """See :meth:`nova_ext.virt.pmem.Copy.verify`."""

        def compare(batch: Batch) -> None:
            source, target, piece = batch
            if self._failure is not None:
                raise CopyError(str(self._failure))
            if piece.source is None:
                return
            try:
                here = privileged.digest(
                    source.path,
                    piece.source,
                    piece.length,
                    patience(piece.length, self._target.timeout),
                )
            except privileged.DeviceError as exc:
                raise CopyError(str(exc)) from exc
            if here != digest(target, piece.target, piece.length):
                raise CopyError(
                    f"{piece.length} bytes at {piece.target} of {target.path} differ "
                    f"from those at {piece.source} of {source.path}"
                )

        with futures.ThreadPoolExecutor(self._streams) as pool:
            for _ in pool.map(compare, self._batches()):
                pass

    def stop(self, reason: str) -> None:
        """See :meth:`nova_ext.virt.pmem.Copy.stop`."""
        self._fail(CopyError(reason))

    def _batches(self) -> list[Batch]:
        return [
            (source, target, piece)
            for source, target in self._pairs
            for piece in batches(source.size, target.size, self._streams)
        ]

    def _fail(self, failure: Exception) -> None:
        with self._lock:
            self._failure = self._failure or failure
        self._target.stop()

    def _stream(self, work: "queue.SimpleQueue[Batch]") -> None:
        try:
            with contextlib.suppress(queue.Empty):
                while self._failure is None:
                    source, target, batch = work.get_nowait()
                    pieces = split(source.path, batch, self._target.timeout)
                    for length in self._target.write(source, target, pieces):
                        self._count(length)
        except Exception as exc:
            self._fail(exc)

    def _count(self, length: int) -> None:
        with self._lock:
            self._done += length
            self._progress(self._done)


def batches(size: int, room: int, streams: int) -> list[Piece]:
    """How the content of a device of ``size`` bytes goes to one of ``room`` bytes.

    There are enough batches to keep all streams at work.
    """
    step = min(BATCH, -(-size // streams))
    step = -(-step // _GRAIN) * _GRAIN
    bulk = size if room == size else size - LABEL
    found = [Piece(at, at, min(step, bulk - at)) for at in range(0, bulk, step)]
    if room > size:
        found.append(Piece(None, bulk, room - size))
        found.append(Piece(bulk, room - LABEL, LABEL))
    return found


def patience(length: int, timeout: float) -> float:
    """Seconds to read so many bytes in, if a piece may take ``timeout``."""
    return timeout * -(-length // PIECE)


def split(path: str, batch: Piece, timeout: float) -> list[Piece]:
    """The pieces of a batch in order: its data, and the zeros around it.

    :param timeout: seconds in which a piece has to be read
    :raises: nova_ext.privsep.pmem.DeviceError
    """
    if batch.source is None:
        return _cut(batch)
    shift = batch.target - batch.source
    pieces: list[Piece] = []
    at = batch.target
    limit = patience(batch.length, timeout)
    for offset, length in privileged.scan(path, batch.source, batch.length, limit):
        begin = offset + shift
        pieces += _cut(Piece(None, at, begin - at))
        pieces += _cut(Piece(offset, begin, length))
        at = begin + length
    return pieces + _cut(Piece(None, at, batch.target + batch.length - at))


def _cut(piece: Piece) -> list[Piece]:
    return [
        Piece(
            None if piece.source is None else piece.source + at,
            piece.target + at,
            min(PIECE, piece.length - at),
        )
        for at in range(0, piece.length, PIECE)
    ]
