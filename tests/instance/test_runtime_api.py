"""The HTTP Runtime API byte by byte: raw sockets on one side, a real link on the other, no runtime between."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from lambstead.core.runtime_api import MAX_ERROR_BYTES, MAX_RESPONSE_BYTES, Connections
from lambstead.core.streaming import MAX_STREAMED_BYTES
from lambstead.instance.invocation_log import InvocationLog
from lambstead.instance.platform_log import PlatformLog
from lambstead.instance.runtime_api import RuntimeApiServer
from lambstead.link.connection import LinkConnection
from lambstead.link.frames import Frame, Kind
from lambstead.link.messages import STREAM_WINDOW_BYTES, Error, Invoke, Reject, Result, Slots, StartEnvironment, Window

pytestmark = pytest.mark.anyio

NEXT = "/2018-06-01/runtime/invocation/next"
ARN = "arn:aws:lambda:us-east-1:000000000000:function:tested:1"


@dataclass
class Life:
    """The environment behind the Runtime API, as far as it is told anything."""

    parked: int = 0
    init_failures: list[tuple[str, str]] = field(default_factory=list)
    workers_left: list[int] = field(default_factory=list)
    timed_out: list[str] = field(default_factory=list)
    dropped: int = 0

    def poll_parked(self) -> None:
        self.parked += 1

    def init_failed(self, error_type: str, document: str) -> None:
        self.init_failures.append((error_type, document))

    def connection_dropped(self) -> None:
        self.dropped += 1

    def worker_lost(self, workers_left: int) -> None:
        self.workers_left.append(workers_left)

    def invocation_timed_out(self, request_id: str) -> None:
        self.timed_out.append(request_id)

    def is_ours(self, peer: tuple[str, int], here: tuple[str, int]) -> bool:
        return True

    def killed_for_memory(self) -> bool:
        return False


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A runtime that writes what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, method: str, path: str, body: bytes = b"", **headers: str) -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: runtime", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def reply(self) -> Reply:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        status_line, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return Reply(int(status_line.split()[1]), headers, body)

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
        self.send(method, path, body, **headers)
        return await self.reply()

    async def answer(self, request_id: str, body: bytes, **headers: str) -> Reply:
        return await self.ask("POST", f"/2018-06-01/runtime/invocation/{request_id}/response", body, **headers)


class Bench:
    """A Runtime API server, its life, its log, and the gateway's end of its link."""

    def __init__(self, slots: int, *, managed: bool, tenant_id: str) -> None:
        self.life = Life()
        self._log: list[str] = []
        start = _start_message("managed-instances" if managed else "on-demand")
        self.invocation_log = InvocationLog(PlatformLog(start, "python:3.13.0", self._write_line), self, lambda: 0)
        connections = Connections.WORKERS if managed else Connections.ANONYMOUS
        self.api = RuntimeApiServer(slots, self.life, self.invocation_log, connections, tenant_id=tenant_id)
        self.frames: asyncio.Queue[Frame] = asyncio.Queue()
        self.gateway = LinkConnection(lambda _, frame: self.frames.put_nowait(frame), lambda *_: None)
        self.agent = LinkConnection(lambda _, frame: self.api.link_frame(frame), lambda *_: None)
        self.clients: list[Client] = []

    @property
    def log(self) -> list[str]:
        """What the platform said so far."""
        self.invocation_log.write_now()
        return self._log

    # Output of InvocationLog

    def write_lines(self, lines: Sequence[tuple[int, str]]) -> None:
        self._log += [line for _, line in lines]

    def drain(self) -> None:
        """Nobody prints here."""

    def precede_by(self, write: Callable[[], None]) -> None:
        self._precede = write

    def _write_line(self, line: str) -> None:
        self._precede()
        self._log.append(line)

    async def begin(self) -> None:
        await self.api.listen()
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: self.gateway, sock=ours)
        await loop.create_unix_connection(lambda: self.agent, sock=theirs)

    def open(self) -> None:
        self.api.open_link(self.agent)

    async def client(self) -> Client:
        host, port = self.api.address.split(":")
        client = Client(*await asyncio.open_connection(host, int(port)))
        self.clients.append(client)
        return client

    async def polling_client(self) -> Client:
        """A client whose poll is parked and announced."""
        client = await self.client()
        client.send("GET", NEXT)
        assert await self.slots() == 1
        return client

    def invoke(
        self, stream: int, request_id: str, payload: bytes = b"{}", *, timeout_ms: int = 60_000, **head: str
    ) -> None:
        message = Invoke(request_id, int(time.time() * 1000) + timeout_ms, timeout_ms, ARN, **head)
        self.gateway.send(Kind.INVOKE, stream, msgspec.json.encode(message), payload)

    def grant(self, stream: int, size_bytes: int) -> None:
        self.gateway.send(Kind.WINDOW, stream, msgspec.json.encode(Window(size_bytes)))

    async def slots(self) -> int:
        return msgspec.json.decode((await self.frame(Kind.SLOTS)).head, type=Slots).change

    async def frame(self, kind: Kind) -> Frame:
        frame = await self.frames.get()
        assert frame.kind is kind
        return frame

    async def error(self) -> tuple[Error, Frame]:
        frame = await self.frame(Kind.ERROR)
        return msgspec.json.decode(frame.head, type=Error), frame

    async def end(self) -> None:
        for client in self.clients:
            client.writer.close()
            with contextlib.suppress(OSError):
                await client.writer.wait_closed()
        self.api.end("the test is over")
        self.gateway.close()
        self.agent.close()


