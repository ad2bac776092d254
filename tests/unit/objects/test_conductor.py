# SPDX-License-Identifier: Apache-2.0
"""The objects in nova-compute: each method runs in a nova-conductor with the extension.

What is sent is what a message bus would carry, see :mod:`tests.unit.objects.wire`.
"""

import datetime
from typing import Any

import oslo_messaging as messaging
import pytest
import tenacity
from nova import exception as nova_exception
from nova import rpc
from oslo_messaging._drivers import common

from nova_ext import exception
from nova_ext.objects import base
from nova_ext.objects.pmem_copy import PmemCopy, PmemCopyList, PmemCopyStatus
from nova_ext.objects.quiesce_window import (
    QuiesceStatus,
    QuiesceWindow,
    QuiesceWindowList,
)
from nova_ext.objects.state import ExtensionDatabase
from tests.unit.db import databases, rows
from tests.unit.objects import wire

EXACT = datetime.datetime(2026, 11, 26, 10, 30, 15, 123456, tzinfo=datetime.UTC)


@pytest.fixture
def context(cell: databases.Database, monkeypatch: pytest.MonkeyPatch) -> Any:
    conductors = wire.Conductors(cell, wire.forever(True))
    return wire.over(monkeypatch, conductors)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    patient = base._patient.copy(wait=tenacity.wait_none())
    monkeypatch.setattr(base, "_patient", patient)


def test_a_window_from_begin_to_end(context: Any, cell: databases.Database) -> None:
    uuid = cell.add_instance()
    window = rows.stored(context, uuid)
    assert window.obj_what_changed() == set()
    assert window.created_at is not None
    window.status = QuiesceStatus.QUIESCED
    window.quiesced_at = EXACT
    window.partial = True
    window.left_out = '["/boot/efi"]'
    change = rows.new_id()
    window.save(change, host="compute1", expected_task_states=[None])
    assert window.change_id == change
    assert window.obj_what_changed() == set()
    assert window.updated_at is not None
    (found,) = QuiesceWindowList.get_by_host(context, "compute1")
    for seen in (window, found, QuiesceWindow.get_by_instance_uuid(context, uuid)):
        assert seen.status is QuiesceStatus.QUIESCED
        assert seen.change_id == change
        assert seen.quiesced_at == EXACT
        assert seen.partial is True
        assert seen.left_out == '["/boot/efi"]'
    (found,) = QuiesceWindowList.get_by_instance_uuids(context, [uuid])
    found.destroy()
    assert cell.window(uuid) is None


def test_a_copy_from_begin_to_end(context: Any, cell: databases.Database) -> None:
    uuid = cell.add_instance()
    copy = rows.ordered(context, uuid)
    copy.status, copy.migration_id = PmemCopyStatus.COPYING, 7
    copy.save(rows.new_id())
    (found,) = PmemCopyList.get_by_host(context, "compute1")
    assert found.change_id == copy.change_id
    assert PmemCopy.get_by_instance_uuid(context, uuid).begun
    copy.destroy()
    cell.change_instance(uuid, deleted=1)
    assert PmemCopyList.destroy_of_deleted(context, "compute1") == 0
    assert QuiesceWindowList.destroy_of_deleted(context, "compute1") == 0
    PmemCopy.destroy_by_instance_uuid(context, uuid)
    QuiesceWindow.destroy_by_instance_uuid(context, uuid)
    ExtensionDatabase.check(context)


def test_what_failed_is_left_as_it_was(context: Any, cell: databases.Database) -> None:
    uuid = cell.add_instance()
    window = rows.stored(context, uuid)
    seen = window.change_id
    cell.change_instance(uuid, task_state="rebooting")
    window.status = QuiesceStatus.QUIESCED
    with pytest.raises(nova_exception.UnexpectedTaskStateError) as caught:
        window.save(rows.new_id(), "compute1", [None])
    assert caught.value.kwargs["actual"] == {"task_state": "rebooting"}
    assert window.change_id == seen
    assert window.obj_what_changed() == {"status"}


def test_the_extensions_exceptions_come_back_as_themselves(
    context: Any, cell: databases.Database
) -> None:
    uuid = cell.add_instance()
    window = rows.stored(context, uuid)
    with pytest.raises(exception.QuiesceWindowExists) as exists:
        rows.stored(context, uuid)
    assert exists.value.kwargs["status"] == "quiescing"
    assert exists.value.code == 409
    QuiesceWindow.get_by_instance_uuid(context, uuid).save(rows.new_id())
    with pytest.raises(exception.QuiesceWindowChanged):
        window.destroy()
    with pytest.raises(exception.PmemCopyNotFound):
        PmemCopy.get_by_instance_uuid(context, uuid)
    cell.drop()
    with pytest.raises(exception.StateDatabaseMissing) as missing:
        ExtensionDatabase.check(context)
    assert "nova-ext-manage db sync" in missing.value.format_message()
    assert "\n" not in missing.value.format_message()


