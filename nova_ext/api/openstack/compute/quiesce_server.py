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

"""Owns the ``quiesce`` and ``unquiesce`` server actions."""

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
    def _quiesce(self, req: Any, id: str, body: dict[str, Any]) -> None:
        """Freeze the file systems of a server."""
        timeout = (body["quiesce"] or {}).get("timeout")
        self._order(req, id, "quiesce", self.compute_api.quiesce, timeout)

    @wsgi.response(202)
    @wsgi.api_version(versions.QUIESCE)
    @wsgi.expected_errors((400, 403, 404, 409))
    @wsgi.action("unquiesce")
    @validation.schema(schema.unquiesce)
    @validation.response_body_schema(schema.unquiesce_response)
    def _unquiesce(self, req: Any, id: str, body: dict[str, Any]) -> None:
        """Thaw the file systems of a quiesced server."""
        self._order(req, id, "unquiesce", self.compute_api.unquiesce)

    def _order(self, req: Any, id: str, action: str, order: Any, *args: Any) -> None:
        context = req.environ["nova.context"]
        server = common.get_instance(self.compute_api, context, id)
        context.can(
            qs_policies.POLICY_ROOT % action,
            target={"user_id": server.user_id, "project_id": server.project_id},
        )
        try:
            order(context, server, *args)
        except exception.InstanceIsLocked as e:
            raise exc.HTTPConflict(explanation=e.format_message()) from e
        except exception.InstanceInvalidState as e:
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
