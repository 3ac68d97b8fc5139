"""The HTTP Runtime API of one environment, between its runtime and the invocation link.

    gateway ──INVOKE/CANCEL──► RuntimeApiServer ──/next──► runtime
            ◄─RESULT/ERROR/REJECT/SLOTS──     ◄──/response, /error──
            ◄─CHUNK…END or ERROR─────────     ◄──/response, streaming

The listener is the environment's identity: whoever can reach it is the environment. What may happen when is decided by
`core.runtime_api`; here its decisions meet sockets, the clock and the log. Every invocation taken from the link is answered on it exactly
once with RESULT, END or ERROR (nothing after CANCEL), or refused with REJECT. REJECT gives back the slot that INVOKE took: if a worker died
idle, its SLOTS(-1) went out before.
"""

import asyncio
import base64
import binascii
import itertools
import signal
import socket
import time
from typing import Protocol

import msgspec

from lambstead.core.platform_records import InvocationStatus
from lambstead.core.runtime_api import (
    MAX_ERROR_BYTES,
    MAX_RESPONSE_BYTES,
    Connections,
    Invocation,
    Late,
    Refused,
    RuntimeApi,
    Unknown,
    WorkerId,
    error_document,
    exit_message,
    reported_error_type,
    response_too_large_message,
    timed_out_message,
)
from lambstead.core.streaming import MAX_STREAMED_BYTES
from lambstead.instance.http_protocol import HttpConnection, Request
from lambstead.instance.platform_log import Ended, PlatformLog
from lambstead.instance.streamed_answer import StreamedAnswer
from lambstead.link.connection import LinkConnection
from lambstead.link.frames import Frame, Kind
from lambstead.link.messages import Error, Invoke, Reject, Result, Slots, Window

PREFIX = "/2018-06-01"
TRUNCATION_GRACE_SECONDS = 0.1
"""How long the end of the runtime is awaited after a streamed answer broke off: if it exited, that is the better story."""
MAX_IDLE_POLLS = 10_000
"""Polls that may be parked at once; one more gets 500, as AWS answers `Runtime.TooManyIdleRuntimes`."""

_NEXT = f"{PREFIX}/runtime/invocation/next"
_INVOCATION = f"{PREFIX}/runtime/invocation/"
_INIT_ERROR = f"{PREFIX}/runtime/init/error"
_PING = f"{PREFIX}/ping"
_ERROR_TYPE_HEADER = "lambda-runtime-function-error-type"
_ERROR_BODY_TRAILER = "lambda-runtime-function-error-body"
_RESPONSE_MODE_HEADER = "lambda-runtime-function-response-mode"

_ACCEPTED = b'{"status":"OK"}\n'
_DEFAULT_CONTENT_TYPE = "application/octet-stream"
_invoke_decoder = msgspec.json.Decoder(Invoke)
_window_decoder = msgspec.json.Decoder(Window)
_encode = msgspec.json.encode


class Life(Protocol):
    """What the Runtime API tells the environment it belongs to."""

    def poll_parked(self) -> None:
        """One more worker is ready; called while init is not complete."""

    def init_failed(self, error_type: str, document: str) -> None:
        """The runtime reported that init failed, for the first time."""

    def connection_dropped(self) -> None:
        """A connection ended between an answer and the next poll: the client reconnects, or its worker died."""

    def worker_lost(self, workers_left: int) -> None:
        """A worker that had been ready is gone."""

    def invocation_timed_out(self, request_id: str) -> None:
        """An invocation's deadline came; its caller has been told."""

    def is_ours(self, peer: tuple[str, int], here: tuple[str, int]) -> bool:
        """Whether the connection from `peer` to `here` belongs to a process of the environment."""

    def killed_for_memory(self) -> bool:
        """Whether the kernel killed any of the environment's processes for want of memory."""

    def memory_high_water(self) -> int:
        """Largest resident size of the runtime so far, in bytes."""


