"""The HTTP Runtime API of one environment: what its runtime asks and says there.

    Invocations ──deliver──► RuntimeApiServer ──/next──► runtime
                ◄─poll, answer, settle──     ◄──/response, /error──
                ◄─streams ──────────────     ◄──/response, streaming

The listener is the environment's identity: whoever can reach it is the environment. What the requests mean for its invocations is in
`invocations`.
"""

import asyncio
import base64
import binascii
import itertools
import socket
from typing import Protocol

import msgspec

from lambstead.core.runtime_api import (
    MAX_ERROR_BYTES,
    MAX_RESPONSE_BYTES,
    Connections,
    Invocation,
    Late,
    Unknown,
    WorkerId,
    error_document,
    reported_error_type,
    response_too_large_message,
)
from lambstead.core.streaming import MAX_STREAMED_BYTES
from lambstead.instance.http_protocol import HttpConnection, Request
from lambstead.instance.invocation_log import InvocationLog
from lambstead.instance.invocations import Invocations, Life
from lambstead.instance.streamed_answer import StreamedAnswer
from lambstead.link.connection import LinkConnection
from lambstead.link.frames import Frame
from lambstead.link.messages import Invoke

PREFIX = "/2018-06-01"
TRUNCATION_GRACE_SECONDS = 0.1
"""How long the end of the runtime is awaited after a streamed answer broke off: if it exited, that is the better story."""
MAX_IDLE_POLLS = 10_000
"""Polls that may be parked at once; one more gets 500, as AWS answers `Runtime.TooManyIdleRuntimes`."""

FIRST_CONNECTION = 1
"""Number of the first connection; what is below is for workers that do not speak HTTP."""

_NEXT = f"{PREFIX}/runtime/invocation/next"
_INVOCATION = f"{PREFIX}/runtime/invocation/"
_INIT_ERROR = f"{PREFIX}/runtime/init/error"
_PING = f"{PREFIX}/ping"
_ERROR_TYPE_HEADER = "lambda-runtime-function-error-type"
_ERROR_BODY_TRAILER = "lambda-runtime-function-error-body"
_RESPONSE_MODE_HEADER = "lambda-runtime-function-response-mode"

_ACCEPTED = b'{"status":"OK"}\n'
_DEFAULT_CONTENT_TYPE = "application/octet-stream"


