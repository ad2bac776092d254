# SPDX-License-Identifier: Apache-2.0
"""A connection whose requests that change something are sent once.

openstacksdk sends a request again after a lost connection or a 503 if clouds.yaml has
``connect_retries`` or ``status_code_retries``, and until 4.6 at least after a lost
connection in any case. But the service may have begun with the first one: there would
be a second snapshot, or the answer to the second would hide that the first one works.
"""

import copy
from typing import Any

from openstack import proxy

_SAFE = frozenset({"GET", "HEAD"})


class Connection:
    """Another connection, as it is but for the retries of its services.

    :param conn: ``openstack.connection.Connection``, which is left as it is
    """

    def __init__(self, conn: Any) -> None:
        self._conn = conn

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._conn, name)
        if isinstance(value, proxy.Proxy):
            value = _once(value)
            setattr(self, name, value)
        return value


class _Once:
    """Comes before a class of openstacksdk's proxies."""

    def request(self, url: str, method: str, *args: Any, **kwargs: Any) -> Any:
        """Send a request; see :class:`openstack.proxy.Proxy`."""
        if method not in _SAFE:
            kwargs |= {"connect_retries": 0, "status_code_retries": 0}
        service: Any = super()
        return service.request(url, method, *args, **kwargs)


def _once(service: Any) -> Any:
    if isinstance(service, _Once):
        return service
    made = copy.copy(service)
    made.__class__ = type("Once", (_Once, type(service)), {})
    return made
