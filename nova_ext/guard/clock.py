# SPDX-License-Identifier: Apache-2.0
"""Owns what time it is for a deadline: one that outlives a process, not a boot.

The wall clock is set back and forth; it is kept for people only. What counts is the
time since the host was booted, sleep included, together with the ID of that boot.
"""

import dataclasses
import pathlib
import time

_BOOT_ID = pathlib.Path("/proc/sys/kernel/random/boot_id")


@dataclasses.dataclass(frozen=True)
class Moment:
    """A moment on this host.

    :ivar boot_id: of the boot that ``monotonic`` counts from
    :ivar monotonic: seconds since that boot
    :ivar wall: seconds since 1970 in UTC, as the wall clock said
    """

    boot_id: str
    monotonic: float
    wall: float

    def after(self, seconds: float) -> "Moment":
        """The moment ``seconds`` later."""
        return Moment(self.boot_id, self.monotonic + seconds, self.wall + seconds)

    def left(self, now: "Moment") -> float:
        """The seconds from ``now`` until then; none in another boot."""
        if self.boot_id != now.boot_id:
            return 0.0
        return max(0.0, self.monotonic - now.monotonic)


def now() -> Moment:
    """This moment."""
    return Moment(
        _BOOT_ID.read_text().strip(),
        time.clock_gettime(time.CLOCK_BOOTTIME),
        time.time(),
    )
