"""The worker of an environment on demand, on the link: the agent hands it events and takes its answers, frame by frame.

    gateway ◄── link ──► Invocations ◄──► LinkedRuntime ◄── socket that the worker inherits ──► worker

The frames are those of the link (`docs/invocation-link.md`): SLOTS asks for an event as a poll does, INVOKE brings it, RESULT and ERROR answer. There is no HELLO: whoever
has the socket is the environment. What ends the worker is told by its process; only if that lives on without its socket is the environment ended.
"""

import asyncio
import logging
import socket

import msgspec

from lambstead.core.runtime_api import (
    MAX_ERROR_BYTES,
    MAX_RESPONSE_BYTES,
    Invocation,
    WorkerId,
    error_document,
    reported_error_type,
)
from lambstead.instance.invocations import Invocations, Life
from lambstead.instance.runtime_api import FIRST_CONNECTION
from lambstead.link.connection import LinkConnection
from lambstead.link.frames import Frame, Kind
from lambstead.link.messages import Error, Invoke, Result

EXIT_GRACE_SECONDS = 2.0
"""How long after its socket closed we wait for the worker's process to end, which says more."""
NUMBER = WorkerId(FIRST_CONNECTION - 1)

_log = logging.getLogger("lambstead.instance")
_error_decoder = msgspec.json.Decoder(Error)
_result_decoder = msgspec.json.Decoder(Result)


class LinkedRuntime:
    """One worker. `open` before it is started, `serve` once there is somebody to serve it, `close` at the end."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._invocations: Invocations | None = None
        self._link = LinkConnection(self._frame, self._lost)
        self._running: tuple[int, str] | None = None
        """Stream and request id of the event that it has and has not answered."""
        self._grace: asyncio.TimerHandle | None = None
        self._has_ended = asyncio.Event()
        self._is_closed = False

    async def open(self) -> int:
        """The descriptor that the worker shall inherit; whoever starts it closes it here. Raises OSError."""
        ours, theirs = socket.socketpair()
        await asyncio.get_running_loop().create_unix_connection(lambda: self._link, sock=ours)
        return theirs.detach()

    def serve(self, invocations: Invocations) -> None:
        """Its polls and answers go there."""
        self._invocations = invocations

    async def hear_out(self) -> None:
        """The worker is gone: take what it sent before it went."""
        await self._has_ended.wait()

    def close(self) -> None:
        """The environment is over."""
        self._is_closed = True
        if self._grace is not None:
            self._grace.cancel()
        self._link.close()

    # Worker of Invocations

    def deliver(self, head: Invoke, frame: Frame) -> None:
        self._running = (frame.stream, head.request_id)
        self._link.send(Kind.INVOKE, frame.stream, frame.head, frame.payload)

    # From the worker

    def _frame(self, link: LinkConnection, frame: Frame) -> None:
        invocations = self._invocations
        if invocations is None or invocations.is_over:
            return
        try:
            if frame.kind is Kind.SLOTS:
                invocations.poll(NUMBER, self)
            elif frame.kind is Kind.RESULT:
                self._result(invocations, frame)
            elif frame.kind is Kind.ERROR:
                self._error(invocations, frame)
        except msgspec.DecodeError:
            _log.warning("worker_frame_invalid: %s", frame.kind.name)
            link.abort()

    def _result(self, invocations: Invocations, frame: Frame) -> None:
        content_type = _result_decoder.decode(frame.head).content_type
        invocation = self._answered(invocations, frame)
        if invocation is None:
            return
        if len(frame.payload) > MAX_RESPONSE_BYTES:
            invocations.settle_too_large(invocation)
        else:
            invocations.settle_result(invocation, content_type, frame.payload)

    def _error(self, invocations: Invocations, frame: Frame) -> None:
        error_type = reported_error_type(_error_decoder.decode(frame.head).error_type)
        invocation = self._answered(invocations, frame)
        if invocation is None:
            return
        document = frame.payload
        if len(document) > MAX_ERROR_BYTES:
            text = f"The error document was larger than {MAX_ERROR_BYTES} bytes."
            document = error_document(error_type, text).encode()
        invocations.settle_error(invocation, error_type, document, by_function=True)

    def _answered(self, invocations: Invocations, frame: Frame) -> Invocation | None:
        """What the frame answers; None if that is settled, or never was given to this worker."""
        if self._running is None or self._running[0] != frame.stream:
            return None
        stream, request_id = self._running
        self._running = None
        answered = invocations.answer(request_id, stream)
        return answered if isinstance(answered, Invocation) else None

    def _lost(self, link: LinkConnection, exc: Exception | None) -> None:
        self._has_ended.set()
        if self._is_closed or self._invocations is None:
            return
        self._invocations.lost(NUMBER)
        self._grace = asyncio.get_running_loop().call_later(EXIT_GRACE_SECONDS, self._life.worker_lost, 0)
