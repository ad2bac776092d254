# SPDX-License-Identifier: Apache-2.0
"""What each override of the manager adds, with plain objects and no service.

Not with the unit tests, because Cinder and Nova cannot be imported into one process.
"""

import contextlib
import inspect
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from cinder import exception as cinder_exception
from cinder import objects
from cinder.backup import manager as upstream

from cinder_ext import exception
from cinder_ext.backup import journal, manager, recorder, watchdog
from cinder_ext.notifications import emitter, events
from cinder_ext.objects import operation
from tests.unit.cinder_ext import backups

CONTEXT = backups.context()


class Emitter:
    def __init__(self) -> None:
        self.sent: list[emitter.Event] = []

    def put(self, event: emitter.Event) -> None:
        self.sent.append(event)


class Service(manager.BackupManager):
    """The manager without Cinder's constructor, which needs the whole service.

    :ivar sent: the events so far
    """

    def __init__(self, path: pathlib.Path, clock: backups.Clock) -> None:
        options, out = backups.options(), Emitter()
        self.sent = out.sent
        to: Any = out
        self.recorder = recorder.Recorder(
            options,
            journal.Journal(path),
            to,
            events.Events(options, backups.usage, clock),
            lambda: True,
            clock,
        )
        self._watchdog = watchdog.Watchdog(self.recorder.journal, 600)
        self._process_number = 1
        self.seen: list[Any] = []

    def types(self) -> list[str]:
        return [event.event_type.removeprefix("backup.") for event in self.sent]

    def begun(self, action: str, backup: Any, **details: Any) -> operation.Operation:
        """An operation that runs in this process, or did before it died."""
        with self.recorder.operation(CONTEXT, backup, action, **details) as op:
            self.recorder.start(op, backup)
        self.sent.clear()
        return op


@pytest.fixture
def clock() -> backups.Clock:
    return backups.Clock()


@pytest.fixture
def service(tmp_path: pathlib.Path, clock: backups.Clock) -> Service:
    return Service(tmp_path, clock)


Does = Callable[[str, Callable[..., Any]], None]


@pytest.fixture
def cinder(monkeypatch: pytest.MonkeyPatch) -> Does:
    """Replace what Cinder's own manager does in a method."""

    def does(name: str, body: Callable[..., Any]) -> None:
        assert hasattr(upstream.BackupManager, name)
        monkeypatch.setattr(upstream.BackupManager, name, body)

    return does


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Backups and volumes by id."""
    rows: dict[str, Any] = {}

    def backup(_ctxt: Any, backup_id: str) -> Any:
        if backup_id not in rows:
            raise cinder_exception.BackupNotFound(backup_id=backup_id)
        return rows[backup_id]

    def volume(_ctxt: Any, volume_id: str) -> Any:
        if volume_id not in rows:
            raise cinder_exception.VolumeNotFound(volume_id=volume_id)
        return rows[volume_id]

    objects.register_all()
    monkeypatch.setattr(objects.Backup, "get_by_id", backup)
    monkeypatch.setattr(objects.Volume, "get_by_id", volume)
    return rows


def notifies(*suffixes: str) -> Callable[..., None]:
    """A method of Cinder's that tells only this."""

    def body(self: Any, context: Any, backup: Any, *_more: Any) -> None:
        for suffix in suffixes:
            self._notify_about_backup_usage(context, backup, suffix)

    return body


def fails(error: BaseException) -> Callable[..., Any]:
    def body(*_args: Any, **_more: Any) -> None:
        raise error

    return body


def test_each_seam_is_there_and_takes_the_same() -> None:
    """A release of Cinder that renames one would silence what hangs on it."""
    for name, ours in vars(manager.BackupManager).items():
        theirs = getattr(upstream.BackupManager, name, None)
        if name.startswith("__") or not inspect.isfunction(ours) or not theirs:
            continue
        names = list(inspect.signature(ours).parameters)
        if "args" not in names:
            assert names == list(inspect.signature(theirs).parameters), name
    added = {"_restore_details", "_conclude", "_has_succeeded", "_announce_stalled"}
    own = {
        name
        for name, value in vars(manager.BackupManager).items()
        if callable(value) and not hasattr(upstream.BackupManager, name)
    }
    assert own == added


