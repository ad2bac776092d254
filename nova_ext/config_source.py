# SPDX-License-Identifier: Apache-2.0
"""Owns the way into stock daemons: an oslo.config source that calls ``install()``.

``[DEFAULT] config_source = nova_ext`` with ``[nova_ext] driver = nova_ext`` makes
oslo.config load this driver while a daemon reads its configuration, which is before
nova names its manager class and loads its virt driver. It supplies no option values.

Nothing of nova is imported here: oslo.config loads every driver of this kind in each
service of the machine that has any ``config_source``.
"""

import sys
from typing import Any

from oslo_config import sources


class Driver(sources.ConfigurationSourceDriver):
    """Calls :func:`nova_ext.install.install` once nova's configuration is read."""

    def open_source_from_opt_group(self, conf: Any, group_name: str) -> Any:
        """Install the extension into this process; there is no source to return.

        nova parses its files twice: first with a throw-away ``ConfigOpts`` to learn
        the concurrency mode, then with its own ``CONF``. Only the second one counts.

        :raises: SystemExit with one sentence when the installed nova is not the one
            that the extension was built for
        """
        nova_conf = sys.modules.get("nova.conf")
        if nova_conf is None or nova_conf.CONF is not conf:
            return None
        from nova_ext import exception, install

        try:
            install.install()
        except exception.InstallError as exc:
            # oslo.config logs any other exception, too early to be seen, and goes on.
            raise SystemExit(str(exc)) from exc
        return None

    def list_options_for_discovery(self) -> list[Any]:
        """No options beyond those of ``nova_ext.conf``."""
        return []
