# SPDX-License-Identifier: Apache-2.0
"""Owns how a test asks a controller, with nova's own dispatch of server actions."""

import copy
import dataclasses
import json
import types
from typing import Any, Protocol, cast

from nova import exception
from nova.api import openstack
from nova.api.openstack import wsgi
from nova.api.validation import validators

from tests.unit import people

UUID = "0d4b1e9c-9f2f-4d2a-8b0c-6b0a3a4f7c11"
MISSING = "8d5b7b4e-3f43-4b0e-9a38-3f6bb8a6a8b0"


class ComputeAPI:
    """The compute API as a controller sees it: it notes what it is told to do.

    :ivar server: the only one that there is
    :ivar calls: name and arguments of each call, in order
    :ivar fails: what the next calls raise
    :ivar copying: what :meth:`with_copy_pmem` was told last
    """

    def __init__(self) -> None:
        self.server = types.SimpleNamespace(
            uuid=UUID, project_id=people.PROJECT, user_id=people.OWNER
        )
        self.calls: list[tuple[Any, ...]] = []
        self.fails: Exception | None = None
        self.copying: bool | None = None

    def get(self, context: Any, uuid: str, **kwargs: Any) -> Any:
        if uuid != self.server.uuid:
            raise exception.InstanceNotFound(instance_id=uuid)
        return self.server

    def with_copy_pmem(self, copying: bool) -> "ComputeAPI":
        clone = copy.copy(self)
        clone.copying = copying
        return clone

    def quiesce(
        self,
        context: Any,
        server: Any,
        timeout: int | None = None,
        partial: bool = False,
    ) -> None:
        self._note("quiesce", server.uuid, timeout, partial)

    def unquiesce(self, context: Any, server: Any) -> None:
        self._note("unquiesce", server.uuid)

    def release_quiesced(self, context: Any, server: Any) -> None:
        self._note("release_quiesced", server.uuid)

    def resize(
        self, context: Any, server: Any, flavor_id: str | None = None, **kwargs: Any
    ) -> None:
        self._note("resize", self.copying, server.uuid, flavor_id, kwargs)

    def _note(self, *call: Any) -> None:
        if self.fails is not None:
            raise self.fails
        self.calls.append(call)


@dataclasses.dataclass
class Answer:
    """What the API has answered.

    :ivar message: why it refused
    """

    status: int
    body: bytes
    headers: Any

    @property
    def message(self) -> str:
        (fault,) = json.loads(self.body).values()
        return cast(str, fault["message"])


class Act(Protocol):
    """Ask for a server action."""

    def __call__(
        self,
        body: Any,
        version: str | None = "2.105",
        context: Any = None,
        server: str = UUID,
        legacy: bool = False,
    ) -> Answer: ...


def _request(
    version: str | None = "2.105", context: Any = None, legacy: bool = False
) -> Any:
    made = wsgi.Request.blank("/servers", base_url="http://localhost/v2.1")
    made.environ["nova.context"] = context or people.member()
    if version is not None and not legacy:
        made.headers["OpenStack-API-Version"] = f"compute {version}"
    if legacy:
        made.set_legacy_v2()
    return made


def request(version: str | None = "2.105", **kwargs: Any) -> Any:
    """A request for something of a server, as a controller gets it.

    :param version: None for a request without the header
    :param kwargs: ``context`` and ``legacy``: whether it came to /v2, which knows no
        microversions
    """
    made = _request(version, **kwargs)
    made.set_api_version_request()
    return made


def act(controller: Any) -> Act:
    """What serves the actions of ``controller``, the way that nova does."""
    application = openstack.FaultWrapper(wsgi.Resource(controller))

    def asked(
        body: Any,
        version: str | None = "2.105",
        context: Any = None,
        server: str = UUID,
        legacy: bool = False,
    ) -> Answer:
        made = _request(version, context, legacy)
        made.method = "POST"
        made.content_type = "application/json"
        made.body = json.dumps(body).encode()
        made.environ["wsgiorg.routing_args"] = ((), {"action": "action", "id": server})
        response = made.get_response(application)
        return Answer(response.status_int, response.body, response.headers)

    return asked


def valid(schema: dict[str, Any], instance: Any, is_body: bool = True) -> bool:
    """Whether nova takes it for a body, or for an answer, of that schema."""
    try:
        validators._SchemaValidator(schema, is_body=is_body).validate(instance)
    except exception.ValidationError:
        return False
    return True