class RuntimeApiServer:
    """Serves the Runtime API on its own listener. `address` is `host:port` after `listen`."""

    def __init__(
        self,
        slots: int,
        life: Life,
        log: PlatformLog,
        drain_output: "DrainOutput",
        connections: Connections,
        *,
        tenant_id: str = "",
    ) -> None:
        """`tenant_id` is the tenant that the environment belongs to; others' invocations are refused."""
        self._rules = RuntimeApi(slots, connections)
        self._life = life
        self._log = log
        self._drain_output = drain_output
        self._tenant_id = tenant_id
        self._link: LinkConnection | None = None
        self._server: asyncio.Server | None = None
        self._connections: dict[WorkerId, HttpConnection] = {}
        self._numbers = itertools.count(1)
        self._started: dict[int, float] = {}  # by stream, seconds on the monotonic clock
        self._streams: dict[int, StreamedAnswer] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_deadline_ms = 0
        self._init_over = False
        self._unusable = False
        self._is_shared = True
        self.address = ""

    @property
    def parked(self) -> int:
        """Polls waiting for an event."""
        return self._rules.parked

    async def listen(self, listener: socket.socket | None = None) -> None:
        """Serve on a listener that the environment opened in its own network, else on a free loopback port.

        On the loopback that all share, connections are served only if `Life` knows their other end.
        """
        loop = asyncio.get_running_loop()
        self._is_shared = listener is None
        if listener is None:
            self._server = await loop.create_server(self._new_connection, "127.0.0.1", 0, backlog=1024)
        else:
            self._server = await loop.create_server(self._new_connection, sock=listener)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"

    def open_link(self, link: LinkConnection) -> None:
        """Init is complete: announce the parked polls on `link` and take invocations from it."""
        self._init_over = True
        self._link = link
        self._rules.open()
        self._announce()

    def link_frame(self, frame: Frame) -> None:
        """A frame from the gateway. Raises msgspec.DecodeError for a head that is not the message of its kind."""
        if frame.kind is Kind.INVOKE:
            self._invoke(frame)
        elif frame.kind is Kind.CANCEL:
            self._rules.cancel(frame.stream)
            if frame.stream in self._streams:
                self._streams[frame.stream].drop()
        elif frame.kind is Kind.WINDOW and frame.stream in self._streams:
            self._streams[frame.stream].grant(_window_decoder.decode(frame.head).size_bytes)

    def end(self, message: str, error_type: str = "Runtime.ExitError") -> None:
        """The runtime is gone: fail what still runs with `error_type` and `message`, and take no more requests."""
        self._unusable = True
        for invocation in self._rules.end():
            self._abort(invocation, message, error_type)
        if self._timer is not None:
            self._timer.cancel()
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections.values()):
            connection.close()

    # Endpoint of HttpConnection

    def body_limit(self, path: str) -> int:
        return MAX_RESPONSE_BYTES if path.endswith("/response") else MAX_ERROR_BYTES

    def stream(self, connection: HttpConnection, request: Request) -> StreamedAnswer | None:
        """A streaming response of something that runs is passed on as it comes; all else is taken whole."""
        is_response = request.path.startswith(_INVOCATION) and request.path.endswith("/response")
        streams = request.headers.get(_RESPONSE_MODE_HEADER) == "streaming"
        if not (is_response and streams and request.method == "POST" and self._link is not None):
            return None
        request_id, delivery = _answered_id(request, "/response")
        invocation = self._rules.begin_stream(request_id, delivery)
        if invocation is None:
            return None
        content_type = request.headers.get("content-type", _DEFAULT_CONTENT_TYPE)
        answer = StreamedAnswer(invocation, connection, self._link, content_type, self)
        self._streams[invocation.stream] = answer
        return answer

    def request(self, connection: HttpConnection, request: Request) -> None:
        path = request.path
        if path == _NEXT:
            self._with_method("GET", connection, request, self._next)
        elif path == _INIT_ERROR:
            self._with_method("POST", connection, request, self._init_error)
        elif path == _PING:
            self._with_method("GET", connection, request, self._ping)
        elif path.startswith(_INVOCATION) and path.endswith("/response"):
            self._with_method("POST", connection, request, self._response)
        elif path.startswith(_INVOCATION) and path.endswith("/error"):
            self._with_method("POST", connection, request, self._error)
        else:
            _fail(connection, 404, "NotFound", f"There is no {path} in the Runtime API.")

    def connection_lost(self, connection: HttpConnection) -> None:
        worker = WorkerId(connection.number)
        if self._connections.pop(worker, None) is None:
            return
        lost = self._rules.lost(worker)
        self._announce()
        for invocation in lost.aborted:
            if self._life.killed_for_memory():
                self._abort(invocation, exit_message(-signal.SIGKILL), "Runtime.OutOfMemory")
            else:
                self._abort(invocation, exit_message(None))
        if self._unusable:
            return
        if lost.was_worker:
            self._life.worker_lost(lost.workers_left)
        else:
            self._life.connection_dropped()

    # From the runtime

    def _new_connection(self) -> HttpConnection:
        number = next(self._numbers)
        connection = HttpConnection(self, number, self._life.is_ours if self._is_shared else None)
        self._connections[WorkerId(number)] = connection
        return connection

    def _with_method(self, method: str, connection: HttpConnection, request: Request, answer: "Answer") -> None:
        if request.method != method:
            _fail(connection, 405, "MethodNotAllowed", f"{request.path} takes {method}, not {request.method}.")
        elif request.truncated:
            _fail(connection, 400, "TruncatedHTTPRequest", "The request ended before its announced length.")
        else:
            answer(connection, request)

    def _ping(self, connection: HttpConnection, request: Request) -> None:
        connection.respond(200, b"pong", b"Content-Type: text/plain\r\n")

    def _next(self, connection: HttpConnection, request: Request) -> None:
        if self._unusable:
            _fail(connection, 403, "InvalidStateTransition", "The environment is shutting down.")
            return
        if self._rules.parked >= MAX_IDLE_POLLS:
            _fail(connection, 500, "InternalServerError", "Too many calls are waiting for an invocation.")
            return
        self._rules.poll(WorkerId(connection.number))
        if self._init_over:
            self._announce()
        else:
            self._life.poll_parked()

    def _init_error(self, connection: HttpConnection, request: Request) -> None:
        if self._init_over or self._unusable:
            _fail(
                connection,
                403,
                "InvalidStateTransition",
                "Init is over: it completed, or its failure was reported before.",
            )
            return
        self._unusable = True
        error_type = reported_error_type(request.headers.get(_ERROR_TYPE_HEADER, ""), init=True)
        if request.too_large:
            _fail(connection, 413, "RequestEntityTooLarge", f"An error document may have {MAX_ERROR_BYTES} bytes.")
        else:
            connection.respond(202, _ACCEPTED)
        self._life.init_failed(error_type, _document_of(request, error_type).decode("utf-8", "replace"))

    def _response(self, connection: HttpConnection, request: Request) -> None:
        mode = request.headers.get(_RESPONSE_MODE_HEADER)
        if mode not in (None, "streaming", "buffered"):
            _fail(connection, 400, "InvalidFunctionResponseMode", f"{mode!r} is not a response mode.")
            return
        invocation = self._answered(connection, request, "/response")
        if invocation is None:
            return
        if request.too_large:
            error_type = "Function.ResponseSizeTooLarge"
            self._settle_error(
                invocation, error_type, error_document(error_type, response_too_large_message()).encode()
            )
            _fail(connection, 413, "RequestEntityTooLarge", response_too_large_message())
            return
        trailer_error = request.trailers.get(_ERROR_TYPE_HEADER)
        if trailer_error is not None:
            error_type = reported_error_type(trailer_error)
            self._settle_error(
                invocation, error_type, _trailer_document(request.trailers, error_type), by_function=True
            )
        else:
            self._settle_result(invocation, request.headers.get("content-type", _DEFAULT_CONTENT_TYPE), request.body)
        connection.respond(202, _ACCEPTED)

    def _error(self, connection: HttpConnection, request: Request) -> None:
        invocation = self._answered(connection, request, "/error")
        if invocation is None:
            return
        error_type = reported_error_type(request.headers.get(_ERROR_TYPE_HEADER, ""))
        self._settle_error(invocation, error_type, _document_of(request, error_type), by_function=True)
        if request.too_large:
            _fail(connection, 413, "RequestEntityTooLarge", f"An error document may have {MAX_ERROR_BYTES} bytes.")
        else:
            connection.respond(202, _ACCEPTED)

    def _answered(self, connection: HttpConnection, request: Request, suffix: str) -> Invocation | None:
        """The invocation this request answers; None after answering why there is none."""
        request_id, delivery = _answered_id(request, suffix)
        answered = self._rules.answer(request_id, delivery)
        self._announce()
        match answered:
            case Invocation():
                return answered
            case Late():
                _fail(connection, 410, "InvokeTimeout", f"Invocation {request_id} has timed out.")
            case Unknown():
                _fail(connection, 400, "InvalidRequestID", f"Invalid request ID: {request_id} is not running.")
        return None

    # Settlement of StreamedAnswer

    def stream_complete(self, answer: StreamedAnswer, trailers: dict[str, str]) -> None:
        invocation, error_type = answer.invocation, trailers.get(_ERROR_TYPE_HEADER)
        if not self._end_stream(answer):
            self._refuse_streamed(answer)
            return
        if error_type is not None:
            error_type = reported_error_type(error_type)
            self._settle_error(invocation, error_type, _trailer_document(trailers, error_type), by_function=True)
        else:
            self._report(invocation, "success")
            if self._link is not None and not invocation.abandoned:
                self._link.send(Kind.END, invocation.stream)
        answer.connection.respond(202, _ACCEPTED)

    def stream_broken(self, answer: StreamedAnswer) -> None:
        asyncio.get_running_loop().call_later(TRUNCATION_GRACE_SECONDS, self._settle_broken, answer)

    def stream_too_large(self, answer: StreamedAnswer) -> None:
        if self._end_stream(answer):
            error_type = "Function.ResponseSizeTooLarge"
            document = error_document(error_type, response_too_large_message(MAX_STREAMED_BYTES))
            self._settle_error(answer.invocation, error_type, document.encode())
        answer.drop()

    def _settle_broken(self, answer: StreamedAnswer) -> None:
        if self._end_stream(answer):
            error_type = "Runtime.TruncatedResponse"
            text = f"RequestId: {answer.invocation.request_id} Error: The response ended before it was complete"
            self._settle_error(answer.invocation, error_type, error_document(error_type, text).encode())

    def _end_stream(self, answer: StreamedAnswer) -> bool:
        """Its slot is free; false if the invocation was settled before."""
        self._streams.pop(answer.invocation.stream, None)
        is_running = self._rules.end_stream(answer.invocation)
        self._announce()
        return is_running

    def _refuse_streamed(self, answer: StreamedAnswer) -> None:
        if answer.is_too_large:
            message = response_too_large_message(MAX_STREAMED_BYTES)
            _fail(answer.connection, 413, "RequestEntityTooLarge", message)
        else:
            message = f"Invocation {answer.invocation.request_id} has timed out."
            _fail(answer.connection, 410, "InvokeTimeout", message)

    # From the gateway

    def _invoke(self, frame: Frame) -> None:
        head = _invoke_decoder.decode(frame.head)
        if head.tenant_id != self._tenant_id:
            # The gateway sorts invocations by tenant; what it got wrong must not reach what another tenant left here.
            self._reject(frame.stream, "the environment belongs to another tenant")
            return
        invocation = Invocation(frame.stream, head.request_id, head.deadline_ms, head.timeout_ms)
        worker = self._rules.invoke(invocation)
        if isinstance(worker, Refused):
            self._reject(frame.stream, worker.because)
            return
        self._started[frame.stream] = time.monotonic()
        self._log.invocation_started(head.request_id)
        self._connections[worker].respond(200, frame.payload, _next_head(head, frame.stream))
        self._arm(head.deadline_ms)

    def _reject(self, stream: int, because: str) -> None:
        if self._link is not None:
            self._link.send(Kind.REJECT, stream, _encode(Reject(because)))

    def _announce(self) -> None:
        change = self._rules.take_slots_change()
        if change and self._link is not None:
            self._link.send(Kind.SLOTS, 0, _encode(Slots(change)))

    # Outcomes

    def _settle_result(self, invocation: Invocation, content_type: str, body: bytes) -> None:
        self._report(invocation, "success")
        if self._link is not None and not invocation.abandoned:
            self._link.send(Kind.RESULT, invocation.stream, _encode(Result(content_type)), body)

    def _settle_error(
        self, invocation: Invocation, error_type: str, document: bytes, *, by_function: bool = False
    ) -> None:
        self._drop_stream(invocation)
        status: InvocationStatus = "error" if by_function or error_type.startswith("Function.") else "failure"
        self._report(invocation, "timeout" if error_type == "Sandbox.Timedout" else status, error_type)
        if self._link is not None and not invocation.abandoned:
            head = Error(error_type, "function" if by_function else "platform")
            self._link.send(Kind.ERROR, invocation.stream, _encode(head), document)

    def _abort(self, invocation: Invocation, message: str, error_type: str = "Runtime.ExitError") -> None:
        text = f"RequestId: {invocation.request_id} Error: {message}"
        self._log.runtime_exited(text, error_type)
        self._settle_error(invocation, error_type, error_document(error_type, text).encode())

    def _time_out(self, invocation: Invocation) -> None:
        text = f"RequestId: {invocation.request_id} Error: {timed_out_message(invocation.timeout_ms)}"
        self._settle_error(invocation, "Sandbox.Timedout", error_document("Sandbox.Timedout", text).encode())
        self._life.invocation_timed_out(invocation.request_id)

    def _drop_stream(self, invocation: Invocation) -> None:
        """The invocation was settled while its answer came in."""
        answer = self._streams.pop(invocation.stream, None)
        if answer is not None:
            answer.drop()

    def _report(self, invocation: Invocation, status: InvocationStatus, error_type: str = "") -> None:
        duration_ms = (time.monotonic() - self._started.pop(invocation.stream)) * 1000
        memory = 0
        if self._log.is_per_invocation:
            # What the function printed before it answered stands before END, as its caller's log tail expects.
            self._drain_output()
            memory = self._life.memory_high_water()
        self._log.invocation_ended(
            Ended(
                invocation.request_id, status, duration_ms, error_type, invocation.timeout_ms, max_memory_bytes=memory
            )
        )

    # Deadlines: one timer for the earliest; when it fires without cause (answered meanwhile) it is set for the next.

    def _arm(self, deadline_ms: int) -> None:
        if self._timer is not None:
            if self._timer_deadline_ms <= deadline_ms:
                return
            self._timer.cancel()
        delay = max(0.0, deadline_ms / 1000 - time.time())
        self._timer_deadline_ms = deadline_ms
        self._timer = asyncio.get_running_loop().call_later(delay, self._expire)

    def _expire(self) -> None:
        self._timer = None
        # A timer may fire a hair early against the wall clock.
        now_ms = max(int(time.time() * 1000), self._timer_deadline_ms)
        for invocation in self._rules.expire(now_ms):
            self._time_out(invocation)
        self._announce()
        deadline_ms = self._rules.next_deadline_ms
        if deadline_ms is not None:
            self._arm(deadline_ms)


