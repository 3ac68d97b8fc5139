"""A gateway process's end of its link to the server: calls go out, answers come in, by number.

Every call is settled exactly once: by the server's answer or, if the server is gone, with ServiceException.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lambstead.core.arn import FunctionRef
from lambstead.core.errors import DomainError, ServiceFailure, class_for
from lambstead.dataplane.lane import Settle, stream_ids
from lambstead.dataplane.outcomes import Invocation, Outcome
from lambstead.dataplane.streams import ResponseStream
from lambstead.link.connection import LinkConnection
from lambstead.link.frames import PROTOCOL_VERSION, Frame, Kind
from lambstead.link.messages import Answered, Call, GatewayHello, Refused, Window

log = logging.getLogger("lambstead.gateway")

_answered = msgspec.json.Decoder(Answered)
_refused = msgspec.json.Decoder(Refused)
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class _Open:
    """A call that the server has not settled."""

    settle: Settle
    stream: ResponseStream | None


class ServerLink:
    """See the module. Belongs to one event loop."""

    def __init__(self, stream_bytes_per_s: int) -> None:
        self._stream_bytes_per_s = stream_bytes_per_s
        self._open: dict[int, _Open] = {}
        self._numbers = stream_ids(1)
        self._link = LinkConnection(self._frame, self._lost)
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the server is gone."""

    async def connect(self, socket: Path) -> None:
        """Raises OSError if there is no server."""
        await asyncio.get_running_loop().create_unix_connection(lambda: self._link, str(socket))

    def ready(self, number: int) -> None:
        """Tell the server that this process accepts requests."""
        self._link.send(Kind.HELLO, 0, _encode(GatewayHello(PROTOCOL_VERSION, number)))

    def close(self) -> None:
        self._link.close()

    def start(self, ref: FunctionRef, invocation: Invocation, settle: Settle) -> None:
        """See `invoke_protocol.Runs`."""
        self._send(ref, invocation, settle, None)

    async def stream(self, ref: FunctionRef, invocation: Invocation) -> ResponseStream:
        """Run one event; returns when the first part of its answer is there, or its end. Raises what the server refused it with."""
        stream = ResponseStream(self._stream_bytes_per_s)
        self._send(ref, invocation, stream.settle, stream)
        await stream.begun()
        return stream

    def _send(self, ref: FunctionRef, invocation: Invocation, settle: Settle, stream: ResponseStream | None) -> None:
        if not self._link.is_open:
            settle(_server_gone())
            return
        number = next(self._numbers)
        self._open[number] = _Open(settle, stream)
        head = Call(
            invocation.request_id,
            ref.name,
            ref.qualifier,
            invocation.trace_id,
            invocation.client_context,
            invocation.tenant_id,
            stream is not None,
        )
        self._link.send(Kind.INVOKE, number, _encode(head), invocation.payload)

    def _frame(self, link: LinkConnection, frame: Frame) -> None:
        call = self._open.get(frame.stream)
        if call is None:
            return
        match frame.kind:
            case Kind.CHUNK if call.stream is not None:
                version = _answered.decode(frame.head).executed_version
                # The type of the parts counts for function URLs only, which the server answers itself.
                call.stream.chunk(frame.payload, self._grant(frame.stream), "", version)
            case Kind.RESULT | Kind.END:
                del self._open[frame.stream]
                head = _answered.decode(frame.head)
                call.settle(
                    Outcome(
                        frame.payload, head.executed_version, "", is_error=head.is_error, error_type=head.error_type
                    )
                )
            case Kind.ERROR:
                del self._open[frame.stream]
                refused = _refused.decode(frame.payload)
                call.settle(class_for(refused.shape)(refused.message, **refused.facts))
            case _:
                log.warning("server-unexpected-frame: %s", frame.kind.name)

    def _grant(self, number: int) -> Callable[[int], None]:
        return lambda size_bytes: self._link.send(Kind.WINDOW, number, _encode(Window(size_bytes)))

    def _lost(self, link: LinkConnection, exc: Exception | None) -> None:
        calls, self._open = self._open, {}
        for call in calls.values():
            call.settle(_server_gone())
        if not self.lost.done():
            self.lost.set_result(None)


def _server_gone() -> DomainError:
    return ServiceFailure("The server is gone. Whether the function ran is unknown.")
