"""Durable executions in every adapter of the store."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kept import Kept

from lambstead.core.durable.lifecycle import Start, start
from lambstead.core.durable.model import (
    AnsweredCheckpoint,
    ChainedInvoke,
    Change,
    CheckpointedEnd,
    DurableConfig,
    ErrorObject,
    Event,
    EventType,
    Execution,
    ExecutionStatus,
    LiveInvocation,
    Operation,
    OperationStatus,
    OperationType,
    Parent,
    Pause,
    State,
)
from lambstead.core.durable.records import Errand, ExecutionQuery, input_digest

NOW = datetime(2026, 11, 21, 10, 0, 0, 123000, tzinfo=UTC)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Kept]:
    kept = Kept(tmp_path / "store.db")
    yield kept
    kept.close()


def order(execution_id: str, function: str = "f", version: str = "1", name: str = "", payload: str = "{}") -> Start:
    config = DurableConfig(3600, 14, "arn:aws:kms:us-east-1:000000000000:key/k")
    return Start(execution_id, name or execution_id, function, version, config, payload)


def started(store: Kept, execution_id: str, at: datetime = NOW, wake_at: datetime | None = None, **facts: str) -> State:
    state, change = start(order(execution_id, **facts), at)
    store.write(lambda tx: tx.start_durable_execution(state, change, wake_at))
    return state


def saved(store: Kept, state: State, wake_at: datetime | None = None, **changes: object) -> Execution:
    execution = replace(state.execution, **changes)  # type: ignore[arg-type]  # members of Execution
    assert store.write(lambda tx: tx.save_durable_change(Change(execution), wake_at))
    return execution


EVERYTHING = Execution(
    id="e",
    name="order-1",
    function="f",
    version="$LATEST.PUBLISHED",
    config=DurableConfig(60, 90, "key"),
    started_at=NOW,
    timeout_at=NOW + SECOND,
    is_synchronous=True,
    parent=Parent("p", "o"),
    trace_header="Root=1",
    tenant_id="t",
    status=ExecutionStatus.PAUSING,
    ended_at=NOW + 2 * SECOND,
    result='{"é": "\\u0000"}',
    error=ErrorObject("m", "T", "d", ("one", "two")),
    live=LiveInvocation("r", NOW, 7, is_revoked=True),
    was_invoked=True,
    must_invoke=True,
    unseen=("a", "b"),
    announced=("c",),
    timer_at=NOW + 3 * SECOND,
    checkpointed_end=CheckpointedEnd(is_success=False, error=ErrorObject("m")),
    failures=3,
    idle_returns=2,
    retry_at=NOW + 4 * SECOND,
    pause=Pause(NOW, "because", stops_timeout=False, client_token="c", began_at=NOW),
    resumed_by="x",
    resumed_at=NOW,
    operations=5,
    stored_bytes=6,
    last_event=3,
    last_sequence=2,
)
OPERATIONS = (
    Operation(
        id="a",
        type=OperationType.CALLBACK,
        sequence=1,
        status=OperationStatus.STARTED,
        started_at=NOW,
        parent_id="p",
        name="n",
        sub_type="s",
        ended_at=NOW,
        result="r",
        error=ErrorObject(),
        due_at=NOW,
        attempt=3,
        replay_children=True,
        wait_s=4,
        timeout_s=5,
        heartbeat_timeout_s=6,
        heartbeat_due_at=NOW,
        callback_id="id",
    ),
    Operation(
        id="b",
        type=OperationType.CHAINED_INVOKE,
        sequence=2,
        status=OperationStatus.READY,
        started_at=NOW,
        chained=ChainedInvoke("g:1", "g", "1", is_durable=True, payload="{}", tenant_id="t", execution_arn="arn"),
    ),
)
EVENTS = (
    Event(2, EventType.STEP_FAILED, NOW, "a", "n", "s", "p", {"Error": {"Payload": {"ErrorType": "T"}}, "At": 12}),
    Event(3, EventType.INVOCATION_COMPLETED, NOW, None, details={"StartTimestamp": 1795226892035}),
)


def test_an_execution_survives_a_restart_with_every_member(store: Kept) -> None:
    state = started(store, "e", name="order-1", version="$LATEST.PUBLISHED", payload='{"n": "é"}')
    store.write(lambda tx: tx.save_durable_change(Change(EVERYTHING, OPERATIONS, EVENTS), NOW))
    store.reopen()
    found = store.read(lambda r: r.durable_state("e"))
    assert found == State(EVERYTHING, '{"n": "é"}', {each.id: each for each in OPERATIONS})
    assert store.read(lambda r: r.durable_input("e")) == '{"n": "é"}'
    events = store.read(lambda r: list(r.durable_events("e", 0, 10)))
    assert events[0].type is EventType.EXECUTION_STARTED
    assert tuple(events[1:]) == EVENTS
    assert state.execution.started_at == NOW


def test_the_answer_to_the_last_checkpoint_is_not_kept(store: Kept) -> None:
    state = started(store, "e")
    saved(store, state, answered=AnsweredCheckpoint("c", "t", NOW, "u", OPERATIONS))
    found = store.read(lambda r: r.durable_state("e"))
    assert found is not None
    assert found.execution == state.execution


def test_a_change_replaces_operations_and_appends_events(store: Kept) -> None:
    state = started(store, "e")
    store.write(lambda tx: tx.save_durable_change(Change(state.execution, OPERATIONS, EVENTS[:1]), None))
    changed = replace(OPERATIONS[0], status=OperationStatus.SUCCEEDED)
    store.write(lambda tx: tx.save_durable_change(Change(state.execution, (changed,), EVENTS[1:]), None))
    found = store.read(lambda r: r.durable_state("e"))
    assert found is not None
    assert list(found.operations.values()) == [changed, OPERATIONS[1]]
    assert [each.number for each in store.read(lambda r: r.durable_events("e", 0, 10))] == [1, 2, 3]


def test_what_is_not_there_is_not_changed(store: Kept) -> None:
    state, change = start(order("e"), NOW)
    assert not store.write(lambda tx: tx.save_durable_change(change, NOW))
    assert store.read(lambda r: r.durable_state("e")) is None
    assert store.read(lambda r: r.durable_execution("e", NOW)) is None
    assert list(store.read(lambda r: r.durable_events("e", 0, 10))) == []
    assert state.execution.id == "e"


def test_an_execution_is_found_by_its_name_with_what_tells_a_repeated_start(store: Kept) -> None:
    started(store, "e", name="order-1", payload='{"n":1}')
    kept = store.read(lambda r: r.durable_execution_named("f", "order-1", NOW))
    assert kept is not None
    assert kept.execution.id == "e"
    assert kept.is_started_by("1", input_digest('{"n":1}'))
    assert not kept.is_started_by("2", input_digest('{"n":1}'))
    assert not kept.is_started_by("1", input_digest('{"n":2}'))
    assert store.read(lambda r: r.durable_execution_named("g", "order-1", NOW)) is None
    assert store.read(lambda r: r.durable_execution_named("f", "order-2", NOW)) is None


def test_a_name_is_taken_as_long_as_its_execution_is_kept(store: Kept) -> None:
    state = started(store, "e", name="order-1")
    saved(store, state, status=ExecutionStatus.SUCCEEDED, ended_at=NOW)
    before, after = NOW + 14 * DAY - SECOND, NOW + 14 * DAY
    assert store.read(lambda r: r.durable_execution_named("f", "order-1", before)) is not None
    assert store.read(lambda r: r.durable_execution_named("f", "order-1", after)) is None
    assert store.read(lambda r: r.durable_execution("e", before)) is not None
    assert store.read(lambda r: r.durable_execution("e", after)) is None
    started(store, "again", after, name="order-1")
    kept = store.read(lambda r: r.durable_execution_named("f", "order-1", after))
    assert kept is not None
    assert kept.execution.id == "again"
    assert store.read(lambda r: r.durable_state("e")) is None


def test_a_deleted_execution_has_lost_its_name_and_is_shown_until_it_is_gone(store: Kept) -> None:
    state = started(store, "e", name="order-1")
    saved(store, state, status=ExecutionStatus.DELETING, ended_at=NOW)
    assert store.read(lambda r: r.durable_execution_named("f", "order-1", NOW)) is None
    assert store.read(lambda r: r.durable_execution("e", NOW)) is not None
    shown = store.read(lambda r: r.durable_executions(ExecutionQuery("f"), None, 10, NOW))
    assert [each.status for each in shown] == [ExecutionStatus.DELETING]
    assert list(store.read(lambda r: r.expired_durable_executions(NOW, 10))) == ["e"]


def test_what_is_due_is_found_by_its_time_and_nothing_else_is_looked_at(store: Kept) -> None:
    for number in range(5):
        started(store, f"e{number}", wake_at=NOW + (5 - number) * SECOND)
    closed = started(store, "closed", wake_at=NOW)
    saved(store, closed, None, status=ExecutionStatus.FAILED, ended_at=NOW)
    assert list(store.read(lambda r: r.due_durable_executions(NOW, 10))) == []
    assert list(store.read(lambda r: r.due_durable_executions(NOW + 3 * SECOND, 10))) == ["e4", "e3", "e2"]
    assert list(store.read(lambda r: r.due_durable_executions(NOW + 3 * SECOND, 2))) == ["e4", "e3"]
    assert store.read(lambda r: r.next_durable_wake(NOW)) == NOW + SECOND
    assert store.read(lambda r: r.next_durable_wake(NOW + 3 * SECOND)) == NOW + 4 * SECOND
    assert store.read(lambda r: r.next_durable_wake(NOW + 5 * SECOND)) is None


def test_live_executions_are_found_after_a_restart(store: Kept) -> None:
    live, idle = started(store, "live"), started(store, "idle")
    saved(store, live, live=LiveInvocation("r", NOW))
    saved(store, idle, live=LiveInvocation("r", NOW))
    saved(store, idle)
    store.reopen()
    assert list(store.read(lambda r: r.live_durable_executions())) == ["live"]


def test_executions_are_counted_by_status(store: Kept) -> None:
    one, two = started(store, "one"), started(store, "two")
    assert store.read(lambda r: r.durable_totals()) == {"RUNNING": 2}
    saved(store, one, status=ExecutionStatus.SUCCEEDED, ended_at=NOW)
    saved(store, two)
    assert store.read(lambda r: r.durable_totals()) == {"RUNNING": 1, "SUCCEEDED": 1}
    assert store.write(lambda tx: tx.delete_durable_execution("one", 10))
    assert store.read(lambda r: r.durable_totals()) == {"RUNNING": 1}


def test_an_execution_is_removed_in_pieces(store: Kept) -> None:
    state = started(store, "e")
    store.write(lambda tx: tx.save_durable_change(Change(state.execution, OPERATIONS, EVENTS), None))
    store.write(lambda tx: tx.save_durable_errand(Errand("e", "b"), NOW))
    started(store, "other")
    pieces = 0
    while not store.write(lambda tx: tx.delete_durable_execution("e", 2)):
        pieces += 1
        assert pieces < 10
    assert pieces >= 2
    assert store.read(lambda r: r.durable_state("e")) is None
    assert list(store.read(lambda r: r.durable_events("e", 0, 10))) == []
    assert list(store.read(lambda r: r.due_durable_errands(NOW, 10))) == []
    assert store.read(lambda r: r.durable_state("other")) is not None


def test_errands_are_put_off_and_forgotten(store: Kept) -> None:
    one, two = Errand("e", "a"), Errand("e", "b", child_id="c")
    store.write(lambda tx: tx.save_durable_errand(one, NOW))
    store.write(lambda tx: tx.save_durable_errand(two, NOW + SECOND))
    assert list(store.read(lambda r: r.due_durable_errands(NOW + SECOND, 10))) == [one, two]
    later = replace(one, refusals=1)
    store.write(lambda tx: tx.save_durable_errand(later, NOW + 2 * SECOND))
    store.reopen()
    assert list(store.read(lambda r: r.due_durable_errands(NOW + 2 * SECOND, 1))) == [two]
    assert store.read(lambda r: r.next_durable_errand(NOW + SECOND)) == NOW + 2 * SECOND
    store.write(lambda tx: tx.delete_durable_errand(later))
    assert list(store.read(lambda r: r.due_durable_errands(NOW + 9 * SECOND, 10))) == [two]


def test_history_is_read_in_pages_from_both_ends(store: Kept) -> None:
    state = started(store, "e")
    store.write(lambda tx: tx.save_durable_change(Change(state.execution, (), EVENTS), None))

    def forwards(after: int) -> list[int]:
        return [each.number for each in store.read(lambda r: r.durable_events("e", after, 2))]

    def backwards(before: int) -> list[int]:
        return [each.number for each in store.read(lambda r: r.durable_events_backwards("e", before, 2))]

    assert (forwards(0), forwards(2), forwards(3)) == ([1, 2], [3], [])
    assert (backwards(99), backwards(2), backwards(1)) == ([3, 2], [1], [])


def test_executions_of_a_function_are_listed_as_asked(store: Kept) -> None:
    for number in range(6):
        state = started(store, f"e{number}", NOW + number * SECOND, version=str(number % 2))
        if number >= 3:
            saved(store, state, status=ExecutionStatus.FAILED, ended_at=NOW + 9 * SECOND)
    started(store, "other", function="g")

    def ids(**asked: object) -> str:
        query = ExecutionQuery("f", **asked)  # type: ignore[arg-type]  # members of the query
        return " ".join(each.id for each in store.read(lambda r: r.durable_executions(query, None, 10, NOW)))

    assert ids() == "e5 e4 e3 e2 e1 e0"
    assert ids(oldest_first=True) == "e0 e1 e2 e3 e4 e5"
    assert ids(statuses=(ExecutionStatus.RUNNING,)) == "e2 e1 e0"
    assert ids(statuses=(ExecutionStatus.RUNNING, ExecutionStatus.FAILED), version="1") == "e5 e3 e1"
    assert ids(started_after=NOW + SECOND, started_before=NOW + 4 * SECOND) == "e3 e2"
    assert ids(name="e4") == "e4"
    assert ids(name="e4", statuses=(ExecutionStatus.RUNNING,)) == ""
    assert ids(name="e4", version="1") == ""
    assert ids(name="e4", started_after=NOW + 4 * SECOND) == ""
    summary = store.read(lambda r: r.durable_executions(ExecutionQuery("f"), None, 1, NOW))[0]
    assert (summary.name, summary.version, summary.status) == ("e5", "1", ExecutionStatus.FAILED)
    assert (summary.started_at, summary.ended_at) == (NOW + 5 * SECOND, NOW + 9 * SECOND)
    assert summary.kms_key_arn == "arn:aws:kms:us-east-1:000000000000:key/k"
    assert summary == store.read(lambda r: r.durable_executions(ExecutionQuery("f", name="e5"), None, 1, NOW))[0]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """Forty executions that started in ten moments, in three statuses."""
    kept = Kept(tmp_path_factory.mktemp("many") / "store.db")
    for number in range(40):
        state = started(kept, f"e{number:02}", NOW + (number % 10) * SECOND)
        if number % 3:
            status = ExecutionStatus.FAILED if number % 3 == 1 else ExecutionStatus.STOPPED
            saved(kept, state, status=status, ended_at=NOW)
    yield kept
    kept.close()


@given(size=st.integers(1, 45), oldest_first=st.booleans())
def test_pages_of_a_list_are_the_list(many: Kept, size: int, oldest_first: bool) -> None:
    query = ExecutionQuery("f", oldest_first=oldest_first)
    whole = list(many.read(lambda r: r.durable_executions(query, None, 100, NOW)))
    assert len(whole) == 40
    assert whole == sorted(whole, key=lambda each: (each.started_at, each.id), reverse=not oldest_first)
    paged: list[object] = []
    position: tuple[int, str] | None = None
    while True:
        page = list(many.read(lambda r, at=position: r.durable_executions(query, at, size, NOW)))  # type: ignore[misc]
        paged += page
        if len(page) < size:
            break
        position = (round(page[-1].started_at.timestamp() * 1000), page[-1].id)
    assert paged == whole


def test_everything_is_forgotten_with_everything_else(store: Kept) -> None:
    state = started(store, "e", wake_at=NOW)
    store.write(lambda tx: tx.save_durable_change(Change(state.execution, OPERATIONS, EVENTS), NOW))
    store.write(lambda tx: tx.save_durable_errand(Errand("e", "b"), NOW))
    store.write(lambda tx: tx.delete_everything())
    assert store.read(lambda r: r.durable_state("e")) is None
    assert store.read(lambda r: r.durable_totals()) == {}
    assert list(store.read(lambda r: r.due_durable_executions(NOW, 10))) == []
    assert list(store.read(lambda r: r.due_durable_errands(NOW, 10))) == []
    started(store, "e")
    assert [each.number for each in store.read(lambda r: r.durable_events("e", 0, 10))] == [1]
