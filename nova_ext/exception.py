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

"""Owns the exceptions of the extension: one class per reason, with its remedy."""

from nova import exception
from nova.i18n import _


class InstallError(RuntimeError):
    """The installed nova is not the one that this extension was built for."""


class QuiesceTimeoutTooLong(exception.NotSupported):
    """The request asks for more than ``[nova_ext] quiesce_max_timeout`` seconds."""

    msg_fmt = _(
        "A timeout of %(timeout)s seconds is more than this cloud allows: ask for at "
        "most %(max)s seconds."
    )


class QuiesceComputeTooOld(exception.NotSupported):
    """The server's compute service does not have the extension."""

    msg_fmt = _(
        "The compute service of instance %(instance_uuid)s does not support quiesce: "
        "ask your operator to install the nova extensions there, or move the server "
        "to a host that has them."
    )


class QuiesceAgentNotEnabled(exception.NotSupported):
    """The image of the server does not have ``hw_qemu_guest_agent=yes``."""

    msg_fmt = _(
        "The image of instance %(instance_uuid)s does not enable the QEMU guest agent: "
        "set hw_qemu_guest_agent=yes on an image that contains the agent and rebuild "
        "the server."
    )


class QuiesceNotSupported(exception.NotSupported):
    """The virt driver of the server's host cannot freeze file systems."""

    msg_fmt = _("Instance %(instance_uuid)s runs on a host that cannot quiesce guests.")


class QuiesceComputeUnavailable(exception.NovaException):
    """The compute service did not answer, or is known to be down; mapped to 409."""

    code = 409
    msg_fmt = _(
        "The compute service of instance %(instance_uuid)s does not answer: look at "
        "the server's actions before you try again."
    )


class QuiesceFailed(exception.NovaException):
    """The guest could not be frozen; it is thawed, or is being thawed."""

    msg_fmt = _("Failed to quiesce instance %(instance_uuid)s: %(reason)s")


class QuiesceWindowBroken(exception.NovaException):
    """The guest was not frozen without a gap; snapshots taken are not consistent."""

    msg_fmt = _(
        "The file systems of instance %(instance_uuid)s were not frozen all the time, "
        "snapshots taken since are not consistent: %(reason)s"
    )
