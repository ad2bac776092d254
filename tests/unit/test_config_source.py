# SPDX-License-Identifier: Apache-2.0
"""The way into stock daemons: an oslo.config source that stevedore finds."""

import pathlib
from collections.abc import Callable

import pytest

Fresh = Callable[..., str]

LINES = """
[DEFAULT]
config_source = nova_ext
compute_driver = nova_ext.LibvirtDriver
[nova_ext]
driver = nova_ext
quiesce_max_timeout = 77
"""
REPORT = """
from nova import service
print(service.SERVICE_MANAGERS["nova-compute"].partition(".")[0])
"""


@pytest.fixture
def config(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "nova.conf"
    path.write_text(LINES)
    return str(path)


def test_operators_lines_install_the_extension(fresh: Fresh, config: str) -> None:
    code = """
import sys
from nova import monkey_patch
monkey_patch.patch(backend="threading")
import nova.conf
nova.conf.CONF(["--config-file", sys.argv[1]], project="nova")
print(nova.conf.CONF.nova_ext.quiesce_max_timeout)
"""
    assert fresh(code + REPORT, config).splitlines() == ["77", "nova_ext"]


def test_without_the_lines_nova_stays_stock(
    fresh: Fresh, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "nova.conf"
    path.write_text("[DEFAULT]\n")
    code = """
import sys
from nova import monkey_patch
monkey_patch.patch(backend="threading")
import nova.conf
nova.conf.CONF(["--config-file", sys.argv[1]], project="nova")
print("nova_ext.install" in sys.modules)
"""
    assert fresh(code + REPORT, str(path)).splitlines() == ["False", "nova"]


def test_the_throw_away_configuration_installs_nothing(
    fresh: Fresh, config: str
) -> None:
    code = """
import sys
from oslo_config import cfg
cfg.ConfigOpts()(["--config-file", sys.argv[1]], project="nova")
print("nova_ext.config_source" in sys.modules, "nova_ext.install" in sys.modules)
from nova import monkey_patch
monkey_patch.patch(backend="threading")
import nova.conf
cfg.ConfigOpts()(["--config-file", sys.argv[1]], project="nova")
print("nova_ext.install" in sys.modules)
"""
    assert fresh(code + REPORT, config).splitlines() == ["True False", "False", "nova"]


def test_a_service_that_is_not_nova_loads_nothing_of_nova(fresh: Fresh) -> None:
    code = """
import sys
from oslo_config import cfg
from nova_ext import config_source
print(config_source.Driver().open_source_from_opt_group(cfg.ConfigOpts(), "nova_ext"))
print(config_source.Driver().list_options_for_discovery())
print([name for name in sys.modules if name.partition(".")[0] == "nova"])
"""
    assert fresh(code).splitlines() == ["None", "[]", "[]"]


def test_a_nova_that_is_not_ours_stops_the_daemon_with_the_reason(
    fresh: Fresh, config: str
) -> None:
    code = """
import sys
from nova import monkey_patch
monkey_patch.patch(backend="threading")
import nova.conf
from nova import version
version.version_string = lambda: "35.0.0"
try:
    nova.conf.CONF(["--config-file", sys.argv[1]], project="nova")
except SystemExit as stop:
    print(stop.code)
"""
    reason, manager = fresh(code + REPORT, config).splitlines()
    assert "built for nova 34 but nova 35.0.0 is installed" in reason
    assert manager == "nova"
