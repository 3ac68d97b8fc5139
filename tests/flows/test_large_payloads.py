"""Payloads up to the limit go through whole, however the network cuts them, and are not kept more often than they have to be."""

import json
import signal
import socket
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.harness import Server, create_provider, invoke, publish_managed, running, wait_for

ECHO = """
def handler(event, context):
    return event
"""
MAX_PAYLOAD_BYTES = 6_291_456


@pytest.fixture(scope="module")
def echo(server: Server) -> Server:
    publish_managed(server.aws, "echo", ECHO, create_provider(server.aws), slots=1)
    return server


class Connection:
    """A keep-alive connection on which a test decides what leaves in which piece."""

    def __init__(self, server: Server) -> None:
        self._where = urlsplit(server.url)
        self._socket = socket.create_connection((self._where.hostname or "", self._where.port or 0), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = self._socket.makefile("rb")

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.close()
        self._socket.close()

    def request(self, body: bytes, path: str = "/2015-03-31/functions/echo/invocations", *headers: str) -> bytes:
        lines = [f"POST {path} HTTP/1.1", f"Host: {self._where.netloc}", f"Content-Length: {len(body)}", *headers]
        return "".join(f"{line}\r\n" for line in [*lines, ""]).encode() + body

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._socket.sendall(piece)

    def answer(self) -> tuple[int, Any]:
        status = int(self._answers.readline().split()[1])
        length = 0
        while line := self._answers.readline().strip():
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        body = self._answers.read(length)
        return status, json.loads(body) if body.startswith((b'"', b"{")) else body

    def ended(self) -> bool:
        return self._answers.read(1) == b""


def event(size: int) -> bytes:
    """A JSON string of so many bytes, no two stretches of it alike."""
    digits = "".join(f"{number:08d}" for number in range(size // 8 + 1))
    return json.dumps(digits[: size - 2]).encode()


@pytest.mark.parametrize("size", [65_535, 65_536, 300_000, 1_048_576, MAX_PAYLOAD_BYTES])
def test_a_payload_comes_back_as_it_was_sent(echo: Server, size: int) -> None:
    sent = json.loads(event(size))
    assert invoke(echo.aws, "echo", sent).payload == sent


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(60_000, 400_000), st.lists(st.integers(0, 400_000), max_size=5))
@example(100_000, [])
@example(100_000, [40])
@example(100_000, [161, 162])
@example(300_000, [70_000, 299_999])
def test_it_does_not_matter_where_the_network_cuts_a_request(echo: Server, size: int, cuts: list[int]) -> None:
    with Connection(echo) as connection:
        whole = connection.request(event(size))
        edges = [0, *sorted(cuts), len(whole)]
        connection.send(*(whole[start:end] for start, end in pairwise(edges)))
        assert connection.answer() == (200, json.loads(event(size)))
        connection.send(connection.request(b'"next"'))
        assert connection.answer() == (200, "next")


@pytest.mark.parametrize("first", [100_000, 20])
@pytest.mark.parametrize("second", [b'"short"', event(90_000)])
def test_requests_that_are_pipelined_behind_a_large_one_are_answered_in_order(
    echo: Server, first: int, second: bytes
) -> None:
    with Connection(echo) as connection:
        other = connection.request(b"", "/2015-03-31/functions/nobody/invocations")
        connection.send(connection.request(event(first)) + connection.request(second) + other)
        assert connection.answer() == (200, json.loads(event(first)))
        assert connection.answer() == (200, json.loads(second))
        status, error = connection.answer()
        assert (status, error["Type"]) == (404, "User")


def test_a_large_body_in_chunks_goes_the_ordinary_way(echo: Server) -> None:
    body = event(200_000)
    with Connection(echo) as connection:
        head = connection.request(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        connection.send(head, b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        assert connection.answer() == (200, json.loads(body))


def test_a_large_piece_that_is_no_http_is_refused_once(echo: Server) -> None:
    with Connection(echo) as connection:
        connection.send(b"\x00garbage\r\n\r\n" + b"x" * 100_000)
        assert connection.answer() == (400, b"Invalid HTTP request received.")
        assert connection.ended()


@pytest.mark.parametrize("text", ["é" * 100_000, "日本" * 50_000, "🐑" * 60_000, "a" * 65_535 + "é🐑" + "b" * 70_000])
def test_text_that_is_not_ascii_goes_through(echo: Server, text: str) -> None:
    answer = echo.aws.invoke(FunctionName="echo", Payload=json.dumps(text, ensure_ascii=False).encode())
    assert json.loads(answer["Payload"].read()) == text


@pytest.mark.parametrize(
    "payload",
    [
        b'"' + b"a" * 100_000,
        b'"' + b"\xc3\xa9" * 50_000 + b'\xff"',
        b'"' + b"a" * 65_535 + b"\xc3" + b'a"',
        b'"' + b"\xe6\x97\xa5" * 30_000 + b'\xe6\x97"',
    ],
    ids=["open string", "no byte of UTF-8", "cut at a piece's end", "cut at the end"],
)
def test_what_is_not_json_in_utf8_is_refused(echo: Server, payload: bytes) -> None:
    with pytest.raises(ClientError, match="Could not parse request body into json") as caught:
        echo.aws.invoke(FunctionName="echo", Payload=payload)
    assert caught.value.response["Error"]["Code"] == "InvalidRequestContentException"


OBSERVER = """
import pathlib, signal, sys, tracemalloc

def write(*_):
    now, peak = tracemalloc.get_traced_memory()
    path = pathlib.Path(sys.argv[sys.argv.index("--data") + 1]) / "traced"
    path.with_suffix(".new").write_text(f"{now} {peak}")
    path.with_suffix(".new").replace(path)
    tracemalloc.reset_peak()

if "up" in sys.orig_argv:
    signal.signal(signal.SIGUSR1, write)
    tracemalloc.start()
"""


@pytest.mark.parametrize("size", [1_048_576, MAX_PAYLOAD_BYTES])
def test_the_server_never_holds_more_than_two_payloads(
    runtimes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """First the received pieces and their whole, then the event and its answer. A further copy anywhere would make it three."""
    (tmp_path / "sitecustomize.py").write_text(OBSERVER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with running(tmp_path / "data") as server:
        publish_managed(server.aws, "echo", ECHO, create_provider(server.aws), slots=1)
        sent = json.loads(event(size))
        assert invoke(server.aws, "echo", sent).payload == sent
        traced(server)
        before, _ = traced(server)
        assert invoke(server.aws, "echo", sent).payload == sent
        _, peak = traced(server)
        wait_for(lambda: (traced(server)[0] - before) / size < 0.1, "nothing of it is kept")
    assert 1.9 < (peak - before) / size < 2.2


def traced(server: Server) -> tuple[int, int]:
    """Bytes that the server's Python objects have now, and the most since the last look."""
    path = server.data / "traced"
    path.unlink(missing_ok=True)
    server.process.send_signal(signal.SIGUSR1)
    # Python runs signal handlers between two callbacks; the request makes sure that there are some.
    wait_for(lambda: server.status() and path.exists(), "the server looks at its memory")
    now, peak = path.read_text().split()
    return int(now), int(peak)
