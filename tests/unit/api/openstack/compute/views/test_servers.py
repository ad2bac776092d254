# SPDX-License-Identifier: Apache-2.0
"""The server view from 2.105 on: the three fields, and where their rows come from."""

import datetime
import types
from collections.abc import Iterable
from typing import Any

import pytest
from nova import context as nova_context
from nova import objects
from nova.api.openstack.compute.views import servers as upstream

from nova_ext import exception
from nova_ext.api.openstack.compute.schemas import servers as schema
from nova_ext.api.openstack.compute.views import servers as views
from nova_ext.db import cells as db_cells
from nova_ext.objects.quiesce_window import QuiesceWindow, QuiesceWindowList
from tests.unit import people
from tests.unit.api.openstack.compute import serving

A, B, C = (f"0d4b1e9c-9f2f-4d2a-8b0c-6b0a3a4f7c1{i}" for i in range(3))
NOTHING = {"quiesce_status": None, "quiesced_at": None, "unquiesce_at": None}
MISSING = exception.StateDatabaseMissing(database="nova_cell1")
SILENT = nova_context.did_not_respond_sentinel


def window(status: str, uuid: str = A, frozen: bool = False) -> Any:
    return QuiesceWindow(
        instance_uuid=uuid,
        status=status,
        timeout=90,
        quiesced_at=datetime.datetime(2026, 11, 21, 9, 59, 59, 500000, datetime.UTC)
        if frozen
        else None,
    )


class Cells:
    """The cells and their databases.

    :ivar answers: what each cell answers: rows, an error, or no answer in time
    :ivar asked: how often each way of asking was taken
    """

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {"cell1": []}
        self.asked: list[tuple[str, Any]] = []

    def find(self, context: Any, uuid: str) -> Any:
        self.asked.append(("find", uuid))
        rows = self.answers[context.cell_uuid]
        if isinstance(rows, Exception):
            raise rows
        return next((row for row in rows if row.instance_uuid == uuid), None)

    def of_instances(self, context: Any, uuids: Iterable[str]) -> list[str]:
        self.asked.append(("cells", list(uuids)))
        return list(self.answers)

    def get(self, context: Any, uuids: Iterable[str]) -> Any:
        raise AssertionError("each cell is asked by scatter_gather_cells")

    def scatter(
        self, context: Any, cells: Any, timeout: int, function: Any, uuids: Any
    ) -> dict[str, Any]:
        assert timeout == nova_context.CELL_TIMEOUT
        assert function == self.get
        self.asked.append(("rows", uuids))
        return {cell: self.answers[cell] for cell in cells}


def stock_show(self: Any, request: Any, instance: Any, **kwargs: Any) -> Any:
    """nova's view, with a field or two."""
    view = {"id": instance.uuid, "kwargs": kwargs}
    if not getattr(instance, "down", False):
        view["name"] = "web"
    return {"server": view}


def stock_detail(
    self: Any, request: Any, instances: Any, *args: Any, **kwargs: Any
) -> Any:
    """nova's list, of what its view shows of each."""
    return {
        "servers": [self.show(request, each)["server"] for each in instances],
        "told": (args, kwargs),
    }


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> Cells:
    cells = Cells()
    monkeypatch.setattr(QuiesceWindow, "find", cells.find)
    monkeypatch.setattr(QuiesceWindowList, "get_by_instance_uuids", cells.get)
    monkeypatch.setattr(db_cells, "of_instances", cells.of_instances)
    monkeypatch.setattr(nova_context, "scatter_gather_cells", cells.scatter)
    monkeypatch.setattr(views, "_warned", set())
    return cells


@pytest.fixture
def stock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream.ViewBuilder, "show", stock_show)
    monkeypatch.setattr(upstream.ViewBuilder, "detail", stock_detail)


def server(uuid: str = A, **values: Any) -> Any:
    return types.SimpleNamespace(uuid=uuid, **values)


def request(version: str = "2.105") -> Any:
    made = serving.request(version)
    made.environ["nova.context"].cell_uuid = "cell1"
    return made


def fields(view: dict[str, Any]) -> dict[str, Any]:
    """What a view has of a window, which its schema allows."""
    kind = {"type": "object", "properties": schema.server_v2105_properties}
    assert serving.valid(kind, view, is_body=False)
    return {name: view[name] for name in NOTHING if name in view}


def show(uuid: str = A, version: str = "2.105") -> dict[str, Any]:
    view = views.ViewBuilder().show(request(version), server(uuid))
    return fields(view["server"])


def detail(*uuids: str, version: str = "2.105") -> list[dict[str, Any]]:
    made = request(version)
    shown = views.ViewBuilder().detail(made, [server(uuid) for uuid in uuids])
    assert [view["id"] for view in shown["servers"]] == list(uuids)
    return [fields(view) for view in shown["servers"]]


