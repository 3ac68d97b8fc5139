"""Requests and responses of an ASGI application: bodies read up to a limit, responses sent whole or part by part."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol

from lambstead.wire.gateway import HttpResponse

Scope = Mapping[str, Any]  # Any: ASGI's own typing of scopes and messages


class Receive(Protocol):
    async def __call__(self) -> Mapping[str, Any]: ...  # Any: see Scope


class Send(Protocol):
    async def __call__(self, message: Mapping[str, Any]) -> None: ...  # Any: see Scope


class TruncatedBody(Exception):
    """The client went away before its request was complete; nobody is there to be answered."""


class BodyTooLarge(Exception):
    """The body is larger than the limit; the rest of it was not read."""


async def read_body(headers: Mapping[str, str], receive: Receive, limit_bytes: int) -> bytes:
    """The whole body. Raises BodyTooLarge, before anything is read where the length was announced, and TruncatedBody."""
    announced = headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > limit_bytes:
        raise BodyTooLarge
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise TruncatedBody
        part = message.get("body", b"")
        size += len(part)
        if size > limit_bytes:
            raise BodyTooLarge
        parts.append(part)
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def send_whole(send: Send, response: HttpResponse) -> None:
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
    if response.status not in (204, 304):
        headers.append((b"content-length", str(len(response.body)).encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


async def send_parts(receive: Receive, send: Send, response: HttpResponse, parts: AsyncGenerator[bytes, None]) -> None:
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
