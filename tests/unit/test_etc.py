# SPDX-License-Identifier: Apache-2.0
"""The unit and the container of nova-ext-guard: what they run and outlive."""

import configparser
import json
import pathlib
import shlex

import pytest

ROOT = pathlib.Path(__file__).parents[2]
UNIT = ROOT / "etc/systemd/nova-ext-guard.service"
CONTAINER = ROOT / "etc/kolla/nova-ext-guard.json"


@pytest.fixture
def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return parser


def scripts() -> set[str]:
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    lines = setup["entry_points"]["console_scripts"].splitlines()
    return {line.partition("=")[0].strip() for line in lines}


def test_both_run_a_program_of_ours(unit: configparser.ConfigParser) -> None:
    commands = [
        unit["Service"]["ExecStart"],
        json.loads(CONTAINER.read_text())["command"],
    ]
    for command in commands:
        program, *words = shlex.split(command)
        assert pathlib.Path(program).name in scripts()
        assert words[:2] == ["--config-file", "/etc/nova/nova.conf"]


def test_the_unit_outlives_nova_compute(unit: configparser.ConfigParser) -> None:
    # Nothing that would stop it with another unit.
    assert set(unit["Unit"]) == {"Description", "After", "StartLimitIntervalSec"}
    assert "nova-compute" not in unit["Unit"]["After"]
    assert unit["Service"]["Restart"] == "always"
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"


def test_the_unit_is_no_root(unit: configparser.ConfigParser) -> None:
    service = unit["Service"]
    assert (service["User"], service["Group"]) == ("nova", "libvirt")
