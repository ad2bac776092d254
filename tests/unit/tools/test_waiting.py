# SPDX-License-Identifier: Apache-2.0
"""Waiting ends with what was seen, or says what was not."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[3] / "tools"))

from aiolib import waiting


def test_what_was_seen_is_returned() -> None:
    seen = iter([0, [], "", "there", "more"])
    assert waiting.until("it", lambda: next(seen), 10, 0) == "there"
    assert next(seen) == "more"


def test_it_looks_once_even_without_time() -> None:
    assert waiting.until("it", lambda: 7, 0) == 7


@pytest.mark.parametrize("what", ["the end", lambda: "the end"])
def test_what_is_not_there_in_time_is_told(what: object) -> None:
    with pytest.raises(TimeoutError, match=r"^not within 0\.01 s: the end$"):
        waiting.until(what, lambda: None, 0.01, 0)  # type: ignore[arg-type]


def test_an_error_ends_the_waiting() -> None:
    def look() -> bool:
        raise LookupError("no host")

    with pytest.raises(LookupError, match="no host"):
        waiting.until("it", look, 10)
