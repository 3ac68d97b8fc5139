"""Durable executions under everything that can happen to them, in any order.

The machine plays the function's code, the clock, the service's scheduler and the people outside: it checkpoints legal and illegal batches, with
good, used and foreign tokens, repeats requests, completes callbacks, crashes, pauses, stops. The history is folded into a state of its own
by `fold`, which knows the events and not the rules; both must agree after every step.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lambstead.core.durable import lifecycle, triggers
from lambstead.core.durable.checkpoints import CheckpointRequest, check_token, checkpoint
from lambstead.core.durable.identifiers import checkpoint_token
from lambstead.core.durable.lifecycle import Backoff, Crashed, Gone, InvocationEnd, Lost, NotRun, Returned, Start
from lambstead.core.durable.model import (
    Action,
    ChainedInvoke,
    Change,
    DurableConfig,
    ErrorObject,
    Event,
    EventType,
    ExecutionStatus,
    Operation,
    OperationStatus,
    OperationType,
    State,
)
from lambstead.core.durable.updates import OperationUpdate, Target
from lambstead.core.errors import CallbackTimeout, InvalidParameterValue, ResourceConflict

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
TIMEOUT_S = 3600
BACKOFF = Backoff()
LONG = 8
"""Events after which an execution may end: before, there is more to see while it goes on."""
BOOM = ErrorObject("boom", "ValueError")


@dataclass(frozen=True, slots=True)
class Folded:
    """What the history says of one operation. A step that is due again has no event, so PENDING stands for READY too."""

    status: OperationStatus
    parent_id: str | None
    result: object = None
    error: object = None


_ENDS = {
    "Succeeded": OperationStatus.SUCCEEDED,
    "Failed": OperationStatus.FAILED,
    "Cancelled": OperationStatus.CANCELLED,
    "TimedOut": OperationStatus.TIMED_OUT,
    "Stopped": OperationStatus.STOPPED,
}


def fold(known: dict[str, Folded], event: Event) -> None:
    """Take one event into the account of all operations."""
    if event.operation_id is None or event.type.startswith("Execution"):
        return
    if event.type.endswith("Started"):
        known[event.operation_id] = Folded(OperationStatus.STARTED, event.parent_id)
        return
    status = next(status for ending, status in _ENDS.items() if event.type.endswith(ending))
    retry = event.details.get("RetryDetails")
    if isinstance(retry, dict) and "NextAttemptDelaySeconds" in retry:
        status = OperationStatus.PENDING
    result, error = event.details.get("Result"), event.details.get("Error")
    known[event.operation_id] = Folded(
        status,
        event.parent_id,
        result.get("Payload") if isinstance(result, dict) else None,
        (error.get("Payload") or None) if isinstance(error, dict) else None,
    )


def folded(operation: Operation) -> Folded:
    """An operation of the state as the history would tell it."""
    status = OperationStatus.PENDING if operation.status is OperationStatus.READY else operation.status
    error = None if operation.error is None else operation.error.document()
    if operation.status is OperationStatus.STARTED:
        return Folded(status, operation.parent_id)
    return Folded(status, operation.parent_id, operation.result, error)


class Durable(RuleBasedStateMachine):
    """One execution; see the module."""

    @initialize(sync=st.booleans())
    def begin(self, sync: bool) -> None:
        self.now = BEGINNING
        self.state, change = lifecycle.start(
            Start("execution-1", "name", "fn", "1", DurableConfig(TIMEOUT_S), "{}", is_synchronous=sync), self.now
        )
        self.history: list[Event] = []
        self.known: dict[str, Folded] = {}
        self.closed: dict[str, Operation] = {}
        self.fired: set[tuple[str, datetime]] = set()
        self.accepted: set[str] = set()
        self.invocations = 0
        self.made = 0
        self.last: CheckpointRequest | None = None
        self.seen: set[str] = set()
        self.take(change)

    # --- the account -------------------------------------------------------------------------------------------------------------

    def take(self, change: Change | None) -> None:
        """Apply a change and check what must hold of every change."""
        if change is None:
            return
        before = self.state
        after = change.applied_to(before)
        for event in change.events:
            self.history.append(event)
            assert event.number == len(self.history), "a hole in the history"
            assert event.at == self.now
            fold(self.known, event)
        for operation in change.operations:
            earlier = before.operations.get(operation.id)
            if earlier is not None:
                assert not earlier.status.is_closed or earlier == operation, "an operation left a final state"
                assert (earlier.type, earlier.sequence) == (operation.type, operation.sequence)
        self.state = after
        for operation_id, operation in after.operations.items():
            assert folded(operation) == self.known[operation_id]
        if before.execution.status.is_closed:
            assert change.events == ()
            assert after.execution.status in (before.execution.status, ExecutionStatus.DELETING)

    def note_timers(self, change: Change | None) -> None:
        """Each timer fires once: the same operation is never due twice for the same moment."""
        if change is None:
            return
        for operation in change.operations:
            earlier = self.state.operations.get(operation.id)
            if earlier is not None and earlier.due_at is not None and operation.due_at != earlier.due_at:
                moment = (operation.id, earlier.due_at)
                assert moment not in self.fired
                self.fired.add(moment)

    @invariant()
    def operations_start_in_order(self) -> None:
        sequences = [operation.sequence for operation in self.state.operations.values()]
        assert sequences == list(range(1, len(sequences) + 1))

    @invariant()
    def nothing_is_stuck(self) -> None:
        """Whatever is open has a moment at which the service looks at it again, and none of its timers is forgotten."""
        execution = self.state.execution
        at = triggers.wakes_at(self.state)
        if execution.status.is_closed:
            assert at is None
            assert execution.live is None
            return
        assert at is not None
        assert at <= triggers.deadline(execution)
        for operation in self.state.operations.values():
            assert operation.wakes_at is None or at <= operation.wakes_at
        unheard = execution.status is ExecutionStatus.RUNNING and execution.live is None and execution.unseen
        if unheard and execution.retry_at is None:
            assert at <= self.now
            assert triggers.wants_invocation(self.state, self.now)

    @property
    def live(self) -> bool:
        return self.state.execution.live is not None

    # --- clock and scheduler -------------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0, 1, 2, 30]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule()
    def the_scheduler_looks(self) -> None:
        """As the engine does: jump to the next moment, let fire what is due, invoke if that is wanted."""
        at = triggers.wakes_at(self.state)
        if at is None:
            assert triggers.fire_due(self.state, self.now) is None
            return
        self.now = max(self.now, at)
        change = triggers.fire_due(self.state, self.now)
        self.note_timers(change)
        self.take(change)
        assert triggers.fire_due(self.state, self.now) is None, "a timer fired twice"
        if triggers.wants_invocation(self.state, self.now):
            self.invocations += 1
            unseen = self.state.execution.unseen
            self.take(lifecycle.begin_invocation(self.state, f"request-{self.invocations}", self.now))
            assert self.state.execution.announced == unseen
            self.last = None

    # --- the function's code ----------------------------------------------------------------------------------------------------------

    def new_id(self) -> str:
        self.made += 1
        return f"op-{self.made}"

    def contexts(self) -> list[str | None]:
        return [None, *(each.id for each in self.state.operations.values() if each.type is OperationType.CONTEXT)]

    def is_running(self) -> bool:
        """True once the function runs: most of what can happen needs that, so it is not left to chance."""
        if not self.live:
            self.the_scheduler_looks()
        return self.live

    @rule(data=st.data())
    def checkpoints_new_operations(self, data: st.DataObject) -> None:
        if not self.is_running():
            return
        updates: list[OperationUpdate] = []
        for kind in data.draw(
            st.lists(st.sampled_from([each for each in OperationType if each != "EXECUTION"]), max_size=3)
        ):
            parent = data.draw(st.sampled_from(self.contexts()))
            updates += self.started(data, kind, self.new_id(), parent)
        self.checkpoint(updates)

    def started(
        self, data: st.DataObject, kind: OperationType, operation_id: str, parent: str | None
    ) -> Iterable[OperationUpdate]:
        start = OperationUpdate(operation_id, kind, Action.START, parent, name="n", sub_type="S")
        if kind is OperationType.WAIT:
            yield replace(start, wait_s=data.draw(st.integers(1, 60)))
        elif kind is OperationType.CALLBACK:
            timeouts = st.sampled_from([0, 1, 20])
            yield replace(start, timeout_s=data.draw(timeouts), heartbeat_timeout_s=data.draw(timeouts))
        elif kind is OperationType.CHAINED_INVOKE:
            yield replace(start, chained_function=data.draw(st.sampled_from(["there", "missing"])), payload="{}")
        else:
            yield start
            if data.draw(st.booleans()):
                yield self.ended(data, start)

    def ended(self, data: st.DataObject, update: OperationUpdate) -> OperationUpdate:
        actions = [Action.SUCCEED, Action.FAIL] + [Action.RETRY] * (update.type is OperationType.STEP)
        action = data.draw(st.sampled_from(actions))
        if action is Action.SUCCEED:
            return replace(update, action=action, payload="1")
        if action is Action.FAIL:
            return replace(update, action=action, error=BOOM)
        delay = data.draw(st.integers(1, 30))
        return replace(update, action=action, error=data.draw(st.sampled_from([None, BOOM])), retry_delay_s=delay)

    @rule(data=st.data(), action=st.sampled_from(Action))
    def checkpoints_known_operation(self, data: st.DataObject, action: Action) -> None:
        """Any action on any operation: the table says which are legal; refused ones change nothing."""
        if not (self.state.operations and self.is_running()):
            return
        everything = list(self.state.operations.values())
        unfinished = [each for each in everything if not each.status.is_closed]
        prefers_unfinished: bool = data.draw(st.booleans())
        choice = unfinished if unfinished and prefers_unfinished else everything
        operation = data.draw(st.sampled_from(choice))
        update = OperationUpdate(operation.id, operation.type, action, operation.parent_id, wait_s=5)
        if action is Action.RETRY:
            update = replace(update, retry_delay_s=2)
        self.checkpoint([update], may_be_refused=True)

    @precondition(lambda self: self.live and self.state.operations)
    @rule(data=st.data())
    def checkpoints_nonsense(self, data: st.DataObject) -> None:
        operation = data.draw(st.sampled_from(list(self.state.operations.values())))
        good = OperationUpdate(self.new_id(), OperationType.STEP, Action.START)
        other = next(kind for kind in OperationType if kind not in (operation.type, OperationType.EXECUTION))
        bad = data.draw(
            st.sampled_from(
                [
                    OperationUpdate(operation.id, other, Action.START),
                    OperationUpdate(operation.id, operation.type, Action.START, operation.parent_id, name="other"),
                    OperationUpdate(operation.id, operation.type, Action.START, "nowhere"),
                    OperationUpdate(self.new_id(), OperationType.STEP, Action.START, "nowhere"),
                    OperationUpdate(self.new_id(), OperationType.WAIT, Action.START),
                    OperationUpdate(self.new_id(), OperationType.EXECUTION, Action.START),
                    good,
                ]
            )
        )
        before = self.state
        with pytest.raises(InvalidParameterValue):
            checkpoint(before, self.request([good, bad]), {}, self.now)
        assert self.state is before

    @precondition(lambda self: self.live and len(self.history) > LONG)
    @rule(success=st.booleans())
    def checkpoints_its_end(self, success: bool) -> None:
        action = Action.SUCCEED if success else Action.FAIL
        self.checkpoint([OperationUpdate("execution-result-1", OperationType.EXECUTION, action)], is_final=True)

    def request(self, updates: Iterable[OperationUpdate]) -> CheckpointRequest:
        return CheckpointRequest(checkpoint_token(self.state.execution), f"client-{len(self.accepted)}", tuple(updates))

    def checkpoint(
        self, updates: Iterable[OperationUpdate], *, may_be_refused: bool = False, is_final: bool = False
    ) -> None:
        request = self.request(updates)
        targets: dict[str, Target] = {
            update.id: ChainedInvoke("there", "there", "1", is_durable=False, payload="{}")
            if update.chained_function == "there"
            else ErrorObject("Function not found: missing.", "ResourceNotFoundException")
            for update in request.updates
            if update.type is OperationType.CHAINED_INVOKE
        }
        execution = self.state.execution
        assert execution.live is not None
        if execution.live.is_revoked:
            with pytest.raises(InvalidParameterValue, match=r"^Invalid checkpoint token"):
                checkpoint(self.state, request, targets, self.now)
            return
        try:
            done = checkpoint(self.state, request, targets, self.now)
        except InvalidParameterValue:
            if not may_be_refused:
                raise
            return
        assert request.token not in self.accepted, "a token was accepted twice"
        self.accepted.add(request.token)
        self.note_timers(done.change)
        pausing = execution.status is ExecutionStatus.PAUSING
        self.take(done.change)
        assert (done.token is None) == (pausing or is_final)
        if done.token is not None:
            check_token(self.state, done.token)
            assert {each.id for each in done.delta} >= {each.id for each in request.updates}
            assert self.state.execution.unseen == ()
            self.last = request
        else:
            self.last = None

    @precondition(lambda self: self.last is not None)
    @rule()
    def repeats_its_request(self) -> None:
        """A client that lost the answer gets the same one again, and nothing happens twice."""
        assert self.last is not None
        answered = self.state.execution.answered
        if answered is None or self.now - answered.at > timedelta(minutes=15):
            with pytest.raises(InvalidParameterValue, match=r"^Invalid checkpoint token"):
                checkpoint(self.state, self.last, {}, self.now)
            return
        again = checkpoint(self.state, self.last, {}, self.now)
        assert again.change is None
        assert again.token == checkpoint_token(self.state.execution)

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def uses_an_old_token(self, data: st.DataObject) -> None:
        token = data.draw(st.sampled_from([*sorted(self.accepted), "Zm9yZWlnbg==", "bm90aGluZ3wxfDE="]))
        for client_token in (None, "fresh"):
            with pytest.raises(InvalidParameterValue, match=r"^Invalid checkpoint token"):
                checkpoint(self.state, CheckpointRequest(token, client_token, ()), {}, self.now)

    @precondition(lambda self: self.live)
    @rule(
        end=st.sampled_from(
            [
                Returned(b'{"Status":"PENDING"}'),
                Crashed(ErrorObject("exit status 1", "Runtime.ExitError")),
                Lost(ErrorObject("The server ended.", "ServiceException")),
                NotRun("throttled"),
            ]
        )
    )
    def the_invocation_ends_for_now(self, end: InvocationEnd) -> None:
        self.invocation_ends(end)

    @precondition(lambda self: self.live and len(self.history) > LONG)
    @rule(
        end=st.sampled_from(
            [
                Returned(b'{"Status":"SUCCEEDED","Result":"7"}'),
                Returned(b'{"Status":"FAILED","Error":{"ErrorType":"E"}}'),
                Returned(b'{"Status":"FAILED","Result":"7"}'),
                Returned(b"no JSON"),
                Gone("Function not found"),
            ]
        )
    )
    def the_invocation_ends_for_good(self, end: InvocationEnd) -> None:
        self.invocation_ends(end)
        assert self.state.execution.status.is_closed

    def invocation_ends(self, end: InvocationEnd) -> None:
        live = self.state.execution.live
        assert live is not None
        assert lifecycle.invocation_ended(self.state, "another", end, BACKOFF, self.now) is None
        recorded = len(self.history)
        self.take(lifecycle.invocation_ended(self.state, live.request_id, end, BACKOFF, self.now))
        assert not self.live
        completed = [each for each in self.history[recorded:] if each.type is EventType.INVOCATION_COMPLETED]
        assert len(completed) == (0 if isinstance(end, NotRun | Gone) else 1)
        if self.state.execution.status.is_closed and completed:
            assert self.history[-2].type is EventType.INVOCATION_COMPLETED
        self.last = None

    # --- from outside -----------------------------------------------------------------------------------------------------------------

    @rule(data=st.data(), what=st.sampled_from(["succeed", "fail", "heartbeat"]))
    def somebody_answers_a_callback(self, data: st.DataObject, what: str) -> None:
        operation_id = data.draw(st.sampled_from(["absent", *self.state.operations]))
        operation = self.state.operations.get(operation_id)
        is_open = (
            operation is not None
            and operation.type is OperationType.CALLBACK
            and not operation.status.is_closed
            and not self.state.execution.status.is_closed
            and (operation.wakes_at is None or operation.wakes_at > self.now)
        )
        try:
            if what == "succeed":
                self.take(triggers.callback_succeeded(self.state, operation_id, "{}", self.now))
            elif what == "fail":
                self.take(triggers.callback_failed(self.state, operation_id, BOOM, self.now))
            else:
                self.take(triggers.callback_heartbeat(self.state, operation_id, self.now))
        except CallbackTimeout:
            assert not is_open
        else:
            assert is_open

    @rule(data=st.data(), status=st.sampled_from(["SUCCEEDED", "FAILED", "TIMED_OUT", "STOPPED"]))
    def a_chained_invocation_ends(self, data: st.DataObject, status: str) -> None:
        chained = [each.id for each in self.state.operations.values() if each.type is OperationType.CHAINED_INVOKE]
        if chained:
            end = triggers.ChainedEnd(OperationStatus(status), "1" if status == "SUCCEEDED" else None)
            self.take(triggers.chained_ended(self.state, data.draw(st.sampled_from(chained)), end, self.now))

    @rule(stops_timeout=st.booleans())
    def somebody_pauses(self, stops_timeout: bool) -> None:
        running = self.state.execution.status is ExecutionStatus.RUNNING
        try:
            self.take(
                lifecycle.pause(self.state, reason="r", stops_timeout=stops_timeout, client_token=None, now=self.now)
            )
        except ResourceConflict:
            assert not running
        else:
            assert running

    @rule()
    def somebody_resumes(self) -> None:
        held = self.state.execution.status in (ExecutionStatus.PAUSED, ExecutionStatus.PAUSING)
        try:
            self.take(lifecycle.resume(self.state, reason=None, client_token=None, now=self.now))
        except ResourceConflict:
            assert not held
        else:
            assert held

    @precondition(lambda self: len(self.history) > LONG)
    @rule()
    def somebody_stops_it(self) -> None:
        ended_at = self.state.execution.ended_at
        at, change = lifecycle.stop(self.state, BOOM, self.now)
        assert at == (ended_at or self.now)
        self.take(change)

    @rule()
    def somebody_deletes_it(self) -> None:
        closed = self.state.execution.status.is_closed
        try:
            self.take(lifecycle.delete(self.state))
        except ResourceConflict:
            assert not closed
        else:
            assert closed


DurableTest = Durable.TestCase
DurableTest.settings = settings(settings.get_profile("commit"), max_examples=300, stateful_step_count=80)


def test_a_state_is_not_touched_by_the_rules() -> None:
    state, _ = lifecycle.start(Start("e", "n", "f", "1", DurableConfig(60), "{}"), BEGINNING)
    live: State = lifecycle.begin_invocation(state, "r", BEGINNING).applied_to(state)
    update = OperationUpdate("a", OperationType.STEP, Action.START)
    checkpoint(live, CheckpointRequest(checkpoint_token(live.execution), None, [update]), {}, BEGINNING)
    assert live.operations == {}
    assert live.execution.last_event == 1
