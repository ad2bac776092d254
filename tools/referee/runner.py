# SPDX-License-Identifier: Apache-2.0
"""Owns one run of one suite under stestr and its results; compares nothing."""

import contextlib
import io
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import Any

import subunit
import suites
import testtools

DISCOVER = pathlib.Path(__file__).resolve().parent / "discover"

#: A loop in a test ends after this many seconds, by a fixture of the service.
_TEST_SECONDS = "400"
_PROGRESS_SECONDS = 20
_LIST_SECONDS = 300


class RunError(Exception):
    """A suite could not be run; the message says why."""


def run(
    suite: str,
    tree: pathlib.Path,
    extension: bool,
    log: pathlib.Path,
    limit: float,
    tests: Iterable[str] | None = None,
) -> dict[str, str]:
    """Run one suite and return the status of each test by its id.

    :param suite: dotted name as suites has it
    :param tree: the source tree to import the service from
    :param extension: whether the extension is switched on in the test processes
    :param log: file that gets the output of failed tests
    :param limit: seconds after which the whole run is given up
    :param tests: only these test ids, one after the other
    :raises: RunError when nothing ran or the time was over
    """
    environment = _environment(suite, tree, extension)
    with tempfile.TemporaryDirectory(prefix="referee-") as work:
        command = [sys.executable, "-m", "stestr", "--test-path", str(DISCOVER)]
        command += ["--top-dir", str(DISCOVER), "run", "--subunit"]
        if tests is not None:
            # stestr adds scenario names to an id only when it runs it.
            listed = pathlib.Path(work, "tests")
            listed.write_text("".join(f"{test.split('(')[0]}\n" for test in tests))
            command += ["--serial", "--load-list", str(listed)]
        with log.open("ab") as sink:
            # A group of its own: the workers end together with stestr.
            process = subprocess.Popen(
                command,
                cwd=work,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=sink,
                start_new_session=True,
            )
            try:
                results = _collect(process, sink, time.monotonic() + limit)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if not results:
        raise RunError(f"{suite}: no test ran, see {log}")
    return results


def names(suite: str, tree: pathlib.Path) -> list[str]:
    """The ids of all tests of a suite, as a run without the extension would have them.

    :raises: RunError when there are none
    """
    with tempfile.TemporaryDirectory(prefix="referee-") as work:
        done = subprocess.run(
            [sys.executable, str(DISCOVER / "test_upstream.py")],
            cwd=work,
            env=_environment(suite, tree, extension=False),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIST_SECONDS,
            check=False,
        )
    found = done.stdout.splitlines()
    if done.returncode != 0 or not found:
        raise RunError(f"{suite}: it has no list of tests: {done.stderr[-1000:]}")
    return found


def _environment(suite: str, tree: pathlib.Path, extension: bool) -> dict[str, str]:
    inherited = filter(None, [os.environ.get("PYTHONPATH")])
    return dict(
        os.environ,
        PYTHONPATH=os.pathsep.join([str(tree), *inherited]),
        PYTHONWARNINGS="ignore",
        OS_NOVA_DISABLE_EVENTLET_PATCHING="1",
        # cinder's services run eventlet by default, and so do its own tests.
        OS_CINDER_DISABLE_EVENTLET_PATCHING="0",
        OS_STDOUT_CAPTURE="1",
        OS_STDERR_CAPTURE="1",
        OS_TEST_TIMEOUT=_TEST_SECONDS,
        LANGUAGE="en_US",
        REFEREE_SUITE=suites.whole_name(suite),
        REFEREE_EXTENSION="1" if extension else "0",
    )


def _collect(process: Any, sink: io.BufferedWriter, end: float) -> dict[str, str]:
    """Read the subunit stream until it ends, showing progress."""
    results: dict[str, str] = {}
    shown = time.monotonic()

    def note(test: dict[str, Any]) -> None:
        nonlocal shown
        status = test["status"]
        if status == "exists":
            return
        results[test["id"]] = status
        if status in ("fail", "uxsuccess"):
            for name, detail in test["details"].items():
                text = "".join(detail.iter_text())
                sink.write(f"{test['id']} {name}\n{text}\n".encode())
        if time.monotonic() - shown > _PROGRESS_SECONDS:
            shown = time.monotonic()
            print(f"    {len(results)} done", flush=True)

    with _alarm(process, end):
        stream = testtools.StreamToDict(note)
        stream.startTestRun()
        subunit.ByteStreamToStreamResult(process.stdout, "output").run(stream)
        stream.stopTestRun()
    process.wait()
    if time.monotonic() > end:
        raise RunError("the time for this suite is over")
    return results


@contextlib.contextmanager
def _alarm(process: Any, end: float) -> Any:
    """End the process group when the time is over, which ends the stream too."""

    def stop(*_: Any) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    handler: Callable[..., None] = stop
    previous = signal.signal(signal.SIGALRM, handler)
    signal.alarm(max(1, int(end - time.monotonic())))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
