"""Durable functions with AWS's unmodified Python SDK, through AWS's own client."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from botocore.exceptions import ClientError
from tests.durable import (
    create_durable,
    durable_package,
    event_of,
    finished,
    history,
    start_execution,
    status_of,
    types,
)
from tests.harness import (
    FUNCTIONS,
    Server,
    create_function,
    create_provider,
    on_provider,
    running,
    wait_active,
    wait_for,
    wait_updated,
)

WORKFLOWS = (FUNCTIONS / "workflows.py").read_text()
FLOW = "flow"
PLAIN = """
def handler(event, context):
    if event.get('fail'):
        raise ValueError('as asked')
    return {'got': event}
"""

VERSIONED = """
from aws_durable_execution_sdk_python import durable_execution
from aws_durable_execution_sdk_python.config import Duration

@durable_execution
def handler(event, context):
    context.wait(Duration.from_seconds(2))
    return 'VERSION'
"""


@pytest.fixture(scope="module")
def server(runtimes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("durable")) as server:
        create_durable(server.aws, FLOW, WORKFLOWS)
        create_function(server.aws, "plain", PLAIN)
        wait_active(server.aws, "plain", "$LATEST")
        yield server


def run(server: Server, do: str, **event: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Start one of the workflows and wait for its end; the execution and its history."""
    arn = start_execution(server.aws, FLOW, {"do": do, **event})
    found = finished(server.aws, arn)
    return found, history(server.aws, arn)


def result(found: dict[str, Any]) -> Any:
    assert found["Status"] == "SUCCEEDED", found.get("Error")
    return json.loads(found["Result"])


# --- starting and waiting ---------------------------------------------------------------------------------------------------


def test_a_caller_waits_for_the_whole_execution(server: Server) -> None:
    answer = server.aws.invoke(FunctionName=FLOW, Qualifier="$LATEST", Payload=b'{"do": "step_wait_step", "n": 1}')
    assert (answer["StatusCode"], answer["ExecutedVersion"]) == (200, "$LATEST")
    assert "FunctionError" not in answer
    assert answer["Payload"].read() == b'{"first": 2, "second": 4}'
    arn = answer["DurableExecutionArn"]
    assert arn.startswith("arn:aws:lambda:us-east-1:000000000000:function:flow:$LATEST/durable-execution/")
    events = history(server.aws, arn)
    assert types(events) == [
        "ExecutionStarted",
        "StepStarted",
        "StepSucceeded",
        "WaitStarted",
        "InvocationCompleted",
        "WaitSucceeded",
        "StepStarted",
        "StepSucceeded",
        "InvocationCompleted",
        "ExecutionSucceeded",
    ]
    wait = events[3]["WaitStartedDetails"]
    assert events[5]["EventTimestamp"] >= wait["ScheduledEndTimestamp"]


def test_an_execution_that_nobody_waits_for_ends_too(server: Server) -> None:
    found, _ = run(server, "step_wait_step", n=2)
    assert result(found) == {"first": 3, "second": 6}
    assert json.loads(found["InputPayload"]) == {"do": "step_wait_step", "n": 2}
    assert found["EndTimestamp"] > found["StartTimestamp"]
    assert found["Version"] == "$LATEST"


def test_a_failed_execution_is_a_function_error_with_its_arn(server: Server) -> None:
    answer = server.aws.invoke(FunctionName=FLOW, Qualifier="$LATEST", Payload=b'{"do": "fails"}')
    assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
    error = json.loads(answer["Payload"].read())
    assert (error["errorMessage"], error["errorType"]) == ("as asked", "RuntimeError")
    found = finished(server.aws, answer["DurableExecutionArn"])
    assert found["Status"] == "FAILED"
    assert found["Error"]["ErrorMessage"] == "as asked"


def test_a_durable_function_is_invoked_with_a_qualifier_only(server: Server) -> None:
    kinds: list[Literal["RequestResponse", "Event", "DryRun"]] = ["RequestResponse", "Event", "DryRun"]
    for kind in kinds:
        with pytest.raises(ClientError, match="unqualified ARN") as refused:
            server.aws.invoke(FunctionName=FLOW, Payload=b"{}", InvocationType=kind)
        assert refused.value.response["Error"]["Code"] == "InvalidParameterValueException"
    assert server.aws.invoke(FunctionName=FLOW, Qualifier="$LATEST", InvocationType="DryRun")["StatusCode"] == 204


