"""Agents over TCP, as agents of other hosts come: every way an invocation can end, deaths on either side, and who is let in."""

import contextlib
import json
import os
import random
import re
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
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

from lambstead.link.frames import HEADER, PROTOCOL_VERSION, Kind, encode
from lambstead.link.messages import AgentHello, Hello, encode_control

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

SOURCE = """
import os, pathlib, time

def handler(event, context):
    if isinstance(event, dict) and "record" in event:
        with open(event["record"], "a") as file:
            file.write(context.aws_request_id + "\\n")
        time.sleep(event["s"])
        return os.getpid()
    if isinstance(event, dict) and "hold" in event:
        folder = pathlib.Path(event["hold"])
        (folder / f"in-{os.getpid()}").touch()
        while not (folder / "open").exists():
            time.sleep(0.005)
    if event == "fail":
        raise KeyError(event)
    if event == "exit":
        os._exit(3)
    if event == "pid":
        return os.getpid()
    return event
"""


@pytest.fixture(scope="module")
def server(runtimes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("tcp") / "data", "--agent-link", "tcp") as server:
        publish_managed(server.aws, "python", SOURCE, create_provider(server.aws), slots=4, Timeout=60)
        yield server


def provider(aws: "LambdaClient") -> str:
    return aws.get_capacity_provider(CapacityProviderName="pool")["CapacityProvider"]["CapacityProviderArn"]


def port_of_agents(server: Server) -> int:
    words = server.agents()[0].cmdline()
    return int(words[words.index("--server") + 1].rpartition(":")[2])


def test_every_way_an_invocation_can_end(server: Server, tmp_path: Path) -> None:
    aws = server.aws
    assert invoke(aws, "python", {"ü": 1}).payload == {"ü": 1}
    failed = invoke(aws, "python", "fail")
    assert (failed.error, failed.payload["errorType"]) == ("Unhandled", "KeyError")
    # A function of its own: a slot of a managed function stays in use until the code ends that took too long.
    publish_managed(aws, "late", SOURCE, provider(aws), slots=2, Timeout=1)
    late = invoke(aws, "late", {"hold": str(tmp_path)})
    assert (late.error, late.payload["errorType"]) == ("Unhandled", "Sandbox.Timedout")
    exited = invoke(aws, "python", "exit")
    assert (exited.error, exited.payload["errorType"]) == ("Unhandled", "Runtime.ExitError")
    big = "x" * (6 * 1024 * 1024 - 100)
    assert invoke(aws, "python", big).payload == big
    assert "platform.report" in server.logs("python")


def test_functions_on_demand_and_streams_of_node(server: Server) -> None:
    aws = server.aws
    create_function(aws, "standard", SOURCE)
    wait_active(aws, "standard", "$LATEST")
    assert invoke(aws, "standard", 5).payload == 5
    code = {"ZipFile": archive({"index.mjs": (FUNCTIONS / "streaming.mjs").read_text()})}
    runtime = with_runtime("nodejs22.x")
    members = on_provider(provider(aws), 4, Runtime=runtime, Handler="index.handler", Code=code)
    create_function(aws, "streams", "", **members, Publish=True, PublishTo="LATEST_PUBLISHED")
    wait_active(aws, "streams")
    size = 3 * 1024 * 1024  # more than a window
    for fails in (False, True):
        payload = json.dumps({"do": "fill", "size": size, "fails": fails})
        events: list[Any] = list(
            aws.invoke_with_response_stream(FunctionName="streams", Payload=payload)["EventStream"]
        )
        assert sum(len(event["PayloadChunk"]["Payload"]) for event in events if "PayloadChunk" in event) == size
        assert events[-1]["InvokeComplete"].get("ErrorCode") == ("Unhandled" if fails else None)


