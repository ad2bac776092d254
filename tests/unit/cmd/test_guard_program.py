# SPDX-License-Identifier: Apache-2.0
"""The command line of nova-ext-guard; what it does is the guard's own tests'."""

import pathlib

import pytest

from nova_ext.cmd import guard


def test_help_has_the_name_of_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        guard.main(["--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("usage: nova-ext-guard ")


def test_a_file_that_is_not_there_is_one_line(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guard.main(["--config-file", str(tmp_path / "nova.conf")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("nova-ext-guard: ")
    assert said.count("\n") == 1
