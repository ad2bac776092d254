# SPDX-License-Identifier: Apache-2.0
"""A lock on the objects: who changes one gives it a new version."""

from typing import Any

from oslo_versionedobjects import fixture

from nova_ext import objects
from nova_ext.objects import instance_action, pmem_copy, quiesce_window, state

objects.register_all()

HASHES = {
    "DetailedActionEvent": "1.0-5b1f361bd81989f8bb2c20bb7e8a4cb4",
    "ExtensionDatabase": "1.0-427ca1a2e36c624d1d62a27e8fa90279",
    "PmemCopy": "1.0-293383ce9ecb6e6a5a3a8899ac3234d8",
    "PmemCopyList": "1.0-8806737302a8e3bf94d8af75cbae1dff",
    "QuiesceWindow": "1.0-9c90fb21a9f075d3d60be088080ec557",
    "QuiesceWindowList": "1.0-4a0bc6c6c79ef9da40b779b8a956011c",
}

CLASSES = (
    instance_action.DetailedActionEvent,
    pmem_copy.PmemCopy,
    pmem_copy.PmemCopyList,
    quiesce_window.QuiesceWindow,
    quiesce_window.QuiesceWindowList,
    state.ExtensionDatabase,
)


def test_versions() -> None:
    checker = fixture.ObjectVersionChecker({cls.__name__: [cls] for cls in CLASSES})
    assert checker.get_hashes() == HASHES


def test_they_are_registered_before_those_of_nova(fresh: Any) -> None:
    """nova-conductor reads its configuration first."""
    code = """
from nova import monkey_patch
monkey_patch.patch(backend="threading")
import nova.conf
from nova_ext import objects
objects.register_all()
from nova import objects as nova_objects
nova_objects.register_all()
from nova.objects import base
print(*(base.NovaObject.obj_class_from_name(name, "1.0").__module__
        for name in ("QuiesceWindow", "PmemCopyList", "ExtensionDatabase")))
"""
    assert fresh(code).split() == [
        "nova_ext.objects.quiesce_window",
        "nova_ext.objects.pmem_copy",
        "nova_ext.objects.state",
    ]