def test_a_name_is_one_execution(server: Server) -> None:
    event = {"do": "step_wait_step", "n": 1}
    arn = start_execution(server.aws, FLOW, event, name="order-1")
    assert "/durable-execution/order-1/" in arn
    assert start_execution(server.aws, FLOW, event, name="order-1") == arn
    attached = server.aws.invoke(
        FunctionName=FLOW, Qualifier="$LATEST", DurableExecutionName="order-1", Payload=json.dumps(event).encode()
    )
    assert attached["DurableExecutionArn"] == arn
    assert json.loads(attached["Payload"].read()) == {"first": 2, "second": 4}
    assert start_execution(server.aws, FLOW, event, name="order-1") == arn, "also after its end"
    with pytest.raises(ClientError) as refused:
        start_execution(server.aws, FLOW, {"do": "fails"}, name="order-1")
    assert refused.value.response["Error"]["Code"] == "DurableExecutionAlreadyStartedException"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 409
    assert types(history(server.aws, arn)).count("ExecutionStarted") == 1


def test_a_name_is_free_again_after_deletion(server: Server) -> None:
    aws: Any = server.aws  # the published types are older than DeleteDurableExecution
    event = {"do": "step_wait_step", "n": 1, "seconds": 1}
    arn = start_execution(aws, FLOW, event, name="again")
    with pytest.raises(ClientError) as refused:
        aws.delete_durable_execution(DurableExecutionArn=arn)
    assert refused.value.response["Error"]["Code"] == "ResourceConflictException"
    finished(aws, arn)
    answer = aws.delete_durable_execution(DurableExecutionArn=arn)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert answer["DeletionRequestTimestamp"]
    wait_for(lambda: not exists(server, arn), "the execution is gone")
    assert start_execution(server.aws, FLOW, {"do": "fails"}, name="again") != arn


def exists(server: Server, arn: str) -> bool:
    try:
        server.aws.get_durable_execution(DurableExecutionArn=arn)
    except server.aws.exceptions.ResourceNotFoundException:
        return False
    return True


def test_an_execution_keeps_the_version_it_was_started_with(server: Server) -> None:
    aws = server.aws
    create_durable(aws, "pinned", VERSIONED.replace("VERSION", "one"), Publish=True)
    aws.create_alias(FunctionName="pinned", Name="live", FunctionVersion="1")
    arn = start_execution(aws, "pinned", qualifier="live")
    assert ":pinned:1/durable-execution/" in arn
    aws.update_function_code(FunctionName="pinned", ZipFile=durable_package(VERSIONED.replace("VERSION", "two")))
    wait_updated(aws, "pinned")
    version = aws.publish_version(FunctionName="pinned")["Version"]
    assert version == "2"
    aws.update_alias(FunctionName="pinned", Name="live", FunctionVersion="2")
    second = start_execution(aws, "pinned", qualifier="live")
    assert result(finished(aws, arn)) == "one"
    assert result(finished(aws, second)) == "two"


def test_an_execution_fails_when_its_function_goes(server: Server) -> None:
    create_durable(server.aws, "doomed", WORKFLOWS)
    arn = start_execution(server.aws, "doomed", {"do": "step_wait_step", "n": 1, "seconds": 2})
    event_of(server.aws, arn, "WaitStarted")
    server.aws.delete_function(FunctionName="doomed")
    found = finished(server.aws, arn)
    assert (found["Status"], found["Error"]["ErrorType"]) == ("FAILED", "ResourceNotFoundException")