class Answer(Protocol):
    """Answers one request whose path and method fit."""

    def __call__(self, connection: HttpConnection, request: Request) -> None: ...


class DrainOutput(Protocol):
    """Takes everything the runtime has printed so far into the log."""

    def __call__(self) -> None: ...


def _next_head(head: Invoke, stream: int) -> bytes:
    """Header lines of `/next`. The delivery's number goes along as invocation id; clients that know it echo it."""
    lines = [
        "Content-Type: application/json\r\n",
        f"Lambda-Runtime-Aws-Request-Id: {head.request_id}\r\n",
        f"Lambda-Runtime-Deadline-Ms: {head.deadline_ms}\r\n",
        f"Lambda-Runtime-Invoked-Function-Arn: {head.invoked_arn}\r\n",
        f"Lambda-Runtime-Invocation-Id: {stream}\r\n",
    ]
    for name, value in (
        ("Lambda-Runtime-Trace-Id", head.trace_id),
        ("Lambda-Runtime-Client-Context", head.client_context),
        ("Lambda-Runtime-Cognito-Identity", head.cognito_identity),
        ("Lambda-Runtime-Aws-Tenant-Id", head.tenant_id),
    ):
        if value:
            lines.append(f"{name}: {_one_line(value)}\r\n")
    return "".join(lines).encode()


