# SPDX-License-Identifier: Apache-2.0
"""Copies between two hosts that fail at each point where they can.

Each leaves nothing running on the source, its data as it was, and a destination that
can be zeroed for good.
"""

import signal
import time

import pytest
from pmemhosts.worker import CallError

from tests.pmem.transfer import MIB, ROOT, SUDO

NAME = "ns_30MB_0"
TARGET = {NAME: "ns_30MB_1"}
#: One device in two streams, each with four pieces. One that is not taken does not
#: fit between the two daxio: a FIFO of 1 MiB, a window of ssh of 2 MiB.
TWO = {"pmem_copy_streams": 2}
PIECES = {"PIECE": 4 * MIB}
#: A daxio with a piece to write, and one with a piece to read.
RECEIVER = "^daxio -o /dev/dax"
SENDER = "^daxio -i /dev/dax"
SSH = "^ssh .*/dev/dax"


@pytest.fixture
def halfway(transfer):
    """Makes a copy of which a piece has arrived and the next is waited for."""

    def make(**settings):
        overrides = {**TWO, **settings.pop("overrides", {})}
        copied = transfer(overrides=overrides, constants=PIECES, **settings)
        copied.prepare(TARGET, hold=1)
        copied.source.call("start")
        copied.source.call("held", 180, timeout=180)
        receivers = f"{RECEIVER}.* -s ({4 * MIB}|{20 * MIB}) "
        copied.receivers = copied.destination.on.python(
            "wait_for", pattern=receivers, count=2, sleeps_in="pipe"
        )
        copied.destination_is_dirty()
        return copied

    return make


@pytest.fixture
def stuck(halfway):
    """Makes a copy in whose middle no byte moves: the receivers are stopped."""

    def make(**settings):
        copied = halfway(**settings)
        peer = copied.destination.on
        peer.python("send", pids=copied.receivers, number=signal.SIGSTOP)
        copied.source.call("go")
        copied.senders = copied.source.on.python(
            "wait_for", pattern=SENDER, count=2, sleeps_in="pipe"
        )
        return copied

    return make


def _refused(copied, reason):
    with pytest.raises(CallError, match=reason) as caught:
        copied.source.call("probe")
    assert caught.value.kind == "CopyError"
    with pytest.raises(CallError, match=reason):
        copied.run()
    copied.fails(reason)


# Before it begins


def test_device_that_the_destination_does_not_have(transfer, destination):
    copied = transfer()
    copied.prepare(TARGET, path="/dev/dax9.9")
    _refused(copied, "neither input nor output is device dax")
    # The real daxio leaves an empty file there, which nobody takes for a device.
    left = ["/dev/dax9.9"]
    kind = destination.host.exec(["stat", "-c", "%F", *left], 30).stdout.strip()
    assert kind == "regular empty file"
    destination.host.exec(["rm", *left], 30)


def test_smaller_device_is_refused(transfer):
    copied = transfer()
    with pytest.raises(CallError, match=r"has 31457280 bytes .* 14680064") as caught:
        copied.prepare({NAME: "ns_14MB_0"})
    assert caught.value.kind == "CopyError"


@pytest.mark.parametrize("name", [NAME, "ns_30MB_2"], ids=["data", "zeros"])
def test_device_that_is_smaller_than_nova_believes(transfer, name):
    """daxio ends with status 0 at the end of the device: the counts tell."""
    copied = transfer(overrides=TWO, constants={"PIECE": 128 * MIB, "BATCH": 30 * MIB})
    copied.prepare({name: "ns_14MB_0"}, size=30 * MIB)
    copied.source.call("probe")
    copied.source.call("start")
    copied.fails("copied [0-9]+ bytes|offset beyond|mmap: Invalid argument")
    copied.clean()


def test_destination_without_daxio(transfer, destination):
    copied = transfer()
    copied.prepare(TARGET)
    destination.host.exec(["mv", "/usr/bin/daxio", "/usr/bin/daxio.away"], 30)
    try:
        _refused(copied, "daxio: command not found")
        with pytest.raises(CallError, match=r"CopyError: .*install pmdk-tools"):
            copied.destination.call("sanitize", names=copied.targets)
        assert copied.destination.call("pending_sanitize") == copied.targets
    finally:
        destination.host.exec(["mv", "/usr/bin/daxio.away", "/usr/bin/daxio"], 30)
    copied.clean()


def test_destination_that_refuses_ssh(transfer, destination):
    copied = transfer()
    copied.prepare(TARGET)
    destination.host.exec(["sh", "-c", "kill $(cat /run/sshd.pid)"], 30)
    try:
        destination.python("wait_for", pattern="^sshd: .*listener", count=0)
        _refused(copied, "ssh ended with 255: .*Connection refused")
    finally:
        destination.host.exec(["/usr/sbin/sshd"], 30)
    copied.clean()


