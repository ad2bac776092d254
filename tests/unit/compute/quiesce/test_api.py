# SPDX-License-Identifier: Apache-2.0
"""QuiesceAPI: what it checks before an RPC, and what a frozen guest is refused."""

import types
from collections.abc import Iterator
from typing import Any

import nova.conf
import oslo_messaging as messaging
import pytest
from nova import exception, objects
from nova.compute import api as nova_api
from nova.compute import instance_actions
from oslo_utils import uuidutils

from nova_ext import conf
from nova_ext import exception as ext_exception
from nova_ext.compute.quiesce import api as quiesce_api
from nova_ext.compute.quiesce import rpc
from nova_ext.objects import capability, quiesce_window
from nova_ext.objects.quiesce_window import QuiesceWindow
from tests.unit import people
from tests.unit.compute import surroundings
from tests.unit.compute.surroundings import UUID, Instance, Steps

CONF = nova.conf.CONF
MISSING = ext_exception.StateDatabaseMissing(database="nova_cell1")

#: What is refused, by the name of its method and by that of its instance action.
REFUSED = {
    "live_migrate": ["live-migration"],
    "pause": ["pause"],
    "reboot": ["reboot"],
    "rebuild": [],  # nova has saved the image by then; the host gives it back
    "rescue": ["rescue"],
    "resize": ["resize", "migrate"],
    "set_admin_password": ["changePassword"],
    "shelve": ["shelve"],
    "start": ["start"],
    "stop": ["stop"],
    "suspend": ["suspend"],
}
#: The status of a row with which each is left to the host.
READY = {"quiesce": "broken", "unquiesce": "quiesced"}

ACTIONS = {action: name for name, actions in REFUSED.items() for action in actions}


