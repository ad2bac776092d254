# SPDX-License-Identifier: Apache-2.0
"""Owns the source trees that the suites run in; knows nothing of tests.

The wheels of nova and cinder have their tests, but not the API samples, notification
samples and configuration files that they read relative to themselves. The source
archives of the same releases have them. The suites run in the unpacked archive, after
a check that its code is, to the byte, the code that is installed.
"""

import hashlib
import importlib.metadata
import pathlib
import shutil
import subprocess
import sys
import tarfile

STOCK_FACTORY = "nova.api.openstack.compute:APIRouterV21.factory"
EXTENSION_FACTORY = "nova_ext.wsgi.paste:osapi_compute_app_v21"

_DOWNLOAD_SECONDS = 600


class TreeError(Exception):
    """The trees cannot be made; the message says why."""


def stock(cache: pathlib.Path, service: str) -> pathlib.Path:
    """Unpack the source archive of a service below cache, once; return its path."""
    name = f"{service}-{importlib.metadata.version(service)}"
    tree = cache / name
    if not tree.exists():
        cache.mkdir(parents=True, exist_ok=True)
        unpacked = cache / "unpacked"
        shutil.rmtree(unpacked, ignore_errors=True)
        with tarfile.open(_archive(cache, service, name)) as archive:
            archive.extractall(unpacked, filter="data")
        _check_equal(unpacked / name, service)
        (unpacked / name).rename(tree)
    return tree


def extended(cache: pathlib.Path, service: str) -> pathlib.Path:
    """The stock tree; in nova's, with an operator's one change in api-paste.ini."""
    source = stock(cache, service)
    if service != "nova":
        return source
    tree = cache / f"{source.name}-extended"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir()
    for entry in ("nova", "doc"):
        (tree / entry).symlink_to(source / entry)
    shutil.copytree(source / "etc", tree / "etc")
    paste = tree / "etc/nova/api-paste.ini"
    text = paste.read_text()
    if text.count(STOCK_FACTORY) != 1:
        raise TreeError(f"{paste} does not name {STOCK_FACTORY} exactly once")
    paste.write_text(text.replace(STOCK_FACTORY, EXTENSION_FACTORY))
    return tree


def _archive(cache: pathlib.Path, service: str, name: str) -> pathlib.Path:
    archive = cache / f"{name}.tar.gz"
    if not archive.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--no-binary", service, "--dest", str(cache)]
        command += [name.replace("-", "==")]
        try:
            subprocess.run(command, check=True, timeout=_DOWNLOAD_SECONDS)
        except (subprocess.SubprocessError, OSError) as error:
            raise TreeError(f"cannot download the source of {name}: {error}") from error
        if not archive.exists():
            raise TreeError(f"pip did not leave {archive}")
    return archive


def _check_equal(tree: pathlib.Path, service: str) -> None:
    files = importlib.metadata.files(service) or []
    installed = [file for file in files if file.parts[0] == service]
    if not installed:
        raise TreeError(
            f"{service} is not installed from a wheel: nothing to compare with"
        )
    for file in installed:
        if file.suffix != ".py":
            continue
        ours, theirs = pathlib.Path(str(file.locate())), tree / file
        if not theirs.exists() or _digest(ours) != _digest(theirs):
            raise TreeError(
                f"{file} differs between the installed {service} and {tree}"
            )


def _digest(path: pathlib.Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