@pytest.mark.parametrize(
    ("prefix", "reason"),
    [([], "Permission denied"), (["sudo", "-n", "nice"], "a password is required")],
    ids=["no sudo", "other sudo"],
)
def test_user_without_the_right_to_write(transfer, prefix, reason):
    copied = transfer(overrides={**SUDO, "pmem_remote_command_prefix": prefix})
    copied.prepare(TARGET)
    _refused(copied, reason)
    copied.clean()


# In the middle


@pytest.mark.parametrize("login", [SUDO, ROOT], ids=["sudo", "root"])
def test_daxio_of_the_source_is_killed(stuck, login):
    copied = stuck(overrides=login)
    copied.source.on.python("send", pids=copied.senders[:1], number=signal.SIGKILL)
    copied.fails("daxio -i .* ended with -9")
    copied.clean()


@pytest.mark.parametrize("login", [SUDO, ROOT], ids=["sudo", "root"])
def test_ssh_is_killed_and_the_rest_of_the_chain_runs_on(stuck, login):
    copied = stuck(overrides=login)
    (one, _) = copied.source.on.python("wait_for", pattern=SSH, count=2)
    copied.source.on.python("send", pids=[one], number=signal.SIGKILL)
    copied.fails("ssh ended with -9")
    # What is on its way is written while the device is zeroed.
    copied.destination.on.python("send", pids=copied.receivers, number=signal.SIGCONT)
    copied.clean()


@pytest.mark.parametrize("login", [SUDO, ROOT], ids=["sudo", "root"])
def test_daxio_of_the_destination_is_killed(halfway, login):
    copied = halfway(overrides=login)
    peer = copied.destination.on
    peer.python("send", pids=copied.receivers[:1], number=signal.SIGKILL)
    copied.source.call("go")
    copied.fails("ssh ended with (137|255)|Killed")
    copied.clean()


def test_sshd_of_the_destination_is_killed(stuck):
    copied = stuck(overrides=SUDO)
    peer = copied.destination.on
    sessions = peer.python("wait_for", pattern="^sshd: nova@notty", count=2)
    peer.python("send", pids=sessions, number=signal.SIGKILL)
    copied.fails("ssh ended with 255")
    peer.python("send", pids=copied.receivers, number=signal.SIGCONT)
    copied.clean()


def test_destination_that_hangs(stuck):
    copied = stuck(overrides={"pmem_copy_timeout": 30})
    copied.fails("took more than|did not end within")
    copied.clean()


@pytest.mark.short
@pytest.mark.parametrize("login", [SUDO, ROOT], ids=["sudo", "root"])
def test_network_is_cut(halfway, links, login):
    copied = halfway(overrides=login)
    links.cut()
    begin = time.monotonic()
    copied.source.call("go")
    copied.fails("ssh ended with 255")
    # three times five seconds without an answer
    assert 10 < time.monotonic() - begin < 40
    peer = copied.destination.on
    assert set(peer.python("processes", pattern=RECEIVER)) >= set(
        map(str, copied.receivers)
    )
    links.mend()
    copied.clean()


def test_copy_that_is_told_to_stop(stuck):
    copied = stuck()
    begin = time.monotonic()
    copied.source.call("stop", reason="the server is deleted")
    copied.fails("the server is deleted")
    assert time.monotonic() - begin < 20
    copied.clean()


# After the death of nova-compute


@pytest.mark.short
def test_orphans_of_a_killed_source_are_ended(stuck, begin, source):
    copied = stuck()
    copied.source.kill()
    for orphans in (SSH, SENDER):
        assert len(source.python("processes", pattern=orphans)) == 2
    again = begin(source)
    again.call("kill_stale_processes", uuid="of another server")
    assert len(source.python("processes", pattern=SSH)) == 2
    again.call("kill_stale_processes", uuid=copied.uuid)
    again.call("release", path=source.devices[NAME])
    for orphans in (SSH, SENDER):
        assert source.python("processes", pattern=orphans) == {}
    assert source.inside("digest", NAME) == copied.digests[NAME]
    copied.clean()


def test_orphans_of_a_killed_source_do_not_reach_a_clean_device(stuck, source):
    """The source's host has no nova-compute any more that would end them."""
    copied = stuck()
    copied.source.kill()
    copied.destination.on.python("send", pids=copied.receivers, number=signal.SIGCONT)
    copied.clean()
    for orphans in (SSH, SENDER):
        source.python("wait_for", pattern=orphans, count=0)
    peer = copied.destination.on
    assert peer.inside("zeros", TARGET[NAME]) == 30 * MIB
    assert source.inside("digest", NAME) == copied.digests[NAME]


def test_killed_destination_cleans_when_it_is_back(stuck, begin, destination):
    copied = stuck()
    copied.destination.kill()
    copied.source.call("stop", reason="the destination does not answer")
    copied.fails("the destination does not answer")
    copied.destination = begin(destination)
    assert copied.destination.call("pending_sanitize") == copied.targets
    copied.clean()