class Cloud(Steps):
    """The database and the host of one server.

    :ivar rows: the rows that the database has, one for a server
    :ivar stats: what the compute node publishes
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, dict[str, Any]] = {}
        self.stats = {"nova_ext": "1"}
        self.lacks_database = False

    def leave(self, status: str) -> None:
        """Let the database have a window like this."""
        row = QuiesceWindow(
            instance_uuid=UUID,
            window_id=uuidutils.generate_uuid(),
            change_id=uuidutils.generate_uuid(),
            status=status,
            request_id="req-1",
            timeout=60,
            partial=False,
        )
        self.rows[UUID] = {**row.row(), "created_at": None, "updated_at": None}

    @property
    def status(self) -> str | None:
        return self.rows[UUID]["status"] if UUID in self.rows else None

    # What nova_ext.db.api does.

    def quiesce_window_get(self, context: Any, uuid: str) -> dict[str, Any]:
        if self.lacks_database:
            raise MISSING
        if uuid not in self.rows:
            raise ext_exception.QuiesceWindowNotFound(instance_uuid=uuid)
        return self.rows[uuid]

    def quiesce_window_update(
        self, context: Any, uuid: str, seen: str, values: Any, *expected: Any
    ) -> dict[str, Any]:
        assert expected == (None, None)
        self.take("update", values["status"])
        if uuid not in self.rows or self.rows[uuid]["change_id"] != seen:
            raise ext_exception.QuiesceWindowChanged(instance_uuid=uuid)
        assert values["change_id"] != seen
        self.rows[uuid] = {**self.rows[uuid], **values}
        return self.rows[uuid]

    def quiesce_window_delete_by_instance(self, context: Any, uuid: str) -> None:
        if self.lacks_database:
            raise MISSING
        self.take("forget")
        self.rows.pop(uuid, None)

    # What nova.objects do.

    def get_by_host_and_nodename(self, context: Any, host: str, node: str) -> Any:
        if (host, node) != ("compute1", "node1"):
            raise exception.ComputeHostNotFound(host=host)
        return types.SimpleNamespace(stats=self.stats)

    def action_start(
        self, context: Any, uuid: str, action: str, want_result: bool
    ) -> None:
        self.take("record", action)


class FakeRPC:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def quiesce_instance(
        self, context: Any, instance: Any, timeout: int, partial: bool
    ) -> None:
        self._cloud.take("quiesce", instance.uuid, timeout, partial)

    def unquiesce_instance(self, context: Any, instance: Any) -> None:
        self._cloud.take("unquiesce", instance.uuid)

    def release_instance(self, context: Any, instance: Any, window_id: str) -> None:
        self._cloud.take("release", instance.uuid)


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    cloud = Cloud()
    conf.register_opts(CONF)
    people.enforce(monkeypatch)
    monkeypatch.setattr(quiesce_window, "db", cloud)
    monkeypatch.setattr(capability, "objects", types.SimpleNamespace(ComputeNode=cloud))
    monkeypatch.setattr(objects, "InstanceAction", cloud)
    yield cloud
    for option in ("quiesce_default_timeout", "quiesce_max_timeout"):
        CONF.clear_override(option, "nova_ext")


@pytest.fixture
def instance(cloud: Cloud) -> Instance:
    return Instance(cloud)


@pytest.fixture
def api(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(nova_api.API, "__init__", lambda self: None)
    monkeypatch.setattr(rpc, "QuiesceRPCAPI", lambda: FakeRPC(cloud))
    made: Any = quiesce_api.QuiesceAPI()
    made.servicegroup_api = surroundings.SERVICEGROUP
    made.compute_rpcapi = surroundings.Caller(cloud, "compute")
    return made


@pytest.fixture
def context(cloud: Cloud) -> Any:
    return people.member()


def told(refused: Any) -> tuple[Any, ...]:
    """What a refusal for the wrong state says."""
    kwargs = refused.value.kwargs
    return tuple(kwargs[name] for name in ("attr", "instance_uuid", "state", "method"))


# quiesce


@pytest.mark.parametrize(
    ("asked", "default", "limit", "expected"),
    [
        (None, 60, 600, 60),
        (None, 601, 600, 600),
        (1, 60, 600, 1),
        (600, 60, 600, 600),
    ],
)
def test_quiesce_tells_the_host_how_long(
    cloud: Cloud,
    api: Any,
    context: Any,
    instance: Instance,
    asked: int | None,
    default: int,
    limit: int,
    expected: int,
) -> None:
    CONF.set_override("quiesce_default_timeout", default, "nova_ext")
    CONF.set_override("quiesce_max_timeout", limit, "nova_ext")
    api.quiesce(context, instance, asked)
    assert cloud.taken == [("quiesce", UUID, expected, False)]


def test_quiesce_longer_than_the_operator_allows(
    cloud: Cloud, api: Any, context: Any, instance: Instance
) -> None:
    CONF.set_override("quiesce_max_timeout", 30, "nova_ext")
    with pytest.raises(
        ext_exception.QuiesceTimeoutTooLong, match=r"31 seconds.*at most 30 seconds"
    ):
        api.quiesce(context, instance, 31)
    assert cloud.taken == []


@pytest.mark.parametrize("value", [None, "no", "false", ""])
def test_quiesce_of_an_image_without_agent(
    cloud: Cloud, api: Any, context: Any, instance: Instance, value: str | None
) -> None:
    del instance.system_metadata["image_hw_qemu_guest_agent"]
    if value is not None:
        instance.system_metadata["image_hw_qemu_guest_agent"] = value
    with pytest.raises(
        ext_exception.QuiesceAgentNotEnabled, match="hw_qemu_guest_agent=yes"
    ):
        api.quiesce(context, instance)
    assert cloud.taken == []


@pytest.mark.parametrize("value", ["yes", "True", "1"])
def test_quiesce_of_an_image_with_agent(
    cloud: Cloud, api: Any, context: Any, instance: Instance, value: str
) -> None:
    instance.system_metadata["image_hw_qemu_guest_agent"] = value
    api.quiesce(context, instance)
    assert cloud.taken == [("quiesce", UUID, 60, False)]


def test_quiesce_on_a_host_without_the_extension(
    cloud: Cloud, api: Any, context: Any, instance: Instance
) -> None:
    cloud.stats = {}
    with pytest.raises(ext_exception.QuiesceComputeTooOld, match=UUID):
        api.quiesce(context, instance)
    instance.node = "gone"
    with pytest.raises(exception.ComputeHostNotFound):
        api.quiesce(context, instance)
    assert cloud.taken == []


def test_quiesce_in_a_cell_without_the_database(
    cloud: Cloud, api: Any, context: Any, instance: Instance
) -> None:
    cloud.lacks_database = True
    with pytest.raises(ext_exception.StateDatabaseMissing, match="db sync"):
        api.quiesce(context, instance)
    assert cloud.taken == []


@pytest.mark.parametrize("status", ["quiescing", "quiesced", "unquiescing"])
def test_quiesce_of_a_quiesced_server(
    cloud: Cloud, api: Any, context: Any, instance: Instance, status: str
) -> None:
    cloud.leave(status)
    with pytest.raises(exception.InstanceInvalidState) as refused:
        api.quiesce(context, instance)
    assert told(refused) == ("quiesce_status", UUID, status, "quiesce")
    assert cloud.taken == []


@pytest.mark.parametrize("status", ["broken", "released"])
def test_quiesce_is_left_to_the_host_when_no_user_sees_a_window(
    cloud: Cloud, api: Any, context: Any, instance: Instance, status: str
) -> None:
    cloud.leave(status)
    api.quiesce(context, instance)
    assert cloud.taken == [("quiesce", UUID, 60, False)]


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("vm_state", "stopped"),
        ("vm_state", "paused"),
        ("task_state", "image_snapshot"),
        ("launched_at", None),
    ],
)
def test_quiesce_in_the_wrong_state(
    cloud: Cloud,
    api: Any,
    context: Any,
    instance: Instance,
    attribute: str,
    value: str | None,
) -> None:
    setattr(instance, attribute, value)
    with pytest.raises(exception.InstanceInvalidState) as refused:
        api.quiesce(context, instance)
    assert told(refused) == (attribute, UUID, value, "quiesce")
    assert cloud.taken == []


@pytest.mark.parametrize("method", ["quiesce", "unquiesce"])
def test_a_locked_server_is_for_administrators(
    cloud: Cloud, api: Any, context: Any, instance: Instance, method: str
) -> None:
    instance.locked = True
    cloud.leave(READY[method])
    with pytest.raises(exception.InstanceIsLocked):
        getattr(api, method)(context, instance)
    assert cloud.taken == []
    getattr(api, method)(people.admin(), instance)
    assert cloud.taken[0][0] == method


@pytest.mark.parametrize("method", ["quiesce", "unquiesce"])
def test_a_host_that_is_down_or_not_known_yet(
    cloud: Cloud, api: Any, context: Any, instance: Instance, method: str
) -> None:
    cloud.leave(READY[method])
    instance.service.up = False
    with pytest.raises(exception.ServiceUnavailable):
        getattr(api, method)(context, instance)
    instance.host = None
    with pytest.raises(exception.InstanceNotReady):
        getattr(api, method)(context, instance)
    assert cloud.taken == []


@pytest.mark.parametrize("method", ["quiesce", "unquiesce"])
@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (
            messaging.UnsupportedVersion("1.0"),
            ext_exception.QuiesceComputeTooOld,
        ),
        (
            exception.InstanceQuiesceNotSupported(instance_id=UUID, reason=""),
            ext_exception.QuiesceNotSupported,
        ),
        (
            messaging.MessagingTimeout("no reply"),
            ext_exception.QuiesceComputeUnavailable,
        ),
        (
            messaging.RemoteError("KeyError", "a defect"),
            ext_exception.QuiesceComputeUnavailable,
        ),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Exception) else "",
)
def test_what_the_host_did_not_do_is_told(
    cloud: Cloud,
    api: Any,
    context: Any,
    instance: Instance,
    method: str,
    failure: Exception,
    told: type[exception.NovaException],
) -> None:
    cloud.leave(READY[method])
    cloud.fails[method] = failure
    with pytest.raises(told, match=UUID) as refused:
        getattr(api, method)(context, instance)
    assert refused.value.__cause__ is failure


@pytest.mark.parametrize("method", ["quiesce", "unquiesce"])
def test_the_host_s_own_refusal_is_passed_on(
    cloud: Cloud, api: Any, context: Any, instance: Instance, method: str
) -> None:
    cloud.leave(READY[method])
    cloud.fails[method] = exception.InstanceInvalidState(
        attr="quiesce_status", instance_uuid=UUID, state="quiesced", method=method
    )
    with pytest.raises(exception.InstanceInvalidState):
        getattr(api, method)(context, instance)


# unquiesce


@pytest.mark.parametrize("status", ["quiesced", "broken"])
def test_unquiesce_is_left_to_the_host(
    cloud: Cloud, api: Any, context: Any, instance: Instance, status: str
) -> None:
    cloud.leave(status)
    instance.vm_state, instance.task_state = "stopped", "image_snapshot"
    cloud.stats = {}
    api.unquiesce(context, instance)
    assert cloud.taken == [("unquiesce", UUID)]


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (None, "null"),
        ("quiescing", "quiescing"),
        ("unquiescing", "unquiescing"),
        ("released", "null"),
    ],
)
def test_unquiesce_of_a_server_that_is_not_quiesced(
    cloud: Cloud,
    api: Any,
    context: Any,
    instance: Instance,
    status: str | None,
    state: str,
) -> None:
    if status:
        cloud.leave(status)
    with pytest.raises(exception.InstanceInvalidState) as refused:
        api.unquiesce(context, instance)
    assert told(refused) == ("quiesce_status", UUID, state, "unquiesce")
    assert cloud.taken == []


def test_unquiesce_in_a_cell_without_the_database(
    cloud: Cloud, api: Any, context: Any, instance: Instance
) -> None:
    cloud.lacks_database = True
    with pytest.raises(ext_exception.StateDatabaseMissing):
        api.unquiesce(context, instance)


# os-resetState


@pytest.mark.parametrize("status", ["quiescing", "quiesced", "unquiescing"])
def test_release_clears_the_state_and_tells_the_host(
    cloud: Cloud, api: Any, context: Any, instance: Instance, status: str
) -> None:
    cloud.leave(status)
    api.release_quiesced(context, instance)
    assert cloud.taken == [("update", "released"), ("release", UUID)]
    assert cloud.status == "released"


@pytest.mark.parametrize("status", [None, "released", "broken"])
def test_there_is_nothing_to_release(
    cloud: Cloud, api: Any, context: Any, instance: Instance, status: str | None
) -> None:
    if status:
        cloud.leave(status)
    api.release_quiesced(context, instance)
    assert cloud.taken == []
    assert cloud.status == status


def test_there_is_nothing_to_release_without_the_database(
    cloud: Cloud, api: Any, context: Any, instance: Instance
) -> None:
    cloud.lacks_database = True
    api.release_quiesced(context, instance)
    assert cloud.taken == []


def test_release_of_a_server_without_host_tells_nobody(
    cloud: Cloud, api: Any, context: Any, instance: Instance
) -> None:
    cloud.leave("quiesced")
    instance.host = None
    api.release_quiesced(context, instance)
    assert cloud.taken == [("update", "released")]


def test_release_looks_again_when_the_host_was_faster(
    cloud: Cloud, api: Any, context: Any, instance: Instance
) -> None:
    cloud.leave("quiescing")
    cloud.during["update"] = lambda: cloud.leave("quiesced")
    api.release_quiesced(context, instance)
    assert cloud.taken == [("update", "released")] * 2 + [("release", UUID)]
    assert cloud.status == "released"


def test_release_ends_when_the_host_has_thawed(
    cloud: Cloud, api: Any, context: Any, instance: Instance
) -> None:
    cloud.leave("unquiescing")
    cloud.during["update"] = cloud.rows.clear
    api.release_quiesced(context, instance)
    assert cloud.taken == [("update", "released")]


def test_release_gives_up_in_the_end(
    cloud: Cloud, api: Any, context: Any, instance: Instance
) -> None:
    cloud.leave("quiesced")
    cloud.fails["update"] = ext_exception.QuiesceWindowChanged(instance_uuid=UUID)
    with pytest.raises(ext_exception.QuiesceWindowChanged):
        api.release_quiesced(context, instance)
    assert cloud.taken == [("update", "released")] * 10


def test_release_does_not_need_the_message_bus(
    cloud: Cloud,
    api: Any,
    context: Any,
    instance: Instance,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """os-resetState is the last resort: the host reads the row when it is back."""
    cloud.leave("quiesced")
    cloud.fails["release"] = messaging.MessageDeliveryFailure("the bus is down")
    api.release_quiesced(context, instance)
    assert cloud.status == "released"
    assert "Could not tell the host to thaw: the bus is down" in caplog.text


# What a frozen guest is refused


@pytest.fixture
def stock(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nova's methods be steps."""

    def step(name: str) -> Any:
        def method(
            self: Any, context: Any, instance: Any, *args: Any, **kw: Any
        ) -> str:
            cloud.take(name, args, kw)
            return f"{name} done"

        return method

    for name in REFUSED:
        monkeypatch.setattr(nova_api.API, name, step(name))


