# SPDX-License-Identifier: Apache-2.0

import errno
import os
import pathlib
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nova_ext import atomic_file

#: All that changes or closes something on the way of a file to the disk.
STEPS = (
    "open",
    "fchown",
    "fchmod",
    "write",
    "fsync",
    "close",
    "replace",
    "unlink",
    "mkdir",
)

Act = Callable[[pathlib.Path], None]


def write_new(file: pathlib.Path) -> None:
    atomic_file.write(file, "new text")


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    """A file that has a text, alone in its directory."""
    path = tmp_path / "state" / "file"
    path.parent.mkdir()
    path.write_text("old")
    return path


def seen(file: pathlib.Path) -> str | None:
    """What a reader finds; and no reader ever finds half a file."""
    return file.read_text() if file.exists() else None


def temporary(file: pathlib.Path) -> list[str]:
    names = os.listdir(file.parent)
    assert all(atomic_file.is_temporary(name) for name in names if name != file.name)
    return [name for name in names if name != file.name]


def traced(monkeypatch: pytest.MonkeyPatch, tell: Callable[..., None]) -> None:
    """Have ``tell(name, done, args)`` called before and after each step."""
    for name in STEPS:
        real = getattr(os, name)

        def step(
            *args: Any, _name: str = name, _real: Callable[..., Any] = real, **more: Any
        ) -> Any:
            tell(_name, False, args)
            result = _real(*args, **more)
            tell(_name, True, args)
            return result

        monkeypatch.setattr(os, name, step)


def what(name: str, args: tuple[Any, ...]) -> str:
    """A step and what it is done to, as in ``fsync directory``."""
    if not isinstance(args[0], int):
        return name
    kind = "directory" if stat.S_ISDIR(os.fstat(args[0]).st_mode) else "file"
    return f"{name} {kind}"


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    steps: list[str] = []

    def tell(name: str, done: bool, args: tuple[Any, ...]) -> None:
        if not done and name != "open":
            steps.append(what(name, args))

    traced(monkeypatch, tell)
    return steps


def test_a_text_is_on_the_disk_before_its_name(
    file: pathlib.Path, order: list[str]
) -> None:
    write_new(file)
    assert order == [
        "fchmod file",
        "write file",
        "fsync file",
        "close file",
        "replace",
        "fsync directory",
        "close directory",
    ]
    assert seen(file) == "new text"


def test_what_need_not_survive_waits_for_no_disk(
    file: pathlib.Path, order: list[str]
) -> None:
    atomic_file.write(file, "new text", durable=False)
    assert file.read_text() == "new text"
    assert "replace" in " ".join(order)
    assert "fsync" not in " ".join(order)


def test_a_removal_is_on_the_disk(file: pathlib.Path, order: list[str]) -> None:
    atomic_file.remove(file)
    assert order == ["unlink", "fsync directory", "close directory"]
    assert seen(file) is None


def test_a_removal_that_another_began_is_completed(
    file: pathlib.Path, order: list[str]
) -> None:
    file.unlink()
    order.clear()
    atomic_file.remove(file)
    assert "fsync directory" in order


def test_there_is_nothing_to_remove_without_a_directory(
    tmp_path: pathlib.Path,
) -> None:
    atomic_file.remove(tmp_path / "none" / "file")
    assert os.listdir(tmp_path) == []


def test_each_new_directory_is_on_the_disk(
    tmp_path: pathlib.Path, order: list[str]
) -> None:
    path = tmp_path / "a" / "b"
    atomic_file.make_directory(path)
    assert order == ["mkdir", "fsync directory", "close directory"] * 2
    assert path.is_dir()
    order.clear()
    atomic_file.make_directory(path)
    assert order == []


def test_a_directory_that_cannot_be_made(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="file"):
        atomic_file.make_directory(tmp_path / "file" / "state")


def test_permissions_are_not_the_umasks(tmp_path: pathlib.Path) -> None:
    before = os.umask(0o077)
    try:
        atomic_file.write(tmp_path / "shared", "x", mode=0o644)
        atomic_file.write(tmp_path / "usual", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "usual").stat().st_mode) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_the_owner(tmp_path: pathlib.Path, order: list[str]) -> None:
    atomic_file.write(tmp_path / "file", "x", mode=0o4750, owner=(1, 2))
    seen = (tmp_path / "file").stat()
    assert (seen.st_uid, seen.st_gid) == (1, 2)
    # A change of the owner takes some permissions away.
    assert stat.S_IMODE(seen.st_mode) == 0o4750
    assert order[:2] == ["fchown file", "fchmod file"]


def test_a_long_name(tmp_path: pathlib.Path) -> None:
    atomic_file.write(tmp_path / ("n" * 255), "x")
    assert os.listdir(tmp_path) == ["n" * 255]