@contextlib.asynccontextmanager
async def bench(
    slots: int = 1, *, managed: bool = True, opened: bool = True, tenant_id: str = ""
) -> AsyncIterator[Bench]:
    table = Bench(slots, managed=managed, tenant_id=tenant_id)
    await table.begin()
    if opened:
        table.open()
    try:
        async with asyncio.timeout(30):
            yield table
    finally:
        await table.end()


def _start_message(mode: Any) -> StartEnvironment:
    return StartEnvironment(
        environment_id="e",
        mode=mode,
        runtime="python3.13",
        handler="main.handler",
        code_path="/nowhere",
        function_name="tested",
        function_version="7",
        function_arn=ARN,
        memory_mb=128,
        vcpus=1.0,
        timeout_ms=3_000,
        init_timeout_ms=10_000,
        ephemeral_storage_mb=512,
        max_concurrency=1,
        variables={},
        region="us-east-1",
        account_id="000000000000",
        log_format="JSON" if mode == "managed-instances" else "Text",
        log_group="g",
        log_stream="s",
        log_path="/nowhere",
    )


async def test_next_delivers_the_event_with_every_header_of_the_runtime_api() -> None:
    async with bench(tenant_id="blue") as table:
        client = await table.polling_client()
        deadline_before = int(time.time() * 1000) + 60_000
        table.invoke(
            5,
            "id-1",
            '{"käse": "🧀"}'.encode(),
            trace_id="Root=1-2-3;Sampled=0",
            client_context='{"custom":\n{}}',
            cognito_identity='{"cognitoIdentityId":"x"}',
            tenant_id="blue",
        )
        reply = await client.reply()
        assert reply.status == 200
        assert reply.json == {"käse": "🧀"}
        assert 0 <= int(reply.headers.pop("lambda-runtime-deadline-ms")) - deadline_before < 5_000
        del reply.headers["content-length"]
        assert reply.headers == {
            "content-type": "application/json",
            "lambda-runtime-aws-request-id": "id-1",
            "lambda-runtime-invoked-function-arn": ARN,
            "lambda-runtime-trace-id": "Root=1-2-3;Sampled=0",
            "lambda-runtime-client-context": '{"custom": {}}',
            "lambda-runtime-cognito-identity": '{"cognitoIdentityId":"x"}',
            "lambda-runtime-aws-tenant-id": "blue",
            "lambda-runtime-invocation-id": "5",
        }


