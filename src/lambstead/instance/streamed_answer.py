"""One answer on its way from the runtime to the gateway, in parts as they come.

    POST …/response, chunked ──part──► StreamedAnswer ──CHUNK──► gateway
                    ▲                        │ window used up
                    └──── not read ◄─────────┘

The gateway grants bytes (WINDOW) as its caller takes them; when they are used up the request is not read any further, so the function's writes wait. What
comes after the invocation was settled (its deadline, its size) is read and thrown away: the function may finish.
"""

from typing import Protocol

import msgspec

from lambstead.core.runtime_api import Invocation
from lambstead.core.streaming import MAX_STREAMED_BYTES
from lambstead.instance.http_protocol import HttpConnection
from lambstead.link.connection import LinkConnection
from lambstead.link.frames import Kind
from lambstead.link.messages import STREAM_WINDOW_BYTES, Chunk


class Settlement(Protocol):
    """Who settles the invocation of a streamed answer."""

    def stream_complete(self, answer: "StreamedAnswer", trailers: dict[str, str]) -> None:
        """The runtime sent everything and waits for its receipt."""

    def stream_broken(self, answer: "StreamedAnswer") -> None:
        """The connection ended before the answer did."""

    def stream_too_large(self, answer: "StreamedAnswer") -> None:
        """The answer is longer than an answer may be; the rest is not passed on."""


class StreamedAnswer:
    """The body sink of one streaming response."""

    def __init__(
        self,
        invocation: Invocation,
        connection: HttpConnection,
        link: LinkConnection,
        content_type: str,
        settlement: Settlement,
    ) -> None:
        self.invocation = invocation
        self.connection = connection
        self._link = link
        self._head = msgspec.json.encode(Chunk(content_type))
        self._settlement = settlement
        self._window = STREAM_WINDOW_BYTES
        self._size = 0
        self._is_dropped = False

    @property
    def is_too_large(self) -> bool:
        """True once more came than an answer may have."""
        return self._size > MAX_STREAMED_BYTES

    def grant(self, size_bytes: int) -> None:
        """The gateway has room for so many more bytes."""
        self._window += size_bytes
        if self._window > 0:
            self.connection.resume_reading()

    def drop(self) -> None:
        """What still comes interests nobody."""
        self._is_dropped = True
        self.connection.resume_reading()

    # Sink of HttpConnection

    def data(self, part: bytes) -> None:
        if self._is_dropped:
            return
        self._size += len(part)
        if self.is_too_large:
            self._settlement.stream_too_large(self)
            return
        self._link.send(Kind.CHUNK, self.invocation.stream, self._head, part)
        self._head = b""
        self._window -= len(part)
        if self._window <= 0:
            self.connection.pause_reading()

    def complete(self, trailers: dict[str, str]) -> None:
        # The last part may have used the window up; what follows on this connection is another request.
        self.connection.resume_reading()
        self._settlement.stream_complete(self, trailers)

    def truncated(self) -> None:
        self._settlement.stream_broken(self)
