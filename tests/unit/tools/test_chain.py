# SPDX-License-Identifier: Apache-2.0
"""What is read from the records and consoles of a chain of guests."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[3] / "tools"))

from aiolib import chain
from aiolib.chain import Record


def records(*pairs: tuple[int, int]) -> list[Record]:
    return [Record(number, 1.0, heard) for number, heard in pairs]


def test_records_without_their_end_do_not_count() -> None:
    assert chain.parse(b"1 2.50 0\n2 2.61 7\n3 2.7") == [
        Record(1, 2.5, 0),
        Record(2, 2.61, 7),
    ]
    assert chain.parse(b"3 2.70 12") == []


def test_newest_number_of_a_console() -> None:
    console = b"W 7 1.00\r\nH freeze 1.02\nW 8 1.10\nsome W 99 1.20\nW 9 1."
    assert chain.newest(console) == (b"8", b"W 9 1.")


def test_a_console_in_pieces_tells_each_number() -> None:
    number, rest = chain.newest(b"W 1")
    assert number is None
    assert chain.newest(rest + b"2 1.00\n") == (b"12", b"")


@pytest.mark.parametrize("heard", [0, 4, 5])
def test_order_is_kept_with_numbers_of_the_past(heard: int) -> None:
    cut = [records((8, heard)), records((4, 0), (5, 0))]
    assert chain.order_kept(cut) == []


def test_a_number_of_the_future_is_told() -> None:
    cut = [records((8, 6), (9, 0)), records((5, 3)), records((2, 0))]
    assert chain.order_kept(cut) == [
        "guest 1 has heard 6, guest 2 has 5",
        "guest 2 has heard 3, guest 3 has 2",
    ]


def test_a_disk_without_records_has_written_nothing() -> None:
    assert chain.order_kept([records((8, 1)), []]) != []
    assert chain.order_kept([[], records((8, 1))]) == []
