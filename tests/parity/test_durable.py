"""Durable functions: what the API answers, on the wire and through AWS's client."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest
from botocore.exceptions import ClientError
from tests.durable import create_durable, event_of, finished, start_execution
from tests.harness import FUNCTIONS, Server, create_function, running, wait_active, wait_for, wait_updated

WORKFLOWS = (FUNCTIONS / "workflows.py").read_text()
FLOW = "flow"
ARN = "arn:aws:lambda:us-east-1:000000000000:function:flow:$LATEST/durable-execution/nobody/nothing"


@pytest.fixture(scope="module")
def server(runtimes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("durable")) as server:
        create_durable(server.aws, FLOW, WORKFLOWS)
        create_function(server.aws, "plain", "def handler(event, context): return event")
        wait_active(server.aws, "plain", "$LATEST")
        yield server


@pytest.fixture(scope="module")
def aws(server: Server) -> Any:
    """The published types are older than half of the operations."""
    return server.aws


def send(server: Server, method: str, path: str, body: bytes = b"") -> tuple[int, dict[str, str], Any]:
    """One request as a person with curl sends it: nothing in the path is encoded."""
    connection = http.client.HTTPConnection(str(urlsplit(server.url).netloc), timeout=30)
    connection.request(method, f"/2025-12-01/{path}", body)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    headers = {name.lower(): value for name, value in answer.getheaders()}
    return answer.status, headers, json.loads(text) if text else None


def refusal(error: "pytest.ExceptionInfo[ClientError]") -> tuple[int, str]:
    response = error.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


# --- configuration ------------------------------------------------------------------------------------------------------------


def test_durable_config_is_shown_wherever_the_configuration_is(aws: Any) -> None:
    shown = {"ExecutionTimeout": 60, "RetentionPeriodInDays": 14}
    assert aws.get_function(FunctionName=FLOW)["Configuration"]["DurableConfig"] == shown
    assert aws.get_function_configuration(FunctionName=FLOW)["DurableConfig"] == shown
    assert aws.publish_version(FunctionName=FLOW)["DurableConfig"] == shown
    assert "DurableConfig" not in aws.get_function_configuration(FunctionName="plain")


def test_durable_config_can_be_changed_but_not_added(aws: Any) -> None:
    create_durable(aws, "changed", WORKFLOWS)
    updated = aws.update_function_configuration(FunctionName="changed", DurableConfig={"ExecutionTimeout": 90})
    assert updated["DurableConfig"] == {"ExecutionTimeout": 90, "RetentionPeriodInDays": 14}
    wait_updated(aws, "changed")
    updated = aws.update_function_configuration(FunctionName="changed", DurableConfig={"RetentionPeriodInDays": 3})
    assert updated["DurableConfig"] == {"ExecutionTimeout": 90, "RetentionPeriodInDays": 3}
    wait_updated(aws, "changed")
    assert aws.update_function_configuration(FunctionName="changed", Description="d")["DurableConfig"] == {
        "ExecutionTimeout": 90,
        "RetentionPeriodInDays": 3,
    }
    with pytest.raises(ClientError, match="cannot be added") as refused:
        aws.update_function_configuration(FunctionName="plain", DurableConfig={"ExecutionTimeout": 60})
    assert refusal(refused) == (400, "InvalidParameterValueException")


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"RetentionPeriodInDays": 3}, "InvalidParameterValueException"),
        ({"ExecutionTimeout": 31_622_401}, "ValidationException"),
        ({"ExecutionTimeout": 60, "RetentionPeriodInDays": 91}, "ValidationException"),
    ],
)
def test_impossible_durable_configs_are_refused(aws: Any, config: dict[str, int], code: str) -> None:
    with pytest.raises(ClientError) as refused:
        create_durable(aws, "impossible", "", DurableConfig=config)
    assert refusal(refused) == (400, code)


# --- invoke -------------------------------------------------------------------------------------------------------------------


def test_nobody_waits_for_what_may_take_more_than_fifteen_minutes(aws: Any) -> None:
    create_durable(aws, "long", WORKFLOWS, DurableConfig={"ExecutionTimeout": 901})
    with pytest.raises(ClientError, match="executionTimeout greater than 15 minutes") as refused:
        aws.invoke(FunctionName="long", Qualifier="$LATEST", Payload=b'{"do": "many_steps", "steps": 1}')
    assert refusal(refused) == (400, "InvalidParameterValueException")
    assert finished(aws, start_execution(aws, "long", {"do": "many_steps", "steps": 1}))["Status"] == "SUCCEEDED"


def test_a_name_is_for_durable_functions(aws: Any) -> None:
    with pytest.raises(ClientError, match="DurableConfig") as refused:
        aws.invoke(FunctionName="plain", DurableExecutionName="name", Payload=b"{}")
    assert refusal(refused) == (400, "InvalidParameterValueException")


def test_an_input_for_nobody_waiting_is_at_most_a_megabyte(aws: Any) -> None:
    payload = json.dumps({"do": "x" * 1024 * 1024}).encode()
    with pytest.raises(ClientError) as refused:
        aws.invoke(FunctionName=FLOW, Qualifier="$LATEST", InvocationType="Event", Payload=payload)
    assert refusal(refused) == (413, "RequestEntityTooLargeException")


def test_durable_functions_do_not_stream(aws: Any) -> None:
    with pytest.raises(ClientError, match="streaming") as refused:
        aws.invoke_with_response_stream(FunctionName=FLOW, Qualifier="$LATEST", Payload=b"{}")
    assert refusal(refused) == (400, "InvalidParameterValueException")


def test_a_connection_serves_durable_and_other_functions_in_turn(server: Server) -> None:
    """The short way hands durable functions over in the middle of a connection, and answers in the order of the requests."""
    connection = http.client.HTTPConnection(str(urlsplit(server.url).netloc), timeout=30)
    path = "/2015-03-31/functions/{}/invocations"
    for function, event, answer in [
        ("plain", {"n": 1}, b'{"n": 1}'),
        ("flow:$LATEST", {"do": "many_steps", "steps": 3}, b"3"),
        ("plain", {"n": 2}, b'{"n": 2}'),
        ("flow", {}, None),
        ("flow:$LATEST", {"do": "many_steps", "steps": 4}, b"6"),
    ]:
        connection.request("POST", path.format(function), json.dumps(event))
        response = connection.getresponse()
        body = response.read()
        if answer is None:
            assert response.status == 400
            assert response.headers["x-amzn-ErrorType"] == "InvalidParameterValueException"
        else:
            assert (response.status, body) == (200, answer)
            assert ("X-Amz-Durable-Execution-Arn" in response.headers) == function.startswith("flow")
    connection.close()


def test_a_destination_that_is_durable_runs_as_an_execution(aws: Any) -> None:
    aws.put_function_event_invoke_config(
        FunctionName="plain",
        DestinationConfig={
            "OnSuccess": {"Destination": f"arn:aws:lambda:us-east-1:000000000000:function:{FLOW}:$LATEST"}
        },
    )
    aws.invoke(FunctionName="plain", InvocationType="Event", Payload=b'{"n": 41}')

    def started() -> Any:
        found = aws.list_durable_executions_by_function(FunctionName=FLOW)["DurableExecutions"]
        details = [aws.get_durable_execution(DurableExecutionArn=each["DurableExecutionArn"]) for each in found]
        return next((each for each in details if '"n": 41' in each["InputPayload"]), None)

    record = json.loads(wait_for(started, "the destination is executed")["InputPayload"])
    assert record["requestPayload"] == {"n": 41}
    aws.delete_function_event_invoke_config(FunctionName="plain")


# --- executions ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", f"durable-executions/{ARN}", 404, "ResourceNotFoundException"),
        ("GET", f"durable-executions/{ARN}/history", 404, "ResourceNotFoundException"),
        ("POST", f"durable-executions/{ARN}/stop", 404, "ResourceNotFoundException"),
        ("POST", f"durable-executions/{ARN}/pause", 404, "ResourceNotFoundException"),
        ("POST", f"durable-executions/{ARN}/resume", 404, "ResourceNotFoundException"),
        ("DELETE", f"durable-executions/{ARN}", 404, "ResourceNotFoundException"),
        ("GET", f"durable-executions/{ARN}/state?CheckpointToken=eA==", 400, "InvalidParameterValueException"),
        ("POST", "durable-execution-callbacks/bm9ib2R5fG5vdGhpbmc=/succeed", 400, "CallbackTimeoutException"),
        ("POST", "durable-execution-callbacks/bm9ib2R5fG5vdGhpbmc=/heartbeat", 400, "CallbackTimeoutException"),
        ("POST", "durable-execution-callbacks/eA==/fail", 400, "InvalidParameterValueException"),
        ("GET", "functions/nosuch/durable-executions", 404, "ResourceNotFoundException"),
    ],
)
def test_what_is_not_there_is_refused_with_a_code_in_the_header(
    server: Server, method: str, path: str, status: int, code: str
) -> None:
    body = b"{}" if method == "POST" and "callbacks" not in path else b""
    found, headers, _ = send(server, method, path, body)
    assert (found, headers["x-amzn-errortype"]) == (status, code)


def test_checkpoints_without_a_live_invocation_are_refused_in_the_words_that_sdks_look_for(
    server: Server, aws: Any
) -> None:
    arn = start_execution(aws, FLOW, {"do": "callback"})
    event_of(aws, arn, "InvocationCompleted")
    for name in (arn, ARN):
        body = json.dumps({"CheckpointToken": "bm9uc2Vuc2U=", "Updates": []}).encode()
        status, headers, document = send(server, "POST", f"durable-executions/{name}/checkpoint", body)
        assert (status, headers["x-amzn-errortype"]) == (400, "InvalidParameterValueException")
        assert document["message"].startswith("Invalid checkpoint token")
    assert aws.get_durable_execution(DurableExecutionArn=arn)["Status"] == "RUNNING"


def test_an_arn_of_another_version_or_name_is_nobodys(aws: Any) -> None:
    arn = start_execution(aws, FLOW, {"do": "callback"}, name="mine")
    for other in (
        arn.replace(":$LATEST", ":1"),
        arn.replace("/mine/", "/yours/"),
        arn.replace("us-east-1", "eu-west-1"),
    ):
        with pytest.raises(ClientError) as refused:
            aws.stop_durable_execution(DurableExecutionArn=other)
        assert refusal(refused) == (404, "ResourceNotFoundException")
    assert aws.get_durable_execution(DurableExecutionArn=arn)["Status"] == "RUNNING"


@pytest.mark.parametrize("operation", ["get_durable_execution_history", "list_durable_executions_by_function"])
def test_a_marker_that_no_page_ended_with_is_refused(aws: Any, operation: str) -> None:
    arn = start_execution(aws, FLOW, {"do": "callback"})
    of = {"DurableExecutionArn": arn} if "history" in operation else {"FunctionName": FLOW}
    with pytest.raises(ClientError) as refused:
        getattr(aws, operation)(**of, Marker="nonsense")
    assert refusal(refused) == (400, "InvalidParameterValueException")


def test_without_data_an_execution_is_described_only(aws: Any) -> None:
    arn = start_execution(aws, FLOW, {"do": "many_steps", "steps": 1})
    finished(aws, arn)
    found = aws.get_durable_execution(DurableExecutionArn=arn, IncludeExecutionData=False)
    assert not {"InputPayload", "Result"} & set(found)
    assert found["ExecutionDataIncluded"] is False
    assert found["DurableConfig"] == {"ExecutionTimeout": 60, "RetentionPeriodInDays": 14}


def test_status_tells_what_is_suspended(server: Server, aws: Any) -> None:
    arn = start_execution(aws, FLOW, {"do": "callback"})
    event_of(aws, arn, "InvocationCompleted")
    durable = server.status()["durable"]
    assert durable["suspended"] >= 1
    assert durable["executions"]["RUNNING"] >= 1


def test_a_reset_sends_waiting_callers_away_and_leaves_nothing(runtimes: Path, tmp_path: Path) -> None:
    with running(tmp_path / "data") as server:
        create_durable(server.aws, FLOW, WORKFLOWS)
        waiting = server.clients.submit(
            server.aws.invoke, FunctionName=FLOW, Qualifier="$LATEST", Payload=b'{"do": "callback"}'
        )
        wait_for(lambda: server.status()["durable"]["suspended"], "the execution waits")
        urlopen(Request(f"{server.url}/_lambstead/reset", method="POST"), timeout=10).close()
        with pytest.raises(ClientError) as refused:
            waiting.result(20)
        assert refusal(refused) == (404, "ResourceNotFoundException")
        assert server.status()["durable"] == {"running": 0, "suspended": 0, "executions": {}}
