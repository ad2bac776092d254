# SPDX-License-Identifier: Apache-2.0
"""The speed of a copy of persistent memory beside the plain pipeline and the ceiling.

The devices are files in memory, treated by the stand-in for daxio: real device DAX is
emulated here and slower than any of this. ssh, its ciphers and the CPU are real. All
ways copy the same bytes to the same host over loopback, turn by turn, in one run.
"""

from __future__ import annotations

import argparse
import contextlib
import filecmp
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from aiolib import devices, host_holder, waiting
from aiolib.settings import TOOLS

MIB = 1 << 20
_SOURCE, _TARGET = "dax0.0", "dax0.1"
_INSIDE = "AIO_BENCH_PMEM"
_RUN = 256 * MIB  # bytes of which the first quarter is data, when 75 % are zeros
_WANTED = {"random": 1.5, "75 % zeros": 3.0}
_WANTED_OF_CEILING = 0.9


def main(arguments: list[str]) -> int:
    """Run the benchmark; 1 if a ratio is less than wanted."""
    parser = argparse.ArgumentParser(prog="tools/bench pmem")
    parser.add_argument("--rounds", type=int, default=3, help="default 3")
    parser.add_argument("--size", type=int, default=2048, help="MiB, default 2048")
    parser.add_argument(
        "--streams", type=int, default=os.cpu_count(), help="default: one per core"
    )
    options = parser.parse_args(arguments)
    memory = os.environ.get(_INSIDE)
    if memory is None:
        return _again_inside(arguments)
    bench = _Bench(pathlib.Path(memory), options.size * MIB, options.streams)
    with bench.sshd():
        return bench.run(options.rounds)


def _again_inside(arguments: list[str]) -> int:
    """Run in a mount namespace of its own, which may have another /dev."""
    code = "import sys, aiolib.bench_pmem as b; sys.exit(b.main(sys.argv[1:]))"
    words = ["unshare", "--mount", "--propagation", "private", "--"]
    words += [sys.executable, "-c", code, *arguments]
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        environment = {**os.environ, _INSIDE: memory}
        return subprocess.run(words, env=environment, check=False).returncode


