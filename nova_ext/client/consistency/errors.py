# SPDX-License-Identifier: Apache-2.0
"""The reasons for which an operation on a group fails; each is one line."""

from collections.abc import Mapping, Sequence


class ConsistencyError(Exception):
    """Base of all reasons; the text is one line that says what to do."""


class PlanError(ConsistencyError):
    """What was asked for cannot be done, and nothing has been done."""


class NotFound(ConsistencyError):
    """No such consistency snapshot, or several of that name."""


class StepFailed(ConsistencyError):
    """One step on one server, volume or image did not succeed."""


class TimeOver(StepFailed):
    """Something did not happen in time."""

    def __init__(self, what: str, seconds: float, last: str = "") -> None:
        trouble = f" (last error: {last})" if last else ""
        super().__init__(f"{what} took longer than {seconds:.0f} seconds{trouble}.")


class Interrupted(StepFailed):
    """SIGINT or SIGTERM arrived."""


class Leftovers(ConsistencyError):
    """Not all could be removed.

    :param left: kind, ID and reason of each, as "snapshot ID: reason"
    """

    def __init__(self, left: Sequence[str]) -> None:
        self.left = list(left)
        super().__init__(f"Could not be removed: {'; '.join(left)}")


class GroupFailed(ConsistencyError):
    """A group operation failed and was undone.

    ``reasons`` tells them by server name, or by ID where names are equal, ``left`` what
    could not be removed, and ``frozen`` which servers may be frozen until their
    deadline.
    """

    def __init__(
        self,
        what: str,
        reasons: Mapping[str, str] | None = None,
        left: Sequence[str] = (),
        frozen: Sequence[str] = (),
    ) -> None:
        self.reasons = dict(reasons or {})
        self.left = list(left)
        self.frozen = list(frozen)
        parts = [what, *(f"{name}: {why}" for name, why in self.reasons.items())]
        if frozen:
            parts.append(f"May be frozen: {', '.join(frozen)}, until the deadline.")
        if left:
            parts.append(f"Could not be removed: {'; '.join(left)}")
        else:
            parts.append("Nothing of it is left.")
        super().__init__(" ".join(parts))
