"""`kill -9` of every kind of process: callers get a modelled answer, capacity comes back, nothing stays behind."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError
from tests.harness import (
    PUBLISHED,
    Answer,
    Server,
    create_function,
    create_provider,
    invoke,
    marked_processes,
    package,
    publish_managed,
    running,
    start,
    wait_active,
    wait_for,
    wait_updated,
)

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

HOLD = """
import os, pathlib, time

def handler(event, context):
    if event is None:
        return os.getpid()
    folder = pathlib.Path(event)
    (folder / str(os.getpid())).touch()
    while not (folder / "open").exists():
        time.sleep(0.005)
    return os.getpid()
"""


@pytest.fixture(params=["link", "official"])
def own(request: pytest.FixtureRequest, runtimes: Path, tmp_path: Path) -> Iterator[Server]:
    """A server that only this test harms, with workers on the link or on the Runtime API."""
    with running(tmp_path / "data", instance_poll="200ms", runtime_client=request.param) as server:
        publish_managed(server.aws, "victim", HOLD, create_provider(server.aws), slots=4, Timeout=60)
        yield server


def held(server: Server, folder: Path, count: int) -> tuple[list[Future[Answer]], list[int]]:
    """So many invocations that hold their workers, and the workers' pids."""
    folder.mkdir()
    futures = [server.clients.submit(invoke, server.aws, "victim", str(folder)) for _ in range(count)]
    wait_for(lambda: len(list(folder.iterdir())) == count, f"{count} invocations run")
    return futures, sorted(int(path.name) for path in folder.iterdir())


def whole(server: Server) -> list[str]:
    """Ready environments of the victim with all their slots."""
    return [e["id"] for e in server.environments("victim") if e["slots"] == 4]


def assert_all_slots_are_back(server: Server, folder: Path) -> None:
    """As many invocations run at once as before; the rest of the pool would refuse them after a while."""
    folder.mkdir()
    seen: set[str] = set()

    def together() -> bool:
        missing = 4 - len([future for future in futures if not future.done()])
        futures.extend(server.clients.submit(answered, server, "victim", str(folder)) for _ in range(missing))
        seen.update(path.name for path in folder.iterdir())
        return len([pid for pid in seen if psutil.pid_exists(int(pid))]) >= 4

    futures: list[Future[Answer | None]] = []
    wait_for(together, "four invocations run at once, on four living workers")
    (folder / "open").touch()
    for future in futures:
        future.result(30)


def test_a_killed_busy_worker_fails_its_own_invocation_and_is_replaced(own: Server, tmp_path: Path) -> None:
    futures, pids = held(own, tmp_path / "held", 3)
    os.kill(pids[0], signal.SIGKILL)
    failed = wait_for(lambda: next((f for f in futures if f.done()), None), "one invocation ends").result()
    assert failed.error == "Unhandled"
    assert failed.payload["errorType"] == "Runtime.ExitError"
    (tmp_path / "held" / "open").touch()
    results = [future.result(30) for future in futures]
    assert sorted(answer.payload for answer in results if answer.error is None) == pids[1:]
    assert_all_slots_are_back(own, tmp_path / "again")


def test_a_killed_idle_worker_costs_at_most_the_invocation_that_was_on_its_way(own: Server, tmp_path: Path) -> None:
    worker = invoke(own.aws, "victim").payload
    os.kill(worker, signal.SIGKILL)
    first, *others = [invoke(own.aws, "victim") for _ in range(9)]
    assert [answer.error for answer in others] == [None] * 8
    assert first.error is None or first.payload["errorType"] == "Runtime.ExitError"
    assert_all_slots_are_back(own, tmp_path / "again")


def test_a_killed_runtime_fails_what_runs_and_the_environment_comes_back(own: Server, tmp_path: Path) -> None:
    futures, pids = held(own, tmp_path / "held", 2)
    main = psutil.Process(pids[0]).ppid()
    os.kill(main, signal.SIGKILL)
    for future in futures:
        answer = future.result(30)
        assert answer.payload["errorType"] == "Runtime.ExitError"
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in pids), "no worker outlives its runtime")
    wait_for(lambda: whole(own), "the environment comes back")
    assert invoke(own.aws, "victim").error is None


def test_a_killed_agent_is_a_lost_instance_and_capacity_comes_back(own: Server, tmp_path: Path) -> None:
    futures, pids = held(own, tmp_path / "held", 2)
    (agent,) = own.agents()
    agent.kill()
    for future in futures:
        with pytest.raises(ClientError) as caught:
            future.result(30)
        assert caught.value.response["Error"]["Code"] == "ServiceException"
        assert "was lost while it ran request" in caught.value.response["Error"]["Message"]
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in pids), "nothing outlives the agent")
    wait_for(lambda: whole(own), "an instance and its environment come back")
    assert invoke(own.aws, "victim").error is None
    assert own.aws.get_function_configuration(FunctionName="victim", Qualifier=PUBLISHED)["State"] == "Active"


