# SPDX-License-Identifier: Apache-2.0
"""Objects to begin a test with."""

import uuid
from typing import Any

from nova_ext.objects import pmem_copy, quiesce_window

REQUEST = "req-5b6c791d-5709-4f36-8fbe-c3e02869e35d"


def new_id() -> str:
    return str(uuid.uuid4())


def window(context: Any, instance_uuid: str, **values: Any) -> Any:
    """A window that is not stored yet."""
    return quiesce_window.QuiesceWindow(
        context,
        **{
            "instance_uuid": instance_uuid,
            "window_id": new_id(),
            "change_id": new_id(),
            "status": quiesce_window.QuiesceStatus.QUIESCING,
            "request_id": REQUEST,
            "timeout": 60,
            "partial": False,
            **values,
        },
    )


def stored(context: Any, instance_uuid: str, **values: Any) -> Any:
    """A window of an active server on compute1."""
    made = window(context, instance_uuid, **values)
    made.create("compute1", ["active"], [None])
    return made


def copy(context: Any, instance_uuid: str, **values: Any) -> Any:
    """An order that is not stored yet."""
    return pmem_copy.PmemCopy(
        context,
        **{
            "instance_uuid": instance_uuid,
            "change_id": new_id(),
            "status": pmem_copy.PmemCopyStatus.ORDERED,
            "request_id": REQUEST,
            **values,
        },
    )


def ordered(context: Any, instance_uuid: str, **values: Any) -> Any:
    """The order of a server that is in no particular state."""
    made = copy(context, instance_uuid, **values)
    made.order([None])
    return made
