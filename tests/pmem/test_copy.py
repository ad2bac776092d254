# SPDX-License-Identifier: Apache-2.0
"""Copies between two hosts with the real ssh, sudo and daxio that arrive."""

import pytest
from pmemhosts.worker import CallError

from tests.pmem.transfer import MIB, ROOT, SUDO

#: At most three pieces to a batch, of odd lengths.
SMALL = {"PIECE": 1_500_001, "BATCH": 4 * MIB}


def _fill(destination, *names):
    """What was there before must not stay."""
    for name in names:
        destination.inside("fill", name, kind="ones")


@pytest.mark.parametrize("login", [SUDO, ROOT], ids=["sudo", "root"])
def test_all_devices_arrive(transfer, destination, content, login):
    names = {"ns_30MB_1": "ns_30MB_2", "ns_14MB_1": "ns_14MB_0"}
    _fill(destination, *names.values())
    copied = transfer(overrides=login)
    assert copied.prepare(names) == 44 * MIB
    copied.source.call("probe")
    copied.run()
    for name, target in names.items():
        assert destination.inside("digest", target) == content[name]
        assert destination.inside("users", target) == []
    copied.source_is_whole()
    # Whose data arrived has it; nothing is zeroed behind its back.
    copied.destination.call("adopt", names=copied.targets, owner=copied.uuid)
    copied.destination.call("sanitize", names=copied.targets)
    assert destination.inside("digest", "ns_14MB_0") == content["ns_14MB_1"]


@pytest.mark.parametrize("threads", [None, 8], ids=["one thread", "eight threads"])
def test_many_batches_and_pieces_side_by_side(transfer, destination, content, threads):
    """The hosts have one core, so that nova's default is one thread."""
    _fill(destination, "ns_30MB_0")
    streams = {"pmem_copy_streams": 4}
    copied = transfer(overrides=streams, constants=SMALL, threads=threads)
    copied.prepare({"ns_30MB_1": "ns_30MB_0"})
    copied.run()
    assert destination.inside("digest", "ns_30MB_0") == content["ns_30MB_1"]
    copied.source_is_whole()


@pytest.mark.short
def test_label_area_goes_to_the_end_of_a_bigger_device(transfer, source, destination):
    _fill(destination, "ns_30MB_1")
    copied = transfer(constants=SMALL)
    assert copied.prepare({"ns_14MB_1": "ns_30MB_1"}) == 30 * MIB
    copied.run()
    _is_stretched(source, "ns_14MB_1", destination, "ns_30MB_1")
    copied.source_is_whole()


def _is_stretched(source, name, destination, target):
    for at, to, length in ((0, 0, 12 * MIB), (12 * MIB, 28 * MIB, 2 * MIB)):
        there = destination.inside("digest", target, offset=to, length=length)
        assert there == source.inside("digest", name, offset=at, length=length)
    middle = {"offset": 12 * MIB, "length": 16 * MIB}
    assert destination.inside("zeros", target, **middle) == 16 * MIB


@pytest.mark.short
def test_copy_within_a_host(transfer, destination, content):
    """On the destination, whose devices first get something to copy."""
    _fill(destination, "ns_30MB_1", "ns_30MB_2")
    before = {}
    for name in ("ns_14MB_0", "ns_30MB_0"):
        destination.inside("fill", name, kind="random")
        before[name] = destination.inside("digest", name)
    copied = transfer()
    copied.source, copied.digests = copied.destination, before
    copied.prepare({"ns_14MB_0": "ns_30MB_2", "ns_30MB_0": "ns_30MB_1"})
    copied.source.call("probe")
    copied.run()
    _is_stretched(destination, "ns_14MB_0", destination, "ns_30MB_2")
    assert destination.inside("digest", "ns_30MB_1") == before["ns_30MB_0"]
    copied.source_is_whole()


def test_verification_finds_a_changed_byte(transfer, destination):
    copied = transfer(constants=SMALL)
    copied.prepare({"ns_14MB_1": "ns_30MB_2"})
    copied.run()
    _verify(copied)
    destination.inside(
        "fill", "ns_30MB_2", kind="random", offset=30 * MIB - 16, length=16
    )
    with pytest.raises(CallError, match="CopyError: 2097152 bytes at 29360128 of"):
        _verify(copied)


def _verify(copied):
    digests = [
        copied.destination.call("digest", name=name, offset=at, length=length)
        for name, at, length in copied.source.call("ranges")
    ]
    copied.source.call("verify", digests=digests)