@pytest.mark.parametrize("tenant", ["", "blue"])
async def test_an_invocation_of_another_tenant_is_rejected_and_the_slot_stays(tenant: str) -> None:
    async with bench(tenant_id=tenant) as table:
        client = await table.polling_client()
        table.invoke(5, "id-1", tenant_id="green")
        frame = await table.frame(Kind.REJECT)
        assert frame.stream == 5
        table.invoke(7, "id-2", tenant_id=tenant)
        assert (await client.reply()).headers["lambda-runtime-aws-request-id"] == "id-2"


async def test_a_response_becomes_a_result_and_the_next_poll_a_slot() -> None:
    async with bench() as table:
        client = await table.polling_client()
        table.invoke(5, "id-1")
        await client.reply()
        accepted = await client.answer("id-1", b'"done"', Content_Type="text/x")
        assert (accepted.status, accepted.json) == (202, {"status": "OK"})
        frame = await table.frame(Kind.RESULT)
        assert (frame.stream, frame.payload) == (5, b'"done"')
        assert msgspec.json.decode(frame.head, type=Result).content_type == "text/x"
        client.send("GET", NEXT)
        assert await table.slots() == 1


async def test_an_answer_for_an_unknown_or_settled_id_is_refused_with_400() -> None:
    async with bench() as table:
        client = await table.polling_client()
        table.invoke(5, "id-1")
        await client.reply()
        await client.answer("id-1", b"1")
        for request_id in ("id-1", "never-seen", ""):
            reply = await client.answer(request_id, b"2")
            assert (reply.status, reply.json["errorType"]) == (400, "InvalidRequestID")
        await table.frame(Kind.RESULT)
        assert table.frames.empty()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/2018-06-01/runtime/restore/next", 404),
        ("POST", "/2018-06-01/runtime/logs", 404),
        ("POST", NEXT, 405),
        ("GET", "/2018-06-01/runtime/invocation/x/response", 405),
        ("GET", "/2018-06-01/runtime/invocation/x/error", 405),
        ("PUT", "/2018-06-01/runtime/init/error", 405),
        ("POST", "/2018-06-01/ping", 405),
    ],
)
async def test_unknown_paths_and_methods_are_refused_and_the_connection_goes_on(
    method: str, path: str, status: int
) -> None:
    async with bench() as table:
        client = await table.client()
        reply = await client.ask(method, path)
        assert reply.status == status
        assert reply.json.keys() == {"errorMessage", "errorType"}
        ping = await client.ask("GET", "/2018-06-01/ping?x=1")
        assert (ping.status, ping.body) == (200, b"pong")


async def test_chunked_bodies_and_expect_100_continue_are_understood() -> None:
    async with bench() as table:
        client = await table.polling_client()
        table.invoke(5, "id-1")
        await client.reply()
        path = "/2018-06-01/runtime/invocation/id-1/response"
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
        client.writer.write(head.encode())
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.writer.write(b"3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n")
        assert (await client.reply()).status == 202
        assert (await table.frame(Kind.RESULT)).payload == b"[1,2]"


async def test_pipelined_requests_are_answered_in_order_and_wait_behind_a_poll() -> None:
    async with bench() as table:
        client = await table.client()
        client.send("GET", "/2018-06-01/ping")
        client.send("GET", NEXT)
        client.send("GET", "/2018-06-01/ping")
        client.send("GET", "/nowhere")
        assert (await client.reply()).body == b"pong"
        assert await table.slots() == 1
        table.invoke(1, "id-1", b'"event"')
        assert (await client.reply()).body == b'"event"'
        assert (await client.reply()).body == b"pong"
        assert (await client.reply()).status == 404


async def test_a_request_that_arrives_byte_by_byte_is_whole_in_the_end() -> None:
    async with bench() as table:
        client = await table.polling_client()
        table.invoke(1, "id-1")
        await client.reply()
        raw = b"POST /2018-06-01/runtime/invocation/id-1/response HTTP/1.1\r\nContent-Length: 4\r\n\r\nnull"
        for byte in raw:
            client.writer.write(bytes([byte]))
            await client.writer.drain()
        assert (await client.reply()).status == 202
        assert (await table.frame(Kind.RESULT)).payload == b"null"


