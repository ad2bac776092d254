# SPDX-License-Identifier: Apache-2.0
"""Lets `tox run --current-env` use the Python of the environment that tox is in.

tox-current-env puts a link to it into the environment of tox. Called by that name,
Python takes what is installed for the whole machine, and not what is in this one.
"""

from tox.plugin import impl
from tox.tox_env.api import ToxEnv
from tox.tox_env.python.api import Python


@impl
def tox_before_run_commands(tox_env: ToxEnv) -> None:
    """Remove the link, so that ``python`` is found on the path."""
    if isinstance(tox_env, Python) and tox_env.options.current_env:
        for link in tox_env.env_dir.joinpath("bin").glob("python*"):
            link.unlink()