class RuntimeApiServer:
    """Serves the Runtime API on its own listener. `address` is `host:port` after `listen`."""

    def __init__(
        self,
        slots: int,
        life: Life,
        log: InvocationLog,
        connections: Connections,
        *,
        tenant_id: str = "",
    ) -> None:
        """`tenant_id` is the tenant that the environment belongs to; others' invocations are refused."""
        self.invocations = Invocations(slots, life, log, connections, tenant_id=tenant_id)
        self._life = life
        self._server: asyncio.Server | None = None
        self._connections: dict[WorkerId, HttpConnection] = {}
        self._numbers = itertools.count(FIRST_CONNECTION)
        self._is_shared = True
        self._one_ended = asyncio.Event()
        self.address = ""

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
        """See `Invocations.open_link`."""
        self.invocations.open_link(link)

    def link_frame(self, frame: Frame) -> None:
        """See `Invocations.link_frame`."""
        self.invocations.link_frame(frame)

    async def hear_out(self) -> None:
        """The runtime is gone: take what it sent before it went. Its connections end with it, unless another process keeps them."""
        while self._connections:
            self._one_ended.clear()
            await self._one_ended.wait()

    def end(self, message: str, error_type: str = "Runtime.ExitError") -> None:
        """The runtime is gone: fail what still runs with `error_type` and `message`, and take no more requests."""
        self.invocations.end(message, error_type)
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
        link = self.invocations.link
        if not (is_response and streams and request.method == "POST" and link is not None):
            return None
        request_id, delivery = _answered_id(request, "/response")
        invocation = self.invocations.begin_stream(request_id, delivery)
        if invocation is None:
            return None
        content_type = request.headers.get("content-type", _DEFAULT_CONTENT_TYPE)
        answer = StreamedAnswer(invocation, connection, link, content_type, self)
        self.invocations.streams(answer)
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
        if self._connections.pop(worker, None) is not None:
            self.invocations.lost(worker)
            self._one_ended.set()

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
        if self.invocations.is_over:
            _fail(connection, 403, "InvalidStateTransition", "The environment is shutting down.")
            return
        if self.invocations.parked >= MAX_IDLE_POLLS:
            _fail(connection, 500, "InternalServerError", "Too many calls are waiting for an invocation.")
            return
        self.invocations.poll(WorkerId(connection.number), _Poll(connection))

    def _init_error(self, connection: HttpConnection, request: Request) -> None:
        if self.invocations.init_is_over or self.invocations.is_over:
            _fail(
                connection,
                403,
                "InvalidStateTransition",
                "Init is over: it completed, or its failure was reported before.",
            )
            return
        self.invocations.is_over = True
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
            self.invocations.settle_too_large(invocation)
            _fail(connection, 413, "RequestEntityTooLarge", response_too_large_message())
            return
        trailer_error = request.trailers.get(_ERROR_TYPE_HEADER)
        if trailer_error is not None:
            error_type = reported_error_type(trailer_error)
            self.invocations.settle_error(
                invocation, error_type, _trailer_document(request.trailers, error_type), by_function=True
            )
        else:
            self.invocations.settle_result(
                invocation, request.headers.get("content-type", _DEFAULT_CONTENT_TYPE), request.body
            )
        connection.respond(202, _ACCEPTED)

    def _error(self, connection: HttpConnection, request: Request) -> None:
        invocation = self._answered(connection, request, "/error")
        if invocation is None:
            return
        error_type = reported_error_type(request.headers.get(_ERROR_TYPE_HEADER, ""))
        self.invocations.settle_error(invocation, error_type, _document_of(request, error_type), by_function=True)
        if request.too_large:
            _fail(connection, 413, "RequestEntityTooLarge", f"An error document may have {MAX_ERROR_BYTES} bytes.")
        else:
            connection.respond(202, _ACCEPTED)

    def _answered(self, connection: HttpConnection, request: Request, suffix: str) -> Invocation | None:
        """The invocation this request answers; None after answering why there is none."""
        request_id, delivery = _answered_id(request, suffix)
        match self.invocations.answer(request_id, delivery):
            case Invocation() as answered:
                return answered
            case Late():
                _fail(connection, 410, "InvokeTimeout", f"Invocation {request_id} has timed out.")
            case Unknown():
                _fail(connection, 400, "InvalidRequestID", f"Invalid request ID: {request_id} is not running.")
        return None

    # Settlement of StreamedAnswer

    def stream_complete(self, answer: StreamedAnswer, trailers: dict[str, str]) -> None:
        invocation, error_type = answer.invocation, trailers.get(_ERROR_TYPE_HEADER)
        if not self.invocations.end_stream(answer):
            self._refuse_streamed(answer)
            return
        if error_type is not None:
            error_type = reported_error_type(error_type)
            self.invocations.settle_error(
                invocation, error_type, _trailer_document(trailers, error_type), by_function=True
            )
        else:
            self.invocations.settle_streamed(invocation)
        answer.connection.respond(202, _ACCEPTED)

    def stream_broken(self, answer: StreamedAnswer) -> None:
        asyncio.get_running_loop().call_later(TRUNCATION_GRACE_SECONDS, self._settle_broken, answer)

    def stream_too_large(self, answer: StreamedAnswer) -> None:
        if self.invocations.end_stream(answer):
            self.invocations.settle_too_large(answer.invocation, response_too_large_message(MAX_STREAMED_BYTES))
        answer.drop()

    def _settle_broken(self, answer: StreamedAnswer) -> None:
        if self.invocations.end_stream(answer):
            error_type = "Runtime.TruncatedResponse"
            text = f"RequestId: {answer.invocation.request_id} Error: The response ended before it was complete"
            self.invocations.settle_error(answer.invocation, error_type, error_document(error_type, text).encode())

    def _refuse_streamed(self, answer: StreamedAnswer) -> None:
        if answer.is_too_large:
            message = response_too_large_message(MAX_STREAMED_BYTES)
            _fail(answer.connection, 413, "RequestEntityTooLarge", message)
        else:
            message = f"Invocation {answer.invocation.request_id} has timed out."
            _fail(answer.connection, 410, "InvokeTimeout", message)


class _Poll:
    """A poll that waits on its connection."""

    __slots__ = ("_connection",)

    def __init__(self, connection: HttpConnection) -> None:
        self._connection = connection

    def deliver(self, head: Invoke, frame: Frame) -> None:
        self._connection.respond(200, frame.payload, _next_head(head, frame.stream))


class Answer(Protocol):
    """Answers one request whose path and method fit."""

    def __call__(self, connection: HttpConnection, request: Request) -> None: ...


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
