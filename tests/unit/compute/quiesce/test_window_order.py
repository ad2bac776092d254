# SPDX-License-Identifier: Apache-2.0
"""In which order a window has its records written."""

import threading
from typing import Any
from unittest import mock

from nova_ext.compute.quiesce import window
from nova_ext.guard.records import Phase
from nova_ext.objects.quiesce_window import QuiesceStatus as Status


class Watched(window.FreezeWindow):
    """Notes what had been recorded when its thread got to know the request.

    That thread may run on at once, and records events of the request's action.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "request" and value is not None:
            self.recorded_before = [call[0] for call in self._records.mock_calls]
        super().__setattr__(name, value)


def test_action_is_begun_before_its_events() -> None:
    found = Watched.__new__(Watched)
    found.queue = mock.Mock()
    # what is put is called at once, so that nobody waits for it
    found.queue.put.side_effect = lambda function, *_: function()
    found._records, found._quiescer = mock.Mock(), mock.Mock()
    found._quiescer.record.return_value.phase = Phase.FROZEN
    found._save = found._records.save
    found.uuid = found.window_id = "u"
    found.state = mock.Mock(status=Status.QUIESCED)
    found.interruption, found.ending, found._resumed = "", False, False
    found.queue.repeating = False
    found.lock, found.wake = threading.Lock(), threading.Event()
    found.end(mock.Mock(request_id="req-1"), mock.Mock())
    assert found.recorded_before == ["save", "action_start"]
