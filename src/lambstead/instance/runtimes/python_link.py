"""Python workers on the invocation link: AWS's interface client with another way to get events.

Runs inside the environment, imported by `python_bootstrap`: standard library and AWS's client only. AWS's `bootstrap.run` does what it always does
(import the handler, unmarshal, call, marshal, log, word the errors); it is given a client object that reads events from a Unix socket instead of asking
the Runtime API over HTTP. Init errors still go to the Runtime API.

The main process forks the workers as AWS's client does, and forks a new one for each that dies after it was ready, which AWS's client does not. It tells the
agent over a pipe, one byte a fact: `+` a worker is ready, `-` a ready worker died and is being replaced, `!` a worker died before it was ready and is not.
"""

import io
import json
import multiprocessing
import os
import socket
import struct
import sys
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from awslambdaric import bootstrap  # type: ignore[import-not-found]  # lives in the environment's client folder, not here
from awslambdaric.lambda_multi_concurrent_utils import (  # type: ignore[import-not-found]  # see above
    MultiConcurrentRunner,
)
from awslambdaric.lambda_runtime_client import (  # type: ignore[import-not-found]  # see above
    InvocationRequest,
    LambdaMultiConcurrentRuntimeClient,
)

# The frames of `lambstead.link.frames`, version 1, which cannot be imported here; a test holds both against each other.
PROTOCOL_VERSION = 1
HEADER = struct.Struct("!IBBHI")
HELLO, SLOTS, INVOKE, RESULT, ERROR = 1, 2, 3, 4, 5

MAX_RESPONSE_BYTES = 6_291_556
RECEIVE_BYTES = 64 * 1024
TOO_LARGE = (
    '{"errorType":"Function.ResponseSizeTooLarge","errorMessage":"Response payload size exceeded maximum allowed payload size '
    f'({MAX_RESPONSE_BYTES} bytes)."}}'
)
_ONE_SLOT = HEADER.pack(3, SLOTS, 0, 3, 0) + b"[1]"
_RESULT_HEAD = b'["application/json"]'


@dataclass(frozen=True)
class LinkArguments:
    """What the agent passes: where events come from, for which environment, and where to report workers."""

    path: str
    environment_id: str
    status_fd: int


class LinkClosed(Exception):
    """The gateway ended the connection: the environment is over for this worker."""


class LinkClient(LambdaMultiConcurrentRuntimeClient):  # type: ignore[misc]  # the base class is not typed
    """AWS's client for one worker, reading events from the link."""

    def __init__(self, runtime_api: str, link: LinkArguments) -> None:
        super().__init__(runtime_api)
        self._link = link
        self._socket: socket.socket | None = None
        self._received = b""
        self._stream = 0
        self._answer: list[bytes] = []
        """The frame of the last answer. It leaves together with the word that the worker is idle again, in one system call."""

    def wait_next_invocation(self) -> InvocationRequest:
        if self._socket is None:
            self._connect()
        self._send([*self._answer, _ONE_SLOT])
        self._answer = []
        head, event = self._next()
        request_id, deadline_ms, _, arn, trace_id, client_context, cognito_identity, tenant_id = head[:8]
        return InvocationRequest(
            invoke_id=request_id,
            x_amzn_trace_id=trace_id or None,
            invoked_function_arn=arn,
            deadline_time_in_ms=deadline_ms,
            client_context=client_context or None,
            cognito_identity=cognito_identity or None,
            tenant_id=tenant_id or None,
            content_type="application/json",
            event_body=event,
            invocation_id=None,
        )

    def post_invocation_result(
        self, invoke_id: str, result_data: Any, content_type: str = "application/json", invocation_id: str | None = None
    ) -> None:  # Any: text or bytes, whatever the marshaller made
        payload = result_data if isinstance(result_data, bytes) else result_data.encode("utf-8")
        if len(payload) > MAX_RESPONSE_BYTES:
            self._answer_with(ERROR, b'["Function.ResponseSizeTooLarge","platform"]', TOO_LARGE.encode())
            return
        head = _RESULT_HEAD if content_type == "application/json" else json.dumps([content_type]).encode()
        self._answer_with(RESULT, head, payload)

    def post_invocation_error(
        self, invoke_id: str, error_response_data: str, xray_fault: str, invocation_id: str | None = None
    ) -> None:
        self._answer_with(ERROR, b'["Function.Unknown","function"]', error_response_data.encode("utf-8"))

    def _answer_with(self, kind: int, head: bytes, payload: bytes) -> None:
        header = HEADER.pack(len(head) + len(payload), kind, 0, len(head), self._stream)
        self._answer = [header + head, payload]

    def _connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(self._link.path)
        self._socket = connection
        head = json.dumps([PROTOCOL_VERSION, self._link.environment_id]).encode()
        connection.sendall(HEADER.pack(len(head), HELLO, 0, len(head), 0) + head)
        os.write(self._link.status_fd, f"+{os.getpid()}\n".encode())

    def _send(self, parts: list[bytes]) -> None:
        """One system call for what is small; what is large is not copied for that."""
        assert self._socket is not None
        whole = sum(map(len, parts)) <= RECEIVE_BYTES
        try:
            for part in [b"".join(parts)] if whole else parts:
                self._socket.sendall(part)
        except OSError as exc:
            raise LinkClosed from exc

    def _next(
        self,
    ) -> tuple[list[Any], bytes]:  # Any: the head's members, as `lambstead.link.messages.Invoke` types them
        """The head and the event of the next INVOKE; other frames are not for workers."""
        while True:
            length, kind, _, head_length, stream = HEADER.unpack(self._take(HEADER.size))
            head, payload = self._take(head_length), self._take(length - head_length)
            if kind == INVOKE:
                self._stream = stream
                return json.loads(head), payload

    def _take(self, count: int) -> bytes:
        """The next `count` bytes. One read brings in a whole small frame; a large event is received where it stays."""
        if count > RECEIVE_BYTES:
            return self._take_large(count)
        received = self._received
        while len(received) < count:
            data = self._receive(RECEIVE_BYTES)
            received = received + data if received else data
        self._received = received[count:]
        return received[:count]

    def _take_large(self, count: int) -> bytes:
        event = io.BytesIO(bytes(count))
        at = min(count, len(self._received))
        with event.getbuffer() as view:  # until it is released, getvalue() would have to copy
            view[:at], self._received = self._received[:at], self._received[at:]
            while at < count:
                with view[at:] as rest:
                    at += self._receive_into(rest)
        return event.getvalue()

    def _receive_into(self, room: memoryview) -> int:
        assert self._socket is not None
        try:
            count = self._socket.recv_into(room)
        except OSError as exc:
            raise LinkClosed from exc
        if not count:
            raise LinkClosed
        return count

    def _receive(self, most: int) -> bytes:
        assert self._socket is not None
        try:
            data = self._socket.recv(most)
        except OSError as exc:
            raise LinkClosed from exc
        if not data:
            raise LinkClosed
        return data


