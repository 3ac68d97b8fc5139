"""CloudWatch Logs' API over what functions wrote: AWS's own clients find their lines, each once, in order, with the time at which it was printed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import botocore.config
import pytest
from botocore.exceptions import ClientError
from tests.harness import (
    Server,
    create_function,
    create_provider,
    invoke,
    publish_managed,
    running,
    wait_active,
    wait_for,
)

from lambstead.core.log_streams import file_name, stamp

ECHO = """
import json
def handler(event, context):
    print(json.dumps({"executionArn": event["arn"], "n": event["n"]}))
    print("plain", event["n"])
    return event["n"]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("logs") / "data") as server:
        yield server


def logs_of(server: Server) -> Any:  # Any: types-boto3-logs is not among the tools of this project
    return boto3.client(
        "logs",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=botocore.config.Config(retries={"max_attempts": 0}),
    )


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def refused(call: Callable[..., object], **members: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**members)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def test_lines_of_an_execution_are_found_by_a_json_pattern_and_carry_their_time(server: Server) -> None:
    aws, logs = server.aws, logs_of(server)
    create_function(aws, "echo", ECHO)
    wait_active(aws, "echo", "$LATEST")
    before = now_ms()
    for n, arn in enumerate(["arn:1", "arn:2", "arn:1"]):
        invoke(aws, "echo", {"arn": arn, "n": n}, Qualifier="$LATEST")
    after = now_ms()

    def found(**members: Any) -> list[Mapping[str, Any]]:
        return list(logs.filter_log_events(logGroupName="/aws/lambda/echo", **members)["events"])

    pattern = '{ ($.durableExecutionArn = "arn:1") || ($.executionArn = "arn:1") }'
    wait_for(lambda: len(found(filterPattern=pattern, startTime=before)) == 2, "both lines are there")
    events = found(filterPattern=pattern, startTime=before)
    assert [json.loads(event["message"])["n"] for event in events] == [0, 2]
    assert all(event["message"].endswith("\n") for event in events)
    times = [event["timestamp"] for event in events]
    assert before <= times[0] <= times[1] <= after
    assert len({event["eventId"] for event in events}) == 2
    assert not found(filterPattern=pattern, startTime=after + 1)
    assert not found(filterPattern=pattern, endTime=before - 1)
    assert [event["message"] for event in found(filterPattern="plain")] == ["plain 0\n", "plain 1\n", "plain 2\n"]
    newest_first = found(filterPattern="plain", startFromHead=False)
    assert [event["message"] for event in newest_first] == ["plain 2\n", "plain 1\n", "plain 0\n"]


RAISES = """
import logging
def handler(event, context):
    try:
        raise RuntimeError("first")
    except RuntimeError:
        logging.exception("it failed")
    print("printed next", flush=True)
"""


def test_a_logged_exception_ends_with_its_line(server: Server) -> None:
    aws = server.aws
    create_function(aws, "raises", RAISES)
    wait_active(aws, "raises", "$LATEST")
    invoke(aws, "raises", None, Qualifier="$LATEST")

    def lines() -> list[str]:
        events = logs_of(server).filter_log_events(logGroupName="/aws/lambda/raises")["events"]
        return [event["message"] for event in events]

    wait_for(lambda: any(line.startswith("REPORT") for line in lines()), "the invocation's log is there")
    assert "RuntimeError: first\n" in lines()
    assert "printed next\n" in lines()


def test_a_managed_function_s_platform_records_have_times_too(server: Server) -> None:
    aws, logs = server.aws, logs_of(server)
    before = now_ms()
    publish_managed(aws, "managed-echo", ECHO, create_provider(aws, "logs"))
    invoke(aws, "managed-echo", {"arn": "a", "n": 1})

    def report() -> list[Mapping[str, Any]]:
        answer = logs.filter_log_events(
            logGroupName="/aws/lambda/managed-echo", filterPattern='{ $.type = "platform.report" }', startTime=before
        )
        return list(answer["events"])

    (event,) = wait_for(report, "the report is there")
    assert before <= event["timestamp"] <= now_ms()
    for number in range(4):
        invoke(aws, "managed-echo", {"arn": "a", "n": number})
    wait_for(lambda: len(report()) == 5, "all reports are there")
    durations = [json.loads(each["message"])["record"]["metrics"]["durationMs"] for each in report()]
    assert all(duration > 0 for duration in durations)
    assert not all(duration.is_integer() for duration in durations), (
        "what takes less than a millisecond has a duration too"
    )


