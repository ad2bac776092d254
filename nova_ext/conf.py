# SPDX-License-Identifier: Apache-2.0
"""Owns the options of the ``[nova_ext]`` group."""

from typing import Any

from oslo_config import cfg

from nova_ext.guard import conf as guard

GROUP = guard.GROUP

OPTS = [
    cfg.IntOpt(
        "quiesce_default_timeout",
        default=60,
        min=1,
        help="""
Maximum number of seconds a guest stays frozen if the ``quiesce`` request has no
``timeout``. At the end of this time the compute host thaws the guest by itself and
records the ``unquiesce`` action as failed.

Read by the API service.

Possible values:

* A number of seconds from 1 up. A value above ``quiesce_max_timeout`` has the effect of
  ``quiesce_max_timeout``.

Related options:

* ``quiesce_max_timeout``
""",
    ),
    cfg.IntOpt(
        "quiesce_max_timeout",
        default=600,
        min=1,
        help="""
Maximum number of seconds that a ``quiesce`` request may ask for as ``timeout``. A
request for more is refused with 400.

No program in a frozen guest can write to its disks: choose the longest time that a
tenant's applications may stand still.

Read by the API service.

Possible values:

* A number of seconds from 1 up.

Related options:

* ``quiesce_default_timeout``
""",
    ),
    cfg.IntOpt(
        "pmem_copy_streams",
        default=4,
        min=1,
        max=32,
        help="""
Number of parts of a device that are copied in parallel when the persistent memory of a
server is copied on a resize or cold migration. Each needs about one CPU core on either
host while it copies, most of it for the encryption by ssh.

Read by nova-compute on the source host.

Possible values:

* A number from 1 to 32.

Related options:

* ``[nova_sys_admin] thread_pool_size``, by default the number of the host's CPU cores,
  limits how many parts are copied at a time.
""",
    ),
    cfg.IntOpt(
        "pmem_copy_timeout",
        default=120,
        min=1,
        help="""
Number of seconds within which 256 MiB of a device have to be copied or zeroed. A slower
stream fails, and with it the copy; the server then stays where it is, with its data.

Read by nova-compute on both hosts.

Possible values:

* A number of seconds from 1 up.
""",
    ),
    cfg.IntOpt(
        "pmem_progress_interval",
        default=30,
        min=1,
        help="""
Number of seconds between two progress reports of a copy, in the log and as the
versioned notification ``instance.copy_pmem.progress``.

Read by nova-compute on the source host.

Possible values:

* A number of seconds from 1 up.
""",
    ),
    cfg.StrOpt(
        "pmem_verify",
        default="size",
        choices=[
            ("size", "Both ends report that each byte was copied."),
            (
                "digest",
                "In addition, both hosts read the devices again and compare BLAKE2b "
                "digests; the server is off that much longer.",
            ),
        ],
        help="""
How a copy of persistent memory is verified before it is accepted.

Read by nova-compute on the source host.
""",
    ),
    cfg.ListOpt(
        "pmem_ssh_ciphers",
        default=[
            "aes128-gcm@openssh.com",
            "aes256-gcm@openssh.com",
            "chacha20-poly1305@openssh.com",
            "aes128-ctr",
        ],
        help="""
Ciphers for the copy, in the order of preference. The first one that both hosts support
is used. ssh spends most of a copy on encryption, and AES-GCM is the fastest on CPUs
with AES instructions.

Read by nova-compute on the source host.

Possible values:

* A comma-separated list of names that ``ssh -Q cipher`` prints.
""",
    ),
    cfg.StrOpt(
        "pmem_ssh_user",
        help="""
User to log in as on the destination host.

``daxio`` clears bad blocks before it writes, which requires root: membership of a group
that may write the devices is not enough.

Read by nova-compute on the source host.

Possible values:

* Unset: ssh decides, as it does for the disks of a cold migration.
* ``root``, or any other user together with ``pmem_remote_command_prefix = sudo,-n``.

Related options:

* ``pmem_remote_command_prefix``
""",
    ),
    cfg.StrOpt(
        "pmem_ssh_identity_file",
        help="""
File with the private key to log in with on the destination host.

Read by nova-compute on the source host.

Possible values:

* Unset: ssh decides, as it does for the disks of a cold migration.
* The path of a file that the user of nova-compute can read.
""",
    ),
    cfg.ListOpt(
        "pmem_ssh_options",
        default=[],
        sample_default=["Port=2222", "UserKnownHostsFile=/etc/nova/known_hosts"],
        help="""
Additional options for ssh. They take precedence over the options that nova-compute
passes.

Read by nova-compute on the source host.

Possible values:

* A comma-separated list of options as after ``-o`` of ssh.
""",
    ),
    cfg.ListOpt(
        "pmem_remote_command_prefix",
        default=[],
        sample_default=["sudo", "-n"],
        help="""
Words to put before each ``daxio`` command on the destination host.

Read by nova-compute on the source host.

Possible values:

* A comma-separated list of words, for example ``sudo,-n``.

Related options:

* ``pmem_ssh_user``
""",
    ),
]


def register_opts(conf: Any) -> None:
    """Register the options on ``conf``; doing it twice is harmless."""
    guard.register_opts(conf)
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[Any, list[Any]]]:
    """The options for oslo-config-generator."""
    return [(GROUP, [*OPTS, *guard.OPTS])]
