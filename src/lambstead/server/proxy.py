"""What a gateway process does not answer itself: passed on to the server over its Unix socket, and the answer passed back as it comes.

One connection per request: these are control calls, asynchronous invocations and pages, for which making one costs nothing that counts. Bodies flow
through in both directions in pieces, each piece only when the receiving side has room. A caller that leaves ends the server's side as well.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from httptools import HttpParserError, HttpResponseParser

from lambstead.core.errors import ServiceFailure
from lambstead.server.asgi import Receive, Scope, Send
from lambstead.wire.gateway import AwsApi, HttpResponse

log = logging.getLogger("lambstead.gateway")

CALLER_HEADER = b"x-lambstead-caller"
"""The address of the caller, from a gateway process to the server; callers' own headers of this name go no further."""
PIECE_BYTES = 64 * 1024

_HOP_BY_HOP = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
        *(b"expect",),
    }
)
"""Headers of one connection, not of the request; 100-continue is answered by whoever holds the caller's connection."""


def with_caller(scope: Scope) -> Scope:
    """The scope of a request that came through a gateway process, with the address of its caller as the client's."""
    callers = [value.decode() for name, value in scope["headers"] if name == CALLER_HEADER]
    headers = [header for header in scope["headers"] if header[0] != CALLER_HEADER]
    return {**scope, "client": (callers[0], 0) if callers else None, "headers": headers}


class Proxy:
    """An ASGI application that is the server's HTTP side seen through a socket."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reader, writer = await asyncio.open_unix_connection(str(self._socket))
        answering = asyncio.create_task(_pass_back(scope["method"], reader, send), name="proxied answer")
        asking = asyncio.create_task(_pass_on(scope, receive, writer), name="proxied request")
        try:
            # The request's side ends first only if the caller left.
            await asyncio.wait((answering, asking), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (asking, answering):
                task.cancel()
            await asyncio.gather(asking, answering, return_exceptions=True)
            writer.transport.abort()
        if not answering.cancelled() and (failure := answering.exception()) is not None:
            raise failure  # uvicorn answers 500, or ends the connection if the answer had begun

    async def invoke(
        self,
        api: AwsApi,
        operation: str,
        request: Mapping[str, Any],  # Any: documents typed by the model
        headers: Mapping[str, str],
        request_id: str,
    ) -> HttpResponse:
        """An Invoke that was read already, carried out by the server on its ordinary way. Its request id is the server's."""
        payload = request["Payload"]
        sent = {**headers, "content-length": str(len(payload)), "host": "localhost"}
        scope = {
            "method": "POST",
            "raw_path": f"/2015-03-31/functions/{quote(request['FunctionName'])}/invocations".encode(),
            "query_string": urlencode({"Qualifier": request["Qualifier"]}).encode() if request["Qualifier"] else b"",
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in sent.items() if value],
        }
        whole = _Whole(payload)
        try:
            await self(scope, whole.receive, whole.send)
        except OSError as exc:
            log.error("server-unreachable: %s", exc)
            return api.fail(operation, ServiceFailure("The server is gone."), request_id)
        return whole.response()


class _Whole:
    """The two ends of a request whose body is there, and whose answer is wanted whole."""

    def __init__(self, payload: bytes) -> None:
        self._messages: list[Mapping[str, Any]] = [{"type": "http.request", "body": payload, "more_body": False}]
        self._start: Mapping[str, Any] = {}
        self._parts: list[bytes] = []

    async def receive(self) -> Mapping[str, Any]:
        if self._messages:
            return self._messages.pop()
        await asyncio.Event().wait()  # the caller never leaves
        raise AssertionError

    async def send(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._start = message
        else:
            self._parts.append(message.get("body", b""))

    def response(self) -> HttpResponse:
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in self._start["headers"]
            if name != b"content-length"
        ]
        return HttpResponse(self._start["status"], headers, b"".join(self._parts))


async def _pass_on(scope: Scope, receive: Receive, writer: asyncio.StreamWriter) -> None:
    """The request; returns when the caller is gone."""
    sized = any(name == b"content-length" for name, _ in scope["headers"])
    chunked = any(name == b"transfer-encoding" for name, _ in scope["headers"])
    writer.write(_head(scope, chunked=chunked and not sized))
    with contextlib.suppress(ConnectionError):  # the server may answer before it has read everything
        async for part in _body(receive):
            writer.write(part if sized or not chunked else b"%x\r\n%b\r\n" % (len(part), part))
            await writer.drain()
        if chunked and not sized:
            writer.write(b"0\r\n\r\n")
    while (await receive())["type"] != "http.disconnect":
        pass


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    """Parts of the body, none of them empty."""
    while (message := await receive())["type"] != "http.disconnect":
        if part := message.get("body", b""):
            yield part
        if not message.get("more_body"):
            return


def _head(scope: Scope, *, chunked: bool) -> bytes:
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    # The connection is kept alive, as the server sees it: else it would be closed on a body that it did not want, and its answer might be lost.
    lines = [b"%b %b%b HTTP/1.1" % (scope["method"].encode(), scope["raw_path"], query)]
    lines += [
        b"%b: %b" % (name, value)
        for name, value in scope["headers"]
        if name not in _HOP_BY_HOP and name != CALLER_HEADER
    ]
    if scope.get("client"):
        lines.append(b"%b: %b" % (CALLER_HEADER, scope["client"][0].encode()))
    if chunked:
        lines.append(b"transfer-encoding: chunked")
    return b"\r\n".join(lines) + b"\r\n\r\n"


async def _pass_back(method: str, reader: asyncio.StreamReader, send: Send) -> None:
    """The answer, in the pieces in which it comes. Raises ConnectionError if it breaks off."""
    answer = _Answer()
    parser = HttpResponseParser(answer)
    has_begun = False
    while True:
        data = await reader.read(PIECE_BYTES)
        try:
            parser.feed_data(data)
        except HttpParserError as exc:
            raise ConnectionError(f"the server's answer cannot be read: {exc}") from exc
        if answer.head_is_complete and not has_begun:
            has_begun = True
            start: dict[str, Any] = {"type": "http.response.start", "status": parser.get_status_code()}
            await send(start | {"headers": answer.headers})
        if answer.is_complete or (has_begun and method == "HEAD"):
            await send({"type": "http.response.body", "body": answer.taken()})
            return
        if has_begun and (part := answer.taken()):
            # Returns when the caller's connection has room.
            await send({"type": "http.response.body", "body": part, "more_body": True})
        if not data:
            raise ConnectionError("the server's answer broke off")


class _Answer:
    """What the parser has found so far."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.head_is_complete = False
        self.is_complete = False
        self._parts: list[bytes] = []

    def taken(self) -> bytes:
        """What has come of the body since this was asked last."""
        parts, self._parts = self._parts, []
        return b"".join(parts)

    # --- parser callbacks ------------------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name not in _HOP_BY_HOP and name != b"date":  # this process has a Date of its own
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.head_is_complete = True

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        self.is_complete = True
