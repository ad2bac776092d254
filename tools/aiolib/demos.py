# SPDX-License-Identifier: Apache-2.0
"""The demos that `tools/aio demo` knows: opens the cloud for one and tells its end.

Each is a module with a function tell(Stage), which raises when a step is wrong.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
from typing import TYPE_CHECKING

from aiolib.settings import Failure
from aiolib.transcript import Transcript, Wrong

if TYPE_CHECKING:
    from aiolib.client import Cloud

DEMOS = {
    "backup": "aiolib.demo_backup",
    "group": "aiolib.demo_group",
    "pmem": "aiolib.demo_pmem",
    "quiesce": "aiolib.demo_quiesce",
}
DEFAULT = "quiesce"


@dataclasses.dataclass(frozen=True)
class Stage:
    """What a demo works with.

    :ivar say: shows and checks its steps
    :ivar cleanup: takes away at the end what it has made, also after a failure
    """

    cloud: Cloud
    say: Transcript
    cleanup: contextlib.ExitStack


def check(name: str) -> None:
    module = DEMOS.get(name)
    if module is None:
        raise Failure(f"there is no demo {name}: use one of {' '.join(DEMOS)}")
    if importlib.util.find_spec(module) is None:
        raise Failure(f"the demo {name} is not in this tree: add {module}")


def run(name: str) -> int:
    """Run a demo in the environment of the cloud; 0 if every step was right."""
    from keystoneauth1.exceptions import ClientException
    from openstack.exceptions import SDKException

    from aiolib.client import Cloud
    from nova_ext.client.consistency.errors import ConsistencyError
    from nova_ext.client.exceptions import ClientError

    check(name)
    say = Transcript()
    wrong = (Wrong, Failure, TimeoutError, ClientError, ConsistencyError)
    with contextlib.ExitStack() as cleanup:
        try:
            importlib.import_module(DEMOS[name]).tell(Stage(Cloud(), say, cleanup))
        except (*wrong, ClientException, SDKException) as exc:
            say(f"The demo failed: {exc}")
            return 1
        finally:
            say("Cleaning up")
    say("Every step was as it should be")
    return 0
