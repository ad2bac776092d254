# SPDX-License-Identifier: Apache-2.0
"""A lock on the notification objects: who changes one gives it a new version."""

from typing import Any

from nova.notifications.objects import base
from oslo_versionedobjects import fixture

from nova_ext.notifications.objects import instance_quiesce

#: The payload's hash changes too when a new nova changes its instance payload.
HASHES = {
    "InstanceQuiesceEventType": "1.0-d7dbcdeddb0ffc8dca546c6add91da56",
    "InstanceQuiesceNotification": "1.0-a73147b93b520ff0061865849d3dfa56",
    "InstanceQuiescePayload": "1.0-d94b9b298f7e5995f6347a4edfc9e38b",
}


def test_versions() -> None:
    def schema(cls: Any) -> Any:
        if issubclass(cls, base.NotificationPayloadBase):
            return (tuple(sorted(cls.SCHEMA.items())),)
        return ()

    classes = {name: [getattr(instance_quiesce, name)] for name in HASHES}
    checker = fixture.ObjectVersionChecker(classes)
    assert checker.get_hashes(extra_data_func=schema) == HASHES


def test_one_sample_for_each_event() -> None:
    samples = instance_quiesce.InstanceQuiesceNotification.samples
    assert sorted(samples) == [
        f"instance-{action}-{phase}.json"
        for action in ("quiesce", "unquiesce")
        for phase in ("end", "error", "start")
    ]
