# SPDX-License-Identifier: Apache-2.0
"""Owns ``nova-ext-compute``: nova-compute with the extension, for explicit units."""

# nova patches threading before anything else is imported.
from nova import monkey_patch

monkey_patch.patch(backend="threading")

from nova.cmd import compute  # noqa: E402

from nova_ext import install  # noqa: E402


def main() -> None:
    """Run nova-compute with the extension, whatever ``config_source`` says."""
    install.install()
    compute.main()