def test_a_durable_function_on_a_capacity_provider_runs_its_published_version(server: Server) -> None:
    arn = create_provider(server.aws)
    create_durable(
        server.aws,
        "managed",
        WORKFLOWS,
        MemorySize=2048,
        **on_provider(arn, 4, Publish=True, PublishTo="LATEST_PUBLISHED"),
    )
    wait_active(server.aws, "managed")
    execution = start_execution(server.aws, "managed", {"do": "step_wait_step", "n": 1}, qualifier="$LATEST.PUBLISHED")
    assert ":managed:$LATEST.PUBLISHED/durable-execution/" in execution
    assert result(finished(server.aws, execution)) == {"first": 2, "second": 4}


# --- operations -------------------------------------------------------------------------------------------------------------


def test_a_step_is_tried_again_until_it_succeeds(server: Server, tmp_path: Path) -> None:
    found, events = run(server, "retried", attempts=3, folder=str(tmp_path))
    assert result(found) == "done"
    assert types(events).count("StepFailed") == 2
    assert [each["StepSucceededDetails"]["RetryDetails"] for each in events if "StepSucceededDetails" in each] == [
        {"CurrentAttempt": 3}
    ]


def test_a_step_that_may_run_once_is_not_repeated_by_a_crash_but_by_its_strategy(
    server: Server, tmp_path: Path
) -> None:
    found, events = run(server, "at_most_once", folder=str(tmp_path))
    assert result(found) == "survived"
    kinds = types(events)
    assert kinds[:4] == ["ExecutionStarted", "StepStarted", "InvocationCompleted", "StepFailed"]
    assert events[2]["InvocationCompletedDetails"]["Error"]["Payload"]["ErrorType"] == "Runtime.ExitError"


def test_a_crashed_invocation_is_repeated(server: Server, tmp_path: Path) -> None:
    found, events = run(server, "crashes", times=2, folder=str(tmp_path))
    assert result(found) == "survived"
    errors = [each["InvocationCompletedDetails"]["Error"] for each in events if "InvocationCompletedDetails" in each]
    assert [bool(each) for each in errors] == [True, True, False]


def test_polling_goes_on_until_the_condition_holds(server: Server) -> None:
    found, events = run(server, "condition")
    assert result(found) == 3
    assert types(events).count("StepSucceeded") == 3


def test_branches_run_in_parallel_and_each_end_is_noticed(server: Server) -> None:
    found, events = run(server, "parallel")
    assert result(found) == [10, 20]
    assert types(events).count("InvocationCompleted") == 3


def test_items_are_mapped(server: Server) -> None:
    found, events = run(server, "mapped", items=[1, 2, 3, 4])
    assert result(found) == [1, 4, 9, 16]
    assert types(events).count("ContextSucceeded") == 5


@pytest.mark.parametrize("size", [10, 300 * 1024])
def test_a_child_context_is_replayed_whether_its_result_was_stored_or_not(server: Server, size: int) -> None:
    found, events = run(server, "nested", size=size)
    assert result(found) == size
    assert types(events).count("StepSucceeded") == 1, "its step runs once"


def test_many_steps_are_a_history_without_a_hole(server: Server) -> None:
    arn = start_execution(server.aws, FLOW, {"do": "many_steps", "steps": 400})
    assert result(finished(server.aws, arn)) == 79800
    events = history(server.aws, arn)
    assert types(events).count("StepSucceeded") == 400
    backwards = server.aws.get_durable_execution_history(DurableExecutionArn=arn, ReverseOrder=True, MaxItems=3)
    assert [each["EventId"] for each in backwards["Events"]] == [len(events), len(events) - 1, len(events) - 2]
    hidden = server.aws.get_durable_execution_history(DurableExecutionArn=arn, IncludeExecutionData=False)["Events"]
    assert hidden[0]["ExecutionStartedDetails"]["Input"] == {"Truncated": True}


def test_a_result_larger_than_a_response_is_checkpointed(server: Server) -> None:
    size = 6 * 1024 * 1024 - 20
    payload = json.dumps({"do": "large", "size": size}).encode()
    answer = server.aws.invoke(FunctionName=FLOW, Qualifier="$LATEST", Payload=payload)
    assert len(json.loads(answer["Payload"].read())) == size
    kinds = types(history(server.aws, answer["DurableExecutionArn"]))
    assert kinds.count("ExecutionSucceeded") == 1


