# SPDX-License-Identifier: Apache-2.0
"""Serves one WSGI module with waitress on loopback: MODULE PORT [ARGUMENT ...].

The modules of nova, cinder and others read sys.argv, so it holds their arguments
by the time they are imported.
"""

from __future__ import annotations

import importlib
import sys

import waitress


def main() -> None:
    module, port, *rest = sys.argv[1:]
    sys.argv = [module, *rest]
    waitress.serve(
        importlib.import_module(module).application,
        host="127.0.0.1",
        port=int(port),
        threads=8,
        clear_untrusted_proxy_headers=False,
        max_request_body_size=1 << 40,
        channel_timeout=300,
        ident=module,
    )


if __name__ == "__main__":
    main()
