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

"""Owns how a part that only tells of the work keeps its failures from the work."""

import functools
from collections.abc import Callable
from typing import ParamSpec

from oslo_log import log as logging

LOG = logging.getLogger(__name__)

P = ParamSpec("P")


def harmless(function: Callable[P, None]) -> Callable[P, None]:
    """Log what goes wrong, the first time with its traceback, and go on."""
    seen: list[str] = []

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except Exception as error:
            if not seen:
                seen.append(function.__name__)
                LOG.exception("Failed to tell of a backup; the backup goes on.")
            else:
                LOG.debug("Failed to tell of a backup: %s", error)

    return wrapper
