# SPDX-License-Identifier: Apache-2.0
"""Owns the ``quiesce`` and ``unquiesce`` server actions."""

import functools
from collections.abc import Callable
from typing import Any

from nova import exception
from nova.api import validation
from nova.api.openstack import common, wsgi
from webob import exc

from nova_ext import exception as ext_exception
from nova_ext.api.openstack.compute import versions
from nova_ext.api.openstack.compute.schemas import quiesce_server as schema
from nova_ext.compute import api as compute
from nova_ext.policies import quiesce_server as qs_policies


def _refusals(function: Callable[..., None]) -> Callable[..., None]:
    """Turn what the compute API refuses into answers of the server action."""

    @functools.wraps(function)
    def wrapper(self: Any, req: Any, id: str, body: dict[str, Any]) -> None:
        try:
            function(self, req, id, body)
        except exception.InstanceIsLocked as e:
            raise exc.HTTPConflict(explanation=e.format_message()) from e
        except exception.InstanceInvalidState as e:
            (action,) = body
            common.raise_http_conflict_for_instance_invalid_state(e, action, id)
        except exception.InstanceNotFound as e:
            raise exc.HTTPNotFound(explanation=e.format_message()) from e
        except (
            exception.ComputeHostNotFound,
            exception.InstanceNotReady,
            exception.ServiceUnavailable,
            ext_exception.QuiesceComputeUnavailable,
        ) as e:
            raise exc.HTTPConflict(explanation=e.format_message()) from e

    return wrapper


@validation.validated
class QuiesceServerController(wsgi.Controller):
    """The server actions of microversion 2.105."""

    def __init__(self, compute_api: compute.API) -> None:
        super().__init__()
        self.compute_api = compute_api

    @wsgi.response(202)
    @wsgi.api_version(versions.QUIESCE)
    @wsgi.expected_errors((400, 403, 404, 409))
    @wsgi.action("quiesce")
    @validation.schema(schema.quiesce)
    @validation.response_body_schema(schema.quiesce_response)
    @_refusals
    def _quiesce(self, req: Any, id: str, body: dict[str, Any]) -> None:
        """Freeze the file systems of a server."""
        context, server = self._server(req, id, "quiesce")
        options = body["quiesce"] or {}
        self.compute_api.quiesce(
            context, server, options.get("timeout"), options.get("partial", False)
        )

    @wsgi.response(202)
    @wsgi.api_version(versions.QUIESCE)
    @wsgi.expected_errors((400, 403, 404, 409))
    @wsgi.action("unquiesce")
    @validation.schema(schema.unquiesce)
    @validation.response_body_schema(schema.unquiesce_response)
    @_refusals
    def _unquiesce(self, req: Any, id: str, body: dict[str, Any]) -> None:
        """Thaw the file systems of a quiesced server."""
        context, server = self._server(req, id, "unquiesce")
        self.compute_api.unquiesce(context, server)

    def _server(self, req: Any, id: str, action: str) -> tuple[Any, Any]:
        """The context and the server of a request that its policy allows."""
        context = req.environ["nova.context"]
        server = common.get_instance(self.compute_api, context, id)
        context.can(
            qs_policies.POLICY_ROOT % action,
            target={"user_id": server.user_id, "project_id": server.project_id},
        )
        return context, server
