# SPDX-License-Identifier: Apache-2.0
"""From an event to oslo.messaging, without a service and without a bus.

Not with the unit tests, because Cinder and Nova cannot be imported into one process.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from oslo_config import cfg
from oslo_messaging import conffixture
from oslo_messaging._drivers import impl_fake

from cinder_ext import conf
from cinder_ext.notifications import emitter, events, sender
from cinder_ext.notifications.objects import backup as versioned
from cinder_ext.objects import operation
from tests.unit.cinder_ext import backups

HOST = "host1@posix"


@dataclasses.dataclass
class Sent:
    topic: str
    context: dict[str, Any]
    message: dict[str, Any]
    retry: int

    @property
    def kind(self) -> tuple[str, str]:
        return (self.topic, self.message["event_type"])


class Bus:
    """A message bus that can refuse what goes to a topic."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.refused: Callable[[str], bool] = lambda topic: False

    def take(
        self,
        _driver: Any,
        target: Any,
        ctxt: Any,
        message: Any,
        version: float,
        retry: Any,
    ) -> None:
        if self.refused(target.topic):
            raise ConnectionError("refused")
        self.sent.append(Sent(target.topic, ctxt, message, retry))

    def kinds(self) -> list[tuple[str, str]]:
        return [sent.kind for sent in self.sent]


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Bus:
    made = Bus()
    monkeypatch.setattr(
        impl_fake.FakeDriver,
        "send_notification",
        lambda *args, **more: made.take(*args, **more),
    )
    return made


Connect = Callable[..., emitter.Send]


@pytest.fixture
def connect(bus: Bus) -> Iterator[Connect]:
    """Return what sends, with the options given."""
    made = cfg.ConfigOpts()
    conf.register_opts(made)
    bus_options = conffixture.ConfFixture(made)
    bus_options.setUp()
    made([], default_config_files=[], default_config_dirs=[])
    bus_options.transport_url = "fake:/"
    made.set_override("driver", ["messagingv2"], group="oslo_messaging_notifications")

    def connect(binary: str = "cinder-backup", **options: Any) -> emitter.Send:
        for name, value in options.items():
            made.set_override(name, value, group="backup_notifications")
        return sender.connect(made, HOST, binary)

    yield connect
    # Copies of an option group share their options.
    for option in conf.OPTS:
        made.clear_override(option.name, group="backup_notifications")
    bus_options.cleanUp()


def event(phase: str) -> emitter.Event:
    made = events.Events(backups.options(), backups.usage)
    backup = backups.backup(status="available")
    op = made.new_operation(backups.context(), backup, "create")
    op.progress = operation.Progress(10)
    op.progress.reached_byte(5)
    return {
        "progress": lambda: made.progress(
            op, backup, operation.Progress(10).to_payload()
        ),
        "stalled": lambda: made.stalled(op, backup, 1.0),
        "end": lambda: made.succeeded(op, backup),
        "error": lambda: made.failed(op, backup, ValueError("no"), deleting=False),
        "dropped": lambda: made.dropped(3),
    }[phase]()


FLAT = ("notifications.info", "backup.create.end")
LEGACY = ("notifications.info", "backup.createprogress")
VERSIONED = ("versioned_notifications.info", "volume_backup.create.end")


@pytest.mark.parametrize(
    ("chosen", "kinds"),
    [
        ("unversioned", [LEGACY, FLAT]),
        ("versioned", [VERSIONED]),
        ("both", [LEGACY, FLAT, VERSIONED]),
    ],
)
def test_formats(
    connect: Connect, bus: Bus, chosen: str, kinds: list[tuple[str, str]]
) -> None:
    connect(format=chosen)(event("end"))
    assert bus.kinds() == kinds


def test_publishers(connect: Connect, bus: Bus) -> None:
    connect("cinder-scheduler", format="both", legacy_progress=False)(event("end"))
    assert [sent.message["publisher_id"] for sent in bus.sent] == [
        f"backup.{HOST}",
        f"cinder-scheduler:{HOST}",
    ]


def test_the_topic_of_versioned_notifications_is_an_option(
    connect: Connect, bus: Bus
) -> None:
    connect(format="versioned", versioned_topic="mine")(event("end"))
    assert [sent.topic for sent in bus.sent] == ["mine.info"]


@pytest.mark.parametrize(
    ("phase", "priority"),
    [("end", "info"), ("error", "error"), ("stalled", "warn"), ("dropped", "info")],
)
def test_priorities(connect: Connect, bus: Bus, phase: str, priority: str) -> None:
    connect(format="both", legacy_progress=False)(event(phase))
    assert [sent.topic for sent in bus.sent] == [
        f"notifications.{priority}",
        f"versioned_notifications.{priority}",
    ]
    assert {sent.message["priority"] for sent in bus.sent} == {priority.upper()}


def test_cinders_name_of_the_progress_is_an_option(connect: Connect, bus: Bus) -> None:
    for wanted in (True, False):
        send = connect(legacy_progress=wanted)
        for phase in ("progress", "end", "error", "stalled"):
            send(event(phase))
    assert [sent.message["event_type"] for sent in bus.sent] == [
        "backup.createprogress",
        "backup.create.progress",
        "backup.createprogress",
        "backup.create.end",
        "backup.create.error",
        "backup.create.stalled",
        "backup.create.progress",
        "backup.create.end",
        "backup.create.error",
        "backup.create.stalled",
    ]


def test_an_end_without_progress_has_no_second_name(connect: Connect, bus: Bus) -> None:
    end = event("end")
    del end.payload["backup_percent"]
    connect()(end)
    assert bus.kinds() == [FLAT]


def test_the_message(connect: Connect, bus: Bus) -> None:
    end = event("end")
    connect(legacy_progress=False, retries=7)(end)
    (sent,) = bus.sent
    assert sent.message["payload"] == end.payload
    assert sent.retry == 7
    assert sent.context["request_id"] == "req-1"
    assert (sent.context["user_id"], sent.context["project_id"]) == ("user", "project")
    assert sent.context["is_admin"] is False
    assert sent.context.get("auth_token") is None


@pytest.mark.parametrize(
    "refused",
    [
        lambda topic: True,
        lambda topic: topic.startswith("notifications"),
        lambda topic: topic.startswith("versioned"),
    ],
)
def test_a_bus_that_takes_not_all_is_a_failure(
    connect: Connect, bus: Bus, refused: Callable[[str], bool]
) -> None:
    """oslo.messaging logs it, and tells its caller nothing."""
    send = connect(format="both")
    bus.refused = refused
    with pytest.raises(ConnectionError, match="refused"):
        send(event("end"))
    bus.refused = lambda topic: False
    bus.sent.clear()
    send(event("end"))
    assert bus.kinds() == [LEGACY, FLAT, VERSIONED]


def test_what_has_no_versioned_form_holds_up_nothing(
    connect: Connect, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(event: emitter.Event) -> None:
        raise ValueError(event)

    monkeypatch.setattr(versioned, "notification", fail)
    connect(format="both", legacy_progress=False)(event("end"))
    assert bus.kinds() == [FLAT]
