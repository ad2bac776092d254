# SPDX-License-Identifier: Apache-2.0
"""Owns the options of the guard, which nova-compute and ``nova-ext-guard`` read."""

from typing import Any

from oslo_config import cfg

GROUP = cfg.OptGroup(
    "nova_ext",
    title="nova extensions",
    help="Options of the quiesce and unquiesce server actions, and of the copy of "
    "persistent memory on resize and cold migration.",
)

OPTS = [
    cfg.IntOpt(
        "quiesce_agent_timeout",
        default=30,
        min=1,
        max=600,
        help="""
Number of seconds to wait for each answer of the QEMU guest agent to a freeze, thaw or
status command.

A guest flushes its dirty pages before it freezes, so that a guest with much memory and
slow disks needs more time. A freeze that does not answer in time is rolled back: the
thaw is repeated until the agent says that the guest is thawed.

Read by nova-compute and nova-ext-guard.

Possible values:

* A number of seconds from 1 to 600.
""",
    ),
    cfg.StrOpt(
        "guard_directory",
        default="/var/lib/nova/nova_ext/guard",
        help="""
Directory of the records that say which guests are frozen on this host, and until when.

Whoever finds a record after its deadline thaws the guest: nova-compute, or
nova-ext-guard while nova-compute is not running. Without a record no guest is frozen,
so that a disk that is full refuses ``quiesce`` and leaves no guest frozen.

Read by nova-compute and nova-ext-guard; it has to be the same directory.

Possible values:

* A directory that is local to the host, is kept when the host is rebooted or a
  container is replaced, and does not lie below ``instances_path``. It is made if it is
  missing.
""",
    ),
    cfg.StrOpt(
        "guard_libvirt_uri",
        default="qemu:///system",
        help="""
URI of the libvirt whose guests nova-ext-guard thaws. nova-compute uses the libvirt that
it has for everything else.

Read by nova-ext-guard.

Possible values:

* A libvirt URI.
""",
    ),
    cfg.IntOpt(
        "agent_connections",
        default=9,
        min=3,
        max=100,
        help="""
Maximum number of calls to guest agents on this host at the same time. Each keeps one
of libvirtd's workers busy until the agent answers, or for ``quiesce_agent_timeout``
seconds if it hangs. A third of them is kept for nova-ext-guard, and another third for
guests that are to be thawed.

Read by nova-compute and nova-ext-guard.

Possible values:

* A number from 3 up, less than half of ``max_workers`` in ``libvirtd.conf`` (or
  ``virtqemud.conf``), which is 20 by default.

Related options:

* ``quiesce_agent_timeout``
""",
    ),
]


def register_opts(conf: Any) -> None:
    """Register the options on ``conf``; doing it twice is harmless."""
    conf.register_group(GROUP)
    conf.register_opts(OPTS, group=GROUP)
