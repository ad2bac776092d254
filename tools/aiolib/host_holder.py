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

"""First process of a host's namespaces: sets them up and keeps them; nothing else."""

from __future__ import annotations

import json
import pathlib
import signal
import socket
import subprocess
import sys


def main(plan_path: str) -> None:
    plan = json.loads(pathlib.Path(plan_path).read_text())
    socket.sethostname(plan["name"])
    for source, target in plan["binds"].items():
        subprocess.run(["mount", "--bind", source, target], check=True, timeout=10)
    pathlib.Path(plan["ready"]).touch()
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1])
