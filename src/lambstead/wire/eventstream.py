"""AWS's event stream: the framing of answers that come in parts (`application/vnd.amazon.eventstream`).

A message is, big-endian:

    total length    u32    of the whole message
    headers length  u32
    prelude CRC     u32    CRC-32 of the eight bytes before
    headers                name length u8, name, type u8 (7: string), value length u16, value; again and again
    payload
    message CRC     u32    CRC-32 of everything before

Which members of an event are the payload itself, and which a JSON document, is read from the service model.
"""

import contextlib
import struct
import zlib
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.model import StructureShape

from lambstead.wire import json_values
from lambstead.wire.json_values import WriterCompiler

CONTENT_TYPE = "application/vnd.amazon.eventstream"
_PRELUDE = struct.Struct("!II")
_CRC = struct.Struct("!I")
_STRING_HEADER = 7


def message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One message. Header names have at most 255 bytes, values 65,535."""
    encoded = b"".join(_header(name, value) for name, value in headers.items())
    total = _PRELUDE.size + 2 * _CRC.size + len(encoded) + len(payload)
    prelude = _PRELUDE.pack(total, len(encoded))
    prelude += _CRC.pack(zlib.crc32(prelude))
    crc = zlib.crc32(payload, zlib.crc32(encoded, zlib.crc32(prelude)))
    return b"".join((prelude, encoded, payload, _CRC.pack(crc)))


def _header(name: str, value: str) -> bytes:
    name_bytes, value_bytes = name.encode(), value.encode()
    return b"%c%b%c%b%b" % (
        len(name_bytes),
        name_bytes,
        _STRING_HEADER,
        struct.pack("!H", len(value_bytes)),
        value_bytes,
    )


@dataclass(frozen=True, slots=True)
class _Event:
    """How one kind of event is written."""

    headers: Mapping[str, str]
    payload: Callable[[Mapping[str, Any]], bytes]


@dataclass(frozen=True, slots=True)
class EventStreamWriter:
    """Writes the events of one operation's answer."""

    member: str
    """The member of the result that is the stream."""
    events: Mapping[str, _Event]

    @classmethod
    def compile(cls, member: str, stream: StructureShape, compiler: WriterCompiler) -> "EventStreamWriter":
        """The writer for a member whose shape is an event stream."""
        return cls(member, {name: _compile(name, event, compiler) for name, event in stream.members.items()})

    def event(self, event: Mapping[str, Mapping[str, Any]]) -> bytes:
        """One event, `{name: members}`, as a message. A name that the model does not have raises KeyError."""
        [(name, members)] = event.items()
        kind = self.events[name]
        return message(kind.headers, kind.payload(members))

    async def encoded(
        self, events: AsyncGenerator[Mapping[str, Mapping[str, Any]], None]
    ) -> AsyncGenerator[bytes, None]:
        """The events as messages, one by one as they come. Closing it closes `events`."""
        async with contextlib.aclosing(events) as closed_after:
            async for event in closed_after:
                yield self.event(event)


def _compile(name: str, event: Any, compiler: WriterCompiler) -> _Event:  # Any: botocore's members are untyped shapes
    headers = {":message-type": "event", ":event-type": name}
    payload = next((m for m, shape in event.members.items() if shape.serialization.get("eventpayload")), None)
    if payload is not None and event.members[payload].type_name in ("blob", "string"):
        kind = "application/octet-stream" if event.members[payload].type_name == "blob" else "text/plain"
        return _Event({**headers, ":content-type": kind}, lambda members: _as_bytes(members.get(payload)))
    write = compiler.writer(event if payload is None else event.members[payload])

    def document(members: Mapping[str, Any]) -> bytes:
        value = members if payload is None else members.get(payload)
        return json_values.dump(value if write is None else write(value))

    return _Event({**headers, ":content-type": "application/json"}, document)


def _as_bytes(value: bytes | str | None) -> bytes:
    return value.encode() if isinstance(value, str) else value or b""
