"""How an execution goes from invocation to invocation, and ends. Facts: durable reference §4 and §7."""

from datetime import timedelta

import pytest
from tests.core.durable.runs import Run

from lambstead.core.arn import Realm
from lambstead.core.durable import lifecycle, triggers
from lambstead.core.durable.documents import event_document, execution_document, invocation_event, state_page
from lambstead.core.durable.identifiers import callback_id, parse_callback_id
from lambstead.core.durable.lifecycle import Crashed, Gone, Lost, NotRun, Returned
from lambstead.core.durable.model import ErrorObject, OperationStatus
from lambstead.core.errors import CallbackTimeout, InvalidParameterValue

REALM = Realm()
STEP = {"Id": "s", "Type": "STEP", "Action": "START"}
EXIT = ErrorObject("exit status 1", "Runtime.ExitError")


def wait(operation_id: str, seconds: int) -> dict[str, object]:
    return {"Id": operation_id, "Type": "WAIT", "Action": "START", "WaitOptions": {"WaitSeconds": seconds}}


def callback(timeout: int = 0, heartbeat: int = 0) -> dict[str, object]:
    options = {"TimeoutSeconds": timeout, "HeartbeatTimeoutSeconds": heartbeat}
    return {"Id": "b", "Type": "CALLBACK", "Action": "START", "CallbackOptions": options}


def test_each_completion_is_a_trigger_of_its_own() -> None:
    run = Run().invoked()
    run.checkpointed(wait("a", 1), wait("b", 3))
    run.ended()
    assert not triggers.wants_invocation(run.state, run.now)
    run.later(1)
    assert triggers.wants_invocation(run.state, run.now)
    event = invocation_event(run.invoked().state, REALM, str)
    assert event["UpdatedOperationIds"] == ["a"]
    run.ended()
    assert not triggers.wants_invocation(run.state, run.now)
    run.later(2)
    run.invoked().ended(Returned(b'{"Status":"SUCCEEDED","Result":"7"}'))
    assert run.types() == [
        "ExecutionStarted",
        "WaitStarted",
        "WaitStarted",
        "InvocationCompleted",
        "WaitSucceeded",
        "InvocationCompleted",
        "WaitSucceeded",
        "InvocationCompleted",
        "ExecutionSucceeded",
    ]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (b"no json", "Invalid Status in invocation output."),
        (b'{"Status":"DONE"}', "Invalid Status in invocation output."),
        (b'{"Status":"FAILED","Result":"1"}', "Cannot provide a Result for FAILED status."),
        (b'{"Status":"SUCCEEDED","Error":{}}', "Cannot provide an Error for SUCCEEDED status."),
        (b'{"Status":"SUCCEEDED","Result":7}', "Invalid Result in invocation output: it must be a string."),
    ],
)
def test_what_is_no_envelope_fails_the_execution(output: bytes, message: str) -> None:
    run = Run().invoked()
    run.ended(Returned(output))
    assert run.state.execution.error == ErrorObject(message, "InvalidParameterValueException")
    assert run.types()[-2:] == ["InvocationCompleted", "ExecutionFailed"]


def test_pending_with_nothing_pending_is_borne_three_times() -> None:
    run = Run()
    for _ in range(2):
        run.invoked().ended()
        assert not triggers.wants_invocation(run.state, run.now)
        run.later(5)
    run.invoked().ended()
    assert run.state.execution.error == ErrorObject(
        "Cannot return PENDING status with no pending operations.", "InvalidParameterValueException"
    )


def test_crashes_are_repeated_with_growing_delay_and_stand_in_the_history() -> None:
    run = Run().invoked()
    run.checkpointed(STEP)
    delays = []
    for _ in range(3):
        run.ended(Crashed(EXIT))
        retry_at = run.state.execution.retry_at
        assert retry_at is not None
        delays.append((retry_at - run.now).total_seconds())
        run.later(delays[-1])
        run.invoked()
    assert delays == [1, 2, 4]
    run.checkpointed({**STEP, "Action": "SUCCEED"})
    assert run.types() == ["ExecutionStarted", "StepStarted", *["InvocationCompleted"] * 3, "StepSucceeded"]
    assert run.events[2].details["Error"] == {
        "Payload": {"ErrorMessage": "exit status 1", "ErrorType": "Runtime.ExitError"},
        "Truncated": False,
    }


def test_an_invocation_lost_with_its_server_is_repeated_at_once_and_counts_for_no_delay() -> None:
    run = Run().invoked()
    run.ended(Crashed(EXIT))
    run.later(1)
    for _ in range(5):
        run.invoked().ended(Lost(EXIT))
        assert triggers.wants_invocation(run.state, run.now)
    run.invoked().ended(Crashed(EXIT))
    assert run.state.execution.retry_at == run.now + timedelta(seconds=2), "the second crash, whatever was lost between"
    assert run.types() == ["ExecutionStarted", *["InvocationCompleted"] * 7]


def test_room_ends_the_delay_that_the_want_of_it_began() -> None:
    run = Run().invoked()
    run.ended(NotRun("Rate Exceeded."))
    assert not triggers.wants_invocation(run.state, run.now)
    assert triggers.wants_invocation(triggers.without_delay(run.state), run.now)


def test_a_throttled_invocation_leaves_no_trace_and_forgets_no_news() -> None:
    run = Run().invoked()
    run.checkpointed(wait("a", 1))
    run.ended()
    run.later(1)
    recorded = run.types()
    run.invoked().ended(NotRun("Rate Exceeded."))
    assert run.types() == recorded
    run.later(1)
    assert invocation_event(run.invoked().state, REALM, str)["UpdatedOperationIds"] == ["a"]


