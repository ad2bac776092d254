# SPDX-License-Identifier: Apache-2.0
"""A server of the compute API with what the extension adds, as openstacksdk has it."""

from typing import Any

from keystoneauth1 import discover
from openstack import exceptions as sdk_exceptions
from openstack import resource
from openstack import utils as sdk_utils
from openstack.compute.v2 import server

#: The first compute API microversion that knows what is added here.
MICROVERSION = "2.105"


def is_enough(microversion: str) -> bool:
    """Return whether a microversion is 2.105 or higher."""
    return bool(
        discover.normalize_version_number(microversion)
        >= discover.normalize_version_number(MICROVERSION)
    )


class Server(server.Server):
    """A server with its freeze window, from compute API microversion 2.105 on.

    Each action returns the response: its header ``x-openstack-request-id`` names the
    instance action that tells how the work ended. Errors are those of openstacksdk.
    """

    _max_microversion = MICROVERSION

    #: ``quiescing``, ``quiesced``, ``unquiescing``, or None: it is not quiesced.
    quiesce_status = resource.Body("quiesce_status")
    #: Since when its file systems are frozen, ISO 8601, or None.
    quiesced_at = resource.Body("quiesced_at")
    #: When its compute host thaws it by itself, ISO 8601, or None.
    unquiesce_at = resource.Body("unquiesce_at")

    @property
    def knows_quiesce(self) -> bool:
        """Whether the API sent the three fields: if not, it is without the extension.

        What was asked for a microversion from 2.105 on and did not answer with them
        is another release's 2.105.
        """
        return "quiesce_status" in self._body.attributes

    def quiesce(
        self,
        session: Any,
        timeout: int | None = None,
        *,
        partial: bool = False,
        microversion: str | None = None,
    ) -> Any:
        """Ask for a freeze of the guest's file systems.

        :param session: the compute proxy of a connection
        :param timeout: seconds after which the compute host thaws the guest by itself;
            None leaves it to the cloud
        :param partial: go on if a writable file system cannot be frozen
        """
        body: dict[str, Any] = {} if timeout is None else {"timeout": timeout}
        if partial:
            body["partial"] = True
        return self._action(session, {"quiesce": body or None}, microversion)

    def unquiesce(self, session: Any, *, microversion: str | None = None) -> Any:
        """Ask for the thaw of the guest's file systems.

        :param session: the compute proxy of a connection
        """
        return self._action(session, {"unquiesce": None}, microversion)

    def resize_copying_pmem(
        self, session: Any, flavor: str, *, microversion: str | None = None
    ) -> Any:
        """Ask for a resize that copies the data of the PMEM devices.

        :param session: the compute proxy of a connection
        :param flavor: ID of the new flavor
        """
        body = {"flavorRef": flavor, "copy_pmem_devices": True}
        return self._action(session, {"resize": body}, microversion)

    def migrate_copying_pmem(
        self,
        session: Any,
        host: str | None = None,
        *,
        microversion: str | None = None,
    ) -> Any:
        """Ask for a cold migration that copies the data of the PMEM devices.

        :param session: the compute proxy of a connection
        :param host: where to; None leaves it to the scheduler
        """
        body: dict[str, Any] = {"copy_pmem_devices": True}
        if host:
            body["host"] = host
        return self._action(session, {"migrate": body}, microversion)

    def _action(self, session: Any, body: Any, microversion: str | None = None) -> Any:
        """Send an action, once.

        Not again after a lost connection or a 503, whatever retries clouds.yaml asks
        for (see :mod:`nova_ext.client.once`): a host may have begun with the first
        one. The second quiesce would then be refused, with a request ID that no
        instance action has, and a second createImage would make a second image.
        """
        response = session.post(
            sdk_utils.urljoin(server.Server.base_path, self.id, "action"),
            json=body,
            headers={"Accept": ""},
            microversion=microversion or self._get_microversion(session),
            connect_retries=0,
            status_code_retries=0,
        )
        sdk_exceptions.raise_from_response(response)
        return response