def test_groups_and_streams_are_described(server: Server) -> None:
    aws, logs = server.aws, logs_of(server)
    for name in ("left", "right"):
        create_function(aws, name, ECHO, LoggingConfig={"LogGroup": "/shared/group"})
        wait_active(aws, name, "$LATEST")
        invoke(aws, name, {"arn": "a", "n": 1}, Qualifier="$LATEST")

    def reports() -> list[Any]:
        return list(logs.filter_log_events(logGroupName="/shared/group", filterPattern="REPORT")["events"])

    wait_for(lambda: len(reports()) == 2, "the last lines are written")
    (group,) = logs.describe_log_groups(logGroupNamePrefix="/shared")["logGroups"]
    assert group["logGroupName"] == "/shared/group"
    assert group["arn"] == "arn:aws:logs:us-east-1:000000000000:log-group:/shared/group:*"
    assert group["storedBytes"] > 0
    streams = logs.describe_log_streams(logGroupIdentifier=group["logGroupArn"])["logStreams"]
    assert len(streams) == 2
    assert all(stream["firstEventTimestamp"] <= stream["lastEventTimestamp"] for stream in streams)
    assert [stream["logStreamName"] for stream in streams] == sorted(stream["logStreamName"] for stream in streams)
    assert logs.describe_log_groups(logGroupNamePattern="lambda/lef")["logGroups"] == []
    assert logs.describe_log_groups(logGroupNamePattern="hared/gr")["logGroups"] == [group]
    lines = logs.filter_log_events(logGroupName="/shared/group", filterPattern="plain")["events"]
    assert {line["logStreamName"] for line in lines} == {stream["logStreamName"] for stream in streams}


def test_what_is_not_there_and_what_cannot_be_asked_is_refused(server: Server) -> None:
    logs = logs_of(server)
    a_log(server, "known", "1", [(1000, "x")])
    group = "/aws/lambda/known"
    missing = ("ResourceNotFoundException", "The specified log group does not exist.")
    for name in ("/aws/lambda/nobody", "nobody", "/aws/lambda/../known", "/aws/lambda/"):
        assert refused(logs.filter_log_events, logGroupName=name) == missing
    assert refused(logs.get_log_events, logGroupName=group, logStreamName="none") == (
        "ResourceNotFoundException",
        "The specified log stream does not exist.",
    )
    foreign = "arn:aws:logs:eu-west-1:000000000000:log-group:/aws/lambda/known"
    assert refused(logs.filter_log_events, logGroupIdentifier=foreign) == missing
    cases: list[tuple[Callable[..., object], dict[str, Any]]] = [
        (logs.filter_log_events, {}),
        (logs.filter_log_events, {"logGroupName": group, "logGroupIdentifier": group}),
        (logs.filter_log_events, {"logGroupName": group, "filterPattern": "{ nonsense }"}),
        (logs.filter_log_events, {"logGroupName": group, "nextToken": "nonsense"}),
        (logs.filter_log_events, {"logGroupName": group, "logStreamNames": ["a"], "logStreamNamePrefix": "a"}),
        (logs.filter_log_events, {"logGroupName": group, "limit": 10_001}),
        (logs.get_log_events, {"logGroupName": group, "logStreamName": stream("1"), "nextToken": "f/1/s"}),
        (logs.describe_log_streams, {"logGroupName": group, "orderBy": "LastEventTime", "logStreamNamePrefix": "a"}),
        (logs.describe_log_groups, {"nextToken": "nonsense"}),
        (logs.describe_log_groups, {"logGroupNamePrefix": "a", "logGroupNamePattern": "b"}),
    ]
    for call, members in cases:
        assert refused(call, **members)[0] == "InvalidParameterException", members
    code, message = refused(logs.create_log_group, logGroupName="mine")
    assert "does not answer CreateLogGroup yet" in message, code


def stream(version: str) -> str:
    return f"2026/11/21/[{version}]0123456789abcdef"


def a_log(server: Server, function: str, version: str, lines: list[tuple[int, str]], *, stamped: bool = True) -> Path:
    """A log as environments leave it, with lines of known times."""
    path = server.data / "logs" / function / file_name(stream(version))
    path.parent.mkdir(parents=True, exist_ok=True)
    text, stamps = b"", b""
    for at_ms, line in lines:
        stamps += stamp(len(text), at_ms)
        text += line.encode() + b"\n"
    path.write_bytes(text)
    if stamped:
        path.with_suffix(".times").write_bytes(stamps)
    return path


