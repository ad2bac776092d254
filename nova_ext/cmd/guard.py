# SPDX-License-Identifier: Apache-2.0
"""Owns ``nova-ext-guard``: the guard as a process, for when nova-compute is dead.

It reads nova-compute's configuration but needs nothing of nova, so that neither a
message bus nor a database can hold it up.
"""

import sys
import threading

from oslo_config import cfg
from oslo_log import log as logging
from oslo_utils import importutils

from nova_ext.guard import conf, host, loop

LOG = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Thaw each guest of this host at its deadline, until the process is ended."""
    options = cfg.ConfigOpts()
    logging.register_options(options)
    conf.register_opts(options)
    words = sys.argv[1:] if argv is None else argv
    try:
        options(words, project="nova", prog=host.PROCESS)
        uri = options.nova_ext.guard_libvirt_uri
        thawer = host.thawer(options, host.PROCESS, uri)
        logging.setup(options, "nova_ext")
        _run_libvirt_events()
    except (cfg.Error, logging.LogConfigError, ImportError, OSError) as exc:
        sys.stderr.write(f"{host.PROCESS}: {exc}\n")
        return 2
    LOG.info("Guarding the guests of %s.", uri)
    loop.Loop(host.PROCESS, thawer).run()
    return 0


def _run_libvirt_events() -> None:
    """Let connections find out that their libvirtd hangs."""
    libvirt = importutils.import_module("libvirt")
    libvirt.virEventRegisterDefaultImpl()

    def run() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=run, name="libvirt-events", daemon=True).start()
