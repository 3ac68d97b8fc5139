"""Slots: so many at once in one environment, never one more."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from tests.harness import PUBLISHED, Server, create_provider, invoke, publish_managed, running, wait_for

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

BARRIER = """
import os, pathlib, time

def handler(event, context):
    folder = pathlib.Path(event["folder"])
    (folder / f"in-{os.getpid()}-{context.aws_request_id}").touch()
    while not (folder / "open").exists():
        time.sleep(0.005)
    return os.getpid()
"""


@pytest.fixture(scope="module")
def provider(aws: "LambdaClient") -> str:
    return create_provider(aws)


@pytest.fixture(scope="module")
def barrier(aws: "LambdaClient", provider: str) -> str:
    publish_managed(aws, "barrier", BARRIER, provider, slots=16, Timeout=60)
    return "barrier"


def inside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("in-*"))


def test_sixteen_at_once_on_sixteen_workers_and_the_seventeenth_waits(
    server: Server, aws: "LambdaClient", barrier: str, tmp_path: Path
) -> None:
    event = {"folder": str(tmp_path)}
    first = [server.clients.submit(invoke, aws, barrier, event) for _ in range(16)]
    wait_for(lambda: len(inside(tmp_path)) == 16, "sixteen run at once")
    assert len({name.split("-")[1] for name in inside(tmp_path)}) == 16, "each on a worker process of its own"
    seventeenth = server.clients.submit(invoke, aws, barrier, event)
    wait_for(lambda: server.environments(barrier)[0]["busy"] == 16, "all slots are busy")
    assert len(inside(tmp_path)) == 16, "nobody runs beside a busy worker"
    (tmp_path / "open").touch()
    pids = {future.result(30).payload for future in first}
    assert len(pids) == 16
    assert seventeenth.result(30).payload in pids
    assert len(inside(tmp_path)) == 17


def test_an_invocation_that_finds_no_slot_in_time_is_throttled_with_the_reason(
    server: Server, aws: "LambdaClient", barrier: str, tmp_path: Path
) -> None:
    event = {"folder": str(tmp_path)}
    running = [server.clients.submit(invoke, aws, barrier, event) for _ in range(16)]
    wait_for(lambda: len(inside(tmp_path)) == 16, "sixteen run at once")
    asked = time.monotonic()
    with pytest.raises(ClientError) as caught:
        invoke(aws, barrier, event)
    waited = time.monotonic() - asked
    (tmp_path / "open").touch()
    response: Any = caught.value.response
    assert response["Error"]["Code"] == "TooManyRequestsException"
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 429
    assert response["Reason"] == "ConcurrentInvocationLimitExceeded"
    assert response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "1"
    assert waited >= 1.9, "a short wait comes before the refusal"
    assert all(future.result(30).status == 200 for future in running)
    assert len(inside(tmp_path)) == 16, "the refused one never ran"


def test_waiting_invocations_are_served_in_order_of_arrival(runtimes: Path, tmp_path: Path) -> None:
    source = """
import os, time
def handler(event, context):
    while not os.path.exists(event["gate"]):
        time.sleep(0.005)
    return time.time()
"""
    event = {"gate": str(tmp_path / "open")}
    with running(tmp_path / "d", slot_wait="1m") as server:
        aws = server.aws
        publish_managed(aws, "single", source, create_provider(aws), slots=1)
        aws.put_function_scaling_config(
            FunctionName="single",
            Qualifier=PUBLISHED,
            FunctionScalingConfig={"MinExecutionEnvironments": 1, "MaxExecutionEnvironments": 1},
        )

        def there() -> int:
            busy = sum(e["busy"] for e in server.environments("single"))
            return int(server.status()["waiting"].get("single:$LATEST.PUBLISHED", 0)) + int(busy)

        callers = []
        for number in range(5):
            callers.append(server.clients.submit(invoke, aws, "single", event))
            wait_for(lambda n=number: there() > n, f"invocation {number} arrived")  # type: ignore[misc]  # a default binds the loop's value
        (tmp_path / "open").touch()
        began = [caller.result(30).payload for caller in callers]
    assert began == sorted(began)
