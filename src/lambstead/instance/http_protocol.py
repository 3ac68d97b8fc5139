"""A small HTTP/1.1 server protocol for the APIs that an environment's processes call.

It reads requests one after another from a kept-alive connection and hands each, whole, to an `Endpoint`; answers may come at once or much
later (a long poll) and are written in the order of the requests, so pipelining is safe. Bodies may be chunked and may wait for
`100 Continue`. While an answer is pending the connection is still read, so that its end is noticed at once.

Limits: head `MAX_HEAD_BYTES` (431), body per endpoint (read on and thrown away; the request is marked `too_large`), pipelined requests
`MAX_PIPELINED` (the connection is dropped). Bytes that are not HTTP get 400 and the connection is closed.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol, cast

import httptools

MAX_HEAD_BYTES = 2 * 1024 * 1024
"""Request line and headers; interface clients send an X-Ray cause of up to 1 MiB as a header."""
MAX_PIPELINED = 8
"""Whole requests that may wait behind an unanswered one."""


@dataclass(slots=True)
class Request:
    """One request. Header names are lower-case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    too_large: bool = False
    """The body was above the endpoint's limit and thrown away; `body` is empty."""
    truncated: bool = False
    """The peer stopped sending before the announced end; `body` is what came."""
    trailers: dict[str, str] = field(default_factory=dict)


class BodySink(Protocol):
    """Who takes the body of one request while it comes in."""

    def data(self, part: bytes) -> None:
        """The next bytes of the body."""

    def complete(self, trailers: dict[str, str]) -> None:
        """The body is whole: answer with `respond`."""

    def truncated(self) -> None:
        """The peer stopped before the end; nobody is there to be answered."""


class Endpoint(Protocol):
    """Who answers requests."""

    def stream(self, connection: "HttpConnection", request: Request) -> BodySink | None:
        """Who takes this request's body while it comes in; None to get it whole. The request has no body yet."""

    def body_limit(self, path: str) -> int:
        """Largest body in bytes that is kept for this path."""

    def request(self, connection: "HttpConnection", request: Request) -> None:
        """Answer now or later, exactly once, with `connection.respond`."""

    def connection_lost(self, connection: "HttpConnection") -> None:
        """The connection is gone; an answer still owed is void."""


class HttpConnection(asyncio.Protocol):
    """One connection of an environment's process. `number` identifies it among those of its endpoint."""

    def __init__(
        self, endpoint: Endpoint, number: int, admits: Callable[[tuple[str, int], tuple[str, int]], bool] | None = None
    ) -> None:
        """`admits` says whether a connection between these two addresses is served at all; None for every one."""
        self.number = number
        self._admits = admits
        self._endpoint = endpoint
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[Request, bool]] = deque()
        self._answering = False
        self._keep_alive = True
        self._head_bytes = 0
        self._in_body = False
        self._sink: BodySink | None = None
        self._begin_message()

    def respond(self, status: int, body: bytes, head: bytes = b"Content-Type: application/json\r\n") -> None:
        """Write the answer to the current request. `head` is whole header lines; Content-Length is added."""
        transport = self._transport
        if transport is None:
            return
        start = b"%b%bContent-Length: %d\r\n\r\n" % (_STATUS_LINES[status], head, len(body))
        if len(body) < 16 * 1024:
            transport.write(start + body)
        else:
            transport.writelines((start, body))
        self._answering = False
        if not self._keep_alive:
            transport.close()
        elif self._waiting:
            # Not from here: respond may run inside the loop that hands requests over.
            asyncio.get_running_loop().call_soon(self._answer_waiting)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def pause_reading(self) -> None:
        """Let the peer wait with what it sends."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's stream transports do not inherit from asyncio's class, they only behave like it.
        self._transport = cast(asyncio.Transport, transport)
        if self._admits is not None and not self._admits(
            transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        ):
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if not self._in_body:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            raise  # a bug of ours, not the peer's
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse(400, b'{"errorMessage":"The request is not HTTP/1.1.","errorType":"InvalidRequest"}')
            return
        if not self._in_body and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(
                431, b'{"errorMessage":"The request head is too large.","errorType":"RequestHeaderFieldsTooLarge"}'
            )
            return
        self._pass_on()
        self._answer_waiting()

    def eof_received(self) -> bool:
        if self._sink is not None:
            self._end_sink().truncated()
            return False
        if self._in_body and not self._answering:
            self._keep_alive = False
            self._finish_message(truncated=True)
            self._answer_waiting()
            return True  # respond closes the connection
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._waiting.clear()
        self._endpoint.connection_lost(self)
        if self._sink is not None:
            self._end_sink().truncated()

    # httptools callbacks

    def on_message_begin(self) -> None:
        self._begin_message()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        headers = self._trailers if self._in_body else self._headers
        headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._in_body = True
        self._head_bytes = 0
        self._path = self._url.decode("latin-1").partition("?")[0]
        self._limit = self._endpoint.body_limit(self._path)
        expects = self._headers.get("expect", "").lower() == "100-continue"
        if expects and not self._answering and not self._waiting and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self._answering and not self._waiting:
            method = self._parser.get_method().decode("latin-1")
            self._sink = self._endpoint.stream(self, Request(method, self._path, self._headers, b""))
            self._answering = self._sink is not None

    def on_body(self, data: bytes) -> None:
        if self._sink is not None:
            self._chunks.append(data)
            return
        self._body_size += len(data)
        if self._body_size > self._limit:
            self._chunks.clear()
        else:
            self._chunks.append(data)

    def on_message_complete(self) -> None:
        if self._sink is not None:
            self._pass_on()
            self._in_body = False
            self._keep_alive = self._parser.should_keep_alive()
            self._end_sink().complete(self._trailers)
            return
        self._finish_message(truncated=False)

    def _pass_on(self) -> None:
        """Give the sink what one read brought, as one part."""
        if self._sink is not None and self._chunks:
            part = b"".join(self._chunks)
            self._chunks.clear()
            self._sink.data(part)

    def _end_sink(self) -> BodySink:
        sink, self._sink = self._sink, None
        assert sink is not None
        return sink

    def _begin_message(self) -> None:
        self._url = b""
        self._path = ""
        self._headers: dict[str, str] = {}
        self._trailers: dict[str, str] = {}
        self._chunks: list[bytes] = []
        self._body_size = 0
        self._limit = 0

    def _finish_message(self, *, truncated: bool) -> None:
        too_large = self._body_size > self._limit
        chunks = self._chunks
        body = b"" if too_large else chunks[0] if len(chunks) == 1 else b"".join(chunks)
        method = self._parser.get_method().decode("latin-1")
        request = Request(method, self._path, self._headers, body, too_large, truncated, self._trailers)
        self._in_body = False
        self._waiting.append((request, not truncated and self._parser.should_keep_alive()))

    def _answer_waiting(self) -> None:
        """Hand over waiting requests until one is not answered at once."""
        while self._waiting and not self._answering and self._transport is not None:
            request, self._keep_alive = self._waiting.popleft()
            self._answering = True
            self._endpoint.request(self, request)
        if len(self._waiting) > MAX_PIPELINED and self._transport is not None:
            self._transport.abort()

    def _refuse(self, status: int, body: bytes) -> None:
        """Answer what cannot be parsed, unless an earlier request is still unanswered: then only the end of the connection is left."""
        if self._answering or self._transport is None:
            self.close()
            return
        self._keep_alive = False
        self.respond(status, body)


_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
