# SPDX-License-Identifier: Apache-2.0
"""Owns the surroundings of the controllers: microversions, policies, compute API."""

from collections.abc import Iterator

import nova.conf
import pytest
from nova.api.openstack import api_version_request
from nova.compute import api

from nova_ext.api.openstack.compute import versions
from tests.unit import people
from tests.unit.api.openstack.compute import serving

CONF = nova.conf.CONF


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As after install(); what an answer has that no schema allows is an error.

    nova's controllers make a compute API each, which would reach for the message bus.
    """
    monkeypatch.setattr(api_version_request, "_MAX_API_VERSION", versions.MAX)
    monkeypatch.setattr(api, "API", lambda: None)
    people.enforce(monkeypatch)
    CONF.set_override("response_validation", "error", "api")
    yield
    CONF.clear_override("response_validation", "api")


@pytest.fixture
def compute_api() -> serving.ComputeAPI:
    return serving.ComputeAPI()