@pytest.mark.parametrize("newest_first", [False, True])
def test_pages_of_a_search_hold_every_event_once_and_in_order(server: Server, newest_first: bool) -> None:
    logs = logs_of(server)
    # Times of one stream go back by a few milliseconds, as they can when two processes append to it.
    a_log(server, "paged", "1", [(1000 + 10 * n - 3 * (n % 2), f"one {n}") for n in range(20)])
    a_log(server, "paged", "2", [(1005 + 10 * n // 2, f"two {n}") for n in range(20)])
    a_log(server, "paged", "3", [(5000, "three"), (5000, ""), (5000, "again")])
    members = {"logGroupName": "/aws/lambda/paged", "startFromHead": not newest_first}
    whole = [event["message"] for event in logs.filter_log_events(**members)["events"]]
    assert len(whole) == len(set(whole)) == 42  # without the blank line
    times = [event["timestamp"] for event in logs.filter_log_events(**members)["events"]]
    assert times == sorted(times, reverse=newest_first)
    for limit in (1, 3, 7):
        paged = []
        for page in logs.get_paginator("filter_log_events").paginate(**members, limit=limit):
            assert len(page["events"]) <= limit
            paged += [event["message"] for event in page["events"]]
        assert paged == whole
    within = [event["message"] for event in logs.filter_log_events(**members, startTime=1100, endTime=1110)["events"]]
    assert sorted(within) == sorted(
        event["message"] for event in logs.filter_log_events(**members)["events"] if 1100 <= event["timestamp"] <= 1110
    )
    one = logs.filter_log_events(**members, logStreamNames=[stream("3")])["events"]
    assert {event["message"] for event in one} == {"three\n", "again\n"}


def test_a_stream_is_read_from_both_ends_and_followed(server: Server) -> None:
    logs = logs_of(server)
    path = a_log(server, "tailed", "1", [(1000 + n, f"line {n}") for n in range(10)])
    members = {"logGroupName": "/aws/lambda/tailed", "logStreamName": stream("1")}

    def read(**more: Any) -> tuple[list[str], str, str]:
        answer = logs.get_log_events(**members, **more)
        texts = [event["message"].strip() for event in answer["events"]]
        return texts, answer["nextForwardToken"], answer["nextBackwardToken"]

    latest, forward, backward = read(limit=3)
    assert latest == ["line 7", "line 8", "line 9"]
    earlier, _, backward = read(limit=3, nextToken=backward)
    assert earlier == ["line 4", "line 5", "line 6"]
    rest, _, backward = read(nextToken=backward)
    assert rest == [f"line {n}" for n in range(4)]
    assert read(nextToken=backward) == ([], f"f/{0:056d}/s", backward)

    assert read(nextToken=forward, startFromHead=True)[:2] == ([], forward), "the end gives the same token"
    with path.open("ab") as file:
        file.write(b"line 10\nunfinished")
    assert read(nextToken=forward, startFromHead=True)[0] == ["line 10"]
    assert read(startFromHead=True, limit=2)[0] == ["line 0", "line 1"]
    assert read(startTime=1003, endTime=1005)[0] == ["line 3", "line 4"]


def test_logs_without_times_are_of_their_last_change(server: Server) -> None:
    path = a_log(server, "older", "1", [(0, "kept")], stamped=False)
    changed = path.stat().st_mtime_ns // 1_000_000
    (event,) = logs_of(server).filter_log_events(logGroupName="/aws/lambda/older")["events"]
    assert (event["message"], event["timestamp"]) == ("kept\n", changed)


def test_a_search_that_finds_nothing_goes_on_page_by_page(server: Server) -> None:
    a_log(server, "large", "1", [(1000 + n, "x" * 200_000) for n in range(200)])
    pages = list(
        logs_of(server)
        .get_paginator("filter_log_events")
        .paginate(logGroupName="/aws/lambda/large", filterPattern="needle")
    )
    assert len(pages) > 1, "40 MB are not looked at in one request"
    assert not any(page["events"] for page in pages)


def test_the_cli_tails_a_group(server: Server) -> None:
    a_log(server, "by-cli", "1", [(now_ms(), "seen by the CLI")])
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    command = [sys.executable, "-m", "awscli", "logs", "filter-log-events", "--log-group-name", "/aws/lambda/by-cli"]
    done = subprocess.run(
        [*command, "--endpoint-url", server.url, "--query", "events[].message", "--output", "text"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "seen by the CLI"
