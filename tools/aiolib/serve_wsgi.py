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
