# SPDX-License-Identifier: Apache-2.0
"""Which file systems count as not frozen, by what the agent lists and counts."""

import types

import pytest

from nova_ext.guard import guests
from nova_ext.guard.guests import AgentError, FileSystem
from nova_ext.virt.libvirt.quiesce import quiescer

ROOT = FileSystem("vda1", "/", "ext4")
DATA = FileSystem("vdb", "/data", "xfs")
EFI = FileSystem("vda15", "/boot/efi", "vfat")
LOOP = FileSystem("loop0", "/srv", "ext4", writable=False)
SNAP = FileSystem("loop1", "/snap/core", "squashfs", writable=False)


def left_out(
    listed: list[FileSystem], frozen: int, read_only: set[str] | None = None
) -> list[str]:
    """What is left out of a guest that mounts ``listed``, of which so many froze.

    :param read_only: mount points; None if the agent does not tell
    """

    def mounted_read_only() -> set[str]:
        if read_only is None:
            raise AgentError("guest-file-open is not allowed")
        return read_only

    guest: guests.Guest = types.SimpleNamespace(  # type: ignore[assignment]
        require_agent=lambda: None,
        commands=lambda: {guests.FREEZE, guests.THAW, guests.STATUS, guests.FSINFO},
        status=lambda: "thawed",
        file_systems=lambda: listed,
        mounted_read_only=mounted_read_only,
    )
    return quiescer._left_out(quiescer._check(guest), frozen)


@pytest.mark.parametrize(
    ("listed", "frozen", "read_only", "expected"),
    [
        ([ROOT, DATA], 2, None, []),
        ([ROOT, EFI], 1, None, ["/boot/efi"]),
        ([ROOT, EFI], 1, set(), ["/boot/efi"]),
        ([ROOT, EFI], 1, {"/boot/efi"}, []),
        # One of two that could have been: which one is not known.
        ([ROOT, DATA], 1, set(), ["/", "/data"]),
    ],
)
def test_what_can_be_written_and_was_not_frozen(
    listed: list[FileSystem],
    frozen: int,
    read_only: set[str] | None,
    expected: list[str],
) -> None:
    assert left_out(listed, frozen, read_only) == expected


def test_a_loop_device_that_is_frozen_does_not_stand_for_a_disk_that_is_not() -> None:
    assert left_out([ROOT, EFI, LOOP], 2) == ["/boot/efi"]
    assert left_out([ROOT, LOOP], 2) == []


def test_a_loop_device_that_cannot_be_frozen_does_not_matter() -> None:
    assert left_out([ROOT, SNAP], 1) == []
    assert left_out([ROOT, SNAP, EFI], 1, {"/snap/core", "/boot/efi"}) == []
