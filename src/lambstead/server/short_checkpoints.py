"""The short way of CheckpointDurableExecution, the request that durable functions make most.

*Plain* is a POST to `/2025-12-01/durable-executions/<ARN>/checkpoint` that is signed for Lambda and comes on a connection with nothing unanswered. What its
URL names is matched once and remembered; the body is read, checked, carried out and answered by the functions of the ordinary way.
"""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Protocol

from lambstead.core.errors import DomainError
from lambstead.server.short_calls import Calls, Connection, ShortCall, rendered
from lambstead.wire.gateway import AwsApi, HttpResponse, Match, signed_for

PREFIX = b"/2025-12-01/durable-executions/"
SUFFIX = b"/checkpoint"
OPERATION = "CheckpointDurableExecution"
MAX_URLS = 10_000
"""URLs whose match is remembered; beyond that all are forgotten and learnt again."""


class Answers(Protocol):
    """The ordinary way, for a request that was matched and whose body is complete."""

    def __call__(
        self, api: AwsApi, match: Match, headers: Mapping[str, str], body: bytes, request_id: str, /
    ) -> Coroutine[None, None, HttpResponse]: ...


class ShortCheckpoints:
    """What all connections share of it."""

    def __init__(self, api: AwsApi, answers: Answers) -> None:
        self._api = api
        self._answers = answers
        self._max_body_bytes = api.facts(OPERATION).max_body_bytes
        self._urls: dict[bytes, Match] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def plain(
        self,
        connection: Connection,
        calls: Calls,
        url: bytes,
        headers: Sequence[tuple[bytes, bytes]],
        *,
        keep_alive: bool,
    ) -> "CheckpointCall | None":
        """The plain checkpoint that this head of a POST begins; None for any other request."""
        match = self._match(url)
        if match is None:
            return None
        size, authorization = 0, b""
        for name, value in headers:
            if name == b"authorization":
                authorization = value
            elif name == b"content-length":
                size = int(value)  # the parser has refused anything but digits
            elif name == b"host" and b".lambda-url." in value:
                return None  # a function URL may have any path
            elif name in (b"expect", b"upgrade"):
                return None
        if size > self._max_body_bytes:
            return None  # the ordinary way refuses an announced oversize before it is read
        if signed_for(b"", {"authorization": authorization.decode("latin-1")}) != self._api.signing_name:
            return None
        return CheckpointCall(self, calls, connection, match, size, keep_alive=keep_alive)

    def _match(self, url: bytes) -> Match | None:
        known = self._urls.get(url)
        if known is not None:
            return known
        if not (url.startswith(PREFIX) and url.endswith(SUFFIX)) or b"?" in url or b"#" in url:
            return None
        try:
            match = self._api.match("POST", url, b"", {})
        except DomainError:
            return None
        if match.operation != OPERATION:
            return None
        if len(self._urls) >= MAX_URLS:
            self._urls.clear()
        self._urls[url] = match
        return match

    def run(self, call: "CheckpointCall") -> None:
        """Have a checkpoint answered whose body is complete."""
        task = asyncio.create_task(self._answer(call), name="checkpoint")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, call: "CheckpointCall") -> None:
        if call.is_too_large:
            response = self._api.fail(OPERATION, self._api.too_large(OPERATION), call.request_id)
        else:
            response = await self._answers(self._api, call.match, {}, call.body(), call.request_id)
        call.calls.answer(call, rendered(response), response.body)


class CheckpointCall(ShortCall):
    """A plain checkpoint from its headers to its answer."""

    __slots__ = ("_short_way", "calls", "match")

    def __init__(
        self,
        short_way: ShortCheckpoints,
        calls: Calls,
        connection: Connection,
        match: Match,
        size: int,
        *,
        keep_alive: bool,
    ) -> None:
        super().__init__(connection, calls.new_request_id(), size, short_way._max_body_bytes, keep_alive=keep_alive)
        self._short_way = short_way
        self.calls = calls
        self.match = match

    def run(self) -> None:
        """The body is complete."""
        self.calls.started(self)
        self._short_way.run(self)
