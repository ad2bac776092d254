# SPDX-License-Identifier: Apache-2.0
"""What the driver does with a frozen guest that nova wants to move."""

from typing import Any
from unittest import mock

import pytest
from nova import exception
from nova.virt.libvirt import driver as nova_driver

from nova_ext.virt.libvirt.quiesce import driver


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A driver whose guest is frozen; nova's own methods raise if they are called."""
    for name in ("check_can_live_migrate_source", "live_migration"):
        called = mock.Mock(side_effect=AssertionError(f"nova's {name}"))
        monkeypatch.setattr(nova_driver.LibvirtDriver, name, called)
    found = driver.QuiesceDriver.__new__(driver.QuiesceDriver)
    found.quiesce_windows = mock.Mock()
    found.quiesce_windows.refuse.side_effect = exception.InstanceInvalidState(
        attr="quiesce_status", instance_uuid="u", state="quiesced", method="m"
    )
    return found


def test_live_migration_is_refused_when_it_is_checked(frozen: Any) -> None:
    with pytest.raises(exception.MigrationPreCheckError, match="quiesce_status"):
        frozen.check_can_live_migrate_source("context", mock.Mock(), "data")


def test_live_migration_of_a_guest_frozen_since_fails_and_leaves_it_active(
    frozen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the driver raises here puts the server in ERROR."""
    instance, recover = mock.Mock(), mock.Mock()
    reporter = mock.MagicMock()
    reporter.return_value.__exit__.return_value = False
    monkeypatch.setattr(driver.utils, "EventReporter", reporter)
    frozen.live_migration(
        "context", instance, "there", mock.Mock(), recover, migrate_data="data"
    )
    recover.assert_called_once_with("context", instance, "there", migrate_data="data")
    (failure,) = [call.args[1] for call in reporter.return_value.__exit__.mock_calls]
    assert "quiesce_status" in str(failure)