def test_create_in_two_calls(service: Service, cinder: Does) -> None:
    cinder("create_backup", notifies("create.start"))
    cinder("continue_backup", notifies("create.end"))
    backup = backups.backup(status="available")
    service.create_backup(CONTEXT, backup)
    service.continue_backup(CONTEXT, backup, "device")
    assert service.types() == ["create.start", "create.end"]
    assert len({event.operation_id for event in service.sent}) == 1


def test_the_second_call_of_a_create_that_has_ended(
    service: Service, cinder: Does
) -> None:
    """The clean-up gave it up, and the volume service answered all the same."""
    cinder("continue_backup", notifies("create.end"))
    backup = backups.backup()
    service.recorder.cancel(service.begun("create", backup), backup)
    service.sent.clear()
    service.continue_backup(CONTEXT, backup, "device")
    assert service.types() == ["create.start", "create.end"]
    assert service.sent[0].payload["resumed"] is True


@pytest.mark.parametrize(
    ("method", "arguments", "action"),
    [
        ("create_backup", (), "create"),
        ("continue_backup", ("device",), "create"),
        ("restore_backup", ("volume", True), "restore"),
        ("delete_backup", (), "delete"),
        ("export_record", (), "export"),
    ],
)
def test_a_failure_passes_and_is_announced(
    service: Service,
    cinder: Does,
    database: dict[str, Any],
    method: str,
    arguments: tuple[Any, ...],
    action: str,
) -> None:
    cinder(method, fails(OSError("no")))
    with pytest.raises(OSError, match="no"):
        getattr(service, method)(CONTEXT, backups.backup(), *arguments)
    assert service.types()[-1] == f"{action}.error"


def test_what_is_of_no_operation_is_told_by_cinder(
    service: Service, cinder: Does
) -> None:
    told = []

    def tell(self: Any, context: Any, backup: Any, suffix: str, more: Any) -> None:
        told.append((suffix, more))

    cinder("_notify_about_backup_usage", tell)
    backup = backups.backup()
    service._notify_about_backup_usage(CONTEXT, backup, "create.start")
    with service.recorder.operation(CONTEXT, backup, "create"):
        service._notify_about_backup_usage(CONTEXT, backup, "delete.end")
        service._notify_about_backup_usage(CONTEXT, backup, "createprogress", {"x": 1})
    assert told == [
        ("create.start", None),
        ("delete.end", None),
        ("createprogress", {"x": 1}),
    ]
    assert service.sent == []


@pytest.mark.parametrize(
    ("method", "arguments", "phase"),
    [
        ("_attach_device", ("context", "volume", {}), "attach"),
        ("_detach_device", ("context", {}, "volume", {}), "detach"),
        ("_finish_backup", (CONTEXT, "backup", "volume", {}), "finalize"),
        (
            "_cleanup_temp_volumes_snapshots_when_backup_created",
            (CONTEXT, "backup"),
            "cleanup",
        ),
    ],
)
def test_phases(
    service: Service,
    cinder: Does,
    method: str,
    arguments: tuple[Any, ...],
    phase: str,
) -> None:
    cinder(method, fails(ValueError("x")))
    backup = backups.backup()

    def create(_self: Any, *_args: Any) -> None:
        getattr(service, method)(*arguments)

    cinder("create_backup", create)
    with pytest.raises(ValueError, match="x"):
        service.create_backup(CONTEXT, backup)
    assert service.sent[-1].payload["error"]["phase"] == phase


def test_what_cinder_returns_is_returned(service: Service, cinder: Does) -> None:
    cinder("_attach_device", lambda *_args, **_more: "device")
    cinder("export_record", lambda *_args: "record")
    assert service._attach_device("context") == "device"
    assert service.export_record(CONTEXT, backups.backup()) == "record"
    assert service.types() == ["export.end"]


def test_a_restore_says_what_there_is_to_do(
    service: Service, cinder: Does, database: dict[str, Any]
) -> None:
    cinder("restore_backup", notifies("restore.start", "restore.end"))
    full = backups.backup(object_count=4)
    backup = backups.backup(parent_id=full.id, object_count=1)
    database |= {full.id: full, "volume": backups.backup(size=2)}
    service.restore_backup(CONTEXT, backup, "volume", True)
    end = service.sent[-1].payload
    assert (end["restore_volume_id"], end["volume_is_new"]) == ("volume", True)
    assert end["chain_length"] == 2
    assert end["result"]["volume_bytes"] == 2 << 30


