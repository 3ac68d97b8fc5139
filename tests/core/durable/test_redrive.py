"""Redrive as a rule: which operations are opened again, and that an execution can be redriven at any end of it."""

from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import settings
from hypothesis.stateful import precondition, rule
from tests.core.durable.runs import Run
from tests.core.durable.test_durable_machine import Durable, Folded

from lambstead.core.durable import lifecycle, triggers
from lambstead.core.durable.lifecycle import Returned
from lambstead.core.durable.model import (
    MAX_EXECUTION,
    ChainedInvoke,
    Change,
    ExecutionStatus,
    OperationStatus,
    OperationType,
)
from lambstead.core.durable.redrive import redrive
from lambstead.core.errors import ResourceConflict, ResourceNotFound

FAILED = Returned(b'{"Status":"FAILED","Error":{"ErrorMessage":"as asked"}}')
ERROR = {"ErrorMessage": "boom"}


def step(operation_id: str, action: str, parent: str | None = None, **members: object) -> dict[str, object]:
    found: dict[str, object] = {"Id": operation_id, "Type": "STEP", "Action": action, "Name": operation_id, **members}
    return found if parent is None else {**found, "ParentId": parent}


def context(operation_id: str, action: str, sub_type: str, parent: str | None = None) -> dict[str, object]:
    return {**step(operation_id, action, parent), "Type": "CONTEXT", "SubType": sub_type}


def fails(operation_id: str, parent: str | None = None) -> list[dict[str, object]]:
    return [step(operation_id, "START", parent), step(operation_id, "FAIL", parent, Error=ERROR)]


def works(operation_id: str, parent: str | None = None) -> list[dict[str, object]]:
    return [step(operation_id, "START", parent), step(operation_id, "SUCCEED", parent, Payload="1")]


def failed_after(*batches: Sequence[dict[str, object]]) -> Run:
    """An execution that made these checkpoints, a second apart, and failed."""
    run = Run().invoked()
    for batch in batches:
        run.checkpointed(*batch)
        run.now += timedelta(seconds=1)
    run.ended(FAILED)
    assert run.status() == "FAILED"
    return run


def reopened(run: Run, *origins: str) -> list[str]:
    done = redrive(run.state, origins, run.now)
    run.take(done.change)
    assert run.status() == "RUNNING"
    assert run.events[-1].type == "ExecutionResumed"
    assert triggers.wants_invocation(run.state, run.now)
    run.invoked()
    return [each.id for each in done.reopened]


def status(run: Run, operation_id: str) -> str:
    return run.state.operations[operation_id].status


def test_the_failed_step_is_ready_again_with_its_attempts_counted_anew() -> None:
    run = failed_after(works("a"), [*fails("b")])
    assert reopened(run) == ["b"]
    again = run.state.operations["b"]
    assert (again.status, again.attempt, again.error, again.ended_at) == ("READY", 0, None, None)
    assert status(run, "a") == "SUCCEEDED"
    run.checkpointed(step("b", "START"), step("b", "SUCCEED", Payload="2"))
    run.ended(Returned(b'{"Status":"SUCCEEDED","Result":"3"}'))
    assert run.status() == "SUCCEEDED"
    assert run.state.execution.error is None


def test_a_failure_that_the_code_dealt_with_stays() -> None:
    run = failed_after(fails("a"), works("b"), fails("c"))
    assert reopened(run) == ["c"]
    assert status(run, "a") == "FAILED"


def test_contexts_around_a_failure_are_opened_with_it() -> None:
    run = failed_after(
        [context("outer", "START", "RunInChildContext"), *works("a", "outer")],
        fails("b", "outer"),
        [context("outer", "FAIL", "RunInChildContext")],
    )
    assert reopened(run) == ["b"]
    assert status(run, "outer") == "STARTED"


@pytest.mark.parametrize("end", ["SUCCEED", "FAIL"])
def test_every_failed_branch_is_opened(end: str) -> None:
    run = failed_after(
        [context("both", "START", "Parallel"), context("one", "START", "ParallelBranch", "both")],
        [*fails("a", "one"), context("one", "FAIL", "ParallelBranch", "both")],
        [context("two", "START", "ParallelBranch", "both"), *works("b", "two")],
        [context("two", "SUCCEED", "ParallelBranch", "both"), context("three", "START", "ParallelBranch", "both")],
        [*fails("c", "three"), context("three", "FAIL", "ParallelBranch", "both"), context("both", end, "Parallel")],
    )
    assert sorted(reopened(run)) == ["a", "c"]
    assert [status(run, each) for each in ("both", "one", "two", "three")] == [
        "STARTED",
        "STARTED",
        "SUCCEEDED",
        "STARTED",
    ]


def test_a_context_whose_code_raised_runs_again() -> None:
    run = failed_after(
        [context("c", "START", "RunInChildContext"), *works("a", "c")], [context("c", "FAIL", "RunInChildContext")]
    )
    assert reopened(run) == ["c"]


