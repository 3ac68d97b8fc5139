"""Several gateway processes on one port: what holds for one server holds for all of them together, whoever of them dies."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psutil
import pytest
from botocore.exceptions import ClientError
from tests.harness import (
    FUNCTIONS,
    Server,
    archive,
    create_function,
    create_provider,
    invoke,
    on_provider,
    publish_managed,
    running,
    wait_active,
    wait_for,
    with_runtime,
)

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

GATEWAYS = 3
SLOTS = 4
BARRIER = """
import os, pathlib, time

def handler(event, context):
    folder = pathlib.Path(event["folder"])
    (folder / f"in-{context.aws_request_id}").touch()
    while not (folder / "open").exists():
        time.sleep(0.005)
    return os.getpid()
"""
ECHO = "def handler(event, context):\n    return event\n"
PEAK = """
import os, time

def handler(event, context):
    # How many of this environment's workers are inside at once: each holds a name in a folder that they share.
    mine = f"/tmp/inside-{os.getpid()}"
    os.close(os.open(mine, os.O_CREAT | os.O_EXCL))
    try:
        time.sleep(0.002)
        return sum(name.startswith("inside-") for name in os.listdir("/tmp"))
    finally:
        os.unlink(mine)
"""


@pytest.fixture(scope="module")
def server(runtimes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("gateways") / "data"
    with running(data, "--gateways", str(GATEWAYS), slot_wait="500ms") as server:
        arn = create_provider(server.aws)
        publish_managed(server.aws, "barrier", BARRIER, arn, slots=SLOTS, Timeout=60)
        publish_managed(server.aws, "echo", ECHO, arn, slots=SLOTS)
        yield server


class Caller:
    """A connection of its own, so that the kernel chooses a gateway for it."""

    def __init__(self, server: Server) -> None:
        address = urlsplit(server.url)
        self.connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)

    def invoke(self, function: str, event: Any) -> tuple[int, Any, dict[str, str]]:
        self.connection.request("POST", f"/2015-03-31/functions/{function}/invocations", json.dumps(event))
        answer = self.connection.getresponse()
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return answer.status, json.loads(answer.read()), headers


def once(server: Server, function: str, event: Any) -> tuple[int, Any, dict[str, str]]:
    caller = Caller(server)
    with contextlib.closing(caller.connection):
        return caller.invoke(function, event)


def inside(folder: Path) -> int:
    return len(list(folder.glob("in-*")))


def counts(server: Server) -> list[int]:
    return [gateway["invocations"] for gateway in server.status()["gateways"]]


def callers_of_all(server: Server) -> list[Caller]:
    """One connection to each gateway, found by whose count moves."""
    found: dict[int, Caller] = {}
    for _ in range(200):
        before, caller = counts(server), Caller(server)
        assert caller.invoke("echo", 1)[0] == 200
        moved = [number for number, (old, new) in enumerate(zip(before, counts(server), strict=True)) if new > old]
        assert len(moved) == 1
        if found.setdefault(moved[0], caller) is not caller:
            caller.connection.close()
        if len(found) == GATEWAYS:
            return [found[number] for number in range(GATEWAYS)]
    raise AssertionError(f"200 connections reached gateways {sorted(found)} only")


def test_every_gateway_serves_every_function(server: Server) -> None:
    for caller in callers_of_all(server):
        assert caller.invoke("echo", {"a": "ü"})[:2] == (200, {"a": "ü"})
        caller.connection.close()


def test_exactly_as_many_run_as_there_are_slots_and_the_rest_is_refused(server: Server, tmp_path: Path) -> None:
    event = {"folder": str(tmp_path)}
    before = counts(server)
    calls = [server.clients.submit(once, server, "barrier", event) for _ in range(3 * SLOTS)]
    wait_for(lambda: sum(call.done() for call in calls) == 2 * SLOTS, "those beyond the slots have an answer")
    refused = [call.result() for call in calls if call.done()]
    assert inside(tmp_path) == SLOTS
    (tmp_path / "open").touch()
    assert {status for status, _, _ in refused} == {429}
    assert {answer["Reason"] for _, answer, _ in refused} == {"ConcurrentInvocationLimitExceeded"}
    assert {headers["retry-after"] for _, _, headers in refused} == {"1"}
    assert sorted(call.result(30)[0] for call in calls) == [200] * SLOTS + [429] * 2 * SLOTS
    assert inside(tmp_path) == SLOTS, "no refused one ever ran"
    moved = [new - old for old, new in zip(before, counts(server), strict=True)]
    assert sum(moved) == 3 * SLOTS, "every one of them came through a gateway"


def test_never_more_at_once_than_slots_under_load(server: Server) -> None:
    arn = server.aws.get_capacity_provider(CapacityProviderName="pool")["CapacityProvider"]["CapacityProviderArn"]
    publish_managed(server.aws, "peak", PEAK, arn, slots=SLOTS)

    def call_often() -> list[tuple[int, Any]]:
        caller = Caller(server)
        with contextlib.closing(caller.connection):
            return [caller.invoke("peak", None)[:2] for _ in range(40)]

    answers = [
        answer for calls in [server.clients.submit(call_often) for _ in range(12)] for answer in calls.result(60)
    ]
    assert len(answers) == 480
    assert {status for status, _ in answers} == {200}, "a short wait serves them all"
    assert 1 < max(peak for _, peak in answers) <= SLOTS


def test_whoever_waits_in_one_gateway_gets_the_slot_that_comes_free_in_another(server: Server, tmp_path: Path) -> None:
    holders = callers_of_all(server)
    event = {"folder": str(tmp_path)}
    held = [server.clients.submit(holders[0].invoke, "barrier", event) for _ in range(1)]
    held += [server.clients.submit(once, server, "barrier", event) for _ in range(SLOTS - 1)]
    wait_for(lambda: inside(tmp_path) == SLOTS, "all slots are taken")
    waiting = [server.clients.submit(caller.invoke, "barrier", event) for caller in holders[1:]]
    wait_for(lambda: sum(server.status()["waiting"].values()) == len(waiting), "callers of other gateways wait")
    (tmp_path / "open").touch()
    assert [call.result(30)[0] for call in [*held, *waiting]] == [200] * (SLOTS + len(waiting))
    for caller in holders:
        caller.connection.close()


def test_reserved_concurrency_holds_over_all_gateways(server: Server, tmp_path: Path) -> None:
    create_function(server.aws, "reserved", BARRIER, Timeout=60)
    wait_active(server.aws, "reserved", "$LATEST")
    server.aws.put_function_concurrency(FunctionName="reserved", ReservedConcurrentExecutions=2)
    calls = [server.clients.submit(once, server, "reserved", {"folder": str(tmp_path)}) for _ in range(9)]
    wait_for(lambda: sum(call.done() for call in calls) == 7, "seven are refused")
    wait_for(lambda: inside(tmp_path) == 2, "two run")
    (tmp_path / "open").touch()
    answers = [call.result(30) for call in calls]
    assert sorted(status for status, _, _ in answers) == [200] * 2 + [429] * 7
    reasons = {answer["Reason"] for status, answer, _ in answers if status == 429}
    assert reasons == {"ReservedFunctionConcurrentInvocationLimitExceeded"}


def test_a_change_counts_from_the_next_invocation_on_whatever_gateway_it_comes_through(server: Server) -> None:
    for caller in callers_of_all(server):
        assert caller.invoke("changing", 1)[0] == 404
        create_function(server.aws, "changing", ECHO)
        wait_active(server.aws, "changing", "$LATEST")
        assert caller.invoke("changing", 1)[:2] == (200, 1)
        server.aws.delete_function(FunctionName="changing")
        assert caller.invoke("changing", 1)[0] == 404
        caller.connection.close()


def test_what_gateways_pass_on_works_as_ever(server: Server) -> None:
    aws = server.aws
    assert aws.invoke(FunctionName="echo", InvocationType="Event", Payload=b"1")["StatusCode"] == 202
    assert aws.invoke(FunctionName="echo", InvocationType="DryRun")["StatusCode"] == 204
    with pytest.raises(ClientError, match="Tail logs are not supported"):
        aws.invoke(FunctionName="echo", LogType="Tail")
    with pytest.raises(ClientError, match="Function not found") as caught:
        aws.invoke(FunctionName="nobody")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    big = "x" * (6 * 1024 * 1024 - 100)
    assert invoke(aws, "echo", big).payload == big
    with pytest.raises(ClientError) as caught:
        invoke(aws, "echo", big * 2)
    assert caught.value.response["Error"]["Code"] == "RequestTooLargeException"
    assert aws.get_function(FunctionName="echo")["Configuration"]["FunctionName"] == "echo"
    caller = Caller(server)
    for method, status in (("HEAD", 200), ("GET", 200)):  # the second one on the same connection
        caller.connection.request(method, "/_lambstead/health")
        answer = caller.connection.getresponse()
        assert (answer.status, bool(answer.read())) == (status, method == "GET")
    chunks = (part for part in (b'{"Tags":', b'{"a":"b"}}'))
    arn = aws.get_function(FunctionName="echo")["Configuration"]["FunctionArn"].removesuffix(":$LATEST")
    caller.connection.request("POST", f"/2017-03-31/tags/{arn}", chunks, encode_chunked=True)
    answer = caller.connection.getresponse()
    assert (answer.status, answer.read()) == (204, b"")
    assert aws.list_tags(Resource=arn)["Tags"] == {"a": "b"}
    caller.connection.close()


def test_streamed_answers_flow_through_gateways(server: Server) -> None:
    runtime = with_runtime("nodejs22.x")
    arn = server.aws.get_capacity_provider(CapacityProviderName="pool")["CapacityProvider"]["CapacityProviderArn"]
    code = {"ZipFile": archive({"index.mjs": (FUNCTIONS / "streaming.mjs").read_text()})}
    members = on_provider(arn, 4, Runtime=runtime, Handler="index.handler", Code=code)
    create_function(server.aws, "streams", "", **members, Publish=True, PublishTo="LATEST_PUBLISHED")
    wait_active(server.aws, "streams")
    size = 3 * 1024 * 1024
    events = list(streamed(server.aws, {"do": "fill", "size": size}))
    assert sum(len(event["PayloadChunk"]["Payload"]) for event in events if "PayloadChunk" in event) == size
    assert "ErrorCode" not in events[-1]["InvokeComplete"]
    broken = list(streamed(server.aws, {"do": "fill", "size": 1000, "fails": True}))
    assert broken[0]["PayloadChunk"]["Payload"]
    assert broken[-1]["InvokeComplete"]["ErrorCode"] == "Unhandled"
    payload = json.dumps({"do": "fill", "size": size})
    answer = server.aws.invoke_with_response_stream(FunctionName="streams", Payload=payload)
    assert answer["ExecutedVersion"] == "$LATEST.PUBLISHED"
    answer["EventStream"].close()  # a caller that leaves
    wait_for(lambda: not any(e["busy"] for e in server.environments("streams")), "its slot is free again")
    with pytest.raises(ClientError, match="Function not found"):
        server.aws.invoke_with_response_stream(FunctionName="nobody")


def streamed(aws: "LambdaClient", event: Any) -> Any:
    answer = aws.invoke_with_response_stream(FunctionName="streams", Payload=json.dumps(event))
    return answer["EventStream"]


def test_a_killed_gateway_is_replaced_and_its_slots_come_back(server: Server, tmp_path: Path) -> None:
    callers = callers_of_all(server)
    victim = server.status()["gateways"][1]
    event = {"folder": str(tmp_path)}
    dying = server.clients.submit(callers[1].invoke, "barrier", event)
    wait_for(lambda: inside(tmp_path) == 1, "a call of the victim runs")
    stop = threading.Event()

    def load(caller: Caller) -> int:
        done = 0
        while not stop.is_set():
            assert caller.invoke("echo", done)[:2] == (200, done)
            done += 1
        return done

    others = [server.clients.submit(load, callers[number]) for number in (0, 2)]
    psutil.Process(victim["pid"]).kill()
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        dying.result(30)

    def replaced() -> bool:
        now = server.status()["gateways"][1]
        return bool(now["state"] == "Ready" and now["pid"] != victim["pid"])

    wait_for(replaced, "another process took its place")
    stop.set()
    assert all(other.result(30) > 0 for other in others), "callers of the others noticed nothing"
    assert server.status()["gateways"][1]["restarts"] == victim["restarts"] + 1
    (tmp_path / "open").touch()
    wait_for(lambda: not any(e["busy"] for e in server.environments("barrier")), "the slot of the lost call is free")
    for caller in [*callers, *callers_of_all(server)]:
        caller.connection.close()
    again = tmp_path / "again"
    again.mkdir()
    calls = [server.clients.submit(once, server, "barrier", {"folder": str(again)}) for _ in range(SLOTS)]
    wait_for(lambda: inside(again) == SLOTS, "all slots can be used")
    (again / "open").touch()
    assert [call.result(30)[0] for call in calls] == [200] * SLOTS


@pytest.fixture
def own(runtimes: Path, tmp_path: Path) -> Iterator[Server]:
    """A server that the test may end."""
    with running(tmp_path / "data", "--gateways", "2") as server:
        publish_managed(server.aws, "barrier", BARRIER, create_provider(server.aws), slots=SLOTS, Timeout=60)
        yield server


def test_no_gateway_outlives_a_killed_server(own: Server, tmp_path: Path) -> None:
    call = own.clients.submit(once, own, "barrier", {"folder": str(tmp_path)})
    wait_for(lambda: inside(tmp_path) == 1, "a call runs")
    gateways = [gateway["pid"] for gateway in own.status()["gateways"]]
    own.kill()
    with contextlib.suppress(http.client.HTTPException, ConnectionError):
        assert call.result(30)[0] == 500, "told that the server is gone, or nothing"
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in gateways), "all gateways are gone")
    wait_for(lambda: not own.processes(), "nothing is left at all")


def test_a_clean_stop_lets_running_calls_finish(own: Server, tmp_path: Path) -> None:
    call = own.clients.submit(once, own, "barrier", {"folder": str(tmp_path)})
    wait_for(lambda: inside(tmp_path) == 1, "a call runs")
    own.process.send_signal(signal.SIGTERM)
    (tmp_path / "open").touch()
    assert call.result(30)[0] == 200
    assert own.process.wait(30) == 0
    wait_for(lambda: not own.processes(), "nothing is left")


def test_a_taken_port_is_told_before_anything_starts(own: Server, tmp_path: Path) -> None:
    port = str(urlsplit(own.url).port)
    command = [
        sys.executable,
        "-m",
        "lambstead",
        "up",
        "--gateways",
        "2",
        "--port",
        port,
        "--data",
        str(tmp_path / "b"),
    ]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LAMBSTEAD_")}
    second = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 2
    assert f"Port {port} on 127.0.0.1 is taken" in second.stderr