async def test_bytes_that_are_not_http_get_400_and_the_end() -> None:
    async with bench() as table:
        client = await table.client()
        client.writer.write(b"\x00\x01\x02 nonsense\r\n\r\n")
        assert (await client.reply()).status == 400
        assert await client.reader.read() == b""


async def test_a_body_that_ends_early_gets_truncated_and_settles_nothing() -> None:
    async with bench(2) as table:
        client = await table.polling_client()
        table.invoke(1, "id-1")
        await client.reply()
        other = await table.client()
        other.writer.write(
            b"POST /2018-06-01/runtime/invocation/id-1/response HTTP/1.1\r\nContent-Length: 9\r\n\r\n1234"
        )
        other.writer.write_eof()
        reply = await other.reply()
        assert (reply.status, reply.json["errorType"]) == (400, "TruncatedHTTPRequest")
        assert (await client.answer("id-1", b"1")).status == 202
        assert (await table.frame(Kind.RESULT)).payload == b"1"


async def test_connection_close_is_honoured() -> None:
    async with bench() as table:
        client = await table.client()
        assert (await client.ask("GET", "/2018-06-01/ping", Connection="close")).status == 200
        assert await client.reader.read() == b""


@pytest.mark.parametrize("excess", [0, 1])
async def test_a_response_of_exactly_the_limit_passes_and_one_byte_more_fails(excess: int) -> None:
    async with bench() as table:
        client = await table.polling_client()
        table.invoke(1, "id-1")
        await client.reply()
        reply = await client.answer("id-1", b"x" * (MAX_RESPONSE_BYTES + excess))
        if not excess:
            assert reply.status == 202
            assert len((await table.frame(Kind.RESULT)).payload) == 6_291_556
            return
        assert (reply.status, reply.json["errorType"]) == (413, "RequestEntityTooLarge")
        error, frame = await table.error()
        assert error == Error("Function.ResponseSizeTooLarge", "platform")
        assert json.loads(frame.payload) == {
            "errorType": "Function.ResponseSizeTooLarge",
            "errorMessage": "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
        }
        client.send("GET", NEXT)
        assert await table.slots() == 1


async def test_an_error_document_passes_unchanged_and_its_type_in_the_platforms_form() -> None:
    async with bench() as table:
        client = await table.polling_client()
        document = b'{"errorMessage": "no", "errorType": "ValueError", "stackTrace": []}'
        for stream, claimed, reported in (
            (1, "ValueError", "Function.Unknown"),
            (2, "Function.MyOwn", "Function.MyOwn"),
        ):
            table.invoke(stream, "id")
            await client.reply()
            path = "/2018-06-01/runtime/invocation/id/error"
            assert (await client.ask("POST", path, document, Lambda_Runtime_Function_Error_Type=claimed)).status == 202
            error, frame = await table.error()
            assert (error, frame.payload) == (Error(reported, "function"), document)
            client.send("GET", NEXT)
            assert await table.slots() == 1


async def test_an_error_document_above_one_mebibyte_is_refused_and_still_settles() -> None:
    async with bench() as table:
        client = await table.polling_client()
        table.invoke(1, "id")
        await client.reply()
        path = "/2018-06-01/runtime/invocation/id/error"
        reply = await client.ask(
            "POST", path, b"x" * (MAX_ERROR_BYTES + 1), Lambda_Runtime_Function_Error_Type="Function.Big"
        )
        assert reply.status == 413
        error, frame = await table.error()
        assert error.error_type == "Function.Big"
        assert "larger than 1048576 bytes" in json.loads(frame.payload)["errorMessage"]


async def test_an_invalid_response_mode_is_refused_and_a_streamed_error_is_an_error() -> None:
    async with bench() as table:
        client = await table.polling_client()
        table.invoke(1, "id-1")
        await client.reply()
        reply = await client.answer("id-1", b"1", Lambda_Runtime_Function_Response_Mode="sideways")
        assert (reply.status, reply.json["errorType"]) == (400, "InvalidFunctionResponseMode")
        client.writer.write(
            b"POST /2018-06-01/runtime/invocation/id-1/response HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"
            b"Lambda-Runtime-Function-Response-Mode: streaming\r\n\r\n4\r\nhalf\r\n0\r\n"
            b"Lambda-Runtime-Function-Error-Type: Function.Midway\r\nLambda-Runtime-Function-Error-Body: eyJhIjoxfQ==\r\n\r\n"
        )
        assert (await client.reply()).status == 202
        assert (await table.frame(Kind.CHUNK)).payload == b"half"
        error, frame = await table.error()
        assert (error.error_type, frame.payload) == ("Function.Midway", b'{"a":1}')


