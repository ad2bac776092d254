# SPDX-License-Identifier: Apache-2.0
"""Owns what the guard of a host is made of, by the options."""

import pathlib
from typing import Any

from nova_ext.guard.guests import LibvirtGuests
from nova_ext.guard.records import Records
from nova_ext.guard.thaw import Thawer

#: The names of the heartbeats.
NOVA_COMPUTE = "nova-compute"
PROCESS = "nova-ext-guard"


def thawer(conf: Any, name: str, uri: str) -> Thawer:
    """What thaws the guests of this host.

    :param conf: with the options of :mod:`nova_ext.guard.conf`
    :param name: who asks; the guard's process has a third of the connections
    :param uri: of libvirt
    :raises: oslo_config.cfg.Error when an option has a value that is none, which would
        be found out at the first deadline otherwise
    """
    options = conf.nova_ext

    def timeout() -> int:
        return int(options.quiesce_agent_timeout)

    timeout()
    third = options.agent_connections // 3
    if name == PROCESS:
        guests = LibvirtGuests(uri, timeout, places=third, kept=0)
    else:
        places = options.agent_connections - third
        guests = LibvirtGuests(uri, timeout, places=places, kept=third)
    records = Records(pathlib.Path(options.guard_directory))
    return Thawer(records, guests, timeout)