def test_after_kill_of_the_server_everything_acknowledged_is_there_and_active_versions_come_back(
    runtimes: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    server = start(data)
    try:
        aws = server.aws
        provider = create_provider(aws, "kept", CapacityProviderScalingConfig={"MaxVCpuCount": 30})
        publish_managed(aws, "victim", HOLD, provider, slots=4, Tags={"k": "v"})
        aws.publish_version(FunctionName="victim", Description="one")
        wait_active(aws, "victim", "1")
        aws.create_alias(FunctionName="victim", Name="live", FunctionVersion="1")
        create_function(aws, "standard", "def handler(e, c):\n    return 'standard'\n")
        wait_active(aws, "standard", "$LATEST")
        before = everything(aws)
        children = marked_processes(data)
        server.kill()
        wait_for(lambda: not marked_processes(data), "no process outlives the server")
        assert children, "there was something to outlive it"
    finally:
        server.process.kill()
    with running(data) as again:
        assert everything(again.aws) == before
        assert wait_for(lambda: answered(again, "victim:live"), "version 1 comes back by itself").error is None
        assert wait_for(lambda: answered(again, "victim"), "$LATEST.PUBLISHED comes back by itself").error is None
        assert invoke(again.aws, "standard").payload == "standard"


def answered(server: Server, name: str, event: object = None) -> Answer | None:
    try:
        return invoke(server.aws, name, event)
    except server.aws.exceptions.TooManyRequestsException:
        return None  # only capacity may be missing


def everything(aws: "LambdaClient") -> dict[str, object]:
    """What the API says of all that was deployed, apart from links to this server."""
    functions = [f["FunctionName"] for f in aws.list_functions()["Functions"]]
    return {
        "providers": [aws.get_capacity_provider(CapacityProviderName="kept")["CapacityProvider"]],
        "functions": {
            name: {
                "versions": aws.list_versions_by_function(FunctionName=name)["Versions"],
                "aliases": aws.list_aliases(FunctionName=name)["Aliases"],
                "tags": aws.get_function(FunctionName=name).get("Tags"),
                "latest": aws.get_function_configuration(FunctionName=name)["State"]
                in ("Active", "ActiveNonInvocable"),
            }
            for name in functions
        },
    }


def test_acknowledged_writes_survive_a_kill_at_any_moment(runtimes: Path, tmp_path: Path) -> None:
    """Creates run in parallel until the server dies in the middle of them."""
    data = tmp_path / "data"
    server = start(data)
    acknowledged: list[str] = []

    def create(number: int) -> None:
        try:
            create_function(server.aws, f"f{number}", "def handler(e, c):\n    return 1\n")
        except (ConnectionClosedError, EndpointConnectionError, ClientError):
            return
        acknowledged.append(f"f{number}")

    futures = [server.clients.submit(create, number) for number in range(200)]
    wait_for(lambda: len(acknowledged) > 20, "some are created")
    server.kill()
    for future in futures:
        future.exception(60)
    assert len(acknowledged) < 200, "the kill came in the middle"
    with running(data) as again:
        names = {
            f["FunctionName"]
            for page in again.aws.get_paginator("list_functions").paginate()
            for f in page["Functions"]
        }
        assert set(acknowledged) <= names
        for name in acknowledged[:3]:
            wait_active(again.aws, name, "$LATEST")
            assert invoke(again.aws, name).payload == 1


def test_a_clean_stop_lets_running_invocations_finish_and_leaves_nothing(runtimes: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data) as server:
        publish_managed(server.aws, "victim", HOLD, create_provider(server.aws), slots=4, Timeout=60)
        (future,), _ = held(server, tmp_path / "held", 1)
        server.process.terminate()
        wait_for(lambda: not (data / "server.json").exists(), "the server is stopping")
        (tmp_path / "held" / "open").touch()
        assert future.result(30).error is None
        assert server.process.wait(30) == 0
        assert not marked_processes(data)


def test_a_timed_out_invocation_of_a_managed_function_keeps_its_slot_until_the_code_ends(
    own: Server, tmp_path: Path
) -> None:
    source = HOLD.replace("return os.getpid()\n    folder", "return 'free'\n    folder")
    own.aws.update_function_configuration(FunctionName="victim", Timeout=1)
    wait_updated(own.aws, "victim")
    own.aws.update_function_code(FunctionName="victim", ZipFile=package(source))
    wait_updated(own.aws, "victim")
    own.aws.publish_version(FunctionName="victim")
    wait_active(own.aws, "victim", "1")
    folder = tmp_path / "held"
    folder.mkdir()
    futures = [own.clients.submit(invoke, own.aws, "victim", str(folder), Qualifier="1") for _ in range(4)]
    for future in futures:
        assert future.result(30).payload["errorType"] == "Sandbox.Timedout"
    with pytest.raises(ClientError, match="TooManyRequestsException"):
        invoke(own.aws, "victim", Qualifier="1")
    (folder / "open").touch()
    assert wait_for(lambda: answered(own, "victim:1"), "the slots come back").payload == "free"