@pytest.mark.usefixtures("stock")
@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (None, NOTHING),
        (window("quiescing"), NOTHING | {"quiesce_status": "quiescing"}),
        (
            window("quiesced", frozen=True),
            {
                "quiesce_status": "quiesced",
                "quiesced_at": "2026-11-21T09:59:59Z",
                "unquiesce_at": "2026-11-21T10:01:29Z",
            },
        ),
        (
            window("unquiescing", frozen=True),
            {
                "quiesce_status": "unquiescing",
                "quiesced_at": "2026-11-21T09:59:59Z",
                "unquiesce_at": "2026-11-21T10:01:29Z",
            },
        ),
        (window("unquiescing"), NOTHING | {"quiesce_status": "unquiescing"}),
        (window("released", frozen=True), NOTHING),
        (window("broken", frozen=True), NOTHING),
    ],
    ids=lambda each: f"{each.status}" if isinstance(each, QuiesceWindow) else "",
)
def test_what_is_shown_of_a_window(
    cells: Cells, row: Any, expected: dict[str, Any]
) -> None:
    cells.answers["cell1"] = [] if row is None else [row]
    assert show() == expected
    assert detail(A) == [expected]


@pytest.mark.usefixtures("stock")
def test_below_2_105_there_are_no_fields_and_no_questions(cells: Cells) -> None:
    cells.answers["cell1"] = [window("quiesced", frozen=True)]
    for version in ("2.1", "2.104"):
        assert show(version=version) == {}
        assert detail(A, version=version) == [{}]
    assert cells.asked == []


@pytest.mark.usefixtures("stock")
def test_one_server_costs_one_question(cells: Cells) -> None:
    show()
    assert cells.asked == [("find", A)]


@pytest.mark.usefixtures("stock")
def test_a_list_costs_one_question_of_each_cell(cells: Cells) -> None:
    cells.answers = {
        "cell1": [window("quiescing", A)],
        "cell2": [window("quiesced", C)],
    }
    assert [each["quiesce_status"] for each in detail(A, B, C)] == [
        "quiescing",
        None,
        "quiesced",
    ]
    assert cells.asked == [("cells", [A, B, C]), ("rows", [A, B, C])]


@pytest.mark.usefixtures("stock")
def test_an_empty_list(cells: Cells) -> None:
    assert detail() == []


@pytest.mark.usefixtures("stock", "cells")
def test_what_nova_is_told_is_handed_on() -> None:
    shown = views.ViewBuilder().show(request(), server(), show_AZ=False)
    assert shown["server"]["kwargs"] == {"show_AZ": False}
    made = views.ViewBuilder().detail(request(), [], True, bdms=1)
    assert made["told"] == ((True,), {"bdms": 1})


@pytest.mark.usefixtures("stock")
def test_a_server_of_a_cell_that_is_down_is_shown_as_nova_does(cells: Cells) -> None:
    view = views.ViewBuilder().show(request(), server(down=True))
    assert fields(view["server"]) == {}
    assert cells.asked == []


def test_nova_shows_a_server_of_a_cell_that_is_down_without_a_name(
    cells: Cells,
) -> None:
    """That nova's own view can be told by this."""
    instance = objects.Instance(
        uuid=A,
        project_id=people.PROJECT,
        created_at=datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC),
    )
    view = views.ViewBuilder().show(request(), instance, cell_down_support=True)
    assert view["server"]["status"] == "UNKNOWN"
    assert fields(view["server"]) == {}
    assert cells.asked == []


@pytest.mark.usefixtures("stock")
def test_without_the_database_a_server_counts_as_not_quiesced(
    cells: Cells, caplog: pytest.LogCaptureFixture
) -> None:
    cells.answers["cell1"] = MISSING
    assert show() == NOTHING
    assert show(B) == NOTHING
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "Servers of cell cell1 are shown as not quiesced" in record.getMessage()
    assert "nova-ext-manage db sync" in record.getMessage()


@pytest.mark.usefixtures("stock")
def test_each_cell_without_the_database_is_told_once(
    cells: Cells, caplog: pytest.LogCaptureFixture
) -> None:
    cells.answers = {
        "cell1": MISSING,
        "cell2": [window("quiescing", B)],
        "cell3": MISSING,
    }
    for _ in range(2):
        assert [each["quiesce_status"] for each in detail(A, B)] == [None, "quiescing"]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "cell cell1 " in told[0]
    assert "cell cell3 " in told[1]


@pytest.mark.usefixtures("stock")
def test_a_cell_that_does_not_answer_is_told_each_time(
    cells: Cells, caplog: pytest.LogCaptureFixture
) -> None:
    cells.answers = {"cell1": SILENT, "cell2": [window("quiescing", B)]}
    for _ in range(2):
        assert [each["quiesce_status"] for each in detail(A, B)] == [None, "quiescing"]
    assert [record.getMessage() for record in caplog.records] == [
        "Cell cell1 did not say in time which servers are quiesced."
    ] * 2


@pytest.mark.usefixtures("stock")
def test_another_failure_of_one_server_is_not_hidden(cells: Cells) -> None:
    cells.answers["cell1"] = ZeroDivisionError("a defect")
    with pytest.raises(ZeroDivisionError):
        show()
