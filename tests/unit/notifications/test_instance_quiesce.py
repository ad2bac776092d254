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

"""A lock on the notification objects: who changes one gives it a new version."""

import collections
from typing import Any

from nova.notifications.objects import base
from oslo_versionedobjects import fixture

from nova_ext.notifications.objects import instance_quiesce

#: The payload's hash changes too when a new nova changes its instance payload.
HASHES = {
    "InstanceQuiesceEventType": "1.0-d7dbcdeddb0ffc8dca546c6add91da56",
    "InstanceQuiesceNotification": "1.0-a73147b93b520ff0061865849d3dfa56",
    "InstanceQuiescePayload": "1.0-3d18124d1fbf0aa9f2f33d5e6640db00",
}


def test_versions() -> None:
    def schema(cls: Any) -> Any:
        if issubclass(cls, base.NotificationPayloadBase):
            return (collections.OrderedDict(sorted(cls.SCHEMA.items())),)
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
