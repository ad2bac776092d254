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
    help="Options of the quiesce and unquiesce server actions.",
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
]


def register_opts(conf: Any) -> None:
    """Register the options on ``conf``; doing it twice is harmless."""
    conf.register_group(GROUP)
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[Any, list[Any]]]:
    """The options for oslo-config-generator."""
    return [(GROUP, OPTS)]
