"""A checkpoint that goes the short way through the server is answered as on the ordinary one: the same status, headers and bytes of the body.

The ordinary way is asked by leaving the signature out, which nothing else depends on. Which way an answer came shows in how its headers are written:
the ASGI server lower-cases names.
"""

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.durable import LATEST, finished, history, start_execution, types
from tests.harness import Server, create_function, running, wait_for

SIGNED = "AWS4-HMAC-SHA256 Credential=any/20250101/us-east-1/lambda/aws4_request, SignedHeaders=host, Signature=0"
NOBODY = "arn:aws:lambda:us-east-1:000000000000:function:played:$LATEST/durable-execution/nobody/nothing"
PLAYED = """
import json, pathlib, time

def handler(event, context):
    folder = pathlib.Path(json.loads(event["InitialExecutionState"]["Operations"][0]["ExecutionDetails"]["InputPayload"]))
    (folder / "event.new").write_text(json.dumps(event))
    (folder / "event.new").rename(folder / "event")
    while not (folder / "over").exists():
        time.sleep(0.01)
    return {"Status": "SUCCEEDED", "Result": "null"}
"""
"""A durable function whose checkpoints the test makes in its place."""


@dataclass(frozen=True)
class Answer:
    """An answer without what differs from one request to the next: its id and its date."""

    status: bytes
    headers: frozenset[tuple[str, str]]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


class Connection:
    """One connection that is kept open, on which requests are bytes."""

    def __init__(self, server: Server) -> None:
        parts = urlsplit(server.url)
        self.socket = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=30)
        self._read = self.socket.makefile("rb")

    def close(self) -> None:
        self._read.close()
        self.socket.close()

    def answer(self, *, short: bool) -> Answer:
        """The next answer, which came the way it should."""
        status = self._read.readline()
        lines = list(iter(self._read.readline, b"\r\n"))
        pairs = [line.decode().rstrip("\r\n").split(": ", 1) for line in lines]
        headers = {name.lower(): value for name, value in pairs}
        body = self._read.read(int(headers.pop("content-length")))
        assert ("x-amzn-RequestId" in dict(pairs)) is short, (pairs, body)
        assert re.fullmatch(
            r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", headers.pop("x-amzn-requestid")
        )
        assert headers.pop("date").endswith(" GMT")
        return Answer(status, frozenset(headers.items()), body)

    def ask(self, path: str, body: bytes, *headers: str, short: bool) -> Answer:
        self.socket.sendall(request(path, body, *headers, short=short))
        return self.answer(short=short)


def request(path: str, body: bytes, *headers: str, short: bool) -> bytes:
    signature = [f"Authorization: {SIGNED}"] if short else []
    sized = [] if any(each.startswith("Transfer-Encoding") for each in headers) else [f"Content-Length: {len(body)}"]
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", *signature, *headers, *sized]
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


def path_of(arn: str) -> str:
    return f"/2025-12-01/durable-executions/{quote(arn, safe='')}/checkpoint"


@dataclass
class Live:
    """An execution whose function waits while the test checkpoints."""

    server: Server
    arn: str
    token: str
    connection: Connection
    asked: int = 0

    @property
    def path(self) -> str:
        return path_of(self.arn)

    def both(self, updates: list[Any], token: str | None = None, **members: Any) -> Answer:
        """The answer to one batch, which is the same both ways: the second request repeats the first, whose way is another each time."""
        self.asked += 1
        document = {
            "CheckpointToken": self.token if token is None else token,
            "ClientToken": f"request-{self.asked}",
            "Updates": updates,
            **members,
        }
        return self.same(json.dumps(document).encode())

    def same(self, body: bytes, *headers: str, path: str | None = None) -> Answer:
        first = bool(self.asked % 2)
        one = self.connection.ask(path or self.path, body, *headers, short=first)
        other = self.connection.ask(path or self.path, body, *headers, short=not first)
        assert one == other
        if one.status.startswith(b"HTTP/1.1 200"):
            self.token = one.document["CheckpointToken"]
        return one


def step(name: str, action: str, **members: Any) -> dict[str, Any]:
    return {"Id": name, "Type": "STEP", "SubType": "Step", "Name": name, "Action": action, **members}