# --- callbacks --------------------------------------------------------------------------------------------------------------


def test_a_callback_is_completed_from_outside_once(server: Server) -> None:
    arn = start_execution(server.aws, FLOW, {"do": "callback"})
    callback_id = event_of(server.aws, arn, "CallbackStarted")["CallbackStartedDetails"]["CallbackId"]
    server.aws.send_durable_execution_callback_success(CallbackId=callback_id, Result=b"yes")
    assert result(finished(server.aws, arn)) == {"approved": "yes"}
    with pytest.raises(ClientError) as refused:
        server.aws.send_durable_execution_callback_success(CallbackId=callback_id, Result=b"again")
    assert refused.value.response["Error"]["Code"] == "CallbackTimeoutException"
    with pytest.raises(ClientError) as malformed:
        server.aws.send_durable_execution_callback_heartbeat(CallbackId="nonsense")
    assert malformed.value.response["Error"]["Code"] == "InvalidParameterValueException"


def test_a_callback_without_a_result_gives_the_code_nothing(server: Server) -> None:
    arn = start_execution(server.aws, FLOW, {"do": "callback"})
    callback_id = event_of(server.aws, arn, "CallbackStarted")["CallbackStartedDetails"]["CallbackId"]
    server.aws.send_durable_execution_callback_success(CallbackId=callback_id, Result=b"")
    assert result(finished(server.aws, arn)) == {"approved": None}


def test_a_callback_is_failed_from_outside(server: Server) -> None:
    arn = start_execution(server.aws, FLOW, {"do": "callback"})
    callback_id = event_of(server.aws, arn, "CallbackStarted")["CallbackStartedDetails"]["CallbackId"]
    server.aws.send_durable_execution_callback_failure(
        CallbackId=callback_id, Error={"ErrorMessage": "no budget", "ErrorType": "Refused"}
    )
    assert "no budget" in result(finished(server.aws, arn))["error"]


def test_a_callback_times_out(server: Server) -> None:
    found, events = run(server, "callback", timeout=1)
    assert "error" in result(found)
    (over,) = [each for each in events if each["EventType"] == "CallbackTimedOut"]
    assert over["CallbackTimedOutDetails"]["Error"]["Payload"]["ErrorType"] == "Callback.Timeout"


def test_heartbeats_keep_a_callback_open(server: Server) -> None:
    arn = start_execution(server.aws, FLOW, {"do": "callback", "heartbeat": 2})
    started = event_of(server.aws, arn, "CallbackStarted")
    callback_id = started["CallbackStartedDetails"]["CallbackId"]
    beaten_at: list[float] = []

    def beat() -> bool:
        server.aws.send_durable_execution_callback_heartbeat(CallbackId=callback_id)
        beaten_at.append(time.time())
        return bool(beaten_at[-1] > started["EventTimestamp"].timestamp() + 3)

    wait_for(beat, "longer than the heartbeat timeout")
    assert status_of(server.aws, arn) == "RUNNING"
    assert "error" in result(finished(server.aws, arn)), "without heartbeats it times out"
    (over,) = [each for each in history(server.aws, arn) if each["EventType"] == "CallbackTimedOut"]
    assert over["EventTimestamp"].timestamp() >= beaten_at[-1] + 1.5
    assert over["CallbackTimedOutDetails"]["Error"]["Payload"]["ErrorType"] == "Callback.Heartbeat"


def test_code_completes_its_own_callback_through_the_default_client(server: Server) -> None:
    found, _ = run(server, "wait_for_callback")
    assert "from the submitter" in result(found)


# --- chained invocations ------------------------------------------------------------------------------------------------------


def test_a_plain_function_is_chained(server: Server) -> None:
    found, events = run(server, "chained", function="plain", payload={"n": 1})
    assert result(found) == {"answer": {"got": {"n": 1}}}
    (started,) = [each["ChainedInvokeStartedDetails"] for each in events if "ChainedInvokeStartedDetails" in each]
    assert (started["FunctionName"], started["ExecutedVersion"]) == ("plain", "$LATEST")
    assert "DurableExecutionArn" not in started


