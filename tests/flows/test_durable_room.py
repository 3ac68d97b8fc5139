"""Durable executions that found no room are invoked when there is some: in these tests the time of their back-off would be an hour."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.durable import LATEST, finished, start_execution
from tests.harness import (
    PUBLISHED,
    Server,
    create_function,
    create_provider,
    on_provider,
    running,
    wait_active,
    wait_for,
)

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

HELD = """
import json, pathlib, time

def handler(event, context):
    if "InitialExecutionState" in event:
        event = json.loads(event["InitialExecutionState"]["Operations"][0]["ExecutionDetails"]["InputPayload"])
    folder = pathlib.Path(event["folder"])
    (folder / f"in-{event['n']}").touch()
    while not (folder / f"out-{event['n']}").exists() and not (folder / "out").exists():
        time.sleep(0.005)
    return {"Status": "SUCCEEDED", "Result": str(event["n"])}
"""
CALLER = """
import json, boto3

def handler(event, context):
    state = event["InitialExecutionState"]["Operations"]
    if len(state) > 1 and state[1]["Status"] == "SUCCEEDED":
        return {"Status": "SUCCEEDED", "Result": state[1]["ChainedInvokeDetails"]["Result"]}
    if len(state) == 1:
        boto3.client("lambda").checkpoint_durable_execution(
            DurableExecutionArn=event["DurableExecutionArn"], CheckpointToken=event["CheckpointToken"], Updates=[{
                "Id": "call", "Type": "CHAINED_INVOKE", "Action": "START",
                "Payload": state[0]["ExecutionDetails"]["InputPayload"], "ChainedInvokeOptions": {"FunctionName": "plain"}}])
    return {"Status": "PENDING"}
"""
DURABLE: dict[str, Any] = {"DurableConfig": {"ExecutionTimeout": 900}, "Timeout": 60}


@pytest.fixture(scope="module")
def server(runtimes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    hour = {"durable_backoff_first": "1h", "durable_backoff_most": "1h"}
    with running(tmp_path_factory.mktemp("room"), slot_wait="50ms", **hour) as server:
        yield server


def deploy(aws: "LambdaClient", name: str, source: str = HELD, reserved: int | None = 1, **members: Any) -> None:
    create_function(aws, name, source, **members)
    aws.get_waiter("function_active_v2").wait(FunctionName=name)
    if reserved is not None:
        aws.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=reserved)


def refused(server: Server, function: str) -> int:
    """How often it was throttled so far."""
    return sum(each["count"] for each in server.status()["throttles"] if each["function"] == function)


class Held:
    """Executions of a function, each of which holds its room until it is told to end."""

    def __init__(self, server: Server, function: str, folder: Path, qualifier: str = LATEST) -> None:
        self.server, self.function, self.folder, self.qualifier = server, function, folder, qualifier
        self.arns: list[str] = []

    def first(self) -> None:
        """Start one, which runs."""
        self._start()
        wait_for((self.folder / "in-0").exists, "the first one runs")

    def more(self, count: int) -> None:
        """Start so many more, each of which is refused."""
        before = refused(self.server, self.function)
        for _ in range(count):
            self._start()
        wait_for(lambda: refused(self.server, self.function) >= before + count, "the others are refused")

    def _start(self) -> None:
        event = {"folder": str(self.folder), "n": len(self.arns)}
        self.arns.append(start_execution(self.server.aws, self.function, event, self.qualifier))

    def open(self, number: int | None = None) -> None:
        (self.folder / ("out" if number is None else f"out-{number}")).touch()

    def status(self, number: int) -> str:
        return str(finished(self.server.aws, self.arns[number])["Status"])


def test_the_end_of_one_begins_the_next_oldest_first(server: Server, tmp_path: Path) -> None:
    deploy(server.aws, "reserved", **DURABLE)
    held = Held(server, "reserved", tmp_path)
    held.first()
    held.more(3)
    for number in range(3):
        held.open(number)
        wait_for((tmp_path / f"in-{number + 1}").exists, "the next one runs")
        assert not (tmp_path / f"in-{number + 2}").exists()
    held.open()
    assert [held.status(number) for number in range(4)] == ["SUCCEEDED"] * 4


def test_room_that_one_does_not_need_goes_to_the_next(server: Server, tmp_path: Path) -> None:
    deploy(server.aws, "stopped", **DURABLE)
    held = Held(server, "stopped", tmp_path)
    held.first()
    held.more(3)
    server.aws.stop_durable_execution(DurableExecutionArn=held.arns[1])
    server.aws.stop_durable_execution(DurableExecutionArn=held.arns[2])
    held.open()
    assert [held.status(number) for number in range(4)] == ["SUCCEEDED", "STOPPED", "STOPPED", "SUCCEEDED"]


def test_a_larger_reservation_is_room(server: Server, tmp_path: Path) -> None:
    deploy(server.aws, "raised", **DURABLE)
    held = Held(server, "raised", tmp_path)
    held.first()
    held.more(2)
    server.aws.put_function_concurrency(FunctionName="raised", ReservedConcurrentExecutions=3)
    for number in range(3):
        wait_for((tmp_path / f"in-{number}").exists, "all run at once")
    held.open()
    assert [held.status(number) for number in range(3)] == ["SUCCEEDED"] * 3


def test_a_slot_that_comes_free_is_room(server: Server, tmp_path: Path) -> None:
    members = on_provider(create_provider(server.aws), 1, Publish=True, PublishTo="LATEST_PUBLISHED", MemorySize=2048)
    create_function(server.aws, "slots", HELD, **members, **DURABLE)
    wait_active(server.aws, "slots")
    server.aws.put_function_scaling_config(
        FunctionName="slots",
        Qualifier=PUBLISHED,
        FunctionScalingConfig={"MinExecutionEnvironments": 1, "MaxExecutionEnvironments": 1},
    )
    wait_active(server.aws, "slots")
    held = Held(server, "slots", tmp_path, PUBLISHED)
    held.first()
    held.more(2)
    held.open()
    assert [held.status(number) for number in range(3)] == ["SUCCEEDED"] * 3


def test_a_chained_function_runs_when_another_caller_makes_room(server: Server, tmp_path: Path) -> None:
    deploy(server.aws, "plain", Timeout=60)
    deploy(server.aws, "caller", CALLER, reserved=None, **DURABLE)
    server.aws.invoke(
        FunctionName="plain",
        InvocationType="Event",
        Payload=json.dumps({"folder": str(tmp_path), "n": 0}),
    )
    wait_for((tmp_path / "in-0").exists, "somebody else runs it")
    arn = start_execution(server.aws, "caller", {"folder": str(tmp_path), "n": 1})
    wait_for(lambda: refused(server, "plain"), "the chained invocation is refused")
    (tmp_path / "out").touch()
    assert json.loads(json.loads(finished(server.aws, arn)["Result"])["Result"]) == 1