@pytest.mark.usefixtures("stock")
@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("status", [None, "released", "broken"])
def test_a_server_that_is_not_quiesced_is_left_to_nova(
    cloud: Cloud,
    api: Any,
    context: Any,
    instance: Instance,
    status: str | None,
    name: str,
) -> None:
    if status:
        cloud.leave(status)
    done = getattr(api, name)(context, instance, 1, b=2)
    assert done == f"{name} done"
    assert cloud.taken == [(name, (1,), {"b": 2})]


@pytest.mark.usefixtures("stock")
@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("quiescing", "quiescing; unquiesce first, once it is quiesced"),
        ("quiesced", "quiesced; unquiesce first"),
    ],
)
def test_a_quiesced_server_is_refused_and_the_remedy_is_told(
    cloud: Cloud,
    api: Any,
    context: Any,
    instance: Instance,
    status: str,
    state: str,
    name: str,
) -> None:
    cloud.leave(status)
    for args in ((), ("SOFT",), ("HARD",)):
        with pytest.raises(exception.InstanceInvalidState) as refused:
            getattr(api, name)(context, instance, *args)
        assert told(refused) == ("quiesce_status", UUID, state, name)
    assert cloud.taken == []


@pytest.mark.usefixtures("stock")
@pytest.mark.parametrize("name", REFUSED)
def test_while_the_thaw_is_stuck_only_force_is_let_through(
    cloud: Cloud, api: Any, context: Any, instance: Instance, name: str
) -> None:
    cloud.leave("unquiescing")
    if name == "stop":
        api.stop(context, instance)
    elif name == "reboot":
        api.reboot(context, instance, "HARD")
    else:
        with pytest.raises(exception.InstanceInvalidState, match="stop or hard reboot"):
            getattr(api, name)(context, instance, "HARD")
    if name == "reboot":
        with pytest.raises(exception.InstanceInvalidState):
            api.reboot(context, instance, "SOFT")
    assert len(cloud.taken) == (name in ("stop", "reboot"))


