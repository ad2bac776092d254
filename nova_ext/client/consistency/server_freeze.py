# SPDX-License-Identifier: Apache-2.0
"""The freeze of one server of a group, from its request to its proof."""

import datetime
import math
import threading
import time
from http import HTTPStatus
from typing import Any

from openstack import exceptions as sdk_exceptions

from nova_ext.client import compute, exceptions
from nova_ext.client.consistency import errors, members, metadata, waiting

#: Seconds between two looks at a server. All of the group waits, so this is short.
POLL_INTERVAL = 0.02

#: Seconds after the deadline in which the compute host's own thaw is waited for.
GRACE = 30


class ServerFreeze:
    """The freeze of one server.

    :meth:`freeze` and :meth:`thaw` run in threads of their own, and either may be
    hanging when the other is called. ``mine`` says whether the server may be frozen by
    us: it is set before the freeze is started and cleared when it is known that the
    server is not. ``reason`` says why the window is no good.
    """

    def __init__(self, conn: Any, server: metadata.Server, refusal: str | None) -> None:
        self._conn = conn
        self.server = server
        self.mine = False
        self.reason = refusal
        self.frozen_at: datetime.datetime | None = None
        self.thawed_at: datetime.datetime | None = None
        self.milliseconds: int | None = None
        self.deadline = 0.0
        self._began = 0.0
        self._timeout = 0
        self._unsure = False
        self._answered = threading.Event()
        self._thawing = threading.Lock()

    @property
    def proved(self) -> bool:
        """Whether the guest was frozen without a gap until its thaw."""
        return self.thawed_at is not None and self.reason is None

    def freeze(self, deadline: float) -> None:
        """Freeze the server and wait for it.

        :param deadline: by ``time.monotonic``; the compute host thaws within the second
        :raises errors.StepFailed, exceptions.ClientError: it is not frozen
        """
        self._began = time.monotonic()
        self._timeout = math.ceil(deadline - self._began)
        self.deadline = deadline
        try:
            request = self._request_freeze()
            compute.wait_quiesced(
                self._conn,
                self.server.id,
                request,
                limit=self._timeout,
                interval=POLL_INTERVAL,
            )
        except Exception as exc:
            self.reason = members.reason(exc)
            if isinstance(exc, exceptions.ClientError):
                self.mine = exc.may_be_frozen
            raise
        self.frozen_at = datetime.datetime.now(datetime.UTC)

    def _request_freeze(self) -> str:
        if self._timeout < 1:
            self.mine = False
            raise errors.StepFailed("The time of the group was over before its freeze.")
        try:
            return compute.quiesce(self._conn, self.server.id, self._timeout)
        except sdk_exceptions.HttpException as exc:
            # Below 500 it is a refusal that has no class of its own.
            code = exc.status_code or HTTPStatus.INTERNAL_SERVER_ERROR
            self.mine = self._unsure = code >= HTTPStatus.INTERNAL_SERVER_ERROR
            raise
        except Exception as exc:
            self._unsure = getattr(exc, "may_be_frozen", True)
            raise
        finally:
            self._answered.set()

    def thaw(self) -> None:
        """Thaw the server, as often as it takes, and learn whether its window held.

        Never raises; what went wrong is in ``reason``. If nothing helps the compute
        host thaws at the deadline, and that is waited for.
        """
        self._answered.wait(waiting.REQUEST_LIMIT + GRACE)
        with self._thawing:
            if self.mine:
                self._thaw()

    def _thaw(self) -> None:
        try:
            waiting.until(
                self._request_thaw,
                self._time_left(),
                f"The thaw of server {self.server.name}",
                interval=POLL_INTERVAL,
            )
        except Exception as exc:
            self._broken(members.reason(exc))
            self.mine = not isinstance(exc, exceptions.ServerNotFound)
            return
        self.mine = False
        self.thawed_at = datetime.datetime.now(datetime.UTC)
        self.milliseconds = round((time.monotonic() - self._began) * 1000)

    def _time_left(self) -> float:
        return max(0.0, self.deadline - time.monotonic()) + GRACE

    def _broken(self, reason: str) -> None:
        self.reason = self.reason or reason

    def _request_thaw(self) -> bool | None:
        """Order the thaw and wait for it; None if that has to be tried again."""
        if self._unsure and not self._is_mine():
            return True
        server = self.server.id
        try:
            request = compute.unquiesce(self._conn, server)
        except exceptions.WrongState:
            return self._look_again()
        try:
            compute.wait_unquiesced(
                self._conn,
                server,
                request,
                limit=self._time_left(),
                interval=POLL_INTERVAL,
            )
        except exceptions.UnquiesceFailed as exc:
            self._broken(str(exc))
            # The compute host goes on trying; until then the server is not thawed.
            return self._look_again()
        return True

    def _look_again(self) -> bool | None:
        """After a thaw that was refused or failed: True if the server is thawed."""
        if compute.get_server(self._conn, self.server.id).quiesce_status is None:
            self._broken("It was thawed before it was asked to.")
            return True
        return None

    def _is_mine(self) -> bool:
        """After an answer that got lost: whether the server is frozen by our request.

        A window of somebody else's is left alone; ours has the timeout that we sent.
        """
        state = compute.get_server(self._conn, self.server.id)
        if not (state.quiesced_at and state.unquiesce_at):
            return state.quiesce_status is not None
        begin, end = (
            datetime.datetime.fromisoformat(text)
            for text in (state.quiesced_at, state.unquiesce_at)
        )
        return round((end - begin).total_seconds()) == self._timeout
