#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.
"""Owns how a device-dax is read: as a program of its own, that may be killed.

Whoever touches a bad block is killed with SIGBUS; nova-compute's privileged daemon must
not be. The program imports nothing but the standard library, so that it starts fast. It
prints its result as JSON, or why there is none.
"""

import argparse
import hashlib
import json
import mmap
import sys
from collections.abc import Iterator, Sequence

#: What is looked at in one go, in bytes.
_BLOCK = 1 << 20


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["scan", "digest"])
    parser.add_argument("path", help="the device")
    parser.add_argument("size", type=int, help="of the device, in bytes")
    parser.add_argument("offset", type=int, help="where to begin")
    parser.add_argument("length", type=int, help="how many bytes to read")
    parser.add_argument(
        "--zeros", type=int, default=1, help="bytes of the shortest run of zeros told"
    )
    args = parser.parse_args(argv)
    try:
        with (
            open(args.path, "rb") as device,
            mmap.mmap(
                device.fileno(), args.size, mmap.MAP_SHARED, mmap.PROT_READ
            ) as view,
        ):
            blocks = _blocks(view, args.offset, args.length)
            found = (
                digest(blocks) if args.what == "digest" else scan(blocks, args.zeros)
            )
    except (OSError, ValueError) as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    sys.stdout.write(json.dumps(found))
    return 0


def scan(blocks: Iterator[tuple[int, bytes]], shortest: int) -> list[tuple[int, int]]:
    """Offset and length of each run of data; fewer zeros than ``shortest`` are data."""
    runs: list[tuple[int, int]] = []
    begin = end = -1
    zeros = bytes(_BLOCK)
    for at, block in blocks:
        if block == (zeros if len(block) == _BLOCK else bytes(len(block))):
            continue
        if begin >= 0 and at - end >= shortest:
            runs.append((begin, end - begin))
            begin = -1
        if begin < 0:
            begin = at
        end = at + len(block)
    if begin >= 0:
        runs.append((begin, end - begin))
    return runs


def digest(blocks: Iterator[tuple[int, bytes]]) -> str:
    """The BLAKE2b digest as 64 hexadecimal digits."""
    total = hashlib.blake2b(digest_size=32)
    for _at, block in blocks:
        total.update(block)
    return total.hexdigest()


def _blocks(view: mmap.mmap, offset: int, length: int) -> Iterator[tuple[int, bytes]]:
    """A range in blocks, each with its offset."""
    for at in range(offset, offset + length, _BLOCK):
        yield at, view[at : min(at + _BLOCK, offset + length)]


if __name__ == "__main__":
    sys.exit(main())