def test_a_restore_goes_on_where_the_database_does_not_say(
    service: Service, cinder: Does, database: dict[str, Any]
) -> None:
    cinder("restore_backup", notifies("restore.start", "restore.end"))
    service.restore_backup(CONTEXT, backups.backup(), "gone", False)
    assert service.types() == ["restore.start", "restore.end"]
    assert service.sent[-1].payload["chain_length"] is None


def test_a_restore_that_is_stopped_is_cancelled(
    service: Service, cinder: Does, database: dict[str, Any]
) -> None:
    """Cinder catches the exception, and tells an end."""

    def restore(self: Any, context: Any, backup: Any, *_more: Any) -> None:
        self._notify_about_backup_usage(context, backup, "restore.start")
        with contextlib.suppress(cinder_exception.BackupRestoreCancel):
            self._run_restore(context, backup)
        self._notify_about_backup_usage(context, backup, "restore.end")

    cancel = cinder_exception.BackupRestoreCancel(back_id="b", vol_id="v")
    cinder("restore_backup", restore)
    cinder("_run_restore", fails(cancel))
    service.restore_backup(CONTEXT, backups.backup(), "volume", False)
    assert service.types() == ["restore.start", "restore.cancelled"]


@pytest.mark.parametrize(
    ("ours", "hosts", "types"),
    [
        (True, ["other"], ["import.start", "import.end"]),
        (False, [], ["import.start", "import.end"]),
        (False, ["other"], []),
    ],
)
def test_an_import_is_of_the_host_that_does_it(
    service: Service, cinder: Does, ours: bool, hosts: list[str], types: list[str]
) -> None:
    calls = []
    cinder("_is_our_backup", lambda _self, _service: ours)
    cinder("import_record", lambda _self, *args: calls.append(args))
    backup = backups.backup()
    service.import_record(CONTEXT, backup, "driver", "url", hosts)
    assert calls == [(CONTEXT, backup, "driver", "url", hosts)]
    assert service.types() == types


@pytest.mark.parametrize(
    ("status", "after", "types"),
    [
        ("creating", "error", ["create.error"]),
        ("restoring", "available", ["restore.error"]),
        ("deleting", "deleting", []),
        ("deleting", "error_deleting", ["delete.error"]),
    ],
)
def test_the_clean_up_of_one_backup(
    service: Service, cinder: Does, status: str, after: str, types: list[str]
) -> None:
    def clean(_self: Any, _ctxt: Any, backup: Any) -> None:
        backup.status = after

    cinder("_cleanup_one_backup", clean)
    backup = backups.backup(status=status)
    action = {"creating": "create", "restoring": "restore", "deleting": "delete"}
    op = service.begun(action[status], backup)
    service._cleanup_one_backup(CONTEXT, backup)
    assert service.types() == types
    for event in service.sent:
        assert event.operation_id == op.id
        assert event.payload["error"]["code"] == "service_restart"


def test_the_clean_up_of_a_backup_with_which_nothing_is_wrong(
    service: Service, cinder: Does
) -> None:
    cleaned = []
    cinder("_cleanup_one_backup", lambda _self, _ctxt, backup: cleaned.append(backup))
    backup = backups.backup(status="available")
    service._cleanup_one_backup(CONTEXT, backup)
    assert cleaned == [backup]
    assert service.sent == []


def interrupted(
    tmp_path: pathlib.Path, clock: backups.Clock, *ops: tuple[str, Any]
) -> Service:
    """A service that was killed during operations and started again."""
    before = Service(tmp_path, clock)
    for action, backup in ops:
        before.begun(action, backup)
        clock.now += 1
    return Service(tmp_path, clock)


def test_the_start_ends_what_cinder_does_not_clean_up(
    tmp_path: pathlib.Path,
    clock: backups.Clock,
    cinder: Does,
    database: dict[str, Any],
) -> None:
    done, failed = (
        backups.backup(status=status, deleted=False)
        for status in ("available", "error")
    )
    database |= {done.id: done, failed.id: failed}
    service = interrupted(tmp_path, clock, ("create", done), ("import", failed))
    cinder("_cleanup_incomplete_backup_operations", lambda _self, _ctxt: None)
    service._cleanup_incomplete_backup_operations(CONTEXT)
    assert service.types() == ["create.end", "import.error"]