def test_a_callback_keeps_its_id_and_has_its_whole_time_again() -> None:
    run = Run().invoked()
    options = {"CallbackOptions": {"TimeoutSeconds": 10}}
    run.checkpointed({"Id": "cb", "Type": "CALLBACK", "Action": "START", "Name": "approval", **options})
    callback_id = run.state.operations["cb"].callback_id
    run.ended()
    run.later(10)
    run.invoked().ended(FAILED)
    run.now += timedelta(days=1)
    assert reopened(run, "approval") == ["cb"]
    again = run.state.operations["cb"]
    assert again.callback_id == callback_id
    assert again.due_at == run.now + timedelta(seconds=10)
    run.take(triggers.callback_succeeded(run.state, "cb", "yes", run.now))
    assert status(run, "cb") == "SUCCEEDED"


def test_an_execution_that_failed_outside_of_operations_runs_again_with_its_whole_timeout() -> None:
    run = failed_after(works("a"))
    run.now += timedelta(hours=5)
    assert reopened(run) == []
    assert run.state.execution.timeout_at == run.now + timedelta(hours=1)


def test_a_stopped_execution_goes_on_with_what_was_open() -> None:
    run = Run().invoked()
    run.checkpointed({"Id": "w", "Type": "WAIT", "Action": "START", "WaitOptions": {"WaitSeconds": 60}}, *fails("x"))
    run.ended()
    _, change = lifecycle.stop(run.state, None, run.now)
    run.take(change)
    run.now += timedelta(seconds=90)
    assert reopened(run) == []
    assert status(run, "w") == "SUCCEEDED", "it was due by now"
    assert status(run, "x") == "FAILED"


def test_a_chained_invocation_is_to_be_run_again() -> None:
    run = Run().invoked()
    start = {
        "Id": "c",
        "Type": "CHAINED_INVOKE",
        "Action": "START",
        "ChainedInvokeOptions": {"FunctionName": "f"},
    }
    run.checkpointed(start, targets={"c": ChainedInvoke("f", "f", "1", is_durable=False, payload="{}")})
    run.ended()
    run.take(triggers.chained_ended(run.state, "c", triggers.ChainedEnd(OperationStatus.FAILED), run.now))
    run.invoked().ended(FAILED)
    done = redrive(run.state, (), run.now)
    assert [each.id for each in done.chained] == ["c"]
    assert done.chained[0].status is OperationStatus.STARTED


@pytest.mark.parametrize(
    ("origin", "error", "words"),
    [
        ("nosuch", ResourceNotFound, "no operation"),
        ("a", ResourceConflict, "fork"),
        ("handled", ResourceConflict, "went on after it failed"),
    ],
)
def test_what_cannot_be_undone_is_refused(origin: str, error: type[Exception], words: str) -> None:
    run = failed_after(works("a"), fails("handled"), fails("b"))
    with pytest.raises(error, match=words):
        redrive(run.state, [origin], run.now)


def test_only_executions_that_ended_badly_are_redriven() -> None:
    run = Run().invoked()
    with pytest.raises(ResourceConflict, match="RUNNING"):
        redrive(run.state, (), run.now)
    run.ended(Returned(b'{"Status":"SUCCEEDED"}'))
    with pytest.raises(ResourceConflict, match="SUCCEEDED"):
        redrive(run.state, (), run.now)
    old = failed_after(fails("a"))
    with pytest.raises(ResourceConflict, match="366 days"):
        redrive(old.state, (), old.now + timedelta(days=367))


class Redriven(Durable):
    """Everything that can happen to an execution, and redrives of it."""

    @precondition(lambda self: self.state.execution.status.is_closed)
    @rule()
    def somebody_redrives_it(self) -> None:
        before = self.state
        try:
            done = redrive(before, (), self.now)
        except ResourceConflict:
            bad = (ExecutionStatus.FAILED, ExecutionStatus.TIMED_OUT, ExecutionStatus.STOPPED)
            lost = any(
                each.type is OperationType.CHAINED_INVOKE and each.chained is None
                for each in before.operations.values()
            )
            too_old = self.now >= before.execution.started_at + MAX_EXECUTION
            assert before.execution.status not in bad or lost or too_old
            return
        after = done.change.applied_to(before)
        for each in after.operations.values():
            earlier = before.operations[each.id]
            assert not (earlier.status is OperationStatus.SUCCEEDED and each.type is not OperationType.CONTEXT) or (
                earlier == each
            ), "what succeeded is kept"
            if not each.status.is_closed:
                assert each.result is None or each.status is OperationStatus.PENDING or earlier == each
                self.reopen(before.operations[each.id].id, done.change, earlier.status is not each.status)
        for event in done.change.events:
            self.history.append(event)
            assert event.number == len(self.history)
        self.state = after
        self.last = None

    def reopen(self, operation_id: str, change: Change, changed: bool) -> None:
        """A history does not tell which operations a redrive opened but by its reason: take it from the change."""
        if changed:
            status = next(each.status for each in change.operations if each.id == operation_id)
            known = OperationStatus.PENDING if status is OperationStatus.READY else status
            self.known[operation_id] = Folded(known, self.known[operation_id].parent_id)
            self.closed.pop(operation_id, None)
            self.fired = {each for each in self.fired if each[0] != operation_id}


RedrivenTest = Redriven.TestCase
RedrivenTest.settings = settings(settings.get_profile("commit"), max_examples=200, stateful_step_count=80)
