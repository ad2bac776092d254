# SPDX-License-Identifier: Apache-2.0
"""Owns small files that survive a crash: each is written and removed as a whole.

A file holds its old text or its new one, whatever happens: a full disk, a process that
is killed, or a host that loses its power. What was written or removed is on the disk
when the function returns. Nothing is written in place, so that a reader needs no lock.

Imports nothing of Nova or Cinder: services of both keep such files.
"""

import contextlib
import os
import pathlib
import tempfile

#: How the name of a file begins that is being written. A name that went through
#: ``urllib.parse.quote(name, safe="")`` has no ``=`` and never begins like this.
_TEMPORARY = ".tmp="


def make_directory(path: pathlib.Path, mode: int = 0o750) -> None:
    """Make a directory and its missing parents.

    :param mode: permissions of each directory that is made, which the umask limits
    :raises: OSError
    """
    if path.is_dir():
        return
    make_directory(path.parent, mode)
    path.mkdir(mode=mode, exist_ok=True)
    _sync_directory(path.parent)


def write(
    path: pathlib.Path,
    text: str,
    mode: int = 0o640,
    owner: tuple[int, int] | None = None,
    durable: bool = True,
) -> None:
    """Write a file, or replace it, in one step.

    Two writers of one file do not disturb each other; the last one wins.

    :param path: in a directory that exists
    :param text: not empty: an empty file is what other ways to write leave on a full
        disk, so that it must never mean anything
    :param mode: permissions of the file, whatever the umask is
    :param owner: user and group of the file, by default those of the process
    :param durable: false for what means nothing after a crash: then nobody waits for
        the disk
    :raises: OSError when the text is not on the disk for certain. The file then has
        its old text, or there is none as before; only if the last step failed, which
        is to record the name in the directory, it may have the new one.
    """
    if not text:
        raise ValueError(f"Refusing to write an empty {path}.")
    handle, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=path.parent)
    try:
        try:
            if owner:
                os.fchown(handle, *owner)
            os.fchmod(handle, mode)
            left = memoryview(text.encode())
            while left:
                left = left[os.write(handle, left) :]
            if durable:
                os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if durable:
        _sync_directory(path.parent)


def remove(path: pathlib.Path) -> None:
    """Remove a file, if it is there.

    :raises: OSError when it may be there again after a crash
    """
    try:
        os.unlink(path)
    except FileNotFoundError:
        if not path.parent.is_dir():
            return
    # Also for a file that is gone: the one who removed it may have failed here.
    _sync_directory(path.parent)


def is_temporary(name: str) -> bool:
    """Whether a file of this name is being written, or was when its writer died."""
    return name.startswith(_TEMPORARY)


def remove_leftovers(directory: pathlib.Path) -> None:
    """Remove what writers left that died; only while nobody writes in the directory.

    :raises: OSError
    """
    for file in directory.glob(f"{_TEMPORARY}*"):
        file.unlink(missing_ok=True)


def _sync_directory(path: pathlib.Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