def test_a_deleted_function_ends_its_executions() -> None:
    run = Run().invoked()
    run.ended(Gone("Function not found"))
    assert run.state.execution.error == ErrorObject("Function not found", "ResourceNotFoundException")


def test_the_timeout_ends_it_also_while_it_runs() -> None:
    run = Run(timeout_s=10).invoked()
    run.later(10)
    assert run.status() == "TIMED_OUT"
    assert run.types()[-1] == "ExecutionTimedOut"
    run.ended(Returned(b'{"Status":"SUCCEEDED"}'))
    assert run.status() == "TIMED_OUT"
    assert run.types()[-1] == "ExecutionTimedOut"


def test_a_pause_stops_the_clock_and_resumes_what_it_interrupted() -> None:
    run = Run(timeout_s=10).invoked()
    run.take(lifecycle.pause(run.state, reason="why", stops_timeout=True, client_token="t", now=run.now))
    assert run.status() == "PAUSING"
    assert lifecycle.pause(run.state, reason="why", stops_timeout=True, client_token="t", now=run.now) is None
    assert run.checkpointed(STEP).token is None
    assert run.status() == "PAUSED"
    run.ended()
    run.later(100)
    assert run.status() == "PAUSED"
    assert not triggers.wants_invocation(run.state, run.now)
    run.take(lifecycle.resume(run.state, reason=None, client_token=None, now=run.now))
    assert triggers.wants_invocation(run.state, run.now)
    run.later(9)
    assert run.status() == "RUNNING"
    run.later(1)
    assert run.status() == "TIMED_OUT"


def test_callbacks_end_by_answer_or_by_missing_heartbeat() -> None:
    run = Run().invoked()
    run.checkpointed(callback(timeout=60, heartbeat=10))
    run.ended()
    run.later(9)
    run.take(triggers.callback_heartbeat(run.state, "b", run.now))
    run.later(9)
    assert run.state.operations["b"].status is OperationStatus.STARTED
    run.later(1)
    over = run.state.operations["b"]
    assert over.error == ErrorObject("Callback timed out on heartbeat", "Callback.Heartbeat")
    with pytest.raises(CallbackTimeout):
        triggers.callback_succeeded(run.state, "b", "1", run.now)


def test_a_callback_can_be_completed_with_nothing_to_say() -> None:
    run = Run().invoked()
    run.checkpointed(callback())
    run.take(triggers.callback_succeeded(run.state, "b", None, run.now))
    assert run.state.operations["b"].status is OperationStatus.SUCCEEDED
    assert run.state.operations["b"].result is None
    assert run.events[-1].details["Result"] == {"Truncated": False}


def test_a_callback_id_names_its_operation_and_nothing_else_does() -> None:
    minted = callback_id("execution", "operation")
    assert parse_callback_id(minted) == ("execution", "operation")
    for text in ("", "AAAA", "x" * 50, "no base64!"):
        with pytest.raises(InvalidParameterValue, match=r"^Invalid callback id$"):
            parse_callback_id(text)


def test_the_event_has_the_state_without_what_closed_contexts_made() -> None:
    run = Run('{"n":1}').invoked()
    context = {"Id": "c", "Type": "CONTEXT", "Action": "START"}
    run.checkpointed(
        context, {**STEP, "ParentId": "c"}, {**STEP, "ParentId": "c", "Action": "SUCCEED", "Payload": "41"}
    )
    run.checkpointed({**context, "Action": "SUCCEED", "Payload": "42"}, wait("w", 1))
    run.ended()
    run.later(1)
    event = invocation_event(run.invoked().state, REALM, str)
    initial = event["InitialExecutionState"]
    assert isinstance(initial, dict)
    assert [(each["Id"], each["Status"]) for each in initial["Operations"]] == [
        ("e-1", "STARTED"),
        ("c", "SUCCEEDED"),
        ("w", "SUCCEEDED"),
    ]
    assert initial["Operations"][0]["ExecutionDetails"] == {"InputPayload": '{"n":1}'}
    assert initial["Operations"][0]["StartTimestamp"] == 1767225600000
    assert initial["NextMarker"] == ""


def test_state_is_paged_without_loss_by_items_and_by_bytes() -> None:
    run = Run().invoked()
    run.checkpointed(*({**STEP, "Id": f"s-{each}", "Action": "SUCCEED", "Payload": "x" * 1000} for each in range(50)))
    for items, size in ((7, 10**9), (1000, 4000), (1, 1)):
        after, found = -1, []
        while True:
            page, next_after = state_page(run.state, after, items, size)
            assert 1 <= len(page) <= items
            found += [None if each is None else each.id for each in page]
            if next_after is None:
                break
            after = next_after
        assert found == [None, *(f"s-{each}" for each in range(50))]


def test_documents_leave_out_what_was_not_asked_for() -> None:
    run = Run('{"secret":1}').invoked()
    run.ended(Returned(b'{"Status":"SUCCEEDED","Result":"7"}'))
    started, completed, succeeded = (event_document(event, include_data=False) for event in run.events)
    assert started["ExecutionStartedDetails"] == {"Input": {"Truncated": True}, "ExecutionTimeout": 3600}
    assert "Id" not in completed
    assert succeeded["ExecutionSucceededDetails"] == {"Result": {"Truncated": True}}
    without = execution_document(run.state, REALM, include_data=False)
    assert not {"InputPayload", "Result", "Error"} & set(without)
    assert execution_document(run.state, REALM, include_data=True)["Result"] == "7"
