# SPDX-License-Identifier: Apache-2.0
"""What of persistent memory is copied, and when a copy counts as good."""

import dataclasses
import random
import threading
from collections.abc import Iterator, Sequence

import pytest

from nova_ext.privsep import pmem as privileged
from nova_ext.virt import pmem as pmem_host
from nova_ext.virt.libvirt.pmem import copy as pmem
from tests.unit import pmem_hosts
from tests.unit.pmem_hosts import MIB

GIB = 1 << 30
LABEL = pmem.LABEL
TIMEOUT = 20


def device(name: str, size: int, label: str = "L", align: int = 2 * MIB) -> pmem.Device:
    return pmem_host.Device(name, label, f"/dev/{name}", size, align)


# Which device goes to which


def test_pairs_are_made_by_label() -> None:
    sources = [device("s0", 5, "A"), device("s1", 6, "B"), device("s2", 7, "A")]
    targets = [
        device("t0", 8, "B"),
        device("t1", 8, "A"),
        device("t2", 8, "C"),
        device("t3", 8, "A"),
    ]
    assert [(s.name, t.name) for s, t in pmem.pair(sources, targets)] == [
        ("s0", "t1"),
        ("s1", "t0"),
        ("s2", "t3"),
    ]


def test_two_equal_targets_are_two() -> None:
    twin = device("t", 8)
    with pytest.raises(pmem_host.CopyError, match="no device for label L"):
        pmem.pair([device("s0", 5), device("s1", 5)], [twin])
    pairs = pmem.pair([device("s0", 5), device("s1", 5)], [twin, twin])
    assert len(pairs) == 2


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (device("t", 5, "M"), "no device for label L"),
        (device("t", 4), "has 5 bytes .* /dev/t has 4 aligned"),
        (device("t", 5, align=GIB), f"aligned to {2 * MIB}, .* aligned to {GIB}"),
    ],
)
def test_pair_that_does_not_fit(target: pmem.Device, reason: str) -> None:
    with pytest.raises(pmem_host.CopyError, match=reason):
        pmem.pair([device("s", 5)], [target])


# Batches and pieces


def covered(pieces: Sequence[pmem.Piece], begin: int, end: int) -> None:
    """Each byte is written exactly once, in order."""
    at = begin
    for piece in pieces:
        assert piece.target == at
        assert piece.length > 0
        at += piece.length
    assert at == end


SIZES = [
    16 * MIB,
    16 * MIB + 1,
    126 * MIB,
    pmem.PIECE,
    pmem.PIECE + 4097,
    GIB - 3,
    pmem.BATCH,
    pmem.BATCH * 3 + 12345,
    1536 * GIB,
]


@pytest.mark.parametrize("streams", [1, 2, 3, 4, 32])
@pytest.mark.parametrize("size", SIZES)
def test_batches_of_equal_devices(size: int, streams: int) -> None:
    found = pmem.batches(size, size, streams)
    covered(found, 0, size)
    assert all(each.source == each.target for each in found)
    assert all(each.length <= pmem.BATCH for each in found)
    assert all(each.target % (2 * MIB) == 0 for each in found)
    if size > GIB // 2:
        assert len(found) >= streams  # work for every one


@pytest.mark.parametrize("more", [1, 4096, 2 * MIB, LABEL + 1, 5 * GIB + 3])
@pytest.mark.parametrize("streams", [1, 4])
@pytest.mark.parametrize("size", [LABEL, LABEL + 1, *SIZES])
def test_batches_to_a_bigger_device(size: int, streams: int, more: int) -> None:
    found = pmem.batches(size, size + more, streams)
    covered(found, 0, size + more)
    *bulk, gap, label = found
    assert all(each.source == each.target for each in bulk)
    assert gap.source is None
    assert gap.length == more
    # The guest looks for its label area at the end.
    assert label == pmem.Piece(size - LABEL, size + more - LABEL, LABEL)