def test_an_error_of_a_chained_function_reaches_the_code(server: Server) -> None:
    found, _ = run(server, "chained", function="plain:$LATEST", payload={"fail": True})
    assert "as asked" in result(found)["error"]


def test_a_durable_function_is_chained_as_an_execution_of_its_own(server: Server) -> None:
    found, events = run(
        server, "chained", function=f"{FLOW}:$LATEST", payload={"do": "step_wait_step", "n": 1, "seconds": 1}
    )
    assert result(found) == {"answer": {"first": 2, "second": 4}}
    (started,) = [each["ChainedInvokeStartedDetails"] for each in events if "ChainedInvokeStartedDetails" in each]
    child = finished(server.aws, started["DurableExecutionArn"])
    assert child["Status"] == "SUCCEEDED"


def test_a_stopped_child_stops_the_operation_of_its_parent(server: Server) -> None:
    arn = start_execution(
        server.aws, FLOW, {"do": "chained", "function": f"{FLOW}:$LATEST", "payload": {"do": "callback"}}
    )
    started = event_of(server.aws, arn, "ChainedInvokeStarted")["ChainedInvokeStartedDetails"]
    server.aws.stop_durable_execution(
        DurableExecutionArn=started["DurableExecutionArn"], Error={"ErrorMessage": "enough"}
    )
    assert "enough" in result(finished(server.aws, arn))["error"]
    assert "ChainedInvokeStopped" in types(history(server.aws, arn))


@pytest.mark.parametrize(
    ("function", "words"),
    [("missing", "Function not found"), (FLOW, "unqualified"), ("missing:1", "Function not found")],
)
def test_a_chained_invocation_of_nothing_fails_its_operation_only(server: Server, function: str, words: str) -> None:
    found, events = run(server, "chained", function=function)
    assert words in result(found)["error"]
    assert "ChainedInvokeFailed" in types(events)


# --- stop, pause, list ---------------------------------------------------------------------------------------------------------


def test_an_execution_is_stopped_with_the_error_that_was_given(server: Server) -> None:
    arn = start_execution(server.aws, FLOW, {"do": "callback"})
    event_of(server.aws, arn, "CallbackStarted")
    stopped = server.aws.stop_durable_execution(
        DurableExecutionArn=arn, Error={"ErrorMessage": "not needed", "ErrorType": "Changed"}
    )
    again = server.aws.stop_durable_execution(DurableExecutionArn=arn)
    assert again["StopTimestamp"] == stopped["StopTimestamp"]
    found = server.aws.get_durable_execution(DurableExecutionArn=arn)
    assert (found["Status"], found["EndTimestamp"]) == ("STOPPED", stopped["StopTimestamp"])
    assert found["Error"] == {"ErrorMessage": "not needed", "ErrorType": "Changed"}
    (event,) = [each for each in history(server.aws, arn) if each["EventType"] == "ExecutionStopped"]
    assert event["ExecutionStoppedDetails"]["Error"]["Payload"]["ErrorMessage"] == "not needed"


def test_a_stop_fences_the_function_that_still_runs(server: Server, tmp_path: Path) -> None:
    arn = start_execution(server.aws, FLOW, {"do": "held", "folder": str(tmp_path)})
    wait_for(lambda: list(tmp_path.glob("began-*")), "the step runs")
    server.aws.stop_durable_execution(DurableExecutionArn=arn)
    (tmp_path / "open").touch()
    other, _ = run(server, "step_wait_step", n=1)  # its invocation comes after the fenced one's end or beside it
    assert result(other)
    assert types(history(server.aws, arn))[-1] == "ExecutionStopped"


