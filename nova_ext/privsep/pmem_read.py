# SPDX-License-Identifier: Apache-2.0
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
_PEEK = 1 << 12


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
            blocks = _blocks(args.offset, args.length)
            if args.what == "digest":
                found: object = digest(view, blocks)
            else:
                found = scan(view, blocks, args.zeros)
    except (OSError, ValueError) as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    sys.stdout.write(json.dumps(found))
    return 0


def scan(
    view: mmap.mmap, blocks: Iterator[tuple[int, int]], shortest: int
) -> list[tuple[int, int]]:
    """Offset and length of each run of data; fewer zeros than ``shortest`` are data."""
    runs: list[tuple[int, int]] = []
    begin = end = -1
    zeros = bytes(_BLOCK)
    for at, length in blocks:
        # Most data shows at its beginning, and need not be read to its end.
        if all(
            view[at : at + part] == (zeros if part == _BLOCK else bytes(part))
            for part in (min(_PEEK, length), length)
        ):
            continue
        if begin >= 0 and at - end >= shortest:
            runs.append((begin, end - begin))
            begin = -1
        if begin < 0:
            begin = at
        end = at + length
    if begin >= 0:
        runs.append((begin, end - begin))
    return runs


def digest(view: mmap.mmap, blocks: Iterator[tuple[int, int]]) -> str:
    """The BLAKE2b digest as 64 hexadecimal digits."""
    total = hashlib.blake2b(digest_size=32)
    for at, length in blocks:
        total.update(view[at : at + length])
    return total.hexdigest()


def _blocks(offset: int, length: int) -> Iterator[tuple[int, int]]:
    """A range in blocks: the offset and length of each."""
    for at in range(offset, offset + length, _BLOCK):
        yield at, min(_BLOCK, offset + length - at)


if __name__ == "__main__":
    sys.exit(main())
