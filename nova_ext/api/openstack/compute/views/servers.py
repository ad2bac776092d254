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

"""Owns what microversion 2.105 adds to the server view."""

from typing import Any

from nova import utils
from nova.api.openstack import api_version_request
from nova.api.openstack.compute.views import servers

from nova_ext.api.openstack.compute import versions
from nova_ext.compute import mark


class ViewBuilder(servers.ViewBuilder):
    """nova's server view with the quiesce window."""

    _show_expected_attrs = [
        *servers.ViewBuilder._show_expected_attrs,
        "system_metadata",
    ]

    def show(
        self, request: Any, instance: Any, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """nova's view, and from 2.105 the three fields of the quiesce window."""
        view: dict[str, Any] = super().show(request, instance, *args, **kwargs)
        # A server in a cell that is down is shown without most of its fields.
        if "name" in view["server"] and api_version_request.is_supported(
            request, versions.QUIESCE
        ):
            window = mark.visible(instance)
            quiesced = window if window and window.quiesced_at else None
            view["server"].update(
                quiesce_status=window.status.value if window else None,
                quiesced_at=utils.isotime(quiesced.quiesced_at) if quiesced else None,
                unquiesce_at=utils.isotime(quiesced.unquiesce_at) if quiesced else None,
            )
        return view
