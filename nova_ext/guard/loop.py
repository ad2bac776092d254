# SPDX-License-Identifier: Apache-2.0
"""Owns the loop that keeps the deadlines: it reads the records and thaws what is due.

nova-compute runs it as a thread, and has no other timer; ``nova-ext-guard`` runs it as
a process of its own. It needs the directory of records and libvirt, nothing else.
"""

import json
import pathlib
import threading
import time
from collections.abc import Callable

from oslo_log import log as logging

from nova_ext import atomic_file
from nova_ext.guard.clock import Moment
from nova_ext.guard.records import Damaged, Phase, UnknownVersion
from nova_ext.guard.thaw import NotThawed, Thawer

LOG = logging.getLogger(__name__)

_LONGEST_NAP = 1.0  # s
_HEARTBEAT = "heartbeat-"

#: Seconds after which a heartbeat is no longer one.
STALE = 10


class Loop:
    """Thaws each guest of this host at its deadline.

    :param name: of the heartbeat: who runs the loop
    :param start: runs a function in a thread
    """

    def __init__(
        self,
        name: str,
        thawer: Thawer,
        start: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        self._name = name
        self._thawer = thawer
        self._records = thawer.records
        self._start = start or _start_thread
        self._busy: set[str] = set()
        self._told: dict[str, str] = {}
        self._strange: list[str] = []
        self._mute = False

    def start(self) -> None:
        """Run in a thread, for ever."""
        _start_thread(self.run)

    def run(self) -> None:
        """Run for ever."""
        while True:
            nap = _LONGEST_NAP
            try:
                nap = self.look()
            except Exception:
                LOG.exception("Could not look at the frozen guests.")
            time.sleep(nap)

    def look(self) -> float:
        """Begin to thaw what is due; the seconds until the next look.

        Each guest is thawed by a thread of its own: an agent that hangs holds up none
        of the others.
        """
        now = self._thawer.clock()
        nap = _LONGEST_NAP
        uuids = self._records.uuids()
        self._told = {uuid: self._told[uuid] for uuid in uuids if uuid in self._told}
        self._strange = []
        for uuid in uuids:
            left = self._left(uuid, now)
            if left is None:
                continue
            if left > 0:
                nap = min(nap, left)
            elif uuid not in self._busy:
                self._busy.add(uuid)
                self._begin(uuid)
        self._beat(now)
        return nap

    def _left(self, uuid: str, now: Moment) -> float | None:
        """The seconds until the guest is due; None for one that is left alone."""
        try:
            record = self._records.read(uuid)
        except Damaged:
            return 0.0
        except (UnknownVersion, OSError) as exc:
            self._tell(uuid, f"is left alone: {exc}")
            self._strange.append(uuid)
            return None
        if record is None or record.phase is Phase.THAWED:
            return None
        return record.left(now)

    def _begin(self, uuid: str) -> None:
        def act() -> None:
            try:
                self._act(uuid)
            except Exception as exc:
                self._tell(uuid, f"is not thawed yet: {exc}")
                if not isinstance(exc, NotThawed):
                    LOG.exception("Unexpected error while thawing %s.", uuid)
            finally:
                self._busy.discard(uuid)

        try:
            self._start(act)
        except RuntimeError as exc:
            self._busy.discard(uuid)
            LOG.error("There is no thread to thaw %s in: %s", uuid, exc)

    def _act(self, uuid: str) -> None:
        try:
            self._thawer.thaw_due(uuid)
        except Damaged:
            self._thawer.thaw_unknown(uuid)

    def _tell(self, uuid: str, what: str) -> None:
        """Log something of a guest once, not each second."""
        if self._told.get(uuid) != what:
            self._told[uuid] = what
            LOG.warning("Instance %s %s", uuid, what)

    def _beat(self, now: Moment) -> None:
        beat = {"boot_id": now.boot_id, "monotonic": now.monotonic}
        text = json.dumps({**beat, "left_alone": self._strange})
        path = self._records.directory / f"{_HEARTBEAT}{self._name}"
        try:
            atomic_file.make_directory(self._records.directory)
            atomic_file.write(path, text, durable=False)
            self._mute = False
        except OSError as exc:
            if not self._mute:
                LOG.warning("Could not write the heartbeat of %s: %s", self._name, exc)
            self._mute = True


def is_beating(directory: pathlib.Path, name: str, now: Moment) -> bool:
    """Whether a loop of that name looks after the records of a directory.

    One that leaves guests alone, because it does not know their records, does not.
    """
    try:
        beat = json.loads((directory / f"{_HEARTBEAT}{name}").read_text())
        age = now.monotonic - beat["monotonic"]
        same = beat["boot_id"] == now.boot_id
        return bool(same and 0 <= age < STALE and not beat["left_alone"])
    except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return False


def _start_thread(function: Callable[[], None]) -> None:
    threading.Thread(target=function, name="nova-ext-guard", daemon=True).start()
