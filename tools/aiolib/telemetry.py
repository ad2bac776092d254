# SPDX-License-Identifier: Apache-2.0
"""Owns the reading of what Ceilometer's notification agent has kept."""

from __future__ import annotations

import dataclasses
import datetime
import json
import pathlib
from collections.abc import Callable
from typing import Any

from aiolib import waiting
from aiolib.settings import Settings

TERMINAL = ("end", "error", "cancelled")


@dataclasses.dataclass(frozen=True)
class Event:
    """An event as Ceilometer has stored it.

    :ivar line: the JSON line of the file
    """

    type: str
    traits: dict[str, Any]
    line: str

    @property
    def phase(self) -> str:
        return self.type.rpartition(".")[2]


def _parsed(line: str) -> Event:
    value = json.loads(line)
    traits = {trait["name"]: trait["value"] for trait in value["traits"]}
    return Event(value["event_type"], traits, line)


class Ceilometer:
    """The files that the agent writes."""

    def __init__(self, s: Settings) -> None:
        self._directory: pathlib.Path = s.state("ceilometer")

    def _lines(self, kind: str) -> list[str]:
        path = self._directory / kind
        if not path.exists():
            return []
        # the last line may be being written
        return path.read_text().rpartition("\n")[0].splitlines()

    def events(self, backup_id: str, prefix: str = "backup.") -> list[Event]:
        """The events of a backup in the order in which they happened."""
        found = [_parsed(line) for line in self._lines("events") if backup_id in line]
        mine = [event for event in found if event.type.startswith(prefix)]
        return sorted(mine, key=lambda event: _moment(event.traits))

    def samples(self, name: str, resource_id: str) -> list[dict[str, Any]]:
        """The samples of a meter for a resource, oldest first."""
        found = [json.loads(line) for line in self._lines("samples") if name in line]
        return [
            sample
            for sample in found
            if (sample["name"], sample["resource_id"]) == (name, resource_id)
        ]

    def wait(
        self, backup_id: str, wanted: Callable[[list[Event]], Any], seconds: float = 60
    ) -> list[Event]:
        """The events of a backup, once they are as wanted.

        :raises TimeoutError: they are not within ``seconds``
        """
        found: list[Event] = []

        def seen() -> bool:
            found[:] = self.events(backup_id)
            return bool(wanted(found))

        def told() -> str:
            return f"more in Ceilometer than {[event.type for event in found]}"

        waiting.until(told, seen, seconds, 0.2)
        return found


def _moment(traits: dict[str, Any]) -> tuple[str, int]:
    when = traits.get("occurred_at") or datetime.datetime.max.isoformat()
    return str(when), int(traits.get("sequence") or 0)


def ended(action: str) -> Callable[[list[Event]], bool]:
    """For :meth:`Ceilometer.wait`: the action has its last event."""
    last = {f"backup.{action}.{phase}" for phase in TERMINAL}
    return lambda events: any(event.type in last for event in events)


def faults(events: list[Event], prefix: str) -> list[str]:
    """What is wrong with the events of one operation; empty if they are in order.

    :param prefix: how the types of the operation begin, as ``backup.create.``
    """
    mine = [e for e in events if e.type.startswith(prefix)]
    if not mine:
        return [f"no {prefix}*"]
    wrong = []
    first, last = mine[0], mine[-1]
    if first.phase != "start":
        wrong.append(f"it begins with {first.type}")
    if last.phase not in TERMINAL:
        wrong.append(f"it ends with {last.type}")
    for phase in ("start", *TERMINAL):
        count = sum(e.phase == phase for e in mine)
        if count > 1:
            wrong.append(f"{count} of {phase}")
    if sum(e.phase in TERMINAL for e in mine) != 1:
        wrong.append("not one end, error or cancelled")
    if len({e.traits["operation_id"] for e in mine}) != 1:
        wrong.append("more than one operation_id")
    order = [int(e.traits["sequence"]) for e in mine]
    if order != sorted(set(order)):
        wrong.append(f"sequence {order}")
    percent = [
        float(e.traits["percent"])
        for e in mine
        if e.phase == "progress" and "percent" in e.traits
    ]
    if percent != sorted(set(percent)) or any(not 0 <= p < 100 for p in percent):
        wrong.append(f"percent {percent}")
    return wrong