@pytest.mark.usefixtures("stock")
@pytest.mark.parametrize("name", REFUSED)
def test_without_the_database_everything_is_left_to_nova(
    cloud: Cloud, api: Any, context: Any, instance: Instance, name: str
) -> None:
    cloud.lacks_database = True
    getattr(api, name)(context, instance)
    assert len(cloud.taken) == 1


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_known_which_method_of_nova_is_refused(name: str) -> None:
    method = getattr(quiesce_api.QuiesceAPI, name)
    assert method.__name__ == name
    assert method.__override__
    assert callable(getattr(nova_api.API, name))


# The second look, once nova has the task state


def test_a_quiesce_that_comes_between_wins(
    cloud: Cloud, api: Any, context: Any, instance: Instance
) -> None:
    """nova's own pause: the row is there when nova has the task state."""
    cloud.during["save"] = lambda: cloud.leave("quiescing")
    with pytest.raises(exception.InstanceInvalidState, match="unquiesce first"):
        api.pause(context, instance)
    assert cloud.taken == [("save", "pausing"), ("save", None)]
    assert instance.stored is None


def test_a_pause_without_quiesce_is_nova_s(
    cloud: Cloud, api: Any, context: Any, instance: Instance
) -> None:
    api.pause(context, instance)
    assert cloud.taken == [
        ("save", "pausing"),
        ("record", "pause"),
        "compute pause_instance",
    ]
    assert instance.stored == "pausing"


