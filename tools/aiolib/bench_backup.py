# SPDX-License-Identifier: Apache-2.0
"""The benchmark of backup notifications: what they cost a backup, and the bus.

The same volume is backed up by the posix driver with cinder's own manager and no
notifications, with cinder's own manager, and with ours, turn by turn in one run. The
driver files are the witness of the time: from the first object to the last word of the
backup, without the waiting of any client.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import pathlib
import re
import statistics
import sys
from collections.abc import Iterator

import openstack.exceptions

from aiolib.bus import Listener, Message
from aiolib.client import Cloud
from aiolib.volumes import GIB, Volumes

_WANTED_COST = 1.01  # of the time without notifications
_WANTED_BYTES = 2_000_000  # for a volume of 1 TiB
_TIB = 1 << 40
_SERVICE = "cinder-backup"
_OURS = "cinder_ext.backup.manager.BackupManager"
_STOCK = "cinder.backup.manager.BackupManager"
# what a site gets that sets nothing, which the cloud of the tests is not
_CHUNK = 52_428_800  # bytes; of the drivers for object stores
_COUNT = 10  # chunks for each message
_STEP = 1.0  # percent
_MAX_INTERVAL = 120  # s
_DEFAULTS = {
    "backup_file_size": _CHUNK,
    "backup_object_number_per_notification": _COUNT,
    "format": "unversioned",
    "min_interval": 5,
    "max_interval": _MAX_INTERVAL,
    "min_percent_step": _STEP,
}
_SLOW = 50e6  # bytes a second


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to run cinder-backup."""

    name: str
    manager: str
    notifies: bool


WAYS = (
    Way("off", _STOCK, notifies=False),
    Way("stock", _STOCK, notifies=True),
    Way("ours", _OURS, notifies=True),
)


def _sizes(messages: list[Message]) -> list[tuple[str, int]]:
    """Type and bytes of each that tells of a backup."""
    return [
        (message.event["event_type"], message.size)
        for message in messages
        if message.event["event_type"].startswith("backup.")
    ]


@contextlib.contextmanager
def _service(cloud: Cloud) -> Iterator[pathlib.Path]:
    """The configuration file of the service, which is put back at the end."""
    path = cloud.settings.etc / "cinder" / f"{_SERVICE}.conf"
    before = path.read_text()
    try:
        yield path
    finally:
        path.write_text(before)
        cloud.restart(_SERVICE)


def _configured(before: str, way: Way) -> str:
    """The configuration of a way to run the service."""
    values = {**_DEFAULTS, "backup_manager": way.manager}
    if not way.notifies:
        values["driver"] = "noop"
    for name, value in values.items():
        before = re.sub(rf"(?m)^{name} = .*$", f"{name} = {value}", before)
    return before


def main(arguments: list[str]) -> int:
    """Run the benchmark; 1 if a figure is not as wanted."""
    parser = argparse.ArgumentParser(prog="tools/bench backup")
    parser.add_argument("--rounds", type=int, default=3, help="default 3")
    options = parser.parse_args(arguments)
    cloud = Cloud()
    cloud.require_up()
    volumes, admin = Volumes(cloud, cloud.tenant), cloud.admin
    bus = Listener(cloud.rabbit_url, "cinder", "notifications")
    seconds: dict[str, list[float]] = {way.name: [] for way in WAYS}
    messages: dict[str, list[tuple[str, int]]] = {}
    with contextlib.ExitStack() as cleanup:
        volume = volumes.make("bench-backup", "rbd")
        cleanup.callback(volumes.api.delete_volume, volume)
        volumes.fill(volume, GIB)
        path = cleanup.enter_context(_service(cloud))
        before = path.read_text()
        try:
            for _ in range(options.rounds):
                for way in WAYS:
                    path.write_text(_configured(before, way))
                    cloud.stop(_SERVICE)
                    volumes.start_service(admin, _SERVICE)
                    known = len(bus.messages())
                    backup = volumes.order(volume)
                    volumes.wait(backup)
                    seconds[way.name].append(volumes.seconds(backup))
                    messages[way.name] = _sizes(bus.messages(silence=2)[known:])
                    volumes.delete_backup(backup)
        except (openstack.exceptions.SDKException, TimeoutError) as exc:
            print(f"the benchmark failed: {exc}", file=sys.stderr)
            return 1
    return _report(options.rounds, seconds, messages)


def _report(
    rounds: int,
    seconds: dict[str, list[float]],
    messages: dict[str, list[tuple[str, int]]],
) -> int:
    print(f"1 GiB of random data from RBD to files, medians of {rounds} rounds")
    for way in WAYS:
        sizes = [size for _event, size in messages[way.name]]
        print(
            f"  {way.name:6} {statistics.median(seconds[way.name]):7.2f} s, "
            f"{len(sizes):3} messages, {sum(sizes):7} bytes, "
            f"the biggest {max(sizes, default=0)}"
        )
    ratios = {
        way.name: statistics.median(
            mine / off
            for mine, off in zip(seconds[way.name], seconds["off"], strict=True)
        )
        for way in WAYS[1:]
    }
    cost = ratios["ours"]
    print(f"  stock / off: {ratios['stock']:.3f}")
    verdict = "ok" if cost <= _WANTED_COST else "MORE"
    print(f"  ours / off: {cost:.3f}, wanted at most {_WANTED_COST}: {verdict}")

    stock, ours = _stock_tebibyte(messages["stock"]), _our_tebibyte(messages["ours"])
    verdict_bytes = "ok" if ours <= _WANTED_BYTES else "MORE"
    print(
        "1 TiB with the options of a fresh installation, computed from these messages:"
    )
    print(f"  stock {stock / 1e6:.1f} MB in chunks' lists that grow")
    print(
        f"  ours at most {ours / 1e6:.2f} MB at {_SLOW / 1e6:.0f} MB/s, wanted at most "
        f"{_WANTED_BYTES / 1e6:.0f} MB: {verdict_bytes}"
    )
    return 0 if cost <= _WANTED_COST and ours <= _WANTED_BYTES else 1


def _stock_tebibyte(messages: list[tuple[str, int]]) -> float:
    """Bytes of cinder's own progress: each message lists all chunks so far."""
    sizes = [size for event, size in messages if event == "backup.createprogress"]
    each = (sizes[1] - sizes[0]) / _COUNT  # for one chunk more
    chunks = _TIB // _CHUNK
    count = chunks // _COUNT
    return count * sizes[0] + each * _COUNT * count * (count + 1) / 2


def _our_tebibyte(messages: list[tuple[str, int]]) -> float:
    """Bytes of all our messages at their worst: each step and each heartbeat."""
    biggest = max(size for _event, size in messages)
    heartbeats = _TIB / _SLOW / _MAX_INTERVAL
    # each progress goes out under its old name, too
    return biggest * (2 * (100 / _STEP + heartbeats) + 2)