def test_workers_that_die_at_any_time_cost_at_most_what_they_ran(server: Server, tmp_path: Path) -> None:
    record = tmp_path / "record"
    chance = random.Random(4)
    calls = []
    pids = {invoke(server.aws, "python", "pid").payload for _ in range(20)}
    for number in range(200):
        event = {"record": str(record), "s": chance.choice([0.0, 0.001, 0.01])}
        calls.append(server.clients.submit(invoke, server.aws, "python", event))
        if number % 8 == 0 and pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(pids.pop()).kill()
            pids |= {answer.payload for answer in (call.result(30) for call in calls[-8:]) if not answer.error}
    answers = [call.result(60) for call in calls]
    assert len(answers) == 200
    ended = Counter(answer.payload["errorType"] if answer.error else "ok" for answer in answers)
    assert set(ended) <= {"ok", "Runtime.ExitError"}
    ran = Counter(record.read_text().split())
    assert set(ran.values()) == {1}, "an event ran twice"
    assert ended["ok"] <= len(ran) <= 200
    wait_for(lambda: server.environments("python")[0]["busy"] == 0, "no slot is lost")
    event = {"hold": str(tmp_path)}
    again = [server.clients.submit(invoke, server.aws, "python", event) for _ in range(4)]
    wait_for(lambda: len(list(tmp_path.glob("in-*"))) == 4, "all four slots can be used at once")
    (tmp_path / "open").touch()
    assert all(call.result(30).payload == event for call in again)


def test_an_agent_that_vanishes_takes_its_invocations_along(server: Server, tmp_path: Path) -> None:
    publish_managed(server.aws, "victim", SOURCE, provider(server.aws), slots=2, Timeout=60)
    call = server.clients.submit(invoke, server.aws, "victim", {"hold": str(tmp_path)})
    wait_for(lambda: server.environments("victim")[0]["busy"] == 1, "it runs")
    environment = server.environments("victim")[0]["id"]
    for agent in server.agents():
        agent.kill()
    with pytest.raises(ClientError) as caught:
        call.result(30)
    assert caught.value.response["Error"]["Code"] == "ServiceException"
    wait_for(lambda: [e for e in server.environments("victim") if e["id"] != environment], "it is replaced")
    assert invoke(server.aws, "victim", 1).payload == 1


def closed(server: Server, *frames: bytes) -> bool:
    """Whether the server ends a connection on which this was said, without an answer."""
    with socket.create_connection(("127.0.0.1", port_of_agents(server)), timeout=30) as connection:
        for frame in frames:
            connection.sendall(frame)
        try:
            return connection.recv(1) == b""
        except ConnectionResetError:
            return True


def test_only_agents_with_their_secret_are_let_in(server: Server) -> None:
    agent = server.agents()[0]
    instance = agent.cmdline()[agent.cmdline().index("--instance-id") + 1]
    environment = wait_for(lambda: server.environments("python"), "an environment")[0]["id"]
    for token in ("", "wrong"):
        hello = Hello(PROTOCOL_VERSION, environment, instance, token, is_worker=True)
        assert closed(server, encode(Kind.HELLO, 0, msgspec.json.encode(hello)))
        control = encode_control(AgentHello(PROTOCOL_VERSION, instance, 1, token))
        assert closed(server, encode(Kind.CONTROL, 0, payload=control))
    local = msgspec.json.encode([PROTOCOL_VERSION, environment])
    assert closed(server, encode(Kind.HELLO, 0, local)), "what is enough on the Unix socket is not enough here"
    assert closed(server, HEADER.pack(30_000_000, Kind.CONTROL, 0, 0, 0)), "no memory for strangers"
    assert closed(server, b"GET / HTTP/1.1\r\n\r\n")
    assert closed(server, struct.pack("!I", 0) * 3)
    assert invoke(server.aws, "python", 1).payload == 1


def test_the_secret_is_where_functions_cannot_read_it(server: Server) -> None:
    agent = server.agents()[0]
    words = [*agent.cmdline(), *Path(f"/proc/{agent.pid}/environ").read_text().split("\0")]
    values = [word.partition("=")[2] or word for word in words]
    assert not [value for value in values if re.fullmatch(r"[\w-]{43}", value)], "43 characters are what a secret has"
    assert os.readlink(f"/proc/{agent.pid}/fd/0").startswith(("pipe:", "socket:"))