@pytest.mark.parametrize(
    ("method", "args", "passes"),
    [("stop", (), True), ("reboot", ("HARD",), True), ("reboot", ("SOFT",), False)],
)
def test_a_thaw_that_begins_between_lets_force_through(
    cloud: Cloud,
    api: Any,
    context: Any,
    instance: Instance,
    method: str,
    args: tuple[str, ...],
    passes: bool,
) -> None:
    cloud.during["save"] = lambda: cloud.leave("unquiescing")
    if passes:
        getattr(api, method)(context, instance, *args)
        assert cloud.taken[1:] == [
            ("record", method),
            f"compute {method}_instance",
        ]
    else:
        with pytest.raises(exception.InstanceInvalidState):
            getattr(api, method)(context, instance, *args)
        assert cloud.taken[1:] == [("save", None)]


@pytest.mark.parametrize("action", ACTIONS)
def test_each_action_that_is_refused_is_refused_by_the_second_look(
    cloud: Cloud, api: Any, context: Any, instance: Instance, action: str
) -> None:
    cloud.leave("quiesced")
    instance.task_state = instance.stored = "busy"
    with pytest.raises(exception.InstanceInvalidState) as refused:
        api._record_action_start(context, instance, action)
    state = "quiesced; unquiesce first"
    assert told(refused) == ("quiesce_status", UUID, state, ACTIONS[action])
    assert cloud.taken == [("save", None)]