def _answered_id(request: Request, suffix: str) -> tuple[str, int | None]:
    """The request id that a response is for, and the delivery's number if the client echoes it."""
    delivery = request.headers.get("lambda-runtime-invocation-id", "")
    number = int(delivery) if delivery.isascii() and delivery.isdigit() else None
    return request.path[len(_INVOCATION) : -len(suffix)], number


def _trailer_document(trailers: dict[str, str], error_type: str) -> bytes:
    """The error document behind a streamed answer, which travels as base64."""
    try:
        document = base64.b64decode(trailers.get(_ERROR_BODY_TRAILER, ""))
    except binascii.Error:
        document = b""
    return document or error_document(error_type, "The runtime reported an error without a document.").encode()


def _one_line(value: str) -> str:
    """A header value cannot hold line breaks; JSON has them only between its tokens, where a space means the same."""
    return value.replace("\r", " ").replace("\n", " ")


def _document_of(request: Request, error_type: str) -> bytes:
    """The error document the runtime sent, unchanged; one that says why if it was too large or empty."""
    if request.too_large:
        return error_document(error_type, f"The error document was larger than {MAX_ERROR_BYTES} bytes.").encode()
    return request.body or error_document(error_type, "The runtime reported an error without a document.").encode()


def _fail(connection: HttpConnection, status: int, error_type: str, message: str) -> None:
    connection.respond(status, msgspec.json.encode({"errorMessage": message, "errorType": error_type}))
