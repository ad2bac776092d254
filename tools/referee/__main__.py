# SPDX-License-Identifier: Apache-2.0
"""Owns the referee's command: upstream's suites with the extension, and without it.

A test that passes without the extension and does not pass with it is a loss. The exit
status is 1 if there is a loss or a suite could not be run.

Only what does not pass with the extension is run without it. That all tests were run
is known from a list of them that is made without the extension.
"""

import argparse
import collections
import pathlib
import signal
import sys
import time
from xml.etree import ElementTree

import runner
import suites
import tree

ROOT = pathlib.Path(__file__).resolve().parents[2]
PASSED = ("success", "xfail")

#: The status of each test id.
Results = dict[str, str]


def main() -> int:
    """Run what the command line asks for; the return value is the exit status."""
    # So that the test processes end together with this one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    arguments = _arguments()
    arguments.cache = arguments.cache.resolve()
    try:
        services = {suites.service(suite) for suite in arguments.suites}
        stock = {name: tree.stock(arguments.cache, name) for name in services}
        extended = {name: tree.extended(arguments.cache, name) for name in services}
    except tree.TreeError as error:
        print(f"referee: {error}", file=sys.stderr)
        return 1

    verdicts: list[Results] = []
    losses: list[str] = []
    errors: list[str] = []
    for suite in arguments.suites:
        service = suites.service(suite)
        try:
            referee = Referee(suite, stock[service], extended[service], arguments)
            losses += referee.losses()
            verdicts.append(referee.results)
        except runner.RunError as error:
            print(f"ERROR: {error}", flush=True)
            errors.append(str(error))
    print(f"{len(losses)} lost, {len(errors)} suites could not be run")
    if arguments.junit_xml:
        _write_junit(arguments.junit_xml, verdicts, losses, errors)
    return 1 if losses or errors else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="referee", description=__doc__)
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument(
        "--suites",
        default=suites.FULL,
        type=lambda names: names.split(","),
        help="comma-separated modules, classes or tests: nova's below nova.tests, "
        "cinder's by their whole name",
    )
    chosen.add_argument(
        "--short",
        action="store_const",
        dest="suites",
        const=suites.SHORT,
        help="the part that is short enough for every change",
    )
    parser.add_argument(
        "--junit-xml", type=pathlib.Path, metavar="FILE", help="write totals here"
    )
    parser.add_argument(
        "--cache",
        type=pathlib.Path,
        default=ROOT / ".cache/referee",
        metavar="DIRECTORY",
        help="holds the sources and the logs (default: %(default)s)",
    )
    parser.add_argument(
        "--limit", type=float, default=5400, help="seconds for one run of one suite"
    )
    return parser.parse_args()


class Referee:
    """Judges one suite.

    :param stock: the tree that it is run in without the extension
    :param extended: the tree that it is run in with it
    :ivar results: what came of each test with the extension
    """

    def __init__(
        self,
        suite: str,
        stock: pathlib.Path,
        extended: pathlib.Path,
        arguments: argparse.Namespace,
    ) -> None:
        self._suite = suite
        self._trees = {"without": stock, "with": extended}
        self._arguments = arguments
        self.results: Results = {}

    def losses(self) -> list[str]:
        """The tests that only pass without, and stale expectations.

        The lost tests are run once more, one after the other: some depend on time, and
        one of them is no loss when it passes then. It is named all the same.
        """
        wanted = runner.names(self._suite, self._trees["without"])
        found = self._run("with")
        self.results = {test: found.get(test, "missing") for test in wanted} | found
        suspects = [test for test in wanted if self.results[test] not in PASSED]
        without = self._without(suspects)
        lost = [test for test in suspects if without.get(test) in PASSED]
        expected = suites.EXPECTED_DIFFERENCES
        again = [test for test in lost if test not in expected]
        if again:
            self.results |= self._run("with", again)
        losses = [test for test in again if self.results[test] not in PASSED]
        stale = [test for test in expected if test in wanted and test not in lost]
        for test in sorted(set(again) - set(losses)):
            print(f"unstable: {test}: passed when run again")
        for test in lost:
            if test in expected:
                print(f"expected: {test}: {expected[test]}")
        for test in losses:
            print(f"LOSS: {test}")
        for test in stale:
            print(f"STALE: {test} passes, remove it from the expected differences")
        return losses + stale

    def _without(self, suspects: list[str]) -> Results:
        """What comes of tests without the extension.

        If one of them fails by itself, all are run, as they may need one another.
        """
        if not suspects:
            return {}
        found = self._run("without", suspects)
        if all(found.get(test) in (*PASSED, "skip") for test in suspects):
            return found
        return self._run("without")

    def _run(self, mode: str, tests: list[str] | None = None) -> Results:
        log = self._arguments.cache / f"{self._suite}-{mode}.log"
        if tests is None:
            log.unlink(missing_ok=True)
        what = "all" if tests is None else f"{len(tests)} of them"
        print(f"{self._suite} {mode}: running {what}", flush=True)
        start = time.monotonic()
        found = runner.run(
            self._suite,
            self._trees[mode],
            mode == "with",
            log,
            self._arguments.limit,
            tests,
        )
        seconds = time.monotonic() - start
        print(f"{self._suite} {mode}: {_counts(found)} in {seconds:.0f} s", flush=True)
        return found


def _counts(results: dict[str, str]) -> str:
    counted = collections.Counter(results.values())
    states = ", ".join(f"{number} {state}" for state, number in sorted(counted.items()))
    return f"{len(results)} tests: {states}"


def _write_junit(
    path: pathlib.Path, verdicts: list[Results], losses: list[str], errors: list[str]
) -> None:
    """The verdict as JUnit totals; what passes neither way counts as skipped."""
    tests = sum(len(results) for results in verdicts)
    passed = sum(
        status in PASSED for results in verdicts for status in results.values()
    )
    total = max(tests + len(errors), passed + len(losses) + len(errors))
    attributes = {
        "name": "upstream",
        "tests": str(total),
        "failures": str(len(losses)),
        "errors": str(len(errors)),
        "skipped": str(total - passed - len(losses) - len(errors)),
    }
    ElementTree.ElementTree(ElementTree.Element("testsuite", attributes)).write(path)


if __name__ == "__main__":
    sys.exit(main())
