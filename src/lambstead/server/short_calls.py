"""Requests that are answered without an ASGI cycle: from their headers to their answer."""

import asyncio
import random
from abc import ABC, abstractmethod
from http import HTTPStatus
from typing import Protocol

from lambstead.wire.gateway import HttpResponse


class Connection(Protocol):
    """Where a call came from."""

    def write_answer(self, call: "ShortCall", head: bytes, body: bytes) -> None:
        """Write the whole answer; the call was this connection's."""


class ShortCall(ABC):
    """One request whose body comes in part by part. `run` once it is complete."""

    __slots__ = ("_max_body_bytes", "_parts", "_size", "connection", "keep_alive", "missing_bytes", "request_id")

    def __init__(
        self, connection: Connection, request_id: str, size: int, max_body_bytes: int, *, keep_alive: bool
    ) -> None:
        """`size` is the announced length of the body, 0 for a body of chunks."""
        self.connection: Connection | None = connection
        """None once the caller is gone: then the answer is void."""
        self.request_id = request_id
        self.keep_alive = keep_alive
        self.missing_bytes = size
        """What the announced length still lacks; below zero for a body of chunks, whose length nobody announced."""
        self._max_body_bytes = max_body_bytes
        self._parts: list[bytes | memoryview] = []
        self._size = 0

    def add(self, part: bytes | memoryview) -> None:
        """One part of the body. Beyond the limit only the size is kept, for the refusal."""
        self._size += len(part)
        self.missing_bytes -= len(part)
        if self._size <= self._max_body_bytes:
            self._parts.append(part)

    @property
    def is_too_large(self) -> bool:
        """True when more came in than the operation's limit."""
        return self._size > self._max_body_bytes

    def body(self) -> bytes:
        """The whole body, once."""
        parts, self._parts = self._parts, []
        if len(parts) == 1 and isinstance(parts[0], bytes):
            return parts[0]
        return b"".join(parts)

    @abstractmethod
    def run(self) -> None:
        """The body is complete: have it answered, exactly once."""


class Calls:
    """The calls that run, and their request ids."""

    def __init__(self) -> None:
        self.random_bits = random.Random(random.SystemRandom().getrandbits(256)).getrandbits
        """Random numbers of so many bits, which are no secrets."""
        self._running: set[ShortCall] = set()
        self._drained: asyncio.Event | None = None

    def new_request_id(self) -> str:
        """A random UUID. Ids are no secrets, so they cost no system call."""
        digits = f"{self.random_bits(128):032x}"
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"

    def started(self, call: ShortCall) -> None:
        """The call is complete and runs until it is answered."""
        self._running.add(call)

    def answer(self, call: ShortCall, head: bytes, body: bytes) -> None:
        """Give a call its one answer, if its caller is still there."""
        self._running.discard(call)
        if self._drained is not None and not self._running:
            self._drained.set()
        if call.connection is not None:
            call.connection.write_answer(call, head, body)

    async def drained(self) -> None:
        """Return once no call runs any more."""
        self._drained = asyncio.Event()
        if self._running:
            await self._drained.wait()


def rendered(response: HttpResponse) -> bytes:
    """Status line and headers of an answer. Content-Length and Date are the connection's."""
    status = HTTPStatus(response.status)
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in response.headers)]
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1")
