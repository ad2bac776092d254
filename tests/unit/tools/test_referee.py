# SPDX-License-Identifier: Apache-2.0
"""What the referee calls a loss, and that no test vanishes from its sight."""

import importlib.util
import pathlib
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

REFEREE = pathlib.Path(__file__).parents[3] / "tools/referee"
SUITE = "unit.some"


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The referee's program."""
    monkeypatch.syspath_prepend(str(REFEREE))
    before = set(sys.modules)
    spec = importlib.util.spec_from_file_location("referee", REFEREE / "__main__.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name in set(sys.modules) - before:
        del sys.modules[name]


class Upstream:
    """A suite, and what becomes of its tests.

    :ivar runs: for each run whether it was with the extension, and of which tests
    """

    def __init__(self, **outcomes: tuple[str, str]) -> None:
        self.outcomes = outcomes
        self.again: dict[str, str] = {}
        self.runs: list[tuple[bool, list[str] | None]] = []

    def names(self, suite: str, tree: pathlib.Path) -> list[str]:
        return list(self.outcomes)

    def run(
        self,
        suite: str,
        tree: pathlib.Path,
        extension: bool,
        log: pathlib.Path,
        limit: float,
        tests: list[str] | None = None,
    ) -> dict[str, str]:
        self.runs.append((extension, tests))
        found = {}
        for test in self.outcomes if tests is None else tests:
            without, with_ = self.outcomes[test]
            status = with_ if extension else without
            if extension and tests is not None:
                status = self.again.get(test, status)
            if status != "missing":
                found[test] = status
        return found


@pytest.fixture
def judge(main: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Any:
    """Judges a suite; the losses."""

    def judge(upstream: Upstream) -> list[str]:
        monkeypatch.setattr(main.runner, "names", upstream.names)
        monkeypatch.setattr(main.runner, "run", upstream.run)
        monkeypatch.setattr(main.suites, "EXPECTED_DIFFERENCES", {"known": "why"})
        arguments = types.SimpleNamespace(cache=tmp_path, limit=1)
        losses: list[str] = main.Referee(SUITE, tmp_path, tmp_path, arguments).losses()
        return losses

    return judge


def test_nothing_is_run_without_when_all_pass_with(judge: Any) -> None:
    upstream = Upstream(a=("success", "success"), b=("success", "xfail"))
    assert judge(upstream) == []
    assert upstream.runs == [(True, None)]


@pytest.mark.parametrize("status", ["fail", "skip", "missing", "uxsuccess"])
def test_what_passes_without_alone_is_a_loss(judge: Any, status: str) -> None:
    upstream = Upstream(a=("success", "success"), b=("success", status))
    assert judge(upstream) == ["b"]
    assert upstream.runs == [(True, None), (False, ["b"]), (True, ["b"])]


def test_what_is_skipped_both_ways_is_none(judge: Any) -> None:
    upstream = Upstream(a=("skip", "skip"), b=("success", "success"))
    assert judge(upstream) == []
    assert upstream.runs == [(True, None), (False, ["a"])]


def test_what_fails_by_itself_is_run_with_all_others(judge: Any) -> None:
    upstream = Upstream(a=("fail", "fail"), b=("success", "success"))
    assert judge(upstream) == []
    assert upstream.runs == [(True, None), (False, ["a"]), (False, None)]


def test_what_passes_when_run_again_is_none(
    judge: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    upstream = Upstream(a=("success", "fail"))
    upstream.again = {"a": "success"}
    assert judge(upstream) == []
    assert "unstable: a" in capsys.readouterr().out


def test_a_known_difference_is_none_and_is_not_run_again(judge: Any) -> None:
    upstream = Upstream(known=("success", "fail"))
    assert judge(upstream) == []
    assert upstream.runs == [(True, None), (False, ["known"])]


def test_a_known_difference_that_is_none_any_more(judge: Any) -> None:
    assert judge(Upstream(known=("success", "success"))) == ["known"]
    assert judge(Upstream(known=("fail", "fail"))) == ["known"]
