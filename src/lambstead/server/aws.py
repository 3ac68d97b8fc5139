"""The AWS side of the port: an ASGI application that matches, reads, dispatches and answers requests of the AWS APIs.

Every failure becomes an answer in AWS's form: domain errors as modelled, anything unexpected as the API's own server error, with the request id
that our log carries too. Bodies are read up to the limit of the operation that was matched, so an oversize upload is refused before it is in
memory.
"""

import asyncio
import contextlib
import logging
import secrets
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Protocol

from lambstead.api.context import Call, Request, Response
from lambstead.core.errors import DomainError, ServiceFailure, UnknownOperation
from lambstead.wire.gateway import AwsApi, HttpResponse, Match, choose

log = logging.getLogger(__name__)

Operation = Callable[[Request, Call], Awaitable[Response]]
"""An operation with its context."""
Scope = Mapping[str, Any]  # Any: ASGI's own typing of scopes and messages


class Receive(Protocol):
    async def __call__(self) -> Mapping[str, Any]: ...  # Any: see Scope


class Send(Protocol):
    async def __call__(self, message: Mapping[str, Any]) -> None: ...  # Any: see Scope


class TruncatedBody(Exception):
    """The client went away before its request was complete; nobody is there to be answered."""


class AwsGateway:
    """ASGI application for the AWS APIs that Lambstead serves itself."""

    def __init__(self, served: Mapping[AwsApi, Mapping[str, Operation]]) -> None:
        self._served = served
        self._apis = list(served)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = str(uuid.UUID(int=secrets.randbits(128), version=4))
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            response = await self._answer(scope, headers, receive, request_id)
        except TruncatedBody:
            log.info("request-truncated", extra={"request_id": request_id, "path": scope["path"]})
            return
        if response.parts is None:
            await _send(send, response)
        else:
            await _send_parts(receive, send, response, response.parts)

    async def _answer(
        self, scope: Scope, headers: Mapping[str, str], receive: Receive, request_id: str
    ) -> HttpResponse:
        method, path, query = scope["method"], scope["raw_path"], scope["query_string"]
        api = choose(self._apis, method, path, query, headers)
        if api is None:
            error = UnknownOperation(
                f"No API of Lambstead answers {method} {scope['path']}. "
                "It serves AWS Lambda here; see /_lambstead/health for the server itself."
            )
            return self._apis[0].fail(None, error, request_id)
        match: Match | None = None
        try:
            match = api.match(method, path, query, headers)
            operation = self._served[api].get(match.operation)
            body = await _read_body(api, match, headers, receive)
            request = api.parse(match, headers, body)
            if operation is None:
                raise api.not_built(match.operation)
            result = await operation(request, Call(request_id, headers))
            return api.respond(match.operation, result, request_id)
        except DomainError as error:
            return api.fail(match.operation if match else None, error, request_id)
        except TruncatedBody:
            raise
        except Exception:  # the boundary of a request: log what happened, answer as AWS does
            log.exception("request-failed", extra={"request_id": request_id, "operation": match and match.operation})
            failure = ServiceFailure(
                f"Lambstead failed to carry out the request; its log has the details of {request_id}."
            )
            return api.fail(match.operation if match else None, failure, request_id)


async def _read_body(api: AwsApi, match: Match, headers: Mapping[str, str], receive: Receive) -> bytes:
    limit = api.facts(match.operation).max_body_bytes
    announced = headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > limit:
        raise api.too_large(match.operation)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise TruncatedBody
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise api.too_large(match.operation)
        parts.append(part)
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def _send(send: Send, response: HttpResponse) -> None:
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
    if response.status not in (204, 304):
        headers.append((b"content-length", str(len(response.body)).encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


async def _send_parts(receive: Receive, send: Send, response: HttpResponse, parts: AsyncGenerator[bytes, None]) -> None:
    """Send parts as they come and as the client takes them; stop as soon as the client is gone."""
    sending = asyncio.create_task(_pass_on(send, response, parts), name="response parts")
    leaving = asyncio.create_task(_until_disconnected(receive), name="response disconnect")
    try:
        await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (sending, leaving):
            task.cancel()
        await asyncio.gather(sending, leaving, return_exceptions=True)
    if not sending.cancelled() and (failure := sending.exception()) is not None:
        raise failure  # uvicorn ends the connection: the client must not take this for the end of the answer


async def _pass_on(send: Send, response: HttpResponse, parts: AsyncGenerator[bytes, None]) -> None:
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    async with contextlib.aclosing(parts) as closed_after:
        async for part in closed_after:
            # Returns when the connection has room again: a client that does not read holds the function back.
            await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