async def test_the_first_init_error_is_accepted_and_the_others_are_told_so() -> None:
    async with bench(2, opened=False) as table:
        document = '{"errorType":"Runtime.ImportModuleError","errorMessage":"Unable"}'
        headers = {"Lambda_Runtime_Function_Error_Type": "Runtime.ImportModuleError"}
        first, second = await table.client(), await table.client()
        path = "/2018-06-01/runtime/init/error"
        assert (await first.ask("POST", path, document.encode(), **headers)).status == 202
        reply = await second.ask("POST", path, document.encode(), **headers)
        assert (reply.status, reply.json["errorType"]) == (403, "InvalidStateTransition")
        assert table.life.init_failures == [("Runtime.ImportModuleError", document)]
        assert (await second.ask("GET", NEXT)).status == 403


async def test_init_errors_after_init_are_refused() -> None:
    async with bench() as table:
        client = await table.client()
        reply = await client.ask("POST", "/2018-06-01/runtime/init/error", b"{}")
        assert (reply.status, reply.json["errorType"]) == (403, "InvalidStateTransition")
        assert table.life.init_failures == []


async def test_polls_parked_during_init_are_announced_together_when_the_link_opens() -> None:
    async with bench(4, opened=False) as table:
        clients = [await table.client() for _ in range(4)]
        for client in clients:
            client.send("GET", NEXT)
        ping = await table.client()
        while table.life.parked < 4:
            await ping.ask("GET", "/2018-06-01/ping")
        table.open()
        assert await table.slots() == 4


async def test_an_idle_worker_that_dies_takes_its_slot_along_and_an_event_on_its_way_is_rejected() -> None:
    async with bench() as table:
        client = await table.polling_client()
        client.writer.close()
        assert await table.slots() == -1
        assert table.life.workers_left == [0]
        table.invoke(9, "id-1")
        frame = await table.frame(Kind.REJECT)
        assert frame.stream == 9
        assert msgspec.json.decode(frame.head, type=Reject).because


async def test_a_worker_that_dies_at_work_fails_its_invocation_and_no_other() -> None:
    async with bench(2) as table:
        first, second = await table.polling_client(), await table.polling_client()
        table.invoke(1, "id-1")
        table.invoke(2, "id-2")
        first_reply, second_reply = await first.reply(), await second.reply()
        first.writer.close()
        error, frame = await table.error()
        dead = first_reply.headers["lambda-runtime-aws-request-id"]
        assert error == Error("Runtime.ExitError", "platform")
        assert json.loads(frame.payload) == {
            "errorType": "Runtime.ExitError",
            "errorMessage": f"RequestId: {dead} Error: Runtime exited without providing a reason",
        }
        assert table.life.workers_left == [1]
        alive = second_reply.headers["lambda-runtime-aws-request-id"]
        assert {dead, alive} == {"id-1", "id-2"}
        assert (await second.answer(alive, b"1")).status == 202
        await table.frame(Kind.RESULT)


async def test_a_time_out_is_answered_at_the_deadline_and_the_late_response_gets_410() -> None:
    async with bench() as table:
        client = await table.polling_client()
        table.invoke(1, "id-1", timeout_ms=50)
        await client.reply()
        error, frame = await table.error()
        assert error == Error("Sandbox.Timedout", "platform")
        assert json.loads(frame.payload) == {
            "errorType": "Sandbox.Timedout",
            "errorMessage": "RequestId: id-1 Error: Task timed out after 0.05 seconds",
        }
        assert table.life.timed_out == ["id-1"]
        late = await client.answer("id-1", b"1")
        assert (late.status, late.json["errorType"]) == (410, "InvokeTimeout")
        assert table.frames.empty()
        client.send("GET", NEXT)
        assert await table.slots() == 1


