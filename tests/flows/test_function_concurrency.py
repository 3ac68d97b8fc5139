"""Concurrency that acts: reservations refuse, provisioned environments are there before anybody asks."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from botocore.exceptions import ClientError
from tests.harness import (
    Server,
    create_function,
    create_provider,
    invoke,
    package,
    publish_managed,
    running,
    wait_active,
    wait_for,
)

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

BARRIER = """
import os, pathlib, time

def handler(event, context):
    folder = pathlib.Path(event["folder"])
    (folder / f"in-{context.aws_request_id}").touch()
    while not (folder / "open").exists():
        time.sleep(0.005)
    return os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"]
"""
KIND = (
    "import os\ndef handler(event, context):\n    return [os.environ['AWS_LAMBDA_INITIALIZATION_TYPE'], os.getpid()]\n"
)
RESERVATION = "ReservedFunctionConcurrentInvocationLimitExceeded"
ACCOUNT = "ConcurrentInvocationLimitExceeded"


def deploy(aws: "LambdaClient", name: str, source: str, **members: Any) -> None:
    """A standard function with version 1 and an alias `live` for it."""
    create_function(aws, name, source, **members)
    wait_active(aws, name, "$LATEST")
    aws.publish_version(FunctionName=name)
    aws.create_alias(FunctionName=name, Name="live", FunctionVersion="1")


Start = Callable[..., None]


@pytest.fixture
def start(server: Server, aws: "LambdaClient", tmp_path: Path) -> Iterator[Start]:
    """Starts an invocation that lasts until the end of the test and waits until it runs."""
    futures = []

    def begin(name: str, **members: Any) -> None:
        inside = len(list(tmp_path.glob("in-*")))
        futures.append(server.clients.submit(invoke, aws, name, {"folder": str(tmp_path)}, **members))
        wait_for(lambda: len(list(tmp_path.glob("in-*"))) > inside or futures[-1].done(), "the invocation runs")
        assert not futures[-1].done(), futures[-1].exception()

    yield begin
    (tmp_path / "open").touch()
    assert all(future.result(30).status == 200 for future in futures)


def refusal(aws: "LambdaClient", name: str, **members: Any) -> tuple[int, str, str, str]:
    """Status, code, text and reason of an invocation that must be refused."""
    with pytest.raises(ClientError) as caught:
        invoke(aws, name, {"folder": "/nowhere"}, **members)
    response: Any = caught.value.response
    error = response["Error"]
    return response["ResponseMetadata"]["HTTPStatusCode"], error["Code"], error["Message"], response["Reason"]


THROTTLED = (429, "TooManyRequestsException", "Rate Exceeded.", RESERVATION)


def test_a_reservation_counts_all_versions_and_refuses_at_once(
    server: Server, aws: "LambdaClient", start: Start, tmp_path: Path
) -> None:
    deploy(aws, "reserved", BARRIER, Timeout=60)
    aws.put_function_concurrency(FunctionName="reserved", ReservedConcurrentExecutions=2)
    start("reserved")
    start("reserved", Qualifier="1")
    assert refusal(aws, "reserved") == THROTTLED
    assert refusal(aws, "reserved", Qualifier="live") == THROTTLED
    assert len(list(tmp_path.glob("in-*"))) == 2, "the refused ones never ran"
    aws.put_function_concurrency(FunctionName="reserved", ReservedConcurrentExecutions=3)
    start("reserved", Qualifier="live")
    assert refusal(aws, "reserved") == THROTTLED
    aws.delete_function_concurrency(FunctionName="reserved")
    start("reserved")


def test_what_ended_makes_room(aws: "LambdaClient") -> None:
    deploy(
        aws,
        "room",
        "def handler(event, context):\n    if event == 'fail':\n        raise KeyError(event)\n    return event\n",
    )
    aws.put_function_concurrency(FunctionName="room", ReservedConcurrentExecutions=1)
    for event in ("ok", "fail", "ok", "fail", "ok"):
        assert invoke(aws, "room", event).error == ("Unhandled" if event == "fail" else None)


def test_zero_refuses_everything_until_it_is_taken_back(aws: "LambdaClient") -> None:
    deploy(aws, "zero", "def handler(event, context):\n    return event\n")
    aws.put_function_concurrency(FunctionName="zero", ReservedConcurrentExecutions=0)
    assert [refusal(aws, "zero"), refusal(aws, "zero", Qualifier="live")] == [THROTTLED] * 2
    aws.delete_function_concurrency(FunctionName="zero")
    assert invoke(aws, "zero", 5).payload == 5


def test_a_reservation_on_a_capacity_provider_refuses_nobody(aws: "LambdaClient") -> None:
    publish_managed(aws, "managed", "def handler(e, c):\n    return e\n", create_provider(aws), slots=1)
    aws.put_function_concurrency(FunctionName="managed", ReservedConcurrentExecutions=0)
    assert invoke(aws, "managed", 5).payload == 5


def test_the_account_has_a_limit_that_reservations_are_taken_from(runtimes: Path, tmp_path: Path) -> None:
    with running(tmp_path / "data", concurrent_executions="103") as server:
        aws = server.aws
        for name in ("a", "b"):
            create_function(aws, name, BARRIER, Timeout=60)
            wait_active(aws, name, "$LATEST")
        # A limit of 103 lets 3 be reserved. Lowered to 2 afterwards, the reservation leaves one for everybody else.
        aws.put_function_concurrency(FunctionName="a", ReservedConcurrentExecutions=1)
        assert aws.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"] == 102
        server.stop()
    (tmp_path / "folder").mkdir()
    with running(tmp_path / "data", concurrent_executions="2") as server:
        aws = server.aws
        event = {"folder": str(tmp_path / "folder")}
        futures = []
        for count, name in enumerate(("b", "a"), start=1):
            futures.append(server.clients.submit(invoke, aws, name, event))
            wait_for(lambda count=count: len(list((tmp_path / "folder").glob("in-*"))) == count, f"{name} runs")  # type: ignore[misc]  # mypy cannot infer lambdas with defaults
        assert refusal(aws, "b") == (429, "TooManyRequestsException", "Rate Exceeded.", ACCOUNT)
        assert refusal(aws, "a") == THROTTLED
        (tmp_path / "folder" / "open").touch()
        assert [future.result(30).status for future in futures] == [200, 200]


# --- provisioned ------------------------------------------------------------------------------------------------------------


def provision(aws: "LambdaClient", name: str, qualifier: str, count: int) -> None:
    aws.put_provisioned_concurrency_config(
        FunctionName=name, Qualifier=qualifier, ProvisionedConcurrentExecutions=count
    )


def allocated(aws: "LambdaClient", name: str, qualifier: str, status: str = "READY") -> dict[str, Any]:
    def settled() -> dict[str, Any] | None:
        found: dict[str, Any] = dict(aws.get_provisioned_concurrency_config(FunctionName=name, Qualifier=qualifier))
        return found if found["Status"] == status else None

    return wait_for(settled, f"{name}:{qualifier} is {status}")


def test_provisioned_environments_wait_for_invocations_and_others_are_started_beside_them(
    server: Server, aws: "LambdaClient", start: Start
) -> None:
    deploy(aws, "warm", BARRIER, Timeout=60)
    provision(aws, "warm", "live", 2)
    allocated(aws, "warm", "live")
    before = {e["id"] for e in server.environments("warm")}
    assert len(before) == 2
    start("warm", Qualifier="live")
    start("warm", Qualifier="1")
    assert {e["id"] for e in server.environments("warm")} == before, "both run in environments that were there"
    start("warm", Qualifier="live")
    assert len(server.environments("warm")) == 3, "the third found none and got one on demand"


def test_functions_can_tell_how_they_were_initialised(aws: "LambdaClient") -> None:
    deploy(aws, "kind", KIND)
    provision(aws, "kind", "1", 1)
    allocated(aws, "kind", "1")
    assert invoke(aws, "kind", Qualifier="1").payload[0] == "provisioned-concurrency"
    assert invoke(aws, "kind").payload[0] == "on-demand"


def test_a_reservation_that_is_all_provisioned_leaves_nothing_for_other_versions(
    aws: "LambdaClient", start: Start
) -> None:
    deploy(aws, "spoken-for", BARRIER, Timeout=60)
    provision(aws, "spoken-for", "1", 1)
    allocated(aws, "spoken-for", "1")
    aws.put_function_concurrency(FunctionName="spoken-for", ReservedConcurrentExecutions=1)
    assert refusal(aws, "spoken-for") == THROTTLED, "recorded from AWS: $LATEST finds nothing left"
    start("spoken-for", Qualifier="1")
    assert refusal(aws, "spoken-for", Qualifier="1") == THROTTLED


def test_a_failing_init_fails_the_allocation_and_a_repaired_alias_heals_it(aws: "LambdaClient") -> None:
    deploy(aws, "unborn", "import nowhere\n")
    provision(aws, "unborn", "live", 1)
    failed = allocated(aws, "unborn", "live", "FAILED")
    assert failed["StatusReason"] == "FUNCTION_ERROR_INIT_FAILURE"
    assert failed["AvailableProvisionedConcurrentExecutions"] == 0
    aws.update_function_code(FunctionName="unborn", ZipFile=package(KIND))
    wait_active(aws, "unborn", "$LATEST")
    aws.publish_version(FunctionName="unborn")
    aws.update_alias(FunctionName="unborn", Name="live", FunctionVersion="2")
    assert allocated(aws, "unborn", "live")["AvailableProvisionedConcurrentExecutions"] == 1


def test_provisioned_concurrency_moves_with_its_alias_and_ends_with_its_config(
    server: Server, aws: "LambdaClient"
) -> None:
    deploy(aws, "mover", KIND)
    provision(aws, "mover", "live", 2)
    allocated(aws, "mover", "live")
    aws.update_function_code(FunctionName="mover", ZipFile=package(KIND + "# second\n"))
    wait_active(aws, "mover", "$LATEST")
    aws.publish_version(FunctionName="mover")
    aws.update_alias(FunctionName="mover", Name="live", RoutingConfig={"AdditionalVersionWeights": {"2": 0.5}})

    def versions() -> list[str]:
        return sorted(e["version"] for e in server.environments("mover"))

    wait_for(lambda: versions() == ["1", "2"], "one environment for each half")
    allocated(aws, "mover", "live")
    aws.update_alias(FunctionName="mover", Name="live", FunctionVersion="2", RoutingConfig={})
    wait_for(lambda: versions() == ["2", "2"], "both environments moved")
    aws.delete_provisioned_concurrency_config(FunctionName="mover", Qualifier="live")
    wait_for(lambda: versions() == [], "nothing is kept any more")


def test_lost_environments_are_replaced_and_a_crash_of_the_server_forgets_nothing(
    runtimes: Path, tmp_path: Path
) -> None:
    with running(tmp_path / "data") as server:
        deploy(server.aws, "kept", KIND)
        provision(server.aws, "kept", "1", 1)
        allocated(server.aws, "kept", "1")
        first = invoke(server.aws, "kept", Qualifier="1").payload
        (before,) = server.environments("kept")
        psutil.Process(first[1]).kill()
        wait_for(
            lambda: [e["id"] for e in server.environments("kept")] not in ([], [before["id"]]),
            "another environment took its place",
        )
        allocated(server.aws, "kept", "1")
        server.kill()
    with running(tmp_path / "data") as server:
        wait_for(lambda: server.environments("kept"), "the environment is there again")
        allocated(server.aws, "kept", "1")
        assert invoke(server.aws, "kept", Qualifier="1").payload[0] == "provisioned-concurrency"


def test_more_than_this_machine_may_run_fails_with_the_setting_to_change(runtimes: Path, tmp_path: Path) -> None:
    with running(tmp_path / "data", standard_environments="1") as server:
        deploy(server.aws, "many", KIND)
        provision(server.aws, "many", "1", 2)
        failed = allocated(server.aws, "many", "1", "FAILED")
        assert "standard_environments" in failed["StatusReason"]
        assert server.status()["functions"][0]["name"] == "many"
