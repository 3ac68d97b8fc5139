"""Frames of the invocation link: how bytes on a socket become messages.

A frame is a fixed header of twelve bytes, a head (MessagePack) and a payload (opaque bytes):

    body length  u32    bytes after the header: head and payload
    kind         u8     see `Kind`
    reserved     u8     0
    head length  u16    bytes of the head; the rest of the body is the payload
    stream       u32    the invocation the frame belongs to; 0 for the connection itself

All integers are big-endian. The gateway chooses stream ids, unique per connection and never 0. `FrameReader` takes bytes as they come
and yields whole frames; it refuses bodies above `MAX_BODY_BYTES`, so a broken peer cannot make us buffer without bound.
The protocol is described for readers in `docs/invocation-link.md`.
"""

import enum
import io
import struct
from collections.abc import Iterator
from typing import NamedTuple

PROTOCOL_VERSION = 1
HEADER = struct.Struct("!IBBHI")
MAX_HEAD_BYTES = 0xFFFF
MAX_BODY_BYTES = 32 * 1024 * 1024
"""Largest body of one frame: a 6 MB payload, a response of the same size, and room for code-free control messages."""
RECEIVE_BYTES = 16 * 1024
"""Memory of a connection for frames that are arriving; larger frames get their own while they do."""
LAST_BYTES = 4 * 1024
"""The end of a large payload, which arrives in the connection's memory together with what is behind it."""


class Kind(enum.IntEnum):
    """What a frame says."""

    HELLO = 1
    """executor → gateway, first frame: which environment this connection serves."""
    SLOTS = 2
    """executor → gateway: so many slots became idle (positive) or were lost while idle (negative)."""
    INVOKE = 3
    """gateway → executor: run this event. Takes one idle slot."""
    RESULT = 4
    """executor → gateway: the function answered; the payload is its answer."""
    ERROR = 5
    """executor → gateway: the invocation ended in an error; the payload is the error document."""
    REJECT = 6
    """executor → gateway: not started, nothing happened; try another slot."""
    CANCEL = 7
    """gateway → executor: the caller's interest ended; the executor may stop waiting for the answer."""
    CHUNK = 8
    """executor → gateway: a part of a streamed answer; END or ERROR follows the last one."""
    END = 9
    """executor → gateway: the streamed answer is complete."""
    WINDOW = 10
    """gateway → executor: so many more bytes of this answer may be sent in CHUNKs."""
    CONTROL = 16
    """server ↔ agent: a message of `lambstead.link.messages`, as the payload."""


class Frame(NamedTuple):
    kind: Kind
    stream: int
    head: bytes
    payload: bytes


class FrameError(Exception):
    """The peer sent bytes that are not a frame of this protocol; the connection cannot be used any more."""


def encode(kind: Kind, stream: int, head: bytes = b"", payload: bytes = b"") -> bytes:
    """One frame as bytes. `head` is at most 65,535 bytes, head and payload together at most `MAX_BODY_BYTES`."""
    body = len(head) + len(payload)
    if len(head) > MAX_HEAD_BYTES or body > MAX_BODY_BYTES:
        raise FrameError(f"a {kind.name} frame of {len(head)} + {len(payload)} bytes is larger than the link allows")
    return b"".join((HEADER.pack(body, kind, 0, len(head), stream), head, payload))


