"""Frames of the invocation link: how bytes on a socket become messages.

A frame is a fixed header of twelve bytes, a head (MessagePack) and a payload (opaque bytes):

    body length  u32    bytes after the header: head and payload
    kind         u8     see `Kind`
    reserved     u8     0
    head length  u16    bytes of the head; the rest of the body is the payload
    stream       u32    the invocation the frame belongs to; 0 for the connection itself

All integers are big-endian. The gateway chooses stream ids, unique per connection and never 0. `FrameReader` is fed bytes as they come
and yields whole frames; it refuses bodies above `MAX_BODY_BYTES`, so a broken peer cannot make us buffer without bound.
The protocol is described for readers in `docs/invocation-link.md`.
"""

import enum
import struct
from collections.abc import Iterator
from typing import NamedTuple

PROTOCOL_VERSION = 1
HEADER = struct.Struct("!IBBHI")
MAX_BODY_BYTES = 32 * 1024 * 1024
"""Largest body of one frame: a 6 MB payload, a response of the same size, and room for code-free control messages."""


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
    if len(head) > 0xFFFF or body > MAX_BODY_BYTES:
        raise FrameError(f"a {kind.name} frame of {len(head)} + {len(payload)} bytes is larger than the link allows")
    return b"".join((HEADER.pack(body, kind, 0, len(head), stream), head, payload))


class FrameReader:
    """Cuts a byte stream into frames. Feed what arrived, iterate what is whole; the rest waits for more bytes."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield every frame completed by `data`. Raises FrameError for a kind or a size that the protocol does not have."""
        buffer = self._buffer
        buffer += data
        start = 0
        available = len(buffer)
        try:
            while available - start >= HEADER.size:
                body, kind, _, head_length, stream = HEADER.unpack_from(buffer, start)
                if body > MAX_BODY_BYTES or head_length > body:
                    raise FrameError(f"frame header announces {body} bytes with a head of {head_length}")
                end = start + HEADER.size + body
                if end > available:
                    break
                head_end = start + HEADER.size + head_length
                head = bytes(buffer[start + HEADER.size : head_end])
                payload = bytes(memoryview(buffer)[head_end:end])
                start = end
                yield Frame(_kind(kind), stream, head, payload)
        finally:
            del buffer[:start]


def _kind(value: int) -> Kind:
    try:
        return Kind(value)
    except ValueError as exc:
        raise FrameError(f"unknown frame kind {value}") from exc
