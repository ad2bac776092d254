# SPDX-License-Identifier: Apache-2.0
"""The facts about device-dax and daxio that the copy of PMEM devices relies on."""

import shlex
import subprocess

import pytest

pytestmark = pytest.mark.short

MIB = 1 << 20


def test_devices_have_their_names_and_sizes(source, destination):
    for host in (source, destination):
        sizes = {
            name: host.inside("size", name) // MIB for name in sorted(host.devices)
        }
        assert sizes == {
            "ns_14MB_0": 14,
            "ns_14MB_1": 14,
            "ns_30MB_0": 30,
            "ns_30MB_1": 30,
            "ns_30MB_2": 30,
        }


def test_device_check_agrees_with_the_kernel(source):
    size, align = source.worker.call(
        "nova_ext.privsep.pmem:check", 180, path=source.devices["ns_14MB_0"]
    )
    assert (size, align) == (14 * MIB, 2 * MIB)


def test_chain_of_daxio_shares_one_input(destination):
    """Each takes its bytes and no more, whatever the lengths are."""
    name = "ns_14MB_0"
    path = destination.devices[name]
    destination.inside("fill", name, kind="random")
    data = bytes(range(251)) * 8000
    lengths = (4097, 1, 1_000_003, 999_999)
    steps, at = [], 0
    for length in lengths:
        steps.append(f"daxio -o {path} -s {at} -l {length}")
        at += length
    steps.insert(2, f"daxio -z -o {path} -s {at} -l 12345")
    command = " && ".join(steps) + " && wc -c"
    done = destination.host.exec(["sh", "-c", command], 60, input=data)
    assert done.stdout.strip() == str(len(data) - at)
    counts = [int(line.split()[2]) for line in done.stderr.splitlines()]
    assert counts == [4097, 1, 12345, 1_000_003, 999_999]
    expected = destination.host.exec(["sha256sum"], 60, input=data[:at])
    assert destination.inside("digest", name, length=at) == expected.stdout.split()[0]


def test_short_input_is_told_by_the_count_alone(destination):
    path = destination.devices["ns_14MB_0"]
    done = destination.host.run(
        ["sh", "-c", f"daxio -o {path} -l 1000 && daxio -o {path} -l 7"], 60, b"x" * 9
    )
    assert done.returncode == 0
    counts = [line for line in done.stderr.splitlines() if " copied " in line]
    assert [int(line.split()[2]) for line in counts] == [9, 0]


def test_zeroing_a_range_leaves_the_rest(destination):
    name = "ns_14MB_1"
    path = destination.devices[name]
    destination.inside("fill", name, kind="random")
    before = destination.inside("digest", name, length=5000)
    after = destination.inside("digest", name, offset=5777, length=14 * MIB - 5777)
    destination.host.exec(["daxio", "-z", "-o", path, "-s", "5000", "-l", "777"], 60)
    assert destination.inside("digest", name, length=5000) == before
    rest = destination.inside("digest", name, offset=5777, length=14 * MIB - 5777)
    assert rest == after
    zero = destination.host.exec(["sha256sum"], 30, input=bytes(777)).stdout.split()[0]
    assert destination.inside("digest", name, offset=5000, length=777) == zero


def test_receiver_stays_after_a_cut(source, destination, links):
    """Nothing but a kill ends it: why the destination fences before it zeroes."""
    path = destination.devices["ns_30MB_2"]
    receiver = f"daxio -o {path} -l {20 * MIB}"
    ssh = "ssh -o ServerAliveInterval=1 -o ServerAliveCountMax=3 pmem2"
    words = [*source.host.ssh(), f"{ssh} {shlex.quote(receiver)}"]
    peer = destination.host
    with subprocess.Popen(words, stdin=subprocess.PIPE) as client:
        client.stdin.write(bytes(100_000))
        client.stdin.flush()
        try:
            peer.exec(
                ["sh", "-c", f"until pgrep -f '^{receiver}'; do sleep .1; done"], 60
            )
            links.cut()
            assert client.wait(60) == 255
            assert peer.exec(["pgrep", "-f", f"^{receiver}"], 20).stdout
        finally:
            client.kill()
            peer.run(["pkill", "-f", f"^{receiver}"], 20)
    assert peer.run(["pgrep", "-f", f"^{receiver}"], 20).returncode == 1
