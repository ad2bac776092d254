# SPDX-License-Identifier: Apache-2.0
"""The consumer that the user guide shows."""

import importlib.util
import json
import pathlib
import sys
import threading
from typing import Any

import oslo_messaging
import pytest
from oslo_config import cfg
from oslo_messaging import conffixture

DOC = pathlib.Path(__file__).parents[3] / "doc"
URL = "fake:/"


@pytest.fixture
def example() -> Any:
    spec = importlib.util.spec_from_file_location(
        "backup_consumer", DOC / "source/user/backup_consumer.py"
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sample(event: str, **more: Any) -> dict[str, Any]:
    """A message as the guide documents it."""
    text = (DOC / f"notification_samples/backup.{event}.json").read_text()
    message: dict[str, Any] = json.loads(text)
    message["payload"] |= more
    return message


def seen(example: Any, *messages: dict[str, Any]) -> None:
    endpoint = example.Endpoint()
    for message in messages:
        take = getattr(endpoint, message["priority"].lower())
        take({}, "backup.host1", message["event_type"], message["payload"], {})


def passes(example: Any, event_type: str, payload: dict[str, Any]) -> bool:
    rule = example.Endpoint.filter_rule
    return bool(rule.match({}, "backup.host1", event_type, {}, payload))


def test_each_notification_is_new_once(example: Any) -> None:
    news = example.News()
    payload = {"operation_id": "a", "sequence": 5}
    assert news.is_new(payload)
    assert not news.is_new(payload)
    assert not news.is_new({**payload, "sequence": 4})
    assert news.is_new({**payload, "sequence": 6})
    assert news.is_new({"operation_id": "b", "sequence": 1})


def test_the_oldest_operation_is_forgotten(example: Any) -> None:
    news = example.News(limit=2)
    for operation in ("a", "b"):
        assert news.is_new({"operation_id": operation, "sequence": 1})
    assert news.is_new({"operation_id": "a", "sequence": 2})
    assert news.is_new({"operation_id": "c", "sequence": 1})
    assert not news.is_new({"operation_id": "a", "sequence": 2})
    assert news.is_new({"operation_id": "b", "sequence": 1})


def test_what_is_printed(example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    end, error = sample("create.end"), sample("create.error", operation_id="other")
    stalled = sample("create.stalled", operation_id="third")
    seen(example, end, end, error, stalled)
    lines = capsys.readouterr().out.splitlines()
    backup = end["payload"]["backup_id"]
    at = end["payload"]["occurred_at"]
    assert lines == [
        f"{at} {backup} backup.create.end 100.0",
        f"{at} {error['payload']['backup_id']} backup.create.error no_space",
        f"{at} {stalled['payload']['backup_id']} backup.create.stalled None",
    ]


@pytest.mark.parametrize(
    ("event_type", "operation_id", "expected"),
    [
        ("backup.create.end", "a", True),
        ("backup.restore.progress", "a", True),
        ("backup.export.error", "a", True),
        # A repetition under Cinder's name, and what is Cinder's own.
        ("backup.createprogress", "a", False),
        ("backup.create.end", None, False),
        ("backup.reset_status.end", None, False),
        ("backup.notifications.dropped", None, False),
        ("volume.create.end", None, False),
    ],
)
def test_what_is_listened_to(
    example: Any, event_type: str, operation_id: str | None, expected: bool
) -> None:
    payload = {"operation_id": operation_id} if operation_id else {"backup_id": "b"}
    assert passes(example, event_type, payload) is expected


def test_every_sample_of_an_operation_is_listened_to(example: Any) -> None:
    names = [path.stem for path in (DOC / "notification_samples").glob("backup.*.json")]
    assert len(names) > 15
    for name in names:
        message = sample(name.removeprefix("backup."))
        assert passes(example, name, message["payload"]) is (
            "operation_id" in message["payload"]
        )


def test_it_listens_to_the_bus(
    example: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ready, done = threading.Event(), threading.Event()
    listeners: list[Any] = []
    make, is_new = oslo_messaging.get_notification_listener, example.News.is_new

    def made(*args: Any, **more: Any) -> Any:
        listeners.append(make(*args, **more))
        start = listeners[0].start
        monkeypatch.setattr(listeners[0], "start", lambda: (start(), ready.set()))
        return listeners[0]

    def last(self: Any, payload: dict[str, Any]) -> bool:
        if payload["sequence"] == 1 << 20:
            done.set()
        return bool(is_new(self, payload))

    monkeypatch.setattr(oslo_messaging, "get_notification_listener", made)
    monkeypatch.setattr(example.News, "is_new", last)
    monkeypatch.setattr(sys, "argv", ["backup_consumer.py", URL])
    consumer = threading.Thread(target=example.main, daemon=True)
    consumer.start()
    assert ready.wait(30)
    conf = cfg.ConfigOpts()
    with conffixture.ConfFixture(conf):
        conf([], default_config_files=[], default_config_dirs=[])
        conf.set_override("control_exchange", "cinder")
        transport = oslo_messaging.get_notification_transport(conf, URL)
    notifier = oslo_messaging.Notifier(
        transport, "backup.host1", driver="messagingv2", topics=["notifications"]
    )
    for message in (
        sample("create.start", sequence=1),
        sample("create.end", sequence=1 << 20),
    ):
        notifier.info({}, message["event_type"], message["payload"])
    assert done.wait(30)
    listeners[0].stop()
    consumer.join(30)
    assert not consumer.is_alive()
    assert "backup.create.end 100.0" in capsys.readouterr().out
