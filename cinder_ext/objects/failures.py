# SPDX-License-Identifier: Apache-2.0
"""Owns how a failure is described: a stable code, and a text that leaks nothing.

The texts of exceptions come from drivers and commands. They may contain command lines,
paths, passwords and key IDs, none of which belong on the notification bus.
"""

import errno
import os
import re
from collections.abc import Collection, Iterator
from typing import Any

from oslo_utils import strutils

CODES = (
    "driver_io",
    "no_space",
    "attach",
    "detach",
    "volume_service",
    "scheduler_no_host",
    "service_restart",
    "cancelled",
    "quota",
    "unknown",
)

PHASES = (
    "schedule",
    "prepare",
    "attach",
    "transfer",
    "finalize",
    "detach",
    "cleanup",
)

_LONGEST = 255

#: Names of exceptions, or of their bases, and the code that they mean. Names, because
#: an exception that came over RPC has a class made on the fly, ``<name>_Remote``.
_BY_NAME = {
    "ServiceRestarted": "service_restart",
    "NoBackupService": "scheduler_no_host",
    "ServiceNotFound": "scheduler_no_host",
    "BackupRestoreCancel": "cancelled",
    "QuotaError": "quota",
    "OverQuota": "quota",
    "MessagingException": "volume_service",
}

_BY_PHASE = {"attach": "attach", "transfer": "driver_io", "detach": "detach"}

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NO_SPACE_TEXT = tuple(os.strerror(number) for number in _NO_SPACE)

_COMMAND = re.compile(r"\b(command|cmd|stdout|stderr): .*", re.IGNORECASE)
_URL = re.compile(r"\b[\w+.-]+://[^\s'\"]+")
_PATH = re.compile(r"(?<![\w/])~?(?:/[\w.@:+,=%~-]+)+/?")
_ID = re.compile(r"\b(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32,})\b")


def clean(text: str | None, known_ids: Collection[str | None] = ()) -> str | None:
    """The first line of ``text`` without what does not belong on the bus.

    :param known_ids: IDs that may stay, because the payload has them anyway; any other
        could be the ID of an encryption key
    :returns: at most 255 characters
    """
    lines = (text or "").strip().splitlines()
    if not lines:
        return None
    line = strutils.mask_password(lines[0])
    line = _COMMAND.sub("", line)
    line = _URL.sub("<url>", line)
    line = _PATH.sub("<path>", line)
    line = _ID.sub(
        lambda match: match.group() if match.group() in known_ids else "<id>", line
    )
    return line.strip()[:_LONGEST] or None


def _causes(failure: BaseException | None) -> Iterator[BaseException]:
    """The exception and those that led to it, which oslo.db can link to a ring."""
    seen: set[int] = set()
    while failure is not None and id(failure) not in seen:
        seen.add(id(failure))
        yield failure
        failure = failure.__cause__ or failure.__context__


def code(failure: BaseException, phase: str) -> str:
    """One of ``CODES``."""
    for kind in type(failure).__mro__:
        if name := _BY_NAME.get(kind.__name__.removesuffix("_Remote")):
            return name
    for cause in _causes(failure):
        if getattr(cause, "errno", None) in _NO_SPACE or any(
            text in str(cause) for text in _NO_SPACE_TEXT
        ):
            return "no_space"
    return _BY_PHASE.get(phase, "unknown")


def describe(
    failure: BaseException, phase: str, known_ids: Collection[str | None] = ()
) -> dict[str, Any]:
    """The ``error`` of a payload.

    :param phase: where it failed, one of ``PHASES``
    """
    return {
        "code": code(failure, phase),
        "type": type(failure).__name__,
        "message": clean(str(failure), known_ids) or type(failure).__name__,
        "phase": phase,
    }