def test_a_paused_execution_begins_no_invocation_until_it_is_resumed(server: Server) -> None:
    aws: Any = server.aws  # the published types are older than PauseDurableExecution
    arn = start_execution(aws, FLOW, {"do": "callback"})
    callback_id = event_of(aws, arn, "CallbackStarted")["CallbackStartedDetails"]["CallbackId"]
    event_of(aws, arn, "InvocationCompleted")
    assert (
        aws.pause_durable_execution(DurableExecutionArn=arn, Reason="audit")["ResponseMetadata"]["HTTPStatusCode"]
        == 202
    )
    found = aws.get_durable_execution(DurableExecutionArn=arn)
    assert (found["Status"], found["PauseDetails"]["Reason"]) == ("PAUSED", "audit")
    with pytest.raises(ClientError) as refused:
        aws.pause_durable_execution(DurableExecutionArn=arn)
    assert refused.value.response["Error"]["Code"] == "ResourceConflictException"
    aws.send_durable_execution_callback_success(CallbackId=callback_id, Result=b"yes")
    other, _ = run(server, "step_wait_step", n=1)
    assert result(other)
    assert status_of(aws, arn) == "PAUSED"
    assert types(history(aws, arn)).count("InvocationCompleted") == 1
    assert aws.resume_durable_execution(DurableExecutionArn=arn)["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert result(finished(aws, arn)) == {"approved": "yes"}


def test_an_execution_is_paused_at_the_next_checkpoint_of_its_function(server: Server, tmp_path: Path) -> None:
    aws: Any = server.aws
    arn = start_execution(aws, FLOW, {"do": "held", "folder": str(tmp_path)})
    wait_for(lambda: list(tmp_path.glob("began-*")), "the step runs")
    aws.pause_durable_execution(DurableExecutionArn=arn)
    assert status_of(aws, arn) == "PAUSING"
    (tmp_path / "open").touch()
    wait_for(lambda: status_of(aws, arn) == "PAUSED", "the function has let go")
    aws.resume_durable_execution(DurableExecutionArn=arn)
    assert result(finished(aws, arn)) == "held!"
    assert len(list(tmp_path.glob("began-*"))) == 1, "what was checkpointed while pausing is kept"


def test_an_execution_times_out_with_its_waits(server: Server) -> None:
    create_durable(server.aws, "hasty", WORKFLOWS, DurableConfig={"ExecutionTimeout": 1})
    answer = server.aws.invoke(FunctionName="hasty", Qualifier="$LATEST", Payload=b'{"do": "callback"}')
    assert answer["FunctionError"] == "Unhandled"
    assert b"timed out after 1 seconds" in answer["Payload"].read()
    arn = answer["DurableExecutionArn"]
    assert status_of(server.aws, arn) == "TIMED_OUT"
    assert types(history(server.aws, arn))[-1] == "ExecutionTimedOut"


def test_executions_are_listed_newest_first_and_by_pages(server: Server) -> None:
    aws: Any = server.aws
    create_durable(aws, "listed", WORKFLOWS)
    arns = [start_execution(aws, "listed", {"do": "fails"}, name=f"n{number}") for number in range(5)]
    for arn in arns:
        finished(aws, arn)
    last = start_execution(aws, "listed", {"do": "callback"})
    found = aws.list_durable_executions_by_function(FunctionName="listed")["DurableExecutions"]
    assert [each["DurableExecutionArn"] for each in found] == [last, *reversed(arns)]
    failed = aws.list_durable_executions_by_function(FunctionName="listed", Statuses=["FAILED"], ReverseOrder=True)
    assert [each["DurableExecutionName"] for each in failed["DurableExecutions"]] == [f"n{n}" for n in range(5)]
    pages: list[list[str]] = []
    marker: dict[str, str] = {}
    while True:
        page = aws.list_durable_executions_by_function(FunctionName="listed", MaxItems=2, **marker)
        pages.append([each["DurableExecutionArn"] for each in page["DurableExecutions"]])
        if not page.get("NextMarker"):
            break
        marker = {"Marker": page["NextMarker"]}
    assert pages == [[last, arns[4]], [arns[3], arns[2]], [arns[1], arns[0]]]
    named = aws.list_durable_executions_by_function(
        FunctionName="listed", DurableExecutionName="n3", Qualifier="$LATEST"
    )
    assert [each["Status"] for each in named["DurableExecutions"]] == ["FAILED"]
    with pytest.raises(ClientError) as missing:
        aws.list_durable_executions_by_function(FunctionName="nosuch")
    assert missing.value.response["Error"]["Code"] == "ResourceNotFoundException"