def arguments(cls: Any) -> dict[str, str]:
    """Something for each field of an exception's message."""

    class Fields(dict[str, str]):
        def __missing__(self, key: str) -> str:
            self[key] = f"the {key}"
            return self[key]

    found = Fields()
    cls.msg_fmt % found  # asks for each of them
    return dict(found)


EXCEPTIONS = [
    value
    for value in vars(exception).values()
    if isinstance(value, type) and issubclass(value, nova_exception.NovaException)
]


@pytest.mark.parametrize("cls", EXCEPTIONS, ids=lambda cls: cls.__name__)
def test_each_exception_can_be_sent(cls: Any) -> None:
    try:
        raise cls(**arguments(cls))
    except cls as exc:
        sent = common.serialize_remote_exception((cls, exc, exc.__traceback__))
        text = exc.format_message()
    got = common.deserialize_remote_exception(sent, rpc.get_allowed_exmods())
    assert isinstance(got, cls)
    assert got.format_message() == text
    assert got.code == cls.code


CALLS = [
    lambda context, uuid: QuiesceWindow.get_by_instance_uuid(context, uuid),
    lambda context, uuid: QuiesceWindowList.get_by_host(context, "compute1"),
    lambda context, uuid: rows.stored(context, uuid),
    lambda context, uuid: rows.ordered(context, uuid),
    lambda context, uuid: ExtensionDatabase.check(context),
]


@pytest.mark.parametrize("call", CALLS)
def test_only_stock_conductors(
    cell: databases.Database, monkeypatch: pytest.MonkeyPatch, call: Any
) -> None:
    conductors = wire.Conductors(cell, wire.forever(False))
    context = wire.over(monkeypatch, conductors)
    stop = tenacity.stop_after_attempt(4)
    monkeypatch.setattr(base, "_patient", base._patient.copy(stop=stop))
    uuid = cell.add_instance()
    with pytest.raises(exception.ConductorTooOld) as caught:
        call(context, uuid)
    assert len(conductors.calls) == 4
    text = caught.value.format_message()
    assert "config_source = nova_ext" in text
    assert "driver = nova_ext" in text
    assert cell.window(uuid) is cell.copy(uuid) is None


def test_how_long_conductors_are_waited_for() -> None:
    stop = base._patient.stop
    assert isinstance(stop, tenacity.stop_after_delay)
    assert stop.max_delay == base.UPGRADE_WAIT == 10


def test_the_next_conductor_has_the_extension(
    cell: databases.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    conductors = wire.Conductors(cell, iter([False, False, True, False, True]))
    context = wire.over(monkeypatch, conductors)
    uuid = cell.add_instance()
    window = rows.stored(context, uuid)
    assert window.created_at is not None
    assert QuiesceWindow.get_by_instance_uuid(context, uuid).visible
    assert conductors.calls == ["create"] * 3 + ["get_by_instance_uuid"] * 2


def test_another_failure_is_not_tried_again(
    cell: databases.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(wire.Conductors):
        def _call(self, method: str, **kwargs: Any) -> Any:
            self.calls.append(method)
            raise messaging.RemoteError("ValueError", "nonsense")

    conductors = Broken(cell, [])
    context = wire.over(monkeypatch, conductors)
    with pytest.raises(messaging.RemoteError):
        ExtensionDatabase.check(context)
    assert len(conductors.calls) == 1


def test_a_timeout_is_the_callers(
    cell: databases.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the change was made is not known; with the same id it may be repeated."""

    class Lossy(wire.Conductors):
        def _call(self, method: str, **kwargs: Any) -> Any:
            super()._call(method, **kwargs)
            if len(self.calls) % 2:
                raise messaging.MessagingTimeout()
            return super()._call(method, **kwargs)

    context = wire.over(monkeypatch, Lossy(cell, wire.forever(True)))
    uuid = cell.add_instance()
    window = rows.window(context, uuid)
    with pytest.raises(messaging.MessagingTimeout):
        window.create("compute1", ["active"], [None])
    assert cell.window(uuid)["change_id"] == window.change_id
    window.create("compute1", ["active"], [None])
    assert window.created_at is not None
