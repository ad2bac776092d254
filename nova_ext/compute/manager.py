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

"""Owns how the extension hooks into nova-compute's manager."""

from typing import Any

from nova.compute import manager

from nova_ext.compute import endpoint, quiesce


class ComputeManager(manager.ComputeManager):
    """nova's manager, with the quiesce windows of this host."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.quiesce_manager = quiesce.QuiesceManager(
            self.host, getattr(self.driver, "guest_freezer", None)
        )
        self.driver.quiesce_windows = self.quiesce_manager
        self.additional_endpoints.append(endpoint.QuiesceEndpoint(self.quiesce_manager))

    def _init_instance(self, context: Any, instance: Any) -> None:
        super()._init_instance(context, instance)
        self.quiesce_manager.resume(instance)