class _Bench:
    def __init__(self, memory: pathlib.Path, size: int, streams: int) -> None:
        self._memory = memory
        self._size = size
        self._streams = streams
        self._source, self._target = memory / _SOURCE, memory / _TARGET
        programs = memory / "sbin"
        shutil.copytree(TOOLS / "aiolib/standins", programs)
        os.environ["PATH"] = f"{programs}:{os.environ['PATH']}"
        nodes = []
        for path in (self._source, self._target):
            with path.open("wb") as file:
                file.truncate(size)
            sysfs = {"dev": "0:0", "size": size, "align": devices.ALIGN}
            nodes.append({"node": path.name, "path": str(path), "sysfs": sysfs})
        scratch = memory / "scratch"
        scratch.mkdir()
        host_holder.own_bus(scratch, nodes)
        host_holder.own_dev(scratch, nodes)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = str(probe.getsockname()[1])

    @contextlib.contextmanager
    def sshd(self) -> Iterator[None]:
        """An sshd on loopback that lets this benchmark in."""
        for name in ("host", "user"):
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", ""]
            subprocess.run([*words, "-f", self._memory / name], check=True, timeout=30)
        config = self._memory / "sshd_config"
        config.write_text(
            f"Port {self._port}\nListenAddress 127.0.0.1\n"
            f"HostKey {self._memory}/host\nPidFile none\nUsePAM no\nStrictModes no\n"
            f"AuthorizedKeysFile {self._memory}/user.pub\n"
            f"SetEnv PATH={os.environ['PATH']}\n"
        )
        pathlib.Path("/run/sshd").mkdir(exist_ok=True)
        # sshd lets nobody in whose password is locked, not even by a key.
        shadow = self._memory / "shadow"
        shadow.write_text("root:*:19000:0:99999:7:::\n")
        subprocess.run(
            ["mount", "--bind", shadow, "/etc/shadow"], check=True, timeout=10
        )
        server = subprocess.Popen(
            ["/usr/sbin/sshd", "-D", "-E", self._memory / "sshd.log", "-f", config]
        )
        try:
            self._until_it_answers()
            yield
        finally:
            server.terminate()
            server.wait(10)

    def _until_it_answers(self) -> None:
        words = [*self._ssh(), "true"]
        waiting.until(
            "an answer of sshd",
            lambda: subprocess.run(words, check=False).returncode == 0,
            20,
            0.2,
        )

    def _ssh(self, *options: str) -> list[str]:
        words = ["ssh", "-T", "-x", "-p", self._port, "-i", f"{self._memory}/user"]
        for option in (
            "BatchMode=yes",
            "LogLevel=ERROR",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
        ):
            words += ["-o", option]
        return [*words, *options, "127.0.0.1"]

    # The ways to copy.

    def plain(self) -> None:
        """What an operator types: daxio into ssh into daxio."""
        sender = subprocess.Popen(
            ["daxio", "-i", f"/dev/{_SOURCE}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        subprocess.run(
            [*self._ssh(), f"daxio -o /dev/{_TARGET}"],
            stdin=sender.stdout,
            stderr=subprocess.DEVNULL,
            check=True,
            timeout=600,
        )
        if sender.wait(10):
            raise RuntimeError("the plain pipeline failed")

    def ours(self) -> None:
        """The project's copy."""
        from nova_ext.virt import pmem as pmem_host
        from nova_ext.virt.libvirt.pmem import copy as pmem
        from nova_ext.virt.libvirt.pmem import target as pmem_target

        source, target = (
            pmem_host.Device(name, "", f"/dev/{name}", self._size, devices.ALIGN)
            for name in (_SOURCE, _TARGET)
        )
        remote = pmem_target.Remote(
            self._ssh("-c", ",".join(_ciphers())), [], 600, "bench"
        )
        copy = pmem.Copy([(source, target)], remote, self._streams, lambda done: None)
        copy.run()

    def ceiling(self) -> None:
        """Nothing but as many ssh with the same cipher, from memory to memory."""
        share = self._size // self._streams
        running = []
        for number in range(self._streams):
            words = ["dd", "bs=1M", f"seek={number * share}", "oflag=seek_bytes"]
            words += ["conv=notrunc", "iflag=fullblock", "status=none"]
            command = " ".join([*words, f"of={self._target}"])
            part = self._memory / f"part{number}"
            running.append(
                subprocess.Popen(
                    [*self._ssh("-c", ",".join(_ciphers())), command],
                    stdin=part.open("rb"),
                )
            )
        if any(each.wait(600) for each in running):
            raise RuntimeError("an ssh of the ceiling failed")

    def cp(self) -> None:
        """Within the host."""
        words = ["cp", "--sparse=never", self._source, self._target]
        subprocess.run(words, check=True, timeout=600)

    # The run.

    def run(self, rounds: int) -> int:
        import nova.privsep

        nova.privsep.sys_admin_pctxt.set_client_mode(False)  # this is root already
        print(
            f"{self._size // MIB} MiB in memory, {self._streams} streams, "
            f"{os.cpu_count()} cores, medians of {rounds} rounds in MB/s; "
            f"zeros in runs of {_RUN * 3 // 4 // MIB} MiB"
        )
        bad = 0
        for data, wanted in _WANTED.items():
            self._fill(data)
            ways: list[Callable[[], None]] = [self.plain, self.ours]
            if data == "random":
                ways += [self.ceiling, self.cp]
            speeds = self._speeds(ways, rounds)
            for way, speed in speeds.items():
                print(f"  {data:12} {way:10} {speed:8.0f}")
            bad += _ratio(f"{data}: ours / plain", speeds, "plain", wanted)
            if data == "random":
                name = "random: ours / ceiling of its cipher and streams"
                bad += _ratio(name, speeds, "ceiling", _WANTED_OF_CEILING)
        return 1 if bad else 0

    def _speeds(self, ways: list[Callable[[], None]], rounds: int) -> dict[str, float]:
        times: dict[str, list[float]] = {way.__name__: [] for way in ways}
        for _ in range(rounds):
            for way in ways:
                start = time.perf_counter()
                way()
                times[way.__name__].append(time.perf_counter() - start)
                if not filecmp.cmp(self._source, self._target, shallow=False):
                    raise RuntimeError(f"{way.__name__} did not copy all bytes")
                with self._target.open("r+b") as file:  # no way gains from another
                    for at in range(0, self._size, MIB):
                        file.seek(at)
                        file.write(b"\xff" * min(MIB, self._size - at))
        return {
            name: self._size / statistics.median(values) / 1e6
            for name, values in times.items()
        }

    def _fill(self, data: str) -> None:
        with self._source.open("r+b") as file:
            for at in range(0, self._size, MIB):
                zero = data != "random" and at % _RUN >= _RUN // 4
                file.write(bytes(MIB) if zero else os.urandom(MIB))
        share = self._size // self._streams
        for number in range(self._streams):
            end = self._size if number == self._streams - 1 else (number + 1) * share
            with self._source.open("rb") as file:
                file.seek(number * share)
                content = file.read(end - number * share)
            (self._memory / f"part{number}").write_bytes(content)


def _ciphers() -> list[str]:
    from nova_ext import conf

    option = next(each for each in conf.OPTS if each.name == "pmem_ssh_ciphers")
    return list(option.default)


def _ratio(name: str, speeds: dict[str, float], base: str, wanted: float) -> bool:
    """Print a ratio; whether it is less than wanted."""
    ratio = speeds["ours"] / speeds[base]
    verdict = "ok" if ratio >= wanted else "LESS"
    print(f"  {name}: {ratio:.2f}, wanted at least {wanted}: {verdict}")
    return ratio < wanted
