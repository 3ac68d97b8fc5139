"""Every cause of a 429: AWS's words for it, and the counter that names it."""

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
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

WAITS = """
import pathlib, time

def handler(event, context):
    folder = pathlib.Path(event)
    (folder / f"in-{context.aws_request_id}").touch()
    while not (folder / "open").exists():
        time.sleep(0.005)
"""
LONGEST_LINE = 1000
ACCOUNT_LIMIT = 2


@pytest.fixture(scope="module")
def server(runtimes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("throttles") / "data"
    with running(data, slot_wait="300ms", concurrent_executions=str(ACCOUNT_LIMIT)) as server:
        publish_managed(server.aws, "managed", WAITS, create_provider(server.aws), slots=1, Timeout=60)
        for name in ("reserved", "standard"):
            create_function(server.aws, name, WAITS, Timeout=60)
            wait_active(server.aws, name, "$LATEST")
        yield server


def refusal(server: Server, function: str, folder: Path) -> tuple[int, dict[str, Any], str | None, str | None]:
    """Status, body, Retry-After and error type of an invocation that must be refused."""
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", f"/2015-03-31/functions/{function}/invocations", json.dumps(str(folder)))
        answer = connection.getresponse()
        body = json.loads(answer.read())
        return answer.status, body, answer.getheader("Retry-After"), answer.getheader("x-amzn-ErrorType")


def counted(server: Server) -> dict[tuple[str, str], int]:
    """Throttles by function and cause."""
    return {(each["function"], each["cause"]): each["count"] for each in server.status()["throttles"]}


def test_a_reservation_that_is_used_up(server: Server, tmp_path: Path) -> None:
    server.aws.put_function_concurrency(FunctionName="reserved", ReservedConcurrentExecutions=0)
    status, body, after, kind = refusal(server, "reserved", tmp_path)
    assert (status, kind, after) == (429, "TooManyRequestsException", None)
    reason = "ReservedFunctionConcurrentInvocationLimitExceeded"
    assert body == {"Reason": reason, "Type": "User", "message": "Rate Exceeded."}
    refusal(server, "reserved", tmp_path)
    assert counted(server)["reserved", "reserved-concurrency"] == 2
    server.aws.delete_function_concurrency(FunctionName="reserved")


def test_an_account_that_is_used_up(server: Server, tmp_path: Path) -> None:
    calls = [server.clients.submit(invoke, server.aws, "standard", str(tmp_path)) for _ in range(ACCOUNT_LIMIT)]
    wait_for(lambda: len(list(tmp_path.glob("in-*"))) == ACCOUNT_LIMIT, "the account's concurrency is used up")
    status, body, after, kind = refusal(server, "reserved", tmp_path)
    (tmp_path / "open").touch()
    assert (status, kind, after) == (429, "TooManyRequestsException", None)
    assert body == {"Reason": "ConcurrentInvocationLimitExceeded", "Type": "User", "message": "Rate Exceeded."}
    assert [call.result(30).status for call in calls] == [200] * ACCOUNT_LIMIT
    assert counted(server)["reserved", "account-concurrency"] == 1


def test_a_slot_that_does_not_come_free_in_time(server: Server, tmp_path: Path) -> None:
    call = server.clients.submit(invoke, server.aws, "managed", str(tmp_path))
    wait_for(lambda: list(tmp_path.glob("in-*")), "the only slot is taken")
    status, body, after, kind = refusal(server, "managed", tmp_path)
    (tmp_path / "open").touch()
    assert (status, kind, after) == (429, "TooManyRequestsException", "1")
    message = "Rate Exceeded. (no slot came free within 0.3 s)"
    assert body == {"Reason": "ConcurrentInvocationLimitExceeded", "Type": "User", "message": message}
    assert call.result(30).status == 200
    assert counted(server)["managed", "no-slot"] == 1


def test_a_line_that_is_full(runtimes: Path, tmp_path: Path) -> None:
    with running(tmp_path / "data", slot_wait="60s") as server, contextlib.ExitStack() as open_sockets:
        publish_managed(server.aws, "managed", WAITS, create_provider(server.aws), slots=1, Timeout=60)
        address = urlsplit(server.url)
        event = json.dumps(str(tmp_path)).encode()
        head = f"POST /2015-03-31/functions/managed/invocations HTTP/1.1\r\nhost: x\r\ncontent-length: {len(event)}\r\n\r\n"
        for _ in range(1 + LONGEST_LINE):
            client = open_sockets.enter_context(socket.create_connection((address.hostname, address.port)))
            client.sendall(head.encode() + event)
        wait_for(lambda: sum(server.status()["waiting"].values()) == LONGEST_LINE, "the line is full")
        status, body, after, _ = refusal(server, "managed", tmp_path)
        assert (status, after, body["Reason"]) == (429, "1", "ConcurrentInvocationLimitExceeded")
        assert body["message"].startswith(f"Rate Exceeded. ({LONGEST_LINE} invocations wait")
        assert counted(server) == {("managed", "line-full"): 1}
        (tmp_path / "open").touch()