@pytest.fixture(scope="module")
def server(runtimes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("short")) as server:
        create_function(server.aws, "played", PLAYED, Timeout=300, DurableConfig={"ExecutionTimeout": 300})
        server.aws.get_waiter("function_active_v2").wait(FunctionName="played")
        yield server


@pytest.fixture(scope="module")
def live(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("played")
    arn = start_execution(server.aws, "played", str(folder), LATEST)
    wait_for((folder / "event").exists, "the function runs")
    token = json.loads((folder / "event").read_text())["CheckpointToken"]
    live = Live(server, arn, token, Connection(server))
    yield live
    live.connection.close()  # which a test may have replaced
    (folder / "over").touch()
    assert finished(server.aws, arn)["Status"] == "SUCCEEDED"
    kinds = types(history(server.aws, arn))  # fails if an event is missing
    assert (kinds.count("StepStarted"), kinds.count("StepSucceeded")) == (4, 2), "every batch was applied once"


def test_batches_are_applied_and_repeated_alike(live: Live) -> None:
    begun = live.both([step("one", "START")])
    assert begun.status == b"HTTP/1.1 200 OK\r\n"
    assert begun.document["NewExecutionState"]["Operations"][0]["Status"] == "STARTED"
    done = live.both([step("one", "SUCCEED", Payload="1 ✓"), step("two", "START"), step("two", "FAIL")])
    assert [each["Status"] for each in done.document["NewExecutionState"]["Operations"]] == ["SUCCEEDED", "FAILED"]
    assert live.both([]).document["NewExecutionState"] == {"Operations": []}
    pending = live.both(
        [step("three", "RETRY", StepOptions={"NextAttemptDelaySeconds": 100}, Error={"ErrorType": "E"})]
    )
    assert pending.document["NewExecutionState"]["Operations"][0]["StepDetails"]["Attempt"] == 1


@pytest.mark.parametrize(
    ("updates", "members", "words"),
    [
        ([step("x", "CANCEL")], {}, "Invalid action for the given operation type."),
        ([step("x", "START"), step("x", "START")], {}, "Cannot checkpoint multiple operations with the same ID."),
        ([step("x", "SUCCEED", ParentId="nobody")], {}, "Invalid parent operation id."),
        ([step("x", "JUMP")], {}, "validation error"),
        ([step("x" * 100, "START")], {}, "validation error"),
        ([{"Type": "STEP"}], {}, "validation error"),
        ([None], {}, ""),
        (["text"], {}, ""),
        ([step("x", "START", Payload=7)], {}, "NUMBER_VALUE can not be converted to a String"),
        ([], {"Updates": {"not": "a list"}}, ""),
        ([], {"CheckpointToken": None}, "validation error"),
        ([], {"CheckpointToken": "c3RhbGU="}, "Invalid checkpoint token"),
        ([], {"CheckpointToken": "no base64!"}, "validation error"),
        ([], {"ClientToken": "x" * 65}, "validation error"),
    ],
)
def test_refusals_are_the_same(live: Live, updates: list[Any], members: dict[str, Any], words: str) -> None:
    refused = live.both(updates, **members)
    assert refused.status == b"HTTP/1.1 400 Bad Request\r\n"
    assert words.encode() in refused.body


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"7", b"[" * 100_000, b'{"CheckpointToken": "\xff"}']
)
def test_what_is_no_checkpoint_is_refused_alike(live: Live, body: bytes) -> None:
    live.asked += 1
    assert live.same(body).status == b"HTTP/1.1 400 Bad Request\r\n"


@pytest.mark.parametrize("arn", [NOBODY, "arn", NOBODY.replace("us-east-1", "eu-west-1"), "a%00b", "x" * 2000, "ÄÖ"])
def test_nobodys_checkpoints_are_refused_alike(live: Live, arn: str) -> None:
    body = json.dumps({"CheckpointToken": live.token, "Updates": []}).encode()
    assert live.same(body, path=path_of(arn)).status.startswith(b"HTTP/1.1 400")


def test_an_arn_may_come_with_its_slashes(live: Live) -> None:
    live.asked += 1
    body = json.dumps({"CheckpointToken": live.token, "ClientToken": "slashes", "Updates": []}).encode()
    assert live.same(body, path=f"/2025-12-01/durable-executions/{live.arn}/checkpoint").status.startswith(
        b"HTTP/1.1 200"
    )


