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

"""Runs in a PMEM host, where it is put: content of devices, without daxio."""

import hashlib
import mmap
import os
import pathlib

_BLOCK = 1 << 20


def size(path: str) -> int:
    """The bytes of a device, as the kernel tells."""
    name = os.path.basename(path)
    return int(pathlib.Path(f"/sys/bus/dax/devices/{name}/size").read_text())


def _view(path: str, access: int, mode: int) -> mmap.mmap:
    device = os.open(path, mode)
    try:
        return mmap.mmap(device, size(path), mmap.MAP_SHARED, access)
    finally:
        os.close(device)


def fill(path: str, kind: str, offset: int = 0, length: int | None = None) -> None:
    """Write random bytes (``random``) or zeros (``zero``) into a device."""
    with _view(path, mmap.PROT_READ | mmap.PROT_WRITE, os.O_RDWR) as view:
        end = len(view) if length is None else offset + length
        for at in range(offset, end, _BLOCK):
            count = min(_BLOCK, end - at)
            view[at : at + count] = (
                os.urandom(count) if kind == "random" else bytes(count)
            )


def digest(path: str, offset: int = 0, length: int | None = None) -> str:
    """SHA-256 of a device or a range of it."""
    with _view(path, mmap.PROT_READ, os.O_RDONLY) as view:
        end = len(view) if length is None else offset + length
        total = hashlib.sha256()
        for at in range(offset, end, _BLOCK):
            total.update(view[at : min(at + _BLOCK, end)])
        return total.hexdigest()


def zeros(path: str) -> int:
    """How many bytes of a device are zero."""
    with _view(path, mmap.PROT_READ, os.O_RDONLY) as view:
        return sum(
            view[at : min(at + _BLOCK, len(view))].count(0)
            for at in range(0, len(view), _BLOCK)
        )