def run(handler: str, runtime_api: str, slots: int, log_socket: str, link: LinkArguments) -> None:
    """Fork the workers, and a new one for each that dies after it was ready; return when none is left."""
    MultiConcurrentRunner._emit_worker_pool_event(slots)
    _Workers(handler, runtime_api, log_socket, link).keep(slots)


class _Workers:
    """The worker processes of one environment, watched by the main process."""

    def __init__(self, handler: str, runtime_api: str, log_socket: str, link: LinkArguments) -> None:
        self._arguments = (handler, runtime_api, log_socket)
        self._link = link
        self._context = multiprocessing.get_context("fork")
        self._living: dict[int, Any] = {}  # Any: multiprocessing's process objects by their sentinel
        self._ready: set[int] = set()
        self._reader, self._writer = os.pipe()

    def keep(self, slots: int) -> None:
        for _ in range(slots):
            self._fork()
        while self._living:
            for event in wait([*self._living, self._reader]):
                if event == self._reader:
                    self._hear()
                elif isinstance(event, int):
                    self._hear()  # what the dead one said last
                    self._bury(event)

    def _fork(self) -> None:
        link = LinkArguments(self._link.path, self._link.environment_id, self._writer)
        process = self._context.Process(target=_work, args=(*self._arguments, link))
        process.start()
        self._living[process.sentinel] = process

    def _hear(self) -> None:
        """Workers that are ready say so with their pid."""
        while wait([self._reader], 0):
            for line in os.read(self._reader, 65536).decode().split():
                self._ready.add(int(line[1:]))
                self._tell(b"+")

    def _bury(self, sentinel: int) -> None:
        process = self._living.pop(sentinel)
        process.join()
        if process.pid in self._ready:
            self._ready.discard(process.pid)
            self._tell(b"-")
            self._fork()
        else:
            self._tell(b"!")
        process.close()

    def _tell(self, word: bytes) -> None:
        try:
            os.write(self._link.status_fd, word)
        except BrokenPipeError:
            sys.exit(0)  # the agent is gone


def _work(handler: str, runtime_api: str, log_socket: str, link: LinkArguments) -> None:
    """One worker, from its fork to its end."""
    if log_socket:
        MultiConcurrentRunner._redirect_output(log_socket)
    try:
        bootstrap.run(handler, LinkClient(runtime_api, link))
    except LinkClosed:
        sys.exit(0)
