# SPDX-License-Identifier: Apache-2.0

import uuid

import pytest

from cinder_ext.objects import operation

BACKUP = str(uuid.uuid4())


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def create(**more: object) -> operation.Operation:
    return operation.Operation(
        id="op",
        action="create",
        backup_id=BACKUP,
        started_at=1000.0,
        **more,  # type: ignore[arg-type]
    )


def test_two_processes_compute_the_same_id() -> None:
    first = operation.operation_id(BACKUP, "create", "2026-11-21T10:00:00")
    assert first == operation.operation_id(BACKUP, "create", "2026-11-21T10:00:00")
    assert uuid.UUID(first).version == 5


@pytest.mark.parametrize(
    ("action", "discriminator"),
    [("restore", "2026-11-21T10:00:00"), ("create", "2026-11-21T10:00:01")],
)
def test_other_operations_have_other_ids(action: str, discriminator: str) -> None:
    first = operation.operation_id(BACKUP, "create", "2026-11-21T10:00:00")
    assert first != operation.operation_id(BACKUP, action, discriminator)
    assert first != operation.operation_id(
        str(uuid.uuid4()), "create", "2026-11-21T10:00:00"
    )


def test_sequence_grows_within_a_millisecond() -> None:
    op = create()
    assert [op.next_sequence(1000.0) for _ in range(3)] == [1, 2, 3]


def test_sequence_grows_over_processes_without_common_memory() -> None:
    first, second = create(), create()
    last = [first.next_sequence(1000.0 + n) for n in range(10)][-1]
    assert second.next_sequence(1009.1) > last


def test_sequence_grows_though_the_clock_is_set_back() -> None:
    op = create()
    last = op.next_sequence(1060.0)
    assert op.next_sequence(400.0) == last + 1


def test_sequence_goes_on_from_the_journal() -> None:
    op = create()
    op.next_sequence(1060.0)
    again = operation.Operation.from_record(op.record())
    assert again.next_sequence(1000.5) == op.sequence + 1


def test_duration_is_never_negative() -> None:
    assert create().duration(1001.5) == 1.5
    assert create().duration(900.0) == 0.0


def test_record_of_another_version_is_read() -> None:
    record = {**create(resumed=True).record(), "new_in_2_0": 1}
    again = operation.Operation.from_record(record)
    assert (again.id, again.resumed, again.begun) == ("op", True, True)


def test_percent_of_bytes_is_a_high_water_mark(clock: Clock) -> None:
    progress = operation.Progress(bytes_total=1000, clock=clock)
    assert progress.percent is None
    seen = []
    for position in (0, 250, 100, 500):
        progress.reached_byte(position)
        seen.append(progress.percent)
    assert seen == [0.0, 25.0, 25.0, 50.0]


def test_percent_is_100_only_on_success(clock: Clock) -> None:
    progress = operation.Progress(bytes_total=1000, clock=clock)
    progress.reached_byte(2000)
    assert progress.percent == progress.to_payload()["backup_percent"] == 99.9
    assert progress.to_payload(succeeded=True)["backup_percent"] == 100.0


@pytest.mark.parametrize("total", [None, 0])
def test_percent_is_null_where_the_total_is_unknown(total: int | None) -> None:
    progress = operation.Progress(bytes_total=total)
    progress.reached_byte(5)
    assert progress.percent is None
    assert progress.to_payload()["eta_seconds"] is None


def test_objects_count_before_bytes(clock: Clock) -> None:
    progress = operation.Progress(bytes_total=1000, objects_total=4, clock=clock)
    progress.reached_byte(10)
    progress.reached_object(3)
    assert progress.percent == 75.0


def test_rate_and_eta(clock: Clock) -> None:
    progress = operation.Progress(bytes_total=1000, clock=clock)
    clock.now += 10
    progress.reached_byte(200)
    facts = progress.to_payload()
    assert (facts["rate_bps"], facts["eta_seconds"]) == (20.0, 40.0)


def test_there_is_no_eta_before_the_first_byte(clock: Clock) -> None:
    progress = operation.Progress(bytes_total=1000, clock=clock)
    progress.reached_byte(0)
    assert progress.to_payload()["eta_seconds"] is None


def test_payload_of_a_transfer_that_shows_nothing(clock: Clock) -> None:
    facts = operation.Progress(bytes_total=1000, clock=clock).to_payload()
    assert facts["bytes_total"] == 1000
    for name in ("backup_percent", "bytes_done", "rate_bps", "eta_seconds"):
        assert facts[name] is None


def throttle(clock: Clock) -> operation.ProgressThrottle:
    return operation.ProgressThrottle(5, 120, 1.0, clock)


def test_the_throttle_keeps_the_least_interval(clock: Clock) -> None:
    due = throttle(clock)
    clock.now += 4
    assert not due.due(50.0)
    clock.now += 1
    assert due.due(50.0)
    assert not due.due(60.0)


def test_the_throttle_waits_for_a_step(clock: Clock) -> None:
    due = throttle(clock)
    clock.now += 10
    assert not due.due(0.5)
    assert due.due(1.0)


def test_the_throttle_never_tells_a_percentage_twice(clock: Clock) -> None:
    due = throttle(clock)
    clock.now += 10
    assert due.due(2.0)
    clock.now += 1000
    assert not due.due(2.0)
    assert not due.due(1.9)
    assert due.due(2.01)


def test_the_throttle_tells_an_unknown_percentage_as_a_heartbeat(clock: Clock) -> None:
    due = throttle(clock)
    told = 0
    for _second in range(360):
        clock.now += 1
        told += due.due(None)
    assert told == 3


def test_the_throttle_outlives_a_clock_that_is_set_back(clock: Clock) -> None:
    due = throttle(clock)
    clock.now -= 3600
    assert due.due(10.0)


def test_the_first_phase_that_fails_stays() -> None:
    op = create()
    with pytest.raises(OSError, match="disk"), op.at("transfer", then="finalize"):
        raise OSError("disk")
    with op.at("detach"):
        pass
    assert op.phase == "transfer"


def test_phases_follow_each_other() -> None:
    op = create()
    seen = [op.phase]
    with op.at("attach"):
        seen.append(op.phase)
    with op.at("transfer", then="finalize"):
        seen.append(op.phase)
    seen.append(op.phase)
    assert seen == ["prepare", "attach", "transfer", "finalize"]
