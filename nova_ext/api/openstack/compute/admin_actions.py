# SPDX-License-Identifier: Apache-2.0
"""Owns what os-resetState does to a quiesced server."""

import functools
from typing import Any

from nova.api.openstack import common
from nova.api.openstack.compute import admin_actions
from typing_extensions import override
from webob import exc

from nova_ext import exception
from nova_ext.compute import api as compute


class AdminActionsController(admin_actions.AdminActionsController):
    """nova's admin actions; os-resetState also has a quiesced guest thawed."""

    def __init__(self, compute_api: compute.API) -> None:
        super().__init__()
        self.compute_api = compute_api

    # functools.wraps takes over what nova's decorators have noted on the method.
    @override
    @functools.wraps(admin_actions.AdminActionsController._reset_state)
    def _reset_state(self, req: Any, id: str, body: dict[str, Any]) -> None:
        super()._reset_state(req, id, body=body)
        context = req.environ["nova.context"]
        instance = common.get_instance(self.compute_api, context, id)
        try:
            self.compute_api.release_quiesced(context, instance)
        except exception.QuiesceWindowChanged as e:
            raise exc.HTTPConflict(explanation=e.format_message()) from e