def test_one_that_cannot_be_ended_holds_up_no_other(
    tmp_path: pathlib.Path,
    clock: backups.Clock,
    cinder: Does,
    database: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bad, good = backups.backup(), backups.backup(status="error", deleted=False)
    database[good.id] = good
    service = interrupted(tmp_path, clock, ("create", bad), ("create", good))
    found = objects.Backup.get_by_id

    def get(ctxt: Any, backup_id: str) -> Any:
        if backup_id == bad.id:
            raise RuntimeError("database")
        return found(ctxt, backup_id)

    monkeypatch.setattr(objects.Backup, "get_by_id", get)
    cinder("_cleanup_incomplete_backup_operations", lambda _self, _ctxt: None)
    service._cleanup_incomplete_backup_operations(CONTEXT)
    assert service.types() == ["create.error"]


def test_only_the_first_worker_ends_what_was_interrupted(
    tmp_path: pathlib.Path, clock: backups.Clock, cinder: Does
) -> None:
    service = interrupted(tmp_path, clock, ("create", backups.backup()))
    service._process_number = 2
    calls = []
    cinder(
        "_cleanup_incomplete_backup_operations", lambda _self, ctxt: calls.append(ctxt)
    )
    service._cleanup_incomplete_backup_operations(CONTEXT)
    assert calls == [CONTEXT]
    assert service.sent == []
    assert len(service.recorder.journal.running()) == 1


def test_an_operation_that_has_ended_is_not_concluded(
    service: Service, database: dict[str, Any]
) -> None:
    backup = backups.backup(status="error")
    database[backup.id] = backup
    op = service.begun("create", backup)
    service.recorder.cancel(op, backup)
    service.sent.clear()
    service._conclude(op, exception.Abandoned())
    assert service.sent == []


def test_an_operation_whose_backup_is_gone_is_forgotten(
    service: Service, database: dict[str, Any]
) -> None:
    op = service.begun("create", backups.backup())
    service._conclude(op, exception.Abandoned())
    assert service.sent == []
    assert service.recorder.journal.running() == []


def test_a_delete_that_cinder_goes_on_with_is_not_concluded(
    service: Service, database: dict[str, Any]
) -> None:
    backup = backups.backup(status="deleting")
    database[backup.id] = backup
    op = service.begun("delete", backup)
    service._conclude(op, exception.ServiceRestarted())
    assert service.sent == []
    assert [kept.id for kept in service.recorder.journal.running()] == [op.id]


@pytest.mark.parametrize(
    ("action", "status", "deleted", "volume", "succeeded"),
    [
        ("create", "available", False, None, True),
        ("create", "error", False, None, False),
        ("import", "available", False, None, True),
        ("export", "available", False, None, False),
        ("delete", "deleted", True, None, True),
        ("delete", "error", False, None, False),
        ("restore", "available", False, "available", True),
        ("restore", "available", False, "error_restoring", False),
        ("restore", "available", False, None, False),
        ("restore", "error", False, "available", False),
    ],
)
def test_what_the_database_shows(
    service: Service,
    database: dict[str, Any],
    action: str,
    status: str,
    deleted: bool,
    volume: str | None,
    succeeded: bool,
) -> None:
    backup = backups.backup(status=status, deleted=deleted)
    if volume:
        database["volume"] = backups.backup(status=volume)
    op = service.begun(action, backup, restore_volume_id="volume")
    assert service._has_succeeded(CONTEXT, op, backup) is succeeded


def stalled(service: Service, monkeypatch: pytest.MonkeyPatch, backup: Any) -> None:
    op = service.begun("create", backup)
    monkeypatch.setattr(service._watchdog, "stalled", lambda _now: [(op, 700.0)])
    service._announce_stalled(CONTEXT)


@pytest.mark.parametrize(
    ("status", "types"), [("creating", ["create.stalled"]), ("error", ["create.error"])]
)
def test_a_stalled_backup(
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    database: dict[str, Any],
    status: str,
    types: list[str],
) -> None:
    backup = backups.backup(status=status, deleted=False)
    database[backup.id] = backup
    stalled(service, monkeypatch, backup)
    assert service.types() == types


def test_a_stalled_backup_that_is_gone(
    service: Service, monkeypatch: pytest.MonkeyPatch, database: dict[str, Any]
) -> None:
    stalled(service, monkeypatch, backups.backup())
    assert service.sent == []
    assert service.recorder.journal.running() == []


def test_only_the_first_worker_looks_for_stalled_backups(
    service: Service, monkeypatch: pytest.MonkeyPatch, database: dict[str, Any]
) -> None:
    service._process_number = 2
    backup = backups.backup()
    database[backup.id] = backup
    stalled(service, monkeypatch, backup)
    assert service.sent == []
