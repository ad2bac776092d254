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

"""The demos that `tools/aio demo` knows; each is a module with main() -> int."""

from __future__ import annotations

import importlib
import importlib.util

from aiolib.settings import Failure

DEMOS = {
    "backup": "aiolib.demo_backup",
    "group": "aiolib.demo_group",
    "pmem": "aiolib.demo_pmem",
    "quiesce": "aiolib.demo_quiesce",
}
DEFAULT = "quiesce"


def check(name: str) -> None:
    module = DEMOS.get(name)
    if module is None:
        raise Failure(f"there is no demo {name}: use one of {' '.join(DEMOS)}")
    if importlib.util.find_spec(module) is None:
        raise Failure(f"the demo {name} is not in this tree: add {module}")


def run(name: str) -> int:
    check(name)
    return int(importlib.import_module(DEMOS[name]).main())
