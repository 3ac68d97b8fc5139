"""Forks as a rule: what is copied of any execution is consistent in itself, and the source stays as it is."""

from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from tests.core.durable.runs import Run
from tests.core.durable.test_durable_machine import Durable, Folded, fold, folded
from tests.core.durable.test_redrive import context, failed_after, fails, step, works

from lambstead.core.durable import lifecycle, triggers
from lambstead.core.durable.fork import fork
from lambstead.core.durable.lifecycle import Start
from lambstead.core.durable.model import DurableConfig, OperationStatus, OperationType, State
from lambstead.core.errors import ResourceConflict, ResourceNotFound


def order(version: str = "2") -> Start:
    return Start("fork-1", "again", "fn", version, DurableConfig(60), '{"new": true}')


def forked(run: Run, up_to: str | None = None) -> dict[str, str]:
    state, _ = fork(run.state, run.events, order(), up_to, run.now + timedelta(days=1))
    return {name: each.status for name, each in state.operations.items()}


def test_a_failed_execution_is_forked_without_what_made_it_fail() -> None:
    run = failed_after(works("a"), fails("handled"), works("b"), fails("c"))
    assert forked(run) == {"a": "SUCCEEDED", "handled": "FAILED", "b": "SUCCEEDED"}


def test_nothing_after_the_chosen_operation_is_copied() -> None:
    run = failed_after(works("a"), works("b"), works("c"), fails("d"))
    assert forked(run, "b") == {"a": "SUCCEEDED", "b": "SUCCEEDED"}


def test_contexts_around_the_chosen_operation_are_open() -> None:
    run = failed_after(
        [context("x", "START", "RunInChildContext"), *works("a", "x")],
        [context("x", "SUCCEED", "RunInChildContext")],
        [context("y", "START", "RunInChildContext"), *works("b", "y")],
        works("c", "y"),
        [context("y", "SUCCEED", "RunInChildContext")],
    )
    assert forked(run, "b") == {"x": "SUCCEEDED", "a": "SUCCEEDED", "y": "STARTED", "b": "SUCCEEDED"}
    assert forked(run, "y") == dict.fromkeys("xaybc", "SUCCEEDED")


def test_the_history_of_a_fork_begins_with_its_own_start() -> None:
    run = failed_after(works("a"), works("b"))
    now = run.now + timedelta(days=1)
    state, change = fork(run.state, run.events, order(), "a", now)
    assert [each.type for each in change.events] == ["ExecutionStarted", "StepStarted", "StepSucceeded"]
    assert change.events[0].details["Input"] == {"Payload": '{"new": true}', "Truncated": False}
    assert {each.at for each in change.events} == {now}
    assert (state.input_payload, state.execution.operations, state.execution.version) == ('{"new": true}', 2, "2")
    assert triggers.wants_invocation(state, now)


@pytest.mark.parametrize(("up_to", "error"), [("nosuch", ResourceNotFound), ("open", ResourceConflict)])
def test_a_fork_needs_an_operation_that_ended(up_to: str, error: type[Exception]) -> None:
    run = Run().invoked()
    run.checkpointed(*works("a"), step("open", "START"))
    with pytest.raises(error):
        forked(run, up_to)


class Forked(Durable):
    """Everything that can happen to an execution, and forks of it at any moment."""

    @precondition(lambda self: self.state.operations)
    @rule(data=st.data())
    def somebody_forks_it(self, data: st.DataObject) -> None:
        source = self.state
        closed: Sequence[str] = [name for name, each in source.operations.items() if each.status.is_closed]
        up_to = data.draw(st.sampled_from([None, *closed]))
        state, change = fork(source, self.history, order(), up_to, self.now)
        assert self.state is source
        known: dict[str, Folded] = {}
        for number, event in enumerate(change.events, 1):
            assert event.number == number
            fold(known, event)
        assert state.execution.last_event == len(change.events)
        self.is_whole(source, state, known)
        begun = lifecycle.begin_invocation(state, "r", self.now).applied_to(state)
        assert begun.execution.live is not None, "its code runs at once"

    def is_whole(self, source: State, state: State, known: dict[str, Folded]) -> None:
        assert [each.sequence for each in state.operations.values()] == list(range(1, len(state.operations) + 1))
        for name, each in state.operations.items():
            was = source.operations[name]
            assert each.parent_id is None or each.parent_id in state.operations, "an operation without its context"
            if each.type is OperationType.CONTEXT and each.status is OperationStatus.STARTED:
                assert known[name] == Folded(OperationStatus.STARTED, each.parent_id)
                continue
            assert each.status.is_closed
            assert (each.status, each.result, each.error) == (was.status, was.result, was.error)
            assert folded(each) == known[name]
            if each.type is OperationType.CONTEXT:
                inside = [one.id for one in source.operations.values() if one.parent_id == name]
                assert all(one in state.operations for one in inside), "a closed context without what is in it"
        assert known.keys() == state.operations.keys()


ForkedTest = Forked.TestCase
ForkedTest.settings = settings(settings.get_profile("commit"), max_examples=200, stateful_step_count=60)