def test_nova_has_these_actions() -> None:
    known = {value for name, value in vars(instance_actions).items() if name.isupper()}
    assert set(ACTIONS) < known


@pytest.mark.parametrize(
    "action",
    ["delete", "createImage", "createBackup", "lock", "unlock", "rebuild", "restore"],
)
def test_other_actions_are_recorded_and_keep_the_window(
    cloud: Cloud, api: Any, context: Any, instance: Instance, action: str
) -> None:
    cloud.leave("quiesced")
    instance.task_state = instance.stored = "busy"
    api._record_action_start(context, instance, action)
    assert cloud.taken == [("record", action)]
    assert cloud.status == "quiesced"


def test_a_record_without_a_task_state_was_decided_by_the_first_look(
    cloud: Cloud, api: Any, context: Any, instance: Instance
) -> None:
    cloud.leave("quiesced")
    api._record_action_start(context, instance, "pause")
    assert cloud.taken == [("record", "pause")]


# The end of a guest


@pytest.mark.parametrize("status", ["quiesced", "broken"])
def test_evacuate_forgets_the_window(
    cloud: Cloud, api: Any, context: Any, instance: Instance, status: str
) -> None:
    cloud.leave(status)
    instance.task_state = instance.stored = "rebuilding"
    api._record_action_start(context, instance, "evacuate")
    assert cloud.taken == ["forget", ("record", "evacuate")]
    assert cloud.status is None


def test_delete_of_a_server_whose_host_is_down_forgets_the_window_afterwards(
    cloud: Cloud, api: Any, context: Any, instance: Instance, monkeypatch: Any
) -> None:
    def local_delete(self: Any, *args: Any) -> None:
        cloud.take("delete", *args)

    monkeypatch.setattr(nova_api.API, "_local_delete", local_delete)
    cloud.leave("quiesced")
    args = (context, instance, ["bdm"], "delete", print)
    api._local_delete(*args)
    assert cloud.taken == [("delete", *args), "forget"]
    assert cloud.status is None


def test_without_the_database_there_is_nothing_to_forget(
    cloud: Cloud, api: Any, context: Any, instance: Instance, monkeypatch: Any
) -> None:
    monkeypatch.setattr(nova_api.API, "_local_delete", lambda *args: None)
    cloud.lacks_database = True
    api._local_delete(context, instance, [], "delete", print)
    api._record_action_start(context, instance, "evacuate")
    assert cloud.taken == [("record", "evacuate")]
