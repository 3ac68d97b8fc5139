"""Replay checks as a rule: what differs from the log is told, and what cannot be compared is not."""

from datetime import timedelta
from typing import Any

import pytest
from tests.core.durable.runs import Run
from tests.core.durable.test_redrive import context, fails, step, works

from lambstead.core.durable import lifecycle
from lambstead.core.durable.lifecycle import Returned
from lambstead.core.durable.model import State
from lambstead.core.durable.replay_check import Finding, Verdict, compare, compare_end, shadow_of, why_not
from lambstead.core.durable.updates import OperationUpdate

DONE = Returned(b'{"Status":"SUCCEEDED","Result":"{\\"n\\": 1}"}')


def recorded(*batches: list[dict[str, object]], end: Returned | None = DONE) -> Run:
    run = Run().invoked()
    for batch in batches:
        run.checkpointed(*batch)
        run.now += timedelta(seconds=1)
    if end is not None:
        run.ended(end)
    return run


def shadowed(run: Run) -> State:
    return shadow_of(run.state, "replay-check-1", "2", "r", run.now)


def checked(run: Run, *updates: dict[str, object]) -> Finding | None:
    return compare(run.state, shadowed(run), [OperationUpdate.of(each) for each in updates], run.now).finding


def ended(run: Run, output: bytes) -> Finding:
    return compare_end(run.state, shadowed(run), output)


CONTEXT = [
    [context("c", "START", "RunInChildContext"), *works("a", "c")],
    [{**context("c", "SUCCEED", "RunInChildContext"), "Payload": '{"x": 1}'}],
]


def test_contexts_that_ended_are_open_so_that_their_code_is_checked_too() -> None:
    run = recorded(*CONTEXT)
    shadow = shadowed(run)
    assert shadow.operations["c"].status == "STARTED"
    same = OperationUpdate.of({**context("c", "SUCCEED", "RunInChildContext"), "Payload": '{"x":1}'})
    compared = compare(run.state, shadow, [same], run.now)
    assert (compared.finding, compared.is_revoked) == (None, False)
    assert [(each.id, each.status) for each in compared.delta] == [("c", "SUCCEEDED")]
    assert compared.state.execution.live is not None
    assert compared.state.execution.live.sequence == 1


@pytest.mark.parametrize(
    ("update", "words"),
    [
        (step("new", "START"), "STEP new, which is not in the log"),
        ({**step("c", "START"), "Type": "WAIT"}, "type was CONTEXT and is WAIT"),
        (context("c", "SUCCEED", "Parallel"), "sub-type was RunInChildContext and is Parallel"),
        ({**context("c", "SUCCEED", "RunInChildContext"), "Name": "other"}, "name was c and is other"),
        (context("c", "SUCCEED", "RunInChildContext", "a"), "parent was none and is a"),
        ({**context("c", "SUCCEED", "RunInChildContext"), "Payload": "2"}, 'result was {"x": 1} and is 2'),
        (context("c", "FAIL", "RunInChildContext"), "was SUCCEEDED and fails"),
        (step("a", "SUCCEED", "c"), "was SUCCEEDED, and SUCCEED of it is checkpointed"),
    ],
)
def test_a_checkpoint_that_is_not_as_recorded_is_told(update: dict[str, object], words: str) -> None:
    finding = checked(recorded(*CONTEXT), update)
    assert finding is not None
    assert finding.verdict is Verdict.DIVERGED
    assert words in finding.because


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (b'{"Status":"SUCCEEDED","Result":"{\\"n\\":1}"}', None),
        (b'{"Status":"SUCCEEDED","Result":"2"}', 'result was {"n": 1} and is 2'),
        (b'{"Status":"FAILED","Error":{"ErrorType":"E"}}', "ended SUCCEEDED, and ends FAILED"),
        (b'{"Status":"PENDING"}', "ended SUCCEEDED, and waits"),
        (b"nonsense", "Invalid Status"),
    ],
)
def test_ends_are_compared(output: bytes, words: str | None) -> None:
    finding = ended(recorded(works("a")), output)
    assert finding.verdict is (Verdict.SAME if words is None else Verdict.DIVERGED)
    assert (words or "") in finding.because


def test_errors_are_compared_without_their_stack_traces() -> None:
    failed = Returned(b'{"Status":"FAILED","Error":{"ErrorType":"E","ErrorMessage":"m","StackTrace":["1"]}}')
    run = recorded(fails("a"), end=failed)
    assert ended(run, b'{"Status":"FAILED","Error":{"ErrorType":"E","ErrorMessage":"m"}}').verdict is Verdict.SAME
    assert ended(run, b'{"Status":"FAILED","Error":{"ErrorType":"E","ErrorMessage":"x"}}').verdict is Verdict.DIVERGED


def waiting() -> Run:
    wait: dict[str, Any] = {"Id": "w", "Type": "WAIT", "Action": "START", "WaitOptions": {"WaitSeconds": 60}}
    return recorded(works("a"), [wait], end=Returned(b'{"Status":"PENDING"}'))


def test_an_execution_that_waits_is_to_wait_there_again() -> None:
    run = waiting()
    assert ended(run, b'{"Status":"PENDING"}').verdict is Verdict.SAME
    assert "ends SUCCEEDED now" in ended(run, b'{"Status":"SUCCEEDED"}').because
    finding = checked(run, step("b", "START"))
    assert finding is not None


def test_what_follows_the_end_of_a_log_that_broke_off_is_no_divergence() -> None:
    run = recorded(works("a"), end=None)
    _, change = lifecycle.stop(run.state, None, run.now)
    run.take(change)
    update = OperationUpdate.of(step("b", "START"))
    compared = compare(run.state, shadowed(run), [update], run.now)
    assert (compared.finding, compared.is_revoked) == (None, True)


def test_a_step_without_a_result_is_not_run() -> None:
    run = recorded(works("a"), [step("b", "START")], end=Returned(b'{"Status":"PENDING"}'))
    shown = shadowed(run).operations["b"]
    assert shown.status == "PENDING"
    assert shown.due_at is not None
    assert shown.due_at > run.now + timedelta(days=200)


def test_what_cannot_be_compared_is_left_out() -> None:
    live = recorded(works("a"), end=None)
    assert why_not(live.state.execution) == "Its function runs now."
    invalid = recorded(works("a"), end=Returned(b"{}"))
    assert "The service ended it" in (why_not(invalid.state.execution) or "")
    assert why_not(waiting().state.execution) is None
