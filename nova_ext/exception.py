# SPDX-License-Identifier: Apache-2.0
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


class CopyPmemMicroversion(exception.NotSupported):
    """``copy_pmem_devices`` where nova would drop it without a word."""

    msg_fmt = _(
        "copy_pmem_devices needs microversion %(needed)s: ask for that, or leave "
        "copy_pmem_devices out."
    )


class CopyPmemNoDevices(exception.NotSupported):
    """There is nothing to copy."""

    msg_fmt = _(
        "Instance %(instance_uuid)s has no persistent memory to copy: leave "
        "copy_pmem_devices out."
    )


class CopyPmemLabelMissing(exception.NotSupported):
    """The new flavor has fewer PMEM devices of a label than the server."""

    msg_fmt = _(
        "The new flavor does not have the persistent memory of instance "
        "%(instance_uuid)s, missing in hw:pmem: %(labels)s. Choose a flavor that has, "
        "or leave copy_pmem_devices out and lose the data."
    )


class CopyPmemComputeTooOld(exception.NotSupported):
    """The server's compute service would not copy."""

    msg_fmt = _(
        "The compute service of instance %(instance_uuid)s cannot copy persistent "
        "memory: ask your operator to install or upgrade the nova extensions there."
    )


class CopyPmemHostTooOld(exception.NotSupported):
    """The named destination could not take a copy."""

    msg_fmt = _(
        "The compute service of host %(host)s cannot take a copy of persistent memory: "
        "install or upgrade the nova extensions there, or name another host."
    )


class CopyPmemHostUnfit(exception.NotSupported):
    """The named destination has no device that the data fits in."""

    msg_fmt = _(
        "Host %(host)s has no persistent memory that takes all data, needed are: "
        "%(devices)s. Name another host."
    )


class CopyPmemCrossCell(exception.NotSupported):
    """The named destination is in another cell."""

    msg_fmt = _(
        "Host %(host)s is in another cell than instance %(instance_uuid)s, where "
        "persistent memory cannot be copied to: name a host of the same cell."
    )


class CopyPmemNoHost(exception.NotSupported):
    """No host of the cell could take a copy."""

    msg_fmt = _(
        "No host can take a copy of the persistent memory of instance "
        "%(instance_uuid)s, needed are: %(devices)s. Ask your operator for a host with "
        "the nova extensions and such devices."
    )


class PmemCopyFailed(exception.NovaException):
    """The persistent memory of a server could not be copied; it stays where it is."""

    msg_fmt = _(
        "The persistent memory of instance %(instance_uuid)s was not copied: %(reason)s"
    )


class StateDatabaseMissing(exception.NotSupported):
    """The database of the extension beside a cell's is not there, or not complete."""

    msg_fmt = _(
        "The nova extensions have no tables beside database %(database)s: ask your "
        "operator to run nova-ext-manage db sync."
    )


class StateDatabaseDenied(StateDatabaseMissing):
    """An account of nova has no rights on the database of the extension."""

    msg_fmt = _(
        "Nova's account may not use %(name)s, where the nova extensions keep their "
        "tables beside database %(database)s: ask your operator to grant it what nova-"
        "ext-manage db sync prints."
    )


class ConductorTooOld(exception.NotSupported):
    """A nova-conductor answered that does not have the extension, or an older one."""

    msg_fmt = _(
        "nova-conductor does not know %(objname)s of the nova extensions: ask your "
        "operator to install them there, with config_source = nova_ext in [DEFAULT] "
        "and driver = nova_ext in [nova_ext] of its nova.conf, and to restart it."
    )


class QuiesceWindowNotFound(exception.NotFound):
    """The server has no freeze window."""

    msg_fmt = _("Instance %(instance_uuid)s is not quiesced.")


class QuiesceWindowExists(exception.NovaException):
    """The server has a freeze window already."""

    code = 409
    msg_fmt = _("Instance %(instance_uuid)s is %(status)s already.")


class QuiesceWindowChanged(exception.NovaException):
    """Somebody else changed the freeze window, or removed it, since it was read."""

    code = 409
    msg_fmt = _(
        "The quiesce state of instance %(instance_uuid)s was changed in the meantime."
    )


class PmemCopyNotFound(exception.NotFound):
    """No copy of the server's persistent memory was ordered."""

    msg_fmt = _("Instance %(instance_uuid)s has no copy of persistent memory.")


class PmemCopyChanged(exception.NovaException):
    """Somebody else changed the state of the copy, or removed it, since it was read."""

    code = 409
    msg_fmt = _(
        "The copy of the persistent memory of instance %(instance_uuid)s was changed "
        "in the meantime."
    )