async def test_deadlines_hold_whatever_the_order_they_come_in() -> None:
    async with bench(3) as table:
        clients = [await table.polling_client() for _ in range(3)]
        for stream, timeout_ms in ((1, 200), (2, 50), (3, 100)):
            table.invoke(stream, f"id-{stream}", timeout_ms=timeout_ms)
        for client in clients:
            await client.reply()
        assert [(await table.error())[1].stream for _ in range(3)] == [2, 3, 1]


async def test_a_cancelled_invocation_runs_on_and_is_answered_to_nobody() -> None:
    async with bench() as table:
        client = await table.polling_client()
        table.invoke(1, "id-1")
        await client.reply()
        table.gateway.send(Kind.CANCEL, 1)
        # A second event for the busy environment comes back rejected: by then the agent has read the CANCEL before it.
        table.invoke(2, "id-2")
        await table.frame(Kind.REJECT)
        assert (await client.answer("id-1", b"1")).status == 202
        client.send("GET", NEXT)
        assert await table.slots() == 1


async def test_an_echoed_invocation_id_keeps_two_deliveries_of_one_request_apart() -> None:
    async with bench(2) as table:
        first = await table.polling_client()
        table.invoke(1, "id", timeout_ms=30)
        delivery = (await first.reply()).headers["lambda-runtime-invocation-id"]
        await table.error()
        second = await table.polling_client()
        table.invoke(2, "id")
        await second.reply()
        assert (await first.answer("id", b'"stale"', Lambda_Runtime_Invocation_Id=delivery)).status == 410
        assert (await second.answer("id", b'"fresh"', Lambda_Runtime_Invocation_Id="2")).status == 202
        assert (await table.frame(Kind.RESULT)).payload == b'"fresh"'


async def test_on_demand_a_closed_connection_is_not_a_dead_runtime() -> None:
    async with bench(managed=False) as table:
        client = await table.polling_client()
        table.invoke(1, "id-1")
        await client.reply()
        client.writer.close()
        other = await table.client()
        assert (await other.answer("id-1", b"1")).status == 202
        await table.frame(Kind.RESULT)
        assert table.life.workers_left == []


async def test_a_client_that_pipelines_without_end_is_dropped() -> None:
    async with bench() as table:
        client = await table.polling_client()
        for _ in range(20):
            client.send("GET", "/2018-06-01/ping")
        with contextlib.suppress(ConnectionError):
            assert await client.reader.read() == b""
        assert await table.slots() == -1


async def test_a_request_head_above_the_limit_is_refused() -> None:
    async with bench() as table:
        client = await table.client()
        client.writer.write(b"GET /2018-06-01/ping HTTP/1.1\r\nX-Long: " + b"x" * (3 * 1024 * 1024))
        assert (await client.reply()).status == 431


# --- streamed answers -----------------------------------------------------------------------------------------------------

STREAM_HEAD = (
    b"POST /2018-06-01/runtime/invocation/id-1/response HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"
    b"Content-Type: text/plain\r\nLambda-Runtime-Function-Response-Mode: streaming\r\n\r\n"
)


def http_chunk(part: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(part), part)


async def test_each_part_is_passed_on_before_the_next_is_sent() -> None:
    async with bench(managed=False) as table:
        client = await table.polling_client()
        table.invoke(1, "id-1")
        await client.reply()
        client.writer.write(STREAM_HEAD + http_chunk(b"first"))
        first = await table.frame(Kind.CHUNK)
        assert (first.head, first.payload) == (b'["text/plain"]', b"first")
        client.writer.write(http_chunk(b"second"))
        second = await table.frame(Kind.CHUNK)
        assert (second.head, second.payload) == (b"", b"second")
        client.writer.write(b"0\r\n\r\n")
        assert (await table.frame(Kind.END)).stream == 1
        assert (await client.reply()).status == 202
        assert any('"status":"success"' in line or "REPORT" in line for line in table.log)