def test_all_of_a_text_is_written_where_a_write_takes_less(
    file: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[:3]))
    atomic_file.write(file, "grün, and much more")
    assert seen(file) == "grün, and much more"


def test_nothing_empty_is_written(file: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="empty"):
        atomic_file.write(file, "")
    assert seen(file) == "old"


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("step", ["open", "fchmod", "write", "fsync", "replace"])
def test_a_step_that_fails_leaves_the_old_state(
    file: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    code: int,
    exists: bool,
) -> None:
    if not exists:
        file.unlink()

    def fail(*args: Any, **more: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(OSError, match=os.strerror(code)):
            write_new(file)
    assert seen(file) == ("old" if exists else None)
    assert temporary(file) == []


def test_half_a_write_leaves_the_old_state(
    file: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    lengths = iter([3])

    def half(handle: int, data: memoryview) -> int:
        for length in lengths:
            return real(handle, data[:length])
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="full"):
        write_new(file)
    assert seen(file) == "old"
    assert temporary(file) == []


def test_a_failure_of_the_last_step_is_no_success(
    file: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is whole, but after a crash it may be the old one again."""
    real = os.fsync

    def fail(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EIO, "broken")
        real(handle)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="broken"):
        write_new(file)
    assert seen(file) == "new text"
    with pytest.raises(OSError, match="broken"):
        atomic_file.remove(file)


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system that has room for two pages."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "none", str(path)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount a file system")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk_leaves_the_old_state(small_disk: pathlib.Path) -> None:
    file = small_disk / "file"
    atomic_file.write(file, "old")
    # The second page of the text is one too many: its first is written.
    with pytest.raises(OSError, match="No space left"):
        atomic_file.write(file, "x" * 8192)
    with pytest.raises(OSError, match="No space left"):
        atomic_file.write(small_disk / "another", "x" * 8192)
    assert os.listdir(small_disk) == ["file"]
    assert seen(file) == "old"
    # The room that the failures took is free again.
    atomic_file.write(file, "new")
    assert seen(file) == "new"


def die_at(number: int, act: Act, file: pathlib.Path, *, half: bool = False) -> int:
    """Do it in a process that is killed at a step; returns its exit status.

    :param number: of the moment: before the first step, after it, and so on
    :param half: write only the half of the text that dies there
    """
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    moments = iter(range(sys.maxsize))
    write = os.write

    def tell(name: str, done: bool, args: tuple[Any, ...]) -> None:
        if next(moments) == number:
            if half and name == "write":
                write(args[0], args[1][: len(args[1]) // 2])
            # Like a kill: no handler runs, nothing is tidied.
            os._exit(9)

    with pytest.MonkeyPatch.context() as patch:
        traced(patch, tell)
        try:
            act(file)
        except BaseException:
            os._exit(1)
    os._exit(0)


def moments(act: Act, file: pathlib.Path, *, half: bool = False) -> Iterator[int]:
    """Kill at each moment, from the first until one comes after the end of it all."""
    for number in range(100):
        status = die_at(number, act, file, half=half)
        yield number
        if status == 0:
            return
        assert status == 9
    raise AssertionError("it never ends")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("old", ["old", None])
def test_a_kill_at_any_moment_leaves_the_old_text_or_the_new(
    file: pathlib.Path, old: str | None, half: bool
) -> None:
    file.unlink()
    states, leftovers = [], 0
    if old:
        file.write_text(old)
    for _number in moments(write_new, file, half=half):
        states.append(seen(file))
        leftovers += len(temporary(file))
        atomic_file.remove_leftovers(file.parent)
        assert temporary(file) == []
        assert seen(file) == states[-1]
        if states[-1] != "new text":
            continue
        file.write_text(old) if old else file.unlink()
    assert set(states) == {old, "new text"}
    assert states == sorted(states, key=["new text", old].index, reverse=True)
    # Twice for each of the four steps between its birth and its new name.
    assert leftovers == 10
    assert len(states) == 19


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_kill_at_any_moment_of_a_removal(file: pathlib.Path) -> None:
    states = []
    for _number in moments(atomic_file.remove, file):
        states.append(seen(file))
        file.write_text("old")
    assert states == ["old"] + [None] * 8


def test_who_is_still_needed_stays(file: pathlib.Path) -> None:
    atomic_file.remove_leftovers(file.parent)
    assert seen(file) == "old"
    assert not atomic_file.is_temporary(file.name)
    atomic_file.remove_leftovers(file.parent / "none")


def test_of_two_writers_the_last_one_wins(
    file: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace
    names = []

    def meet(old: str, new: pathlib.Path) -> None:
        names.append(old)
        if len(names) == 1:
            atomic_file.write(file, "the other")
        real(old, new)

    monkeypatch.setattr(os, "replace", meet)
    write_new(file)
    assert len(set(names)) == 2
    assert seen(file) == "new text"
    assert temporary(file) == []
