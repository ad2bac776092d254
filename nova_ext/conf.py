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

"""Owns the options of the ``[nova_ext]`` group."""

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
        "quiesce_default_timeout",
        default=60,
        min=1,
        help="""
Seconds for which a guest stays frozen at most when the ``quiesce`` request names no
``timeout``. At the end of this time the compute host thaws the guest by itself and
records the ``unquiesce`` action as failed.

Read by the API service. Related options: a value above ``quiesce_max_timeout`` counts
as ``quiesce_max_timeout``.
""",
    ),
    cfg.IntOpt(
        "quiesce_max_timeout",
        default=600,
        min=1,
        help="""
The greatest ``timeout``, in seconds, that a ``quiesce`` request may ask for. A request
for more is answered with 400.

Read by the API service. A frozen guest answers no write of any program in it: choose
the longest time that a tenant's applications may stand still.
""",
    ),
    cfg.IntOpt(
        "quiesce_agent_timeout",
        default=30,
        min=1,
        max=600,
        help="""
Seconds to wait for each answer of the QEMU guest agent to a freeze, thaw or status
command.

A guest flushes its dirty pages before it freezes, so that a guest with much memory and
slow disks needs more. A freeze that does not answer in time is taken back: the thaw is
repeated until the agent says that the guest is thawed.

Read by nova-compute.
""",
    ),
    cfg.IntOpt(
        "pmem_copy_streams",
        default=4,
        min=1,
        max=32,
        help="""
How many parts of a device are copied at the same time, when the persistent memory of a
server goes along on a resize or cold migration. Each takes about one CPU core on either
host while it copies, most of it for the encryption by ssh.

At most as many as ``[nova_sys_admin] thread_pool_size`` are at work at a time, by
default the number of the host's CPU cores. Read by nova-compute on the source host.
""",
    ),
    cfg.IntOpt(
        "pmem_copy_timeout",
        default=120,
        min=1,
        help="""
Seconds in which 256 MiB of a device have to be copied or zeroed. A stream that is
slower fails, and with it the copy; the server then stays where it is, with its data.

Read by nova-compute on both hosts.
""",
    ),
    cfg.IntOpt(
        "pmem_progress_interval",
        default=30,
        min=1,
        help="""
Seconds between two progress reports of a copy, in the log and as the versioned
notification ``instance.copy_pmem.progress``.

Read by nova-compute on the source host.
""",
    ),
    cfg.StrOpt(
        "pmem_verify",
        default="size",
        choices=[
            ("size", "Both ends report that each byte was copied."),
            (
                "digest",
                "Besides, both hosts read the devices again and compare BLAKE2b "
                "digests; the server is off that much longer.",
            ),
        ],
        help="""
What makes a copy count as good.

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
Ciphers for the copy in the order of preference; the first that both hosts know is
taken. ssh spends most of a copy on it, and AES-GCM is the fastest on CPUs with AES
instructions.

Read by nova-compute on the source host.
""",
    ),
    cfg.StrOpt(
        "pmem_ssh_user",
        help="""
User to log in as on the destination host. By default ssh decides, as it does for the
disks of a cold migration. It has to be root there, or set
``pmem_remote_command_prefix = sudo,-n``: to give the devices to a group is not enough,
because daxio clears bad blocks before it writes, which takes root.

Read by nova-compute on the source host.
""",
    ),
    cfg.StrOpt(
        "pmem_ssh_identity_file",
        help="""
File with the private key to log in with on the destination host. By default ssh
decides, as it does for the disks of a cold migration.

Read by nova-compute on the source host.
""",
    ),
    cfg.ListOpt(
        "pmem_ssh_options",
        default=[],
        sample_default=["Port=2222", "UserKnownHostsFile=/etc/nova/known_hosts"],
        help="""
More options for ssh, as after its ``-o``. They go before those of nova, so that they
win.

Read by nova-compute on the source host.
""",
    ),
    cfg.ListOpt(
        "pmem_remote_command_prefix",
        default=[],
        sample_default=["sudo", "-n"],
        help="""
Words before each ``daxio`` command on the destination host.

Read by nova-compute on the source host.
""",
    ),
]


def register_opts(conf: Any) -> None:
    """Register the options on ``conf``; doing it twice is harmless."""
    conf.register_group(GROUP)
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[Any, list[Any]]]:
    """The options for oslo-config-generator."""
    return [(GROUP, OPTS)]
