# SPDX-License-Identifier: Apache-2.0
"""Owns what microversion 2.105 adds to the server view."""

from collections.abc import Iterable
from typing import Any

from nova import context as nova_context
from nova import utils
from nova.api.openstack import api_version_request
from nova.api.openstack.compute.views import servers
from oslo_log import log as logging
from typing_extensions import override

from nova_ext import exception
from nova_ext.api.openstack.compute import versions
from nova_ext.db import cells
from nova_ext.objects.quiesce_window import QuiesceWindow, QuiesceWindowList

LOG = logging.getLogger(__name__)

#: The windows of the servers of a list, in the environment of its request.
_WINDOWS = "nova_ext.quiesce_windows"

#: The cells whose lack of state was logged already.
_warned: set[str] = set()


class ViewBuilder(servers.ViewBuilder):
    """nova's server view with the freeze window."""

    @override
    def detail(self, request: Any, instances: Any, *args: Any, **kwargs: Any) -> Any:
        """nova's list; the windows are read once for each cell that it shows."""
        if api_version_request.is_supported(request, versions.QUIESCE):
            uuids = [instance.uuid for instance in instances]
            request.environ[_WINDOWS] = _of_servers(
                request.environ["nova.context"], uuids
            )
        return super().detail(request, instances, *args, **kwargs)

    @override
    def show(
        self, request: Any, instance: Any, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """nova's view, and from 2.105 the three fields of the freeze window."""
        view: dict[str, Any] = super().show(request, instance, *args, **kwargs)
        # A server in a cell that is down is shown without most of its fields.
        if "name" in view["server"] and api_version_request.is_supported(
            request, versions.QUIESCE
        ):
            windows = request.environ.get(_WINDOWS)
            if windows is None:
                windows = _of_server(request.environ["nova.context"], instance)
            row = windows.get(instance.uuid)
            window = row if row is not None and row.visible else None
            frozen = window if window is not None and window.quiesced_at else None
            view["server"].update(
                quiesce_status=window.status.value if window else None,
                quiesced_at=utils.isotime(frozen.quiesced_at) if frozen else None,
                unquiesce_at=utils.isotime(frozen.unquiesce_at) if frozen else None,
            )
        return view


def _of_server(context: Any, instance: Any) -> dict[str, QuiesceWindow]:
    """The window of one server, whose cell the context is targeted at."""
    try:
        row = QuiesceWindow.find(context, instance.uuid)
    except exception.StateDatabaseMissing as exc:
        _warn(context.cell_uuid, exc)
        return {}
    return {} if row is None else {row.instance_uuid: row}


def _of_servers(context: Any, uuids: Iterable[str]) -> dict[str, QuiesceWindow]:
    """The windows of servers in any cells; none of a cell that does not answer."""
    uuids = list(uuids)
    found: dict[str, QuiesceWindow] = {}
    results = nova_context.scatter_gather_cells(
        context,
        cells.of_instances(context, uuids),
        nova_context.CELL_TIMEOUT,
        QuiesceWindowList.get_by_instance_uuids,
        uuids,
    )
    for cell, result in results.items():
        if isinstance(result, Exception):
            _warn(cell, result)
        elif result is nova_context.did_not_respond_sentinel:
            LOG.warning("Cell %s did not say in time which servers are quiesced.", cell)
        else:
            found.update((row.instance_uuid, row) for row in result)
    return found


def _warn(cell: str, problem: Exception) -> None:
    if cell in _warned:
        return
    _warned.add(cell)
    LOG.warning("Servers of cell %s are shown as not quiesced: %s", cell, problem)
