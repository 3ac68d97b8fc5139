"""The server's end of its gateway processes: invocations come in over one link per process and are answered on it.

    gateway process ──INVOKE, WINDOW──► GatewayCalls ──► Invoker
                    ◄─RESULT, ERROR, CHUNK, END──

Slots, lines, concurrency and routes stay in this one process, so whatever holds for one gateway holds for all of them together: a slot is given once,
and whoever came first is served first, whichever process they came through. A process that is gone takes its callers with it; what they had
started runs to its end, and its slots are promised anew by those who hold them.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from lambstead.api.lambda_invoke_stream import durable_refused
from lambstead.core.arn import FunctionRef
from lambstead.core.errors import DomainError, NeedsOrdinaryWay
from lambstead.dataplane.lane import Settle
from lambstead.dataplane.outcomes import Invocation, Outcome
from lambstead.dataplane.streams import Parts
from lambstead.link.connection import LinkConnection
from lambstead.link.frames import PROTOCOL_VERSION, Frame, Kind
from lambstead.link.messages import Answered, Call, GatewayHello, Refused, Window

log = logging.getLogger(__name__)

_hello = msgspec.json.Decoder(GatewayHello)
_call = msgspec.json.Decoder(Call)
_window = msgspec.json.Decoder(Window)
_encode = msgspec.json.Encoder().encode


class Runs(Protocol):
    """The invoke path."""

    def start(self, ref: FunctionRef, invocation: Invocation, settle: Settle, stream: Parts | None = None) -> None:
        """See `dataplane.invoker.Invoker.start`."""


class GatewayCalls:
    """Listens for gateway processes. `on_hello` and `on_lost` hear of them by number."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self.on_hello: Callable[[int], None] = lambda number: None
        self.on_lost: Callable[[int], None] = lambda number: None
        self.counts: Counter[int] = Counter()
        """Invocations by the gateway process they came through, since the server started."""
        self._server: asyncio.Server | None = None
        self._connections: set[LinkConnection] = set()

    async def listen(self, socket: Path) -> None:
        """Accept gateway processes on a Unix socket that only the server's user can reach."""
        socket.unlink(missing_ok=True)
        self._server = await asyncio.get_running_loop().create_unix_server(self._arrival, str(socket))
        socket.chmod(0o600)

    def close(self) -> None:
        """End all connections; gateway processes end with theirs."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.close()

    def _arrival(self) -> LinkConnection:
        gateway = _Gateway(self)
        self._connections.add(gateway.connection)
        return gateway.connection

    def forget(self, connection: LinkConnection) -> None:
        self._connections.discard(connection)


class _Gateway:
    """One gateway process, from accept to end."""

    def __init__(self, calls: GatewayCalls) -> None:
        self._calls = calls
        self._number: int | None = None
        self._streams: dict[int, _StreamedParts] = {}
        self.connection = LinkConnection(self._frame, self._lost)

    def _frame(self, link: LinkConnection, frame: Frame) -> None:
        try:
            if self._number is None:
                self._introduced(link, frame)
            elif frame.kind is Kind.INVOKE:
                self._invoke(link, self._number, frame)
            elif frame.kind is Kind.WINDOW and frame.stream in self._streams:
                self._streams[frame.stream].granted(_window.decode(frame.head).size_bytes)
        except msgspec.DecodeError:
            log.exception("gateway-frame-invalid", extra={"gateway": self._number})
            link.abort()

    def _introduced(self, link: LinkConnection, frame: Frame) -> None:
        hello = _hello.decode(frame.head) if frame.kind is Kind.HELLO else None
        if hello is None or hello.version != PROTOCOL_VERSION:
            log.warning("gateway-introduction-refused", extra={"kind": frame.kind.name})
            link.abort()
            return
        self._number = hello.number
        self._calls.on_hello(hello.number)

    def _invoke(self, link: LinkConnection, number_of_process: int, frame: Frame) -> None:
        call = _call.decode(frame.head)
        self._calls.counts[number_of_process] += 1
        ref = FunctionRef(call.function, call.qualifier)
        invocation = Invocation(call.request_id, frame.payload, call.trace_id, call.client_context, call.tenant_id)
        number = frame.stream
        if call.is_streaming:
            parts = self._streams[number] = _StreamedParts(link, number)

            def ended(answer: Outcome | DomainError) -> None:
                self._streams.pop(number, None)
                if isinstance(answer, NeedsOrdinaryWay):
                    answer = durable_refused()
                _answer(link, number, Kind.END, answer)

            self._calls.runs.start(ref, invocation, ended, parts)
            return
        self._calls.runs.start(ref, invocation, lambda answer: _answer(link, number, Kind.RESULT, answer))

    def _lost(self, link: LinkConnection, exc: Exception | None) -> None:
        self._calls.forget(link)
        for parts in self._streams.values():
            parts.abandon()
        if self._number is not None:
            self._calls.on_lost(self._number)


def _answer(link: LinkConnection, number: int, kind: Kind, answer: Outcome | DomainError) -> None:
    if isinstance(answer, Outcome):
        head = Answered(answer.executed_version, answer.is_error, answer.error_type)
        link.send(kind, number, _encode(head), answer.payload)
    else:
        link.send(Kind.ERROR, number, b"", _encode(Refused(answer.shape, answer.message, answer.facts)))


class _StreamedParts:
    """Parts of one answer on their way to a gateway process, which grants what its caller took."""

    def __init__(self, link: LinkConnection, number: int) -> None:
        self._link = link
        self._number = number
        self._grant: Callable[[int], None] = lambda size_bytes: None
        self._not_granted = 0
        self._is_abandoned = False

    def chunk(self, part: bytes, grant: Callable[[int], None], content_type: str, executed_version: str) -> None:
        self._grant = grant
        if self._is_abandoned:
            grant(len(part))
            return
        self._not_granted += len(part)
        self._link.send(Kind.CHUNK, self._number, _encode(Answered(executed_version)), part)

    def granted(self, size_bytes: int) -> None:
        """The caller took so much. What was never sent is not granted."""
        size_bytes = min(size_bytes, self._not_granted)
        self._not_granted -= size_bytes
        self._grant(size_bytes)

    def abandon(self) -> None:
        """The process is gone, and its caller with it: the function may finish, its answer is thrown away."""
        self._is_abandoned = True
        self.granted(self._not_granted)
