# SPDX-License-Identifier: Apache-2.0
"""Owns the host that the guard is tried on."""

import pathlib

import pytest

from tests.unit.guard import fake_host


@pytest.fixture
def host(tmp_path: pathlib.Path) -> fake_host.Host:
    return fake_host.Host(tmp_path / "guard")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> fake_host.Disk:
    return fake_host.Disk(monkeypatch)
