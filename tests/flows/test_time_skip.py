"""A year in seconds: executions that skip time, with AWS's unmodified SDK."""

import json
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from tests.durable import create_durable, event_of, finished, history, start_execution, status_of, types
from tests.harness import FUNCTIONS, Server, running

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

YEAR = """
from aws_durable_execution_sdk_python import durable_execution
from aws_durable_execution_sdk_python.config import CallbackConfig, Duration, StepConfig
from aws_durable_execution_sdk_python.retries import RetryDecision

attempts = []

@durable_execution
def handler(event, context):
    context.wait(Duration.from_days(event["days"]), name="months")

    def flaky(_):
        attempts.append(1)
        if len(attempts) % 4:
            raise ValueError("not yet")
        return len(attempts)

    hourly = StepConfig(retry_strategy=lambda error, attempt: RetryDecision.retry(Duration.from_hours(1)))
    tried = context.step(flaky, name="flaky", config=hourly)
    try:
        context.create_callback(name="approval", config=CallbackConfig(timeout=Duration.from_hours(5))).result()
        approved = True
    except Exception as error:
        approved = False
    return {"tried": bool(tried), "approved": approved}

"""
DAY = timedelta(days=1)
WORKFLOWS = (FUNCTIONS / "workflows.py").read_text()


@pytest.fixture(scope="module")
def server(runtimes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("skip")) as server:
        long = {"DurableConfig": {"ExecutionTimeout": 366 * 86400}}
        create_durable(server.aws, "year", YEAR, **long)
        create_durable(server.aws, "flow", WORKFLOWS, **long)
        create_durable(server.aws, "short", WORKFLOWS, DurableConfig={"ExecutionTimeout": 60})
        yield server


def with_header(server: Server, name: str, value: str) -> "LambdaClient":
    """AWS's client, with one more header on every Invoke."""
    aws = server.aws
    aws.meta.events.register("before-call.lambda.Invoke", lambda params, **_: params["headers"].update({name: value}))
    return aws


def start_skipping(server: Server, function: str, event: Any) -> str:
    return start_execution(with_header(server, "x-lambstead-time-skip", "true"), function, event)


def in_order(events: list[dict[str, Any]]) -> bool:
    moments = [each["EventTimestamp"] for each in events]
    return moments == sorted(moments)


def span(found: dict[str, Any]) -> timedelta:
    started, ended = found["StartTimestamp"], found["EndTimestamp"]
    assert isinstance(started, datetime)
    assert isinstance(ended, datetime)
    return ended - started


def test_a_year_with_hourly_retries_and_a_callback_that_times_out_passes_in_seconds(server: Server) -> None:
    arn = start_skipping(server, "year", {"days": 364})
    found = finished(server.aws, arn, 60)
    assert json.loads(found["Result"]) == {"tried": True, "approved": False}
    events = history(server.aws, arn)
    assert in_order(events)
    assert types(events).count("StepFailed") == 3
    (over,) = [each for each in events if each["EventType"] == "CallbackTimedOut"]
    (opened,) = [each for each in events if each["EventType"] == "CallbackStarted"]
    assert over["EventTimestamp"] - opened["EventTimestamp"] >= timedelta(hours=5)
    least = 364 * DAY + timedelta(hours=3 + 5)
    assert least <= span(found) < least + timedelta(minutes=5)


def test_a_callback_can_be_completed_before_its_timeout_is_skipped_to(server: Server) -> None:
    arn = start_skipping(server, "flow", {"do": "callback", "timeout": 86400})
    callback_id = event_of(server.aws, arn, "CallbackStarted")["CallbackStartedDetails"]["CallbackId"]
    server.aws.send_durable_execution_callback_success(CallbackId=callback_id, Result=b"in time")
    assert json.loads(finished(server.aws, arn)["Result"]) == {"approved": "in time"}


def test_an_open_callback_without_a_timeout_is_waited_for(server: Server) -> None:
    arn = start_skipping(server, "flow", {"do": "callback"})
    callback_id = event_of(server.aws, arn, "CallbackStarted")["CallbackStartedDetails"]["CallbackId"]
    other = start_skipping(server, "flow", {"do": "step_wait_step", "n": 1, "seconds": 8640000})
    assert span(finished(server.aws, other)) >= 100 * DAY
    assert status_of(server.aws, arn) == "RUNNING"
    server.aws.send_durable_execution_callback_success(CallbackId=callback_id, Result=b"late")
    assert span(finished(server.aws, arn)) < DAY


def test_an_execution_times_out_when_its_next_timer_is_later(server: Server) -> None:
    arn = start_skipping(server, "short", {"do": "step_wait_step", "n": 1, "seconds": 3600})
    found = finished(server.aws, arn)
    assert found["Status"] == "TIMED_OUT"
    assert span(found) == timedelta(seconds=60)


def test_a_child_execution_skips_time_with_its_parent(server: Server) -> None:
    child = {"do": "step_wait_step", "n": 1, "seconds": 86400}
    arn = start_skipping(server, "flow", {"do": "chained", "function": "flow:$LATEST", "payload": child})
    found = finished(server.aws, arn)
    assert json.loads(found["Result"]) == {"answer": {"first": 2, "second": 4}}
    assert span(found) >= DAY
    assert in_order(history(server.aws, arn))


def test_an_execution_that_waits_already_is_hurried_by_command(server: Server) -> None:
    arn = start_execution(server.aws, "flow", {"do": "step_wait_step", "n": 1, "seconds": 864000})
    event_of(server.aws, arn, "WaitStarted")
    done = server.command("durable", "skip", arn)
    assert "skips time" in done.stdout, done.stderr
    assert span(finished(server.aws, arn)) >= 10 * DAY
    again = server.command("durable", "skip", arn)
    assert again.returncode == 2
    assert "SUCCEEDED" in again.stderr


def test_time_is_skipped_on_a_server_that_was_told_so_and_over_a_kill(runtimes: Path, tmp_path: Path) -> None:
    with running(tmp_path, "--time-skip", time_skip_callback_grace="2s") as first:
        create_durable(first.aws, "flow", WORKFLOWS, DurableConfig={"ExecutionTimeout": 366 * 86400})
        arn = start_execution(first.aws, "flow", {"do": "callback", "timeout": 864000})
        event_of(first.aws, arn, "CallbackStarted")
        real = start_execution(
            with_header(first, "x-lambstead-time-skip", "false"), "flow", {"do": "callback", "timeout": 864000}
        )
        event_of(first.aws, real, "CallbackStarted")
        first.kill()
    began = time.time()
    with running(tmp_path) as second:
        found = finished(second.aws, arn)
        assert "error" in json.loads(found["Result"])
        assert span(found) >= 10 * DAY
        assert found["StartTimestamp"].timestamp() < began
        assert status_of(second.aws, real) == "RUNNING"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("x-lambstead-time-skip", "perhaps", "neither true nor false"),
        ("x-lambstead-attributes", "{", "not JSON"),
        ("x-lambstead-attributes", '{"a": 1}', "object of strings"),
    ],
)
def test_a_bad_header_starts_nothing(server: Server, name: str, value: str, words: str) -> None:
    with pytest.raises(ClientError, match=words):
        start_execution(with_header(server, name, value), "flow", {"do": "fails"}, name="never")
    listed = server.aws.list_durable_executions_by_function(FunctionName="flow", DurableExecutionName="never")
    assert listed["DurableExecutions"] == []
