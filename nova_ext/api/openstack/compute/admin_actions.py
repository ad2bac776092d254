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

"""Owns what os-resetState does to a quiesced server."""

import functools
from typing import Any

from nova.api.openstack import common
from nova.api.openstack.compute import admin_actions

from nova_ext.compute import api as compute


class AdminActionsController(admin_actions.AdminActionsController):
    """nova's admin actions; os-resetState also has a quiesced guest thawed."""

    def __init__(self, compute_api: compute.API) -> None:
        super().__init__()
        self.compute_api = compute_api

    # functools.wraps takes over what nova's decorators have noted on the method.
    @functools.wraps(admin_actions.AdminActionsController._reset_state)
    def _reset_state(self, req: Any, id: str, body: dict[str, Any]) -> None:
        super()._reset_state(req, id, body=body)
        context = req.environ["nova.context"]
        instance = common.get_instance(self.compute_api, context, id)
        self.compute_api.release_quiesced(context, instance)
