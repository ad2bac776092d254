# SPDX-License-Identifier: Apache-2.0
"""A lock on the notification objects: who changes one gives it a new version."""

import types
from typing import Any

import pytest
from nova.notifications.objects import base
from nova.notifications.objects import instance as instance_payload
from oslo_versionedobjects import fixture

from nova_ext.notifications.objects import instance_copy_pmem

#: The payload's hash changes too when a new nova changes its instance payload.
HASHES = {
    "InstanceCopyPmemEventType": "1.0-693da917b0659c8798ce78ca5879ab8b",
    "InstanceCopyPmemNotification": "1.0-a73147b93b520ff0061865849d3dfa56",
    "InstanceCopyPmemPayload": "1.0-40fc8c02a4eec93862d53a1bc54f99a8",
}

MIGRATION: Any = types.SimpleNamespace(
    uuid="5b6c791d-5709-4f36-8fbe-c3e02869e35d",
    source_compute="compute1",
    dest_compute="compute2",
)


def test_versions() -> None:
    def schema(cls: Any) -> Any:
        if issubclass(cls, base.NotificationPayloadBase):
            return (tuple(sorted(cls.SCHEMA.items())),)
        return ()

    classes = {name: [getattr(instance_copy_pmem, name)] for name in HASHES}
    checker = fixture.ObjectVersionChecker(classes)
    assert checker.get_hashes(extra_data_func=schema) == HASHES


def test_one_sample_for_each_event() -> None:
    samples = instance_copy_pmem.InstanceCopyPmemNotification.samples
    assert sorted(samples) == [
        f"instance-copy_pmem-{phase}.json"
        for phase in ("end", "error", "progress", "start")
    ]


@pytest.mark.parametrize("phase", ["start", "progress", "end", "error"])
def test_event_type(phase: str) -> None:
    event = instance_copy_pmem.InstanceCopyPmemEventType(
        object="instance", action="copy_pmem", phase=phase
    )
    assert event.to_notification_event_type_field() == f"instance.copy_pmem.{phase}"


def test_there_are_no_other_phases() -> None:
    with pytest.raises(ValueError, match="begin"):
        instance_copy_pmem.InstanceCopyPmemEventType(
            object="instance", action="copy_pmem", phase="begin"
        )


def test_figures_of_the_payload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        instance_payload.InstanceActionPayload,
        "__init__",
        lambda self, context, instance, fault: base.NotificationPayloadBase.__init__(
            self
        ),
    )
    figures = instance_copy_pmem.Figures(MIGRATION, 2**40, 3 * 2**30, 2.00049)
    payload = instance_copy_pmem.InstanceCopyPmemPayload(None, None, None, figures)
    own = instance_copy_pmem.InstanceCopyPmemPayload.fields.keys() - (
        instance_payload.InstanceActionPayload.fields.keys()
    )
    assert {name: getattr(payload, name) for name in own} == {
        "migration_uuid": MIGRATION.uuid,
        "source_compute": "compute1",
        "dest_compute": "compute2",
        "bytes_total": 2**40,
        "bytes_copied": 3 * 2**30,
        "rate": int(3 * 2**30 / 2.00049),
        "duration": 2.0,
    }


def test_rate_before_the_first_byte() -> None:
    assert instance_copy_pmem.Figures(MIGRATION, 2**40, 0, 0.0).rate == 0
