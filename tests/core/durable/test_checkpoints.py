"""What a checkpoint may say, in AWS's words, and what it leaves behind. Messages: durable reference §5.3 and §6."""

import json

import pytest
from tests.core.durable.runs import Run

from lambstead.core.durable.model import (
    MAX_OPERATIONS,
    MAX_PAYLOAD_BYTES,
    ChainedInvoke,
    Document,
    ErrorObject,
    ExecutionStatus,
    OperationStatus,
)
from lambstead.core.errors import InvalidParameterValue

STEP: Document = {"Id": "s", "Type": "STEP", "Action": "START", "Name": "greet", "SubType": "Step"}
CONTEXT: Document = {"Id": "c", "Type": "CONTEXT", "Action": "START"}
WAIT: Document = {"Id": "w", "Type": "WAIT", "Action": "START", "WaitOptions": {"WaitSeconds": 2}}
CALLBACK: Document = {"Id": "b", "Type": "CALLBACK", "Action": "START", "CallbackOptions": {"TimeoutSeconds": 60}}
CHAINED: Document = {
    "Id": "i",
    "Type": "CHAINED_INVOKE",
    "Action": "START",
    "Payload": "{}",
    "ChainedInvokeOptions": {"FunctionName": "fn:1"},
}
SUCCEED: Document = {"Action": "SUCCEED", "Payload": '"hi"'}
FAIL: Document = {"Action": "FAIL", "Error": {"ErrorType": "E"}}
RETRY: Document = {"Action": "RETRY", "StepOptions": {"NextAttemptDelaySeconds": 3}}
TARGETS = {"i": ChainedInvoke("fn:1", "fn", "1", is_durable=False, payload="{}")}
HUGE = "x" * (MAX_PAYLOAD_BYTES + 1)


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        ([{"Id": "e", "Type": "EXECUTION", **SUCCEED}] * 2, "Cannot checkpoint multiple EXECUTION updates."),
        ([{"Id": "e", "Type": "EXECUTION", **SUCCEED}, STEP], "EXECUTION checkpoint must be the last update."),
        ([{**STEP, **SUCCEED}, STEP], "Cannot checkpoint multiple operations with the same ID."),
        ([WAIT, {**WAIT, "Action": "CANCEL"}], "Cannot checkpoint multiple operations with the same ID."),
        ([{**STEP, "ParentId": "nobody"}], "Invalid parent operation id."),
        ([STEP, {**WAIT, "ParentId": "s"}], "Invalid parent operation id."),
        ([{**STEP, "Action": "CANCEL"}], "Invalid action for the given operation type."),
        ([{**CONTEXT, **RETRY}], "Invalid action for the given operation type."),
        ([{**CALLBACK, **SUCCEED}], "Invalid action for the given operation type."),
        ([{**CHAINED, "Action": "CANCEL"}], "Invalid action for the given operation type."),
        ([{"Id": "e", "Type": "EXECUTION", "Action": "START"}], "Invalid action for the given operation type."),
        ([{**STEP, **FAIL, "Payload": "1"}], "Cannot provide a Payload for FAIL action."),
        ([{**STEP, **SUCCEED, "Error": {}}], "Cannot provide an Error for SUCCEED action."),
        ([{**STEP, "Action": "RETRY"}], "Invalid StepOptions for the given action."),
        ([{**STEP, **RETRY, "Payload": "1", "Error": {}}], "Cannot provide both error and payload to RETRY a STEP."),
        ([{"Id": "w", "Type": "WAIT", "Action": "START"}], "Update for WAIT operation requires WaitOptions."),
        (
            [{**WAIT, "Action": "CANCEL"}],
            "Cannot cancel a WAIT that does not exist or has already completed.",
        ),
        (
            [{"Id": "i", "Type": "CHAINED_INVOKE", "Action": "START"}],
            "Update for CHAINED_INVOKE operation requires ChainedInvokeOptions.",
        ),
        ([{**STEP, **SUCCEED, "Payload": HUGE}], "STEP payload size must be less than or equal to 1048576 bytes."),
        (
            [{**CHAINED, "Payload": HUGE}],
            "CHAINED_INVOKE input payload size must be less than or equal to 1048576 bytes.",
        ),
        (
            [{"Id": "e", "Type": "EXECUTION", **SUCCEED, "Payload": HUGE}],
            "Execution output payload size must be less than or equal to 1048576 bytes.",
        ),
        (
            [{**STEP, **FAIL, "Error": {"ErrorData": HUGE}}],
            "Error object size must be less than or equal to 1048576 bytes.",
        ),
    ],
)
def test_a_batch_is_refused_whole(updates: list[Document], message: str) -> None:
    run = Run().invoked()
    before = run.state
    with pytest.raises(InvalidParameterValue) as refused:
        run.checkpointed({"Id": "first", "Type": "STEP", "Action": "START"}, *updates, targets=TARGETS)
    assert refused.value.message == message
    assert run.state is before


