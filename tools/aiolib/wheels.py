# SPDX-License-Identifier: Apache-2.0
"""The virtual environment with the stock services and this project; runs nothing."""

from __future__ import annotations

import hashlib
import pathlib
import shutil
import sys

from aiolib import command
from aiolib import uv as uv_source
from aiolib.progress import say
from aiolib.settings import REPO, Failure, Settings

SERVICES = (
    "keystone==30.0.0",
    "openstack-placement==16.0.0",
    "glance==33.0.0",
    "nova==34.0.0",
    "cinder==29.0.0",
    "ceilometer==27.0.0",
)
S3_SERVER = "moto[s3,server]>=5,<6"
OTHERS = (
    "boto3",  # cinder's backup driver for S3
    "PyMySQL",
    "SQLAlchemy<2.1",
    "openstacksdk",
    "python-openstackclient",
    "waitress",
)


def _pip(venv: pathlib.Path) -> list[str]:
    return [str(venv / "bin/python"), "-m", "pip"]


def _requirements(settings: Settings) -> list[str]:
    version = command.run(["pkg-config", "--modversion", "libvirt"], timeout=30)
    words = [*SERVICES, *OTHERS, f"libvirt-python=={version.strip()}"]
    constraints = REPO / "constraints.txt"
    if constraints.exists():
        words += ["-c", str(constraints)]
    if (REPO / "setup.cfg").exists():
        words += ["-e", f"{REPO}[nova,cinder,ceilometer,client]"]
    return words


def _fingerprint(words: list[str]) -> str:
    digest = hashlib.sha256("\n".join([sys.version, *words]).encode())
    for name in ("constraints.txt", "setup.cfg", "setup.py", "pyproject.toml"):
        if (path := REPO / name).exists():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def install(settings: Settings) -> None:
    """Bring the environment of the services up to date."""
    what = "installing the wheels of the services and this project"
    _install(settings, settings.venv, _requirements(settings), what)


def install_s3(settings: Settings) -> None:
    """Bring that of the server for S3 up to date."""
    _install(settings, s3_venv(settings), [S3_SERVER], "installing a server for S3")


def s3_venv(settings: Settings) -> pathlib.Path:
    """Its environment: it agrees with the services on nothing but Python."""
    return settings.home / "s3-venv"


def _install(
    settings: Settings, venv: pathlib.Path, words: list[str], what: str
) -> None:
    stamp = venv / "aio-installed"
    fingerprint = _fingerprint(words)
    if stamp.exists() and stamp.read_text() == fingerprint:
        return
    log = settings.log / f"{venv.name}.log"
    python = venv / "bin/python"
    if not python.exists():
        base = pathlib.Path(getattr(sys, "_base_executable", sys.executable))
        command.run([base, "-m", "venv", venv], timeout=120, log=log)
    stamp.unlink(missing_ok=True)
    say(what)
    uv = venv / "bin/uv"
    try:
        if not uv.exists():
            command.run([*_pip(venv), "install", "uv"], timeout=300, log=log)
        command.run(
            [uv, "pip", "install", "--python", python, *words],
            timeout=900,
            log=log,
            env=uv_source.environment(_pip(venv)),
        )
    except Failure:
        say("uv could not do it, trying pip (slower)")
        command.run([*_pip(venv), "install", *words], timeout=1800, log=log)
    stamp.write_text(fingerprint)


def stock_files(settings: Settings, service: str) -> None:
    """Copy the configuration files that the service's wheel ships."""
    source = settings.venv / "etc" / service
    if source.is_dir():
        shutil.copytree(source, settings.etc / service, dirs_exist_ok=True)