async def test_a_runtime_is_not_read_beyond_what_was_granted_and_polls_again_after_its_answer() -> None:
    async with bench(managed=False) as table:
        client = await table.polling_client()
        table.invoke(1, "id-1")
        await client.reply()
        part, count = b"x" * 65_536, 400
        client.writer.write(STREAM_HEAD)
        sending = asyncio.create_task(_send_all(client, [http_chunk(part)] * count + [b"0\r\n\r\n"]))
        received = 0
        while received < STREAM_WINDOW_BYTES:
            received += len((await table.frame(Kind.CHUNK)).payload)
        # Nothing is granted, so nothing more may come than one read beyond the window.
        other = await table.client()
        assert (await other.ask("GET", "/2018-06-01/ping")).status == 200
        assert table.frames.empty()
        assert received < STREAM_WINDOW_BYTES + 1024 * 1024
        table.grant(1, received)
        while received < count * len(part):
            size = len((await table.frame(Kind.CHUNK)).payload)
            received += size
            table.grant(1, size)
        await table.frame(Kind.END)
        await sending
        assert (await client.reply()).status == 202
        client.send("GET", "/2018-06-01/runtime/invocation/next")
        assert (await table.slots()) == 1


async def _send_all(client: Client, parts: list[bytes]) -> None:
    for part in parts:
        client.writer.write(part)
        await client.writer.drain()


async def test_more_than_a_stream_may_have_is_an_error_and_the_runtime_is_told() -> None:
    async with bench(managed=False) as table:
        client = await table.polling_client()
        table.invoke(1, "id-1")
        await client.reply()
        part = b"x" * 1024 * 1024
        client.writer.write(STREAM_HEAD)
        parts = [http_chunk(part)] * (MAX_STREAMED_BYTES // len(part)) + [http_chunk(b"y"), b"0\r\n\r\n"]
        sending = asyncio.create_task(_send_all(client, parts))
        received = 0
        while (frame := await table.frames.get()).kind is Kind.CHUNK:
            received += len(frame.payload)
            table.grant(1, len(frame.payload))
        assert frame.kind is Kind.ERROR
        assert received <= MAX_STREAMED_BYTES
        assert json.loads(frame.payload)["errorType"] == "Function.ResponseSizeTooLarge"
        await sending
        assert (await client.reply()).status == 413


async def test_a_stream_that_breaks_off_is_an_error_and_frees_its_slot() -> None:
    async with bench(managed=False) as table:
        client = await table.polling_client()
        table.invoke(1, "id-1")
        await client.reply()
        client.writer.write(STREAM_HEAD + http_chunk(b"half"))
        await table.frame(Kind.CHUNK)
        client.writer.close()
        error, frame = await table.error()
        assert error.error_type == "Runtime.TruncatedResponse"
        assert "id-1" in json.loads(frame.payload)["errorMessage"]
        again = await table.client()
        again.send("GET", "/2018-06-01/runtime/invocation/next")
        assert (await table.slots()) == 1


async def test_a_stream_that_is_late_is_read_to_its_end_and_told_so() -> None:
    async with bench(managed=False) as table:
        client = await table.polling_client()
        table.invoke(1, "id-1", timeout_ms=50)
        await client.reply()
        client.writer.write(STREAM_HEAD + http_chunk(b"half"))
        await table.frame(Kind.CHUNK)
        error, _ = await table.error()
        assert error.error_type == "Sandbox.Timedout"
        client.writer.write(http_chunk(b"x" * 3_000_000) + b"0\r\n\r\n")
        assert (await client.reply()).status == 410
        assert table.frames.empty()


async def test_an_invocation_that_is_being_answered_cannot_be_answered_again() -> None:
    async with bench(managed=False) as table:
        client, other = await table.polling_client(), await table.client()
        table.invoke(1, "id-1")
        await client.reply()
        client.writer.write(STREAM_HEAD + http_chunk(b"half"))
        await table.frame(Kind.CHUNK)
        assert (await other.answer("id-1", b"1")).status == 400
        assert (await other.answer("id-1", b"1", Lambda_Runtime_Function_Response_Mode="streaming")).status == 400
        client.writer.write(b"0\r\n\r\n")
        await table.frame(Kind.END)