@pytest.mark.parametrize(
    ("made", "again", "message"),
    [
        ([STEP], {**STEP, "Type": "WAIT", "WaitOptions": {"WaitSeconds": 1}}, "Inconsistent operation type."),
        ([STEP], {**STEP, **SUCCEED, "SubType": "Other"}, "Inconsistent operation subtype."),
        ([STEP], {**STEP, **SUCCEED, "Name": "other"}, "Inconsistent operation name."),
        ([CONTEXT, STEP], {**STEP, **SUCCEED, "ParentId": "c"}, "Inconsistent parent operation id."),
        ([STEP], STEP, "Invalid current STEP state to start."),
        ([{**STEP, **RETRY}], {**STEP, **SUCCEED}, "Invalid current STEP state to close."),
        ([{**STEP, **RETRY}], {**STEP, **RETRY}, "Invalid current STEP state to re-attempt."),
        ([{**STEP, **SUCCEED}], {**STEP, **FAIL}, "Invalid current STEP state to close."),
        ([CONTEXT], CONTEXT, "Cannot start a CONTEXT that already exists."),
        ([{**CONTEXT, **SUCCEED}], {**CONTEXT, **FAIL}, "Invalid current CONTEXT state to close."),
        ([WAIT], WAIT, "Cannot start a WAIT that already exist."),
        ([CALLBACK], CALLBACK, "Cannot start a CALLBACK that already exists."),
        ([CHAINED], CHAINED, "Cannot start a CHAINED_INVOKE operation that already exists."),
    ],
)
def test_an_operation_does_not_change_against_its_table(made: list[Document], again: Document, message: str) -> None:
    run = Run().invoked()
    run.checkpointed(*made, targets=TARGETS)
    with pytest.raises(InvalidParameterValue) as refused:
        run.checkpointed(again, targets=TARGETS)
    assert refused.value.message == message


def test_names_left_out_later_are_kept() -> None:
    run = Run().invoked()
    run.checkpointed(STEP)
    (closed,) = run.checkpointed({"Id": "s", "Type": "STEP", **SUCCEED}).delta
    assert (closed.name, closed.sub_type, closed.status) == ("greet", "Step", OperationStatus.SUCCEEDED)


def test_a_retried_step_waits_and_counts_its_attempts() -> None:
    run = Run().invoked()
    (pending,) = run.checkpointed(STEP, {**STEP, **RETRY, "Error": {"ErrorType": "E"}}).delta
    assert (pending.status, pending.attempt) == (OperationStatus.PENDING, 1)
    run.ended()
    run.later(2.9)
    assert run.state.operations["s"].status is OperationStatus.PENDING
    run.later(0.1)
    ready = run.state.operations["s"]
    assert (ready.status, ready.due_at, ready.error) == (OperationStatus.READY, None, ErrorObject(type="E"))
    run.invoked().checkpointed(STEP, {**STEP, **SUCCEED})
    assert run.state.operations["s"].attempt == 2
    assert [event.details.get("RetryDetails") for event in run.events if event.type.startswith("Step")] == [
        None,
        {"CurrentAttempt": 1, "NextAttemptDelaySeconds": 3},
        None,
        {"CurrentAttempt": 2},
    ]


def test_a_step_that_succeeds_at_once_has_its_first_attempt_in_the_history() -> None:
    run = Run().invoked()
    run.checkpointed(STEP, {**STEP, **SUCCEED})
    assert run.events[-1].details["RetryDetails"] == {"CurrentAttempt": 1}


def test_a_poll_of_a_condition_is_a_success_that_goes_on() -> None:
    run = Run().invoked()
    run.checkpointed({**STEP, **RETRY, "Payload": "1"})
    assert run.types()[-2:] == ["StepStarted", "StepSucceeded"]
    assert run.state.operations["s"].result == "1"


def test_timers_that_are_due_are_in_the_answer_of_a_checkpoint() -> None:
    run = Run().invoked()
    run.checkpointed(WAIT)
    run.later(0)
    run.now = run.state.operations["w"].due_at or run.now
    (over,) = run.checkpointed().delta
    assert over.status is OperationStatus.SUCCEEDED
    assert run.types()[-1] == "WaitSucceeded"


def test_a_missing_target_fails_in_the_same_answer() -> None:
    run = Run().invoked()
    missing = ErrorObject("Function not found: nosuch.", "ResourceNotFoundException")
    (failed,) = run.checkpointed(CHAINED, targets={"i": missing}).delta
    assert (failed.status, failed.error) == (OperationStatus.FAILED, missing)
    assert run.types()[-2:] == ["ChainedInvokeStarted", "ChainedInvokeFailed"]


def test_a_checkpointed_result_wins_and_closes_with_the_invocation() -> None:
    run = Run(is_synchronous=True).invoked()
    result = json.dumps("x" * MAX_PAYLOAD_BYTES)
    done = run.checkpointed({"Id": "execution-result-1", "Type": "EXECUTION", "Action": "SUCCEED", "Payload": result})
    assert (done.token, done.delta) == (None, ())
    run.ended()
    assert (run.state.execution.status, run.state.execution.result) == (ExecutionStatus.SUCCEEDED, result)
    assert run.types()[-2:] == ["InvocationCompleted", "ExecutionSucceeded"]


def test_one_operation_too_many_fails_the_execution() -> None:
    run = Run().invoked()
    ids = iter(range(MAX_OPERATIONS))
    while run.state.execution.operations < MAX_OPERATIONS:
        room = MAX_OPERATIONS - run.state.execution.operations
        assert run.checkpointed(*({**STEP, "Id": f"s-{next(ids)}"} for _ in range(min(250, room)))).token is not None
    done = run.checkpointed({**STEP, "Id": "one-more"})
    assert done.token is None
    assert "one-more" in run.state.operations
    run.ended()
    error = run.state.execution.error
    assert error is not None
    assert run.state.execution.status is ExecutionStatus.FAILED
    assert "3000 operations" in (error.message or "")