@pytest.mark.parametrize("shift", [0, 5 * MIB + 1])
@pytest.mark.parametrize("seed", range(20))
def test_split_covers_a_batch(
    monkeypatch: pytest.MonkeyPatch, seed: int, shift: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    begin, length = chance.randrange(0, GIB), chance.randrange(1, 2 * GIB)
    edges = sorted(chance.sample(range(begin, begin + length + 1), 2 * seed))
    if seed % 2 and edges:
        edges[0], edges[-1] = begin, begin + length
    runs = [
        (a, b - a) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a > 0
    ]

    def scan(path: str, offset: int, size: int, limit: float) -> list[tuple[int, int]]:
        assert limit == TIMEOUT * -(-size // pmem.PIECE)
        assert (path, offset, size) == ("/dev/s", begin, length)
        return runs

    monkeypatch.setattr(privileged, "scan", scan)
    batch = pmem.Piece(begin, begin + shift, length)
    pieces = pmem.split("/dev/s", batch, TIMEOUT)
    covered(pieces, begin + shift, begin + shift + length)
    assert all(each.length <= pmem.PIECE for each in pieces)
    data = [each for each in pieces if each.source is not None]
    assert all(each.target - (each.source or 0) == shift for each in data)
    assert sum(each.length for each in data) == sum(size for _at, size in runs)
    for each in data:
        assert any(
            at <= (each.source or 0) and (each.source or 0) + each.length <= at + size
            for at, size in runs
        )


def test_split_of_zeros_scans_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(privileged, "scan")
    pieces = pmem.split("/dev/s", pmem.Piece(None, 7, 3 * pmem.PIECE + 1), TIMEOUT)
    covered(pieces, 7, 8 + 3 * pmem.PIECE)
    assert [each.length for each in pieces] == [*[pmem.PIECE] * 3, 1]
    assert all(each.source is None for each in pieces)


# The copy


@dataclasses.dataclass
class FakeTarget:
    """Takes pieces; :ivar:`on_write` happens in a stream before each of them."""

    timeout: float = TIMEOUT
    pieces: list[tuple[str, pmem.Piece]] = dataclasses.field(default_factory=list)
    threads: set[int] = dataclasses.field(default_factory=set)
    probed: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.stopped = threading.Event()
        self.lock = threading.Lock()

    def probe(self, devices: Sequence[pmem.Device]) -> None:
        self.probed += [each.name for each in devices]

    def on_write(self, target: pmem.Device, piece: pmem.Piece) -> None:
        pass

    def write(
        self, source: pmem.Device, target: pmem.Device, pieces: Sequence[pmem.Piece]
    ) -> Iterator[int]:
        for piece in pieces:
            self.on_write(target, piece)
            with self.lock:
                self.pieces.append((target.name, piece))
                self.threads.add(threading.get_ident())
            yield piece.length

    def stop(self) -> None:
        self.stopped.set()


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is data, and little of it is a batch."""
    monkeypatch.setattr(
        privileged, "scan", lambda path, at, length, limit: [(at, length)]
    )
    monkeypatch.setattr(pmem, "BATCH", 2 * MIB)
    monkeypatch.setattr(pmem, "PIECE", MIB)


def copy(
    target: pmem.Target,
    streams: int = 4,
    pairs: Sequence[tuple[pmem.Device, pmem.Device]] | None = None,
) -> tuple[pmem.Copy, list[int]]:
    told: list[int] = []
    if pairs is None:
        pairs = [(device("s", 64 * MIB), device("t", 64 * MIB))]
    return pmem.Copy(pairs, target, streams, told.append), told


@pytest.mark.usefixtures("_small")
def test_streams_share_the_work() -> None:
    target = FakeTarget()
    together = threading.Barrier(4)
    first: set[int] = set()

    def on_write(_target: pmem.Device, piece: pmem.Piece) -> None:
        if threading.get_ident() not in first:
            first.add(threading.get_ident())
            together.wait(10)  # passes only if four are at work at the same time

    target.on_write = on_write  # type: ignore[method-assign]
    the_copy, told = copy(target)
    the_copy.run()
    assert len(target.threads) == 4
    assert the_copy.total == 64 * MIB
    pieces = sorted((each for _name, each in target.pieces), key=lambda p: p.target)
    covered(pieces, 0, 64 * MIB)
    # Ever more, up to all of it.
    assert told == [n * MIB for n in range(1, 65)]


@pytest.mark.usefixtures("_small")
def test_all_devices_are_copied() -> None:
    target = FakeTarget()
    pairs = [
        (device("s0", 8 * MIB), device("t0", 8 * MIB)),
        (device("s1", 16 * MIB), device("t1", 24 * MIB)),
    ]
    the_copy, told = copy(target, pairs=pairs)
    assert the_copy.total == 32 * MIB
    the_copy.probe()
    assert target.probed == ["t0", "t1"]
    the_copy.run()
    assert told[-1] == 32 * MIB
    for _source, each in pairs:
        pieces = [piece for name, piece in target.pieces if name == each.name]
        covered(sorted(pieces, key=lambda p: p.target), 0, each.size)


@pytest.mark.usefixtures("_small")
def test_stream_that_fails_stops_the_others_and_is_the_reason() -> None:
    target = FakeTarget()

    def on_write(_target: pmem.Device, piece: pmem.Piece) -> None:
        if piece.target == 0:
            raise privileged.DaxioError("the first reason")
        assert target.stopped.wait(10)
        raise pmem_host.CopyError("killed in the course of it")

    target.on_write = on_write  # type: ignore[method-assign]
    the_copy, _told = copy(target)
    with pytest.raises(pmem_host.CopyError, match="the first reason") as caught:
        the_copy.run()
    assert isinstance(caught.value.__cause__, privileged.DaxioError)
    assert target.pieces == []  # nobody took a second batch
    assert target.stopped.is_set()


@pytest.mark.usefixtures("_small")
def test_unexpected_error_of_a_stream_is_no_success() -> None:
    target = FakeTarget()

    def on_write(_target: pmem.Device, piece: pmem.Piece) -> None:
        raise ZeroDivisionError("what is that")

    target.on_write = on_write  # type: ignore[method-assign]
    the_copy, _told = copy(target)
    with pytest.raises(pmem_host.CopyError, match="what is that"):
        the_copy.run()


@pytest.mark.usefixtures("_small")
def test_target_that_drops_a_piece_without_a_word_is_no_success() -> None:
    class Lossy(FakeTarget):
        def write(
            self, source: pmem.Device, target: pmem.Device, pieces: Sequence[pmem.Piece]
        ) -> Iterator[int]:
            yield from super().write(source, target, pieces[:-1])

    the_copy, _told = copy(Lossy())
    with pytest.raises(pmem_host.CopyError, match=f"of {64 * MIB} bytes were copied"):
        the_copy.run()


def test_source_that_cannot_be_scanned_is_no_success(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def scan(path: str, at: int, length: int, limit: float) -> list[tuple[int, int]]:
        raise privileged.DeviceError("/dev/s cannot be read")

    monkeypatch.setattr(privileged, "scan", scan)
    the_copy, _told = copy(FakeTarget())
    with pytest.raises(pmem_host.CopyError, match="/dev/s cannot be read"):
        the_copy.run()


@pytest.mark.usefixtures("_small")
def test_stop_while_it_runs() -> None:
    target = FakeTarget()
    began = threading.Event()

    def on_write(_target: pmem.Device, piece: pmem.Piece) -> None:
        began.set()
        assert target.stopped.wait(10)
        raise pmem_host.CopyError("ssh ended with -9")

    target.on_write = on_write  # type: ignore[method-assign]
    the_copy, _told = copy(target)

    def stop() -> None:
        assert began.wait(10)
        the_copy.stop("the guest was destroyed")

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(pmem_host.CopyError, match="the guest was destroyed"):
        the_copy.run()
    stopper.join()
    assert target.stopped.is_set()


@pytest.mark.usefixtures("_small")
def test_stop_before_it_runs() -> None:
    target = FakeTarget()
    the_copy, _told = copy(target)
    the_copy.stop("the guest was destroyed")
    with pytest.raises(pmem_host.CopyError, match="the guest was destroyed"):
        the_copy.run()
    assert target.pieces == []


# Verify


@pytest.fixture
def pair(
    memory: pmem_hosts.Memory, monkeypatch: pytest.MonkeyPatch
) -> tuple[pmem.Device, pmem.Device]:
    monkeypatch.setattr(pmem, "BATCH", 4 * MIB)
    content = random.Random(2).randbytes(9 * MIB + 5)  # noqa: S311 - no secret
    label = content[-LABEL:]
    there = content[:-LABEL] + bytes(3 * MIB) + label
    return memory.device("dax1.0", content), memory.device("dax1.1", there)


def digest(target: pmem.Device, offset: int, length: int) -> str:
    return privileged.digest(target.path, offset, length, TIMEOUT)


def test_verify_of_equal_devices(pair: tuple[pmem.Device, pmem.Device]) -> None:
    the_copy, _told = copy(FakeTarget(), 2, [pair])
    the_copy.verify(digest)


@pytest.mark.parametrize(
    "place", [0, 4 * MIB - 1, 4 * MIB, 7 * MIB + 4, 10 * MIB + 5, 12 * MIB + 4]
)
def test_verify_finds_a_flipped_byte(
    pair: tuple[pmem.Device, pmem.Device], place: int
) -> None:
    with open(pair[1].path, "r+b") as file:
        file.seek(place)
        was = file.read(1)
        file.seek(place)
        file.write(bytes([was[0] ^ 1]))
    the_copy, _told = copy(FakeTarget(), 2, [pair])
    with pytest.raises(
        pmem_host.CopyError, match=r"differ from those at .* of .*dax1.0"
    ):
        the_copy.verify(digest)


def test_verify_passes_on_what_the_destination_says(
    pair: tuple[pmem.Device, pmem.Device],
) -> None:
    def fail(target: pmem.Device, offset: int, length: int) -> str:
        raise LookupError("no such device")

    the_copy, _told = copy(FakeTarget(), 2, [pair])
    with pytest.raises(LookupError):
        the_copy.verify(fail)


def test_verify_of_a_source_that_cannot_be_read(
    pair: tuple[pmem.Device, pmem.Device], memory: pmem_hosts.Memory
) -> None:
    memory.kernel_says("dax1.0", "dev", "252:0")
    the_copy, _told = copy(FakeTarget(), 2, [pair])
    with pytest.raises(pmem_host.CopyError, match="252:0"):
        the_copy.verify(digest)


def test_stop_while_it_verifies(pair: tuple[pmem.Device, pmem.Device]) -> None:
    asked: list[int] = []
    the_copy, _told = copy(FakeTarget(), 1, [pair])

    def stop(target: pmem.Device, offset: int, length: int) -> str:
        asked.append(offset)
        the_copy.stop("the guest was destroyed")
        return digest(target, offset, length)

    with pytest.raises(pmem_host.CopyError, match="the guest was destroyed"):
        the_copy.verify(stop)
    assert len(asked) == 1


# What nova believes of a device


def test_check(memory: pmem_hosts.Memory) -> None:
    good = memory.device("dax1.0", bytes(4096))
    pmem.check(good)
    pmem.check(dataclasses.replace(good, size=4095))
    for wrong in (
        dataclasses.replace(good, size=4097),
        dataclasses.replace(good, align=4096),
    ):
        with pytest.raises(pmem_host.CopyError, match="restart nova-compute"):
            pmem.check(wrong)
    memory.kernel_says("dax1.0", "dev", "252:0")
    with pytest.raises(pmem_host.CopyError, match="252:0"):
        pmem.check(good)