def test_bodies_in_chunks_and_large_ones_are_read_alike(live: Live) -> None:
    token = json.dumps({"CheckpointToken": live.token, "ClientToken": "chunks", "Updates": []}).encode()
    chunked = b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (10, token[:10], len(token) - 10, token[10:])
    assert live.same(chunked, "Transfer-Encoding: chunked").status.startswith(b"HTTP/1.1 200")
    large = live.both([step("large", "START"), step("large", "SUCCEED", Payload="x" * 1_000_000)])
    assert large.status.startswith(b"HTTP/1.1 200")
    too_large = live.both([step("larger", "SUCCEED", Payload="x" * (1024 * 1024 + 1))])
    assert b"STEP payload size must be less than or equal to 1048576 bytes." in too_large.body


def test_more_than_a_checkpoint_may_have_is_refused_alike_when_nobody_announced_it(live: Live, server: Server) -> None:
    piece = b" " * (8 * 1024 * 1024)
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for _ in range(5)) + b"0\r\n\r\n"
    answers = []
    for short in (True, False):
        connection = Connection(
            server
        )  # the ordinary way stops reading at the limit, and the connection is of no use any more
        try:
            connection.socket.sendall(request(live.path, b"", "Transfer-Encoding: chunked", short=short))
            with contextlib.suppress(ConnectionError):  # the ordinary way may be done before everything is sent
                connection.socket.sendall(body)
            answers.append(connection.answer(short=short))
        finally:
            connection.close()
    assert answers[0].status == b"HTTP/1.1 413 Request Entity Too Large\r\n"
    assert (answers[0].status, answers[0].body) == (answers[1].status, answers[1].body)


def test_what_is_not_plain_goes_the_ordinary_way(live: Live) -> None:
    body = json.dumps({"CheckpointToken": "c3RhbGU=", "Updates": []}).encode()
    ask = live.connection.socket.sendall
    for path in (f"{live.path}?", f"{live.path}?x=1", f"{live.path}/"):
        ask(request(path, body, short=True))
        assert b"Invalid checkpoint token" in live.connection.answer(short=False).body
    ask(request(live.path, body, f"Authorization: {SIGNED.replace('/lambda/', '/s3/')}", short=False))
    live.connection.answer(short=False)
    ask(request(live.path, body, "Connection: close", short=True))
    assert ("connection", "close") in live.connection.answer(short=True).headers
    live.connection.close()
    live.connection = Connection(live.server)


def test_pipelined_requests_of_both_ways_are_answered_in_order(live: Live) -> None:
    body = json.dumps({"CheckpointToken": live.token, "ClientToken": "pipelined", "Updates": []}).encode()
    stale = json.dumps({"CheckpointToken": "c3RhbGU=", "Updates": []}).encode()
    requests = [request(live.path, body, short=True), request(live.path, stale, short=False)] * 2
    live.connection.socket.sendall(b"".join(requests))
    # Behind one that is not answered yet, a request goes the ordinary way.
    answers = [live.connection.answer(short=short) for short in (True, False, False, False)]
    assert [each.status.split()[1] for each in answers] == [b"200", b"400", b"200", b"400"]
    assert answers[0].body == answers[2].body
    live.token = answers[0].document["CheckpointToken"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = st.sampled_from(
    [
        "Id",
        "ParentId",
        "Name",
        "Type",
        "SubType",
        "Action",
        "Payload",
        "Error",
        "ContextOptions",
        "StepOptions",
        "WaitOptions",
    ]
)
UPDATES = st.dictionaries(MEMBERS, JSON | st.sampled_from(["STEP", "WAIT", "START", "SUCCEED", "a"]), max_size=8)


@settings(max_examples=60, deadline=None)
@given(
    token=JSON | st.just("c3RhbGU="),
    updates=st.lists(UPDATES | JSON, max_size=3) | JSON,
    rest=st.dictionaries(st.sampled_from(["ClientToken", "DurableExecutionArn", "Other"]), JSON, max_size=2),
)
def test_whatever_comes_in_is_answered_alike(live: Live, token: Any, updates: Any, rest: dict[str, Any]) -> None:
    live.asked += 1
    body = json.dumps({"CheckpointToken": token, "Updates": updates, **rest}).encode()
    assert live.same(body).status.startswith(b"HTTP/1.1 400")
