"""One end of an invocation link: frames in, frames out, over any asyncio stream transport.

The same protocol class serves both ends. It promises: frames are handed over whole and in order; nothing is handed over after
`close` or `abort`; `on_lost` is called exactly once, whoever ended the connection. Bytes that are not frames end the connection with the
FrameError as its reason. What a frame means is left to the owner.

Back-pressure: `send` never blocks and never drops. An owner that can produce without bound looks at `is_writable`, awaits `drain`, or
stops reading from its own source until `drain` returns. `pause_reading` pushes back on the peer.
"""

import asyncio
from collections.abc import Callable
from typing import cast

from lambstead.link.frames import HEADER, MAX_BODY_BYTES, MAX_HEAD_BYTES, Frame, FrameError, FrameReader, Kind, encode
from lambstead.link.tcp import tune

JOIN_BELOW_BYTES = 16 * 1024
"""Payloads smaller than this are copied behind their header; larger ones go to the transport as they are (one writev)."""


class LinkConnection(asyncio.BufferedProtocol):
    """A framed connection. `on_frame` gets every frame, `on_lost` the end with the error behind it, if any."""

    def __init__(
        self,
        on_frame: Callable[["LinkConnection", Frame], None],
        on_lost: Callable[["LinkConnection", Exception | None], None],
        on_made: Callable[["LinkConnection"], None] | None = None,
    ) -> None:
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._on_made = on_made
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._held: list[bytes] = []
        """Frames that wait for the next one, or for the end of this turn of the loop."""
        self._closing = False
        self._reason: Exception | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def tune_tcp(self) -> None:
        """Of a TCP connection: no delays for small frames, and a peer that vanished is noticed."""
        if self._transport is not None:
            tune(self._transport)

    def limit_bodies(self, max_body_bytes: int) -> None:
        """Take no larger bodies from the peer from now on."""
        self._reader.max_body_bytes = max_body_bytes

    @property
    def is_open(self) -> bool:
        """Whether frames can still be sent; false once closed from either side."""
        return self._transport is not None and not self._closing

    @property
    def is_writable(self) -> bool:
        """Whether the transport's buffer is below its high-water mark."""
        return self._writable.is_set()

    def send(self, kind: Kind, stream: int, head: bytes = b"", payload: bytes = b"") -> None:
        """Queue one frame. Does nothing once the connection is closed. Raises FrameError if it is larger than the link allows."""
        transport = self._transport
        if transport is None or self._closing:
            return
        if len(payload) < JOIN_BELOW_BYTES:
            frame = encode(kind, stream, head, payload)
            transport.write(b"".join((*self._taken(), frame)) if self._held else frame)
            return
        body = len(head) + len(payload)
        if len(head) > MAX_HEAD_BYTES or body > MAX_BODY_BYTES:
            raise FrameError(
                f"a {kind.name} frame of {len(head)} + {len(payload)} bytes is larger than the link allows"
            )
        transport.writelines((*self._taken(), HEADER.pack(body, kind, 0, len(head), stream) + head, payload))

    def send_soon(self, kind: Kind, stream: int, head: bytes = b"", payload: bytes = b"") -> None:
        """As `send`, in this turn of the event loop; a frame that is sent until then leaves in the same system call."""
        if len(payload) >= JOIN_BELOW_BYTES:
            self.send(kind, stream, head, payload)
            return
        if not self.is_open:
            return
        if not self._held:
            asyncio.get_running_loop().call_soon(self._send_held)
        self._held.append(encode(kind, stream, head, payload))

    def _send_held(self) -> None:
        if self._transport is not None and self._held:
            self._transport.write(b"".join(self._taken()))

    def _taken(self) -> list[bytes]:
        held, self._held = self._held, []
        return held

    async def drain(self) -> None:
        """Return once the transport's buffer is below its mark. Raises ConnectionError if the connection ends first."""
        await self._writable.wait()
        if not self.is_open:
            raise ConnectionError("the link is closed")

    def pause_reading(self) -> None:
        """Stop taking bytes from the peer; frames already received as bytes are still handed over."""
        if self.is_open and self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self.is_open and self._transport is not None:
            self._transport.resume_reading()

    def close(self) -> None:
        """Send what is queued, then end the connection. No frame is handed over after this."""
        self._end(abort=False)

    def abort(self) -> None:
        """End the connection now; what is queued is lost."""
        self._end(abort=True)

    def _end(self, *, abort: bool) -> None:
        self._closing = True
        if self._transport is None:
            return
        if abort:
            self._transport.abort()
        else:
            self._send_held()
            self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's stream transports do not inherit from asyncio's class, they only behave like it.
        self._transport = cast(asyncio.Transport, transport)
        if self._on_made is not None:
            self._on_made(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._reader.room()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            for frame in self._reader.arrived(nbytes):
                if self._closing:
                    return
                self._on_frame(self, frame)
        except FrameError as exc:
            self._reason = exc
            self.abort()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._transport = None
        self._writable.set()
        self._on_lost(self, self._reason or exc)
