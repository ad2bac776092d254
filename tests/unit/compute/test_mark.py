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

"""The mark of a quiesced server: what is stored, and what is made of nonsense."""

import datetime
import json
import types

import pytest

from nova_ext.compute import mark
from nova_ext.virt import freezer

REQUEST = "req-5b6c791d-5709-4f36-8fbe-c3e02869e35d"
AT = datetime.datetime(2026, 11, 21, 10, 30, 15, 123456, tzinfo=datetime.UTC)
QUIESCED = mark.Mark(
    mark.Status.QUIESCED,
    REQUEST,
    60,
    quiesced_at=AT,
    evidence=freezer.Evidence(domain_id=3, frozen=2, written=12345678901234),
)
BROKEN = mark.Mark(mark.Status.BROKEN, REQUEST, 60, reason="the guest rebooted")


def instance(**system_metadata: str) -> types.SimpleNamespace:
    return types.SimpleNamespace(system_metadata=dict(system_metadata))


def stored(text: str) -> types.SimpleNamespace:
    return types.SimpleNamespace(system_metadata={mark.KEY: text, "other": "kept"})


@pytest.mark.parametrize(
    "original",
    [
        mark.Mark(mark.Status.QUIESCING, REQUEST, 60),
        QUIESCED,
        QUIESCED.replace(status=mark.Status.UNQUIESCING),
        QUIESCED.replace(status=mark.Status.RELEASED),
        BROKEN,
    ],
)
def test_round_trip(original: mark.Mark) -> None:
    server = instance()
    mark.write(server, original)
    assert mark.read(server) == original


def test_write_none_removes_this_mark_only() -> None:
    server = stored(QUIESCED.to_json())
    mark.write(server, None)
    assert server.system_metadata == {"other": "kept"}
    mark.write(server, None)
    assert mark.read(server) is None


@pytest.mark.timeout(5)  # an endless loop is the mistake that is easy to make here
@pytest.mark.parametrize(
    "reason",
    ["x" * 1000, "\N{SNOWMAN}" * 1000, '"\\' * 500, "line\n" * 200],
    ids=["long", "not ascii", "escaped", "lines"],
)
@pytest.mark.parametrize("base", [BROKEN, QUIESCED], ids=["broken", "with evidence"])
def test_long_reason_is_cut_to_the_width_of_the_column(
    base: mark.Mark, reason: str
) -> None:
    text = base.replace(reason=reason).to_json()
    assert len(text.encode()) <= 255
    back = mark.Mark.from_json(text)
    assert len(back.reason) > 20
    assert back.replace(reason="") == base.replace(reason="")
    assert reason.encode("ascii", "replace").decode().startswith(back.reason)


def test_reason_that_is_not_ascii_stays_readable() -> None:
    back = mark.Mark.from_json(BROKEN.replace(reason="caf\xe9 \u2603").to_json())
    assert back.reason == "caf? ?"


def test_reason_of_real_length_is_not_cut() -> None:
    reason = (
        "the guest's disks changed (123456789 bytes written): it was thawed in "
        "between, or writes below its"
    )
    assert mark.Mark.from_json(BROKEN.replace(reason=reason).to_json()).reason == reason


@pytest.mark.parametrize(
    "text",
    [
        "yes",
        "{",
        "{}",
        "null",
        "1",
        "[]",
        '"quiesced"',
        json.dumps({"status": "asleep", "request": "r", "timeout": 1}),
        json.dumps({"status": "quiesced", "timeout": 1}),
        json.dumps({"status": "quiesced", "request": "r", "timeout": None}),
        json.dumps({"status": "quiesced", "request": "r", "timeout": 1, "at": "noon"}),
        json.dumps({"status": "quiesced", "request": "r", "timeout": 1, "at": 1e30}),
        json.dumps(
            {"status": "quiesced", "request": "r", "timeout": 1, "evidence": [1]}
        ),
    ],
)
def test_unreadable_mark_counts_as_none(text: str) -> None:
    server = stored(text)
    assert mark.read(server) is None
    assert mark.visible(server) is None


def test_no_mark() -> None:
    assert mark.read(instance()) is None
    assert mark.visible(instance()) is None
    assert mark.read(stored("")) is None


@pytest.mark.parametrize("status", list(mark.Status))
def test_visible(status: mark.Status) -> None:
    window = QUIESCED.replace(status=status)
    shown = mark.visible(stored(window.to_json()))
    if status in ("quiescing", "quiesced", "unquiescing"):
        assert shown == window
    else:
        assert shown is None


def test_unquiesce_at() -> None:
    assert QUIESCED.unquiesce_at == AT + datetime.timedelta(seconds=60)
    assert mark.Mark(mark.Status.QUIESCING, REQUEST, 60).unquiesce_at is None
