"""Durable functions with AWS's unmodified Python SDK, through AWS's own client."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.durable import create_durable, finished, history, start_execution, types
from tests.harness import Server, running

STEP_WAIT_STEP = """
@durable_execution
def handler(event, context):
    first = context.step(lambda _: event['n'] + 1, name='first')
    context.wait(Duration.from_seconds(1), name='pause')
    return {'first': first, 'second': context.step(lambda _: first * 2, name='second')}
"""


@pytest.fixture(scope="module")
def server(runtimes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("durable")) as server:
        create_durable(server.aws, "step-wait-step", STEP_WAIT_STEP)
        yield server


def test_a_caller_waits_for_the_whole_execution(server: Server) -> None:
    answer = server.aws.invoke(FunctionName="step-wait-step", Qualifier="$LATEST", Payload=b'{"n": 1}')
    assert answer["StatusCode"] == 200
    assert "FunctionError" not in answer
    assert answer["Payload"].read() == b'{"first": 2, "second": 4}'
    arn = answer["DurableExecutionArn"]
    assert arn.startswith("arn:aws:lambda:us-east-1:000000000000:function:step-wait-step:$LATEST/durable-execution/")
    assert types(history(server.aws, arn)) == [
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


def test_an_execution_that_nobody_waits_for_ends_too(server: Server) -> None:
    arn = start_execution(server.aws, "step-wait-step", {"n": 2})
    found = finished(server.aws, arn)
    assert (found["Status"], found["Result"]) == ("SUCCEEDED", '{"first": 3, "second": 6}')
    assert found["InputPayload"] == '{"n": 2}'
    assert found["EndTimestamp"] > found["StartTimestamp"]