class FrameReader:
    """Cuts a byte stream into frames, copying large payloads as little as can be.

    The owner lets bytes arrive in `room()` and says with `arrived` how many did. Frames that fit into the small buffer are cut out of it. A larger
    one gets memory for its payload as soon as its head is there, and is received into that, but for what arrived together with the head and
    for its last bytes, which come through the small buffer like everything else.
    """

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(RECEIVE_BYTES))
        self._filled = 0
        self._large: _LargeFrame | None = None
        self.max_body_bytes = MAX_BODY_BYTES
        """Larger bodies are refused."""

    def room(self) -> memoryview:
        """Where the next bytes go; never empty. Valid until `arrived`."""
        if self._large is not None and self._large.is_direct:
            return self._large.room()
        return self._buffer[self._filled :]

    def arrived(self, count: int) -> Iterator[Frame]:
        """Yield every frame that `count` bytes in `room()` complete. Raises FrameError for a kind or a size that the protocol does not have."""
        if self._large is not None and self._large.is_direct:
            self._large.received_bytes += count
            return iter(())
        return self._cut(self._filled + count)

    def _cut(self, end: int) -> Iterator[Frame]:
        """Whole frames among the first `end` bytes of the buffer; the rest is kept in front."""
        buffer, start = self._buffer, 0
        try:
            if self._large is not None:
                start = self._large.add(buffer[:end])
                if self._large.is_whole:
                    frame, self._large = self._large.frame(), None
                    yield frame
            while end - start >= HEADER.size:
                body, number, _, head_length, stream = HEADER.unpack_from(buffer, start)
                kind = _checked(number, body, head_length, self.max_body_bytes)
                head_start = start + HEADER.size
                head_end, frame_end = head_start + head_length, head_start + body
                if frame_end <= end:
                    head, payload = bytes(buffer[head_start:head_end]), bytes(buffer[head_end:frame_end])
                    start = frame_end
                    yield Frame(kind, stream, head, payload)
                    continue
                if head_end <= end and frame_end - start > len(buffer):
                    self._large = _LargeFrame(kind, stream, bytes(buffer[head_start:head_end]), body - head_length)
                    start = head_end + self._large.add(buffer[head_end:end])
                break
        finally:
            self._keep(start, end)

    def _keep(self, start: int, end: int) -> None:
        """Move what is left to the front, into a larger buffer if it is a head that is larger than this one."""
        left = self._filled = end - start
        if left == len(self._buffer):
            larger = memoryview(bytearray(HEADER.size + MAX_HEAD_BYTES + 1))
            larger[:left] = self._buffer
            self._buffer = larger
        elif left and start:
            self._buffer[:left] = self._buffer[start:end]


class _LargeFrame:
    """A frame whose payload is still arriving, into memory of its own.

    CPython's BytesIO hands out the very object that it was made of, if its size has not changed and nobody holds its buffer. A transport
    holds the room it was given until after it has said what arrived there: hence the payload's last bytes are not received directly.
    """

    __slots__ = ("_file", "_head", "_kind", "_size", "_stream", "received_bytes")

    def __init__(self, kind: Kind, stream: int, head: bytes, size: int) -> None:
        self._kind = kind
        self._stream = stream
        self._head = head
        self._size = size
        self._file = io.BytesIO(bytes(size))
        self.received_bytes = 0

    @property
    def is_direct(self) -> bool:
        """Whether the next bytes are to be received into `room()`; otherwise they are to be added."""
        return self.received_bytes < self._size - LAST_BYTES

    @property
    def is_whole(self) -> bool:
        return self.received_bytes == self._size

    def room(self) -> memoryview:
        return self._file.getbuffer()[self.received_bytes : self._size - LAST_BYTES]

    def add(self, part: memoryview) -> int:
        """Copy what belongs to the payload; returns how much that is."""
        count = min(len(part), self._size - self.received_bytes)
        with self._file.getbuffer() as whole:
            whole[self.received_bytes : self.received_bytes + count] = part[:count]
        self.received_bytes += count
        return count

    def frame(self) -> Frame:
        return Frame(self._kind, self._stream, self._head, self._file.getvalue())


def _checked(number: int, body: int, head_length: int, max_body: int) -> Kind:
    """The kind of a frame with this header. Raises FrameError if the protocol has no such frame."""
    kind = _KINDS.get(number)
    if kind is None:
        raise FrameError(f"unknown frame kind {number}")
    if body > max_body or head_length > body:
        raise FrameError(f"frame header announces {body} bytes with a head of {head_length}")
    return kind


_KINDS = {kind.value: kind for kind in Kind}
