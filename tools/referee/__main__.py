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

"""Owns the referee's command: upstream's suites without and with the extension.

A test that passes without the extension and does not pass with it is a loss. The exit
status is 1 if there is a loss or a suite could not be run.
"""

import argparse
import collections
import json
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

#: The status of each test id, for each of the two runs ("without", "with").
Results = dict[str, dict[str, str]]


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

    baseline = _load(arguments.reuse_baseline)
    verdicts: list[Results] = []
    losses: list[str] = []
    errors: list[str] = []
    for suite in arguments.suites:
        service = suites.service(suite)
        try:
            if suite in baseline:
                print(f"{suite} without: {_counts(baseline[suite])}, kept")
            else:
                baseline[suite] = _run(suite, "without", stock[service], arguments)
                if arguments.reuse_baseline:
                    _save(arguments.reuse_baseline, baseline)
            if arguments.baseline_only:
                continue
            found = _run(suite, "with", extended[service], arguments)
            results = {"without": baseline[suite], "with": found}
            losses += _losses(suite, results, extended[service], arguments)
            verdicts.append(results)
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
        "--reuse-baseline",
        type=pathlib.Path,
        metavar="FILE",
        help="keep results without the extension here, and use those that are there",
    )
    parser.add_argument(
        "--baseline-only", action="store_true", help="leave out the extension"
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


def _run(
    suite: str,
    mode: str,
    source: pathlib.Path,
    arguments: argparse.Namespace,
    tests: list[str] | None = None,
) -> dict[str, str]:
    log = arguments.cache / f"{suite}-{mode}.log"
    if tests is None:
        log.unlink(missing_ok=True)
    print(f"{suite} {mode}: running", flush=True)
    start = time.monotonic()
    found = runner.run(suite, source, mode == "with", log, arguments.limit, tests)
    seconds = time.monotonic() - start
    print(f"{suite} {mode}: {_counts(found)} in {seconds:.0f} s", flush=True)
    return found


def _lost(without: dict[str, str], with_: dict[str, str]) -> list[str]:
    return [
        test
        for test, status in without.items()
        if status in PASSED and with_.get(test) not in PASSED
    ]


def _losses(
    suite: str, results: Results, source: pathlib.Path, arguments: argparse.Namespace
) -> list[str]:
    """The tests of a suite that only pass without, and stale expectations.

    The lost tests are run once more, one after the other: some depend on time, and one
    of them is no loss when it passes then. It is named all the same.
    """
    without, with_ = results["without"], results["with"]
    expected = suites.EXPECTED_DIFFERENCES
    lost = _lost(without, with_)
    stale = [test for test in expected if test in without and test not in lost]
    suspects = [test for test in lost if test not in expected]
    if suspects:
        with_.update(_run(suite, "with", source, arguments, suspects))
    losses = [test for test in _lost(without, with_) if test not in expected]
    for test in sorted(set(suspects) - set(losses)):
        print(f"unstable: {test}: passed when run again")
    for test in lost:
        if test in expected:
            print(f"expected: {test}: {expected[test]}")
    for test in losses:
        print(f"LOSS: {test}")
    for test in stale:
        print(f"STALE: {test} passes, remove it from the expected differences")
    return losses + stale


def _counts(results: dict[str, str]) -> str:
    counted = collections.Counter(results.values())
    states = ", ".join(f"{number} {state}" for state, number in sorted(counted.items()))
    return f"{len(results)} tests: {states}"


def _load(path: pathlib.Path | None) -> dict[str, dict[str, str]]:
    if path is None or not path.exists():
        return {}
    saved: dict[str, dict[str, str]] = json.loads(path.read_text())
    return saved


def _save(path: pathlib.Path, results: dict[str, dict[str, str]]) -> None:
    path.write_text(json.dumps(results, indent=1, sort_keys=True))


def _write_junit(
    path: pathlib.Path, verdicts: list[Results], losses: list[str], errors: list[str]
) -> None:
    """The verdict as JUnit totals; what passes in neither run counts as skipped."""
    tests = sum(len(results["with"]) for results in verdicts)
    passed = sum(
        status in PASSED for results in verdicts for status in results["with"].values()
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
