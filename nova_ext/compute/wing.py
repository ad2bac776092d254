# SPDX-License-Identifier: Apache-2.0
"""Owns what the wings' parts of nova-compute's manager have in common."""

from typing import Any

import oslo_messaging as messaging
from nova import context as nova_context
from nova import exception
from nova.compute import manager
from oslo_log import log as logging
from oslo_service import periodic_task
from typing_extensions import override

from nova_ext.objects.state import ExtensionDatabase

LOG = logging.getLogger(__name__)

_RECONCILE_EVERY = 60  # s


class WingComputeManager(manager.ComputeManager):
    """nova's manager with one periodic task, which all wings share.

    oslo.service does not collect the periodic tasks of more than one base class.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._state_problem = ""

    @override
    def init_host(self, service_ref: Any) -> None:
        """nova's; then each wing goes on with what an earlier nova-compute left."""
        super().init_host(service_ref)
        self._reconcile(nova_context.get_admin_context())

    @periodic_task.periodic_task(spacing=_RECONCILE_EVERY, run_immediately=True)
    def _reconcile_wings(self, context: Any) -> None:
        self._reconcile(context)

    def _reconcile(self, context: Any) -> None:
        """Make the host, the instances and the rows agree.

        A wing extends it, calls ``super()`` first and lets no exception out: the others
        count too. Only a host that reaches its rows publishes its version. What stands
        in the way is a nova-conductor or a database without the extension; a message
        bus that is down says nothing of either.
        """
        try:
            ExtensionDatabase.check(context)
        except exception.NovaException as exc:
            if self.driver.state_reachable:
                self.driver.state_reachable = False
            problem = exc.format_message()
            if problem != self._state_problem:
                self._state_problem = problem
                LOG.warning("This host offers no quiesce and no PMEM copy: %s", problem)
        except messaging.MessagingException as exc:
            LOG.warning("Could not ask for the state of this host's guests: %s", exc)
        else:
            self.driver.state_reachable = True
            self._state_problem = ""
