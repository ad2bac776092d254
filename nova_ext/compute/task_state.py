# SPDX-License-Identifier: Apache-2.0
"""Owns how a request gives back a task state that it has taken in vain."""

import contextlib
from collections.abc import Iterator
from typing import Any

from nova import exception
from oslo_log import log as logging

LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def given_back(instance: Any) -> Iterator[None]:
    """Clear the task state of a server if the body fails.

    nova's compute API saves the task state of an action before it records the action:
    what fails between that and the RPC would leave the server busy for ever.
    """
    try:
        yield
    except Exception:
        taken = instance.task_state
        instance.task_state = None
        try:
            instance.save(expected_task_state=[taken])
        except (exception.InstanceNotFound, exception.UnexpectedTaskStateError) as exc:
            LOG.info("Left the task state to somebody else: %s", exc, instance=instance)
        raise
