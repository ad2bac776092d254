# SPDX-License-Identifier: Apache-2.0
"""Owns how one of the suites is loaded into a test process; runs nothing.

stestr finds this module in place of the suite; as a program it lists the suite's tests.
The suite to load and whether the extension is switched on come from the environment, so
that both runs are otherwise the same: same command, same tests, same order.
"""

import importlib
import os
import pkgutil
import tempfile
import unittest
from typing import Any

import testscenarios

SUITE = "REFEREE_SUITE"
EXTENSION = "REFEREE_EXTENSION"

#: What the suites name in their source, and what an operator of the extension names.
STOCK_DRIVER = "libvirt.LibvirtDriver"
EXTENSION_DRIVER = "nova_ext.LibvirtDriver"

BACKUP_MANAGER = "cinder_ext.backup.manager.BackupManager"

#: They need google-api-python-client and moto, and test drivers, not the manager.
LEFT_OUT = (
    "cinder.tests.unit.backup.drivers.test_backup_google",
    "cinder.tests.unit.backup.drivers.test_backup_s3",
)


def load_tests(
    loader: unittest.TestLoader, tests: Any, pattern: str | None
) -> unittest.TestSuite:
    """The tests of the suite named by the environment; the unittest hook."""
    suite = os.environ[SUITE]
    # The test packages choose the concurrency mode when they are imported, which must
    # come before anything else of nova or cinder.
    importlib.import_module(".".join(suite.split(".")[:3]))
    if os.environ.get(EXTENSION) == "1":
        if suite.startswith("cinder."):
            _switch_on_cinder()
        else:
            _switch_on(unit=suite.startswith("nova.tests.unit"))
    return loader.loadTestsFromNames(_modules(suite))


def _modules(suite: str) -> list[str]:
    """The test modules of a package, or the given module, class or test itself."""
    try:
        module = importlib.import_module(suite)
    except ModuleNotFoundError:
        return [suite]
    if not hasattr(module, "__path__"):
        return [suite]
    return [
        found.name
        for found in pkgutil.walk_packages(module.__path__, f"{suite}.")
        if found.name.rpartition(".")[2].startswith("test")
        and found.name not in LEFT_OUT
    ]


def _switch_on(unit: bool) -> None:
    """Do in this process what an operator's configuration does in a service."""
    from nova_ext import install

    install.install()
    if unit:
        _substitute_classes()
    else:
        _substitute_driver_option()


def _switch_on_cinder() -> None:
    """The suites get the manager as cinder-backup does: by its option.

    One of them names cinder's class itself: it gets the extension's.
    """
    from cinder.tests.unit import conf_fixture
    from cinder.tests.unit.backup import test_backup_messages

    from cinder_ext.backup import manager

    set_stock_defaults = conf_fixture.set_defaults

    def set_defaults(conf: Any) -> None:
        set_stock_defaults(conf)
        conf.set_default("backup_manager", BACKUP_MANAGER)
        # cinder takes its source tree, where the journal would outlive the test. A
        # fixture of the test removes what is made here.
        conf.set_default("state_path", tempfile.mkdtemp())

    conf_fixture.set_defaults = set_defaults
    test_backup_messages.backup_manager = manager


def _substitute_driver_option() -> None:
    """Services that the tests start with the libvirt driver get the extension's."""
    from nova import test

    set_flags = test.TestCase.flags

    def flags(self: Any, **values: Any) -> None:
        if values.get("compute_driver") == STOCK_DRIVER:
            values["compute_driver"] = EXTENSION_DRIVER
        set_flags(self, **values)

    test.TestCase.flags = flags


def _substitute_classes() -> None:
    """Unit tests build the classes by themselves: they get the extension's."""
    from nova.compute import api as stock_api
    from nova.virt import libvirt as stock_libvirt
    from nova.virt.libvirt import driver as stock_driver

    from nova_ext.compute import api
    from nova_ext.virt.libvirt import driver

    _substitute_rows()
    stock_api.API = _substitute(stock_api.API, api.API)
    chosen = _substitute(stock_driver.LibvirtDriver, driver.LibvirtDriver)
    stock_driver.LibvirtDriver = stock_libvirt.LibvirtDriver = chosen


def _substitute_rows() -> None:
    """Unit tests may not reach a database: no server of theirs has a row."""
    from nova_ext import exception
    from nova_ext.db import api as db

    def no_window(context: Any, instance_uuid: str) -> Any:
        raise exception.QuiesceWindowNotFound(instance_uuid=instance_uuid)

    def no_copy(context: Any, instance_uuid: str) -> Any:
        raise exception.PmemCopyNotFound(instance_uuid=instance_uuid)

    def delete(context: Any, instance_uuid: str) -> None:
        """There is nothing to delete."""

    db.quiesce_window_get = no_window
    db.quiesce_window_delete_by_instance = delete
    db.pmem_copy_get = no_copy
    db.pmem_copy_delete_by_instance = delete


def _substitute(stock: type, extension: type) -> type:
    """The extension's class, with the stock static and class methods made its own.

    The tests replace them for a while. Restored on a class that only inherits them,
    they come back as ordinary methods, and every later test would fail.
    """
    for name, value in vars(stock).items():
        inherited = name not in vars(extension)
        if inherited and isinstance(value, staticmethod | classmethod):
            setattr(extension, name, value)
    return extension


def main() -> None:
    """Print the id of each test, one a line, as it is when it runs."""
    loaded = load_tests(unittest.TestLoader(), None, None)
    for test in testscenarios.generate_scenarios(loaded):
        print(test.id())


if __name__ == "__main__":
    main()
