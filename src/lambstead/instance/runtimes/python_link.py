"""Python workers on the invocation link: AWS's interface client with another way to get events.

Runs inside the environment, loaded by `python_bootstrap`: standard library and AWS's client only. AWS's `bootstrap.run` does what it always does
(import the handler, unmarshal, call, marshal, log, word the errors); it is given a client object that reads events from a Unix socket instead of asking
the Runtime API over HTTP. Init errors still go to the Runtime API.

On a capacity provider every worker connects to a socket of the environment (`WorkerClient`, see `python_workers`). On demand the one worker inherits its
socket (`StandardClient`), and AWS's program itself is run with that client.
"""

import io
import json
import os
import socket
import struct
from typing import Any

from awslambdaric import __main__ as program  # type: ignore[import-not-found]  # lives in the environment's client folder, not here
from awslambdaric.lambda_runtime_client import (  # type: ignore[import-not-found]  # see above
    InvocationRequest,
    LambdaMultiConcurrentRuntimeClient,
    LambdaRuntimeClient,
)

# The frames of `lambstead.link.frames`, version 1, which cannot be imported here; a test holds both against each other.
PROTOCOL_VERSION = 1
HEADER = struct.Struct("!IBBHI")
HELLO, SLOTS, INVOKE, RESULT, ERROR = 1, 2, 3, 4, 5

MAX_RESPONSE_BYTES = 6_291_556
MAX_ERROR_BYTES = 1024 * 1024
RECEIVE_BYTES = 64 * 1024
TOO_LARGE = (
    '{"errorType":"Function.ResponseSizeTooLarge","errorMessage":"Response payload size exceeded maximum allowed payload size '
    f'({MAX_RESPONSE_BYTES} bytes)."}}'
)
ERROR_TOO_LARGE = (
    f'{{"errorType":"Function.Unknown","errorMessage":"The error document was larger than {MAX_ERROR_BYTES} bytes."}}'
)
_ONE_SLOT = HEADER.pack(3, SLOTS, 0, 3, 0) + b"[1]"
_RESULT_HEAD = b'["application/json"]'
_ERROR_HEAD = b'["Function.Unknown","function"]'
_decode = json.JSONDecoder().raw_decode


class LinkClosed(Exception):
    """The other end closed the connection: the environment is over for this worker."""


class Events:
    """The link of one worker: it asks for an event, gets it, and answers it."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._received = b""
        self._stream = 0
        self._answer: list[bytes] = []
        """The frame of the last answer. It leaves together with the word that the worker is idle again, in one system call."""

    def next(self) -> InvocationRequest:
        """Send the answer to the last event, ask for another one, and wait for it. Raises LinkClosed."""
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

    def answer(self, payload: bytes, content_type: str) -> None:
        """The function's answer to the last event."""
        head = _RESULT_HEAD if content_type == "application/json" else json.dumps([content_type]).encode()
        self._answer_with(RESULT, head, payload)

    def answer_error(self, document: bytes) -> None:
        """The function's error, as AWS's client words it."""
        self._answer_with(ERROR, _ERROR_HEAD, document)

    def answer_too_large(self) -> None:
        """The answer was larger than an answer may be."""
        self._answer_with(ERROR, b'["Function.ResponseSizeTooLarge","platform"]', TOO_LARGE.encode())

    def introduce(self, environment_id: str) -> None:
        """Say whose worker this is, as every connection does that is made and not inherited."""
        head = json.dumps([PROTOCOL_VERSION, environment_id]).encode()
        self._send([HEADER.pack(len(head), HELLO, 0, len(head), 0) + head])

    def _answer_with(self, kind: int, head: bytes, payload: bytes) -> None:
        header = HEADER.pack(len(head) + len(payload), kind, 0, len(head), self._stream)
        self._answer = [header + head, payload]

    def _send(self, parts: list[bytes]) -> None:
        """One system call for what is small; what is large is not copied for that."""
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
            kind, stream, head, payload = self._frame()
            if kind == INVOKE:
                self._stream = stream
                return _decode(head.decode())[0], payload

    def _frame(self) -> tuple[int, int, bytes, bytes]:
        """Kind, stream, head and payload of the next frame."""
        received = self._received = self._received or self._receive(RECEIVE_BYTES)
        if len(received) >= HEADER.size:
            length, kind, _, head_length, stream = HEADER.unpack_from(received)
            if HEADER.size + length == len(received):  # as nearly always: nobody sends another one before the answer
                self._received, head_end = b"", HEADER.size + head_length
                return kind, stream, received[HEADER.size : head_end], received[head_end:]
        length, kind, _, head_length, stream = HEADER.unpack(self._take(HEADER.size))
        return kind, stream, self._take(head_length), self._take(length - head_length)

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
        try:
            count = self._socket.recv_into(room)
        except OSError as exc:
            raise LinkClosed from exc
        if not count:
            raise LinkClosed
        return count

    def _receive(self, most: int) -> bytes:
        try:
            data = self._socket.recv(most)
        except OSError as exc:
            raise LinkClosed from exc
        if not data:
            raise LinkClosed
        return data


class WorkerClient(LambdaMultiConcurrentRuntimeClient):  # type: ignore[misc]  # the base class is not typed
    """AWS's client for one worker of a managed environment. What is too large is answered as AWS's client would be told."""

    def __init__(self, runtime_api: str, path: str, environment_id: str, ready_fd: int) -> None:
        """`ready_fd` is told the worker's process id once it is ready."""
        super().__init__(runtime_api)
        self._path = path
        self._environment_id = environment_id
        self._ready_fd = ready_fd
        self._events: Events | None = None

    def wait_next_invocation(self) -> InvocationRequest:
        if self._events is None:
            self._events = self._connect()
        return self._events.next()

    def post_invocation_result(
        self, invoke_id: str, result_data: Any, content_type: str = "application/json", invocation_id: str | None = None
    ) -> None:  # Any: text or bytes, whatever the marshaller made
        assert self._events is not None
        payload = result_data if isinstance(result_data, bytes) else result_data.encode("utf-8")
        if len(payload) > MAX_RESPONSE_BYTES:
            self._events.answer_too_large()
        else:
            self._events.answer(payload, content_type)

    def post_invocation_error(
        self, invoke_id: str, error_response_data: str, xray_fault: str, invocation_id: str | None = None
    ) -> None:
        assert self._events is not None
        document = error_response_data.encode("utf-8")
        self._events.answer_error(document if len(document) <= MAX_ERROR_BYTES else ERROR_TOO_LARGE.encode())

    def _connect(self) -> Events:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(self._path)
        events = Events(connection)
        events.introduce(self._environment_id)
        os.write(self._ready_fd, f"+{os.getpid()}\n".encode())
        return events


class StandardClient(LambdaRuntimeClient):  # type: ignore[misc]  # the base class is not typed
    """AWS's client for an environment on demand. What is too large goes to the Runtime API, whose refusal ends the process as on AWS."""

    def __init__(self, runtime_api: str, use_thread_for_polling_next: bool, events: Events) -> None:
        super().__init__(runtime_api, use_thread_for_polling_next)
        self._events = events

    def wait_next_invocation(self) -> InvocationRequest:
        try:
            return self._events.next()
        except LinkClosed:
            raise SystemExit(0) from None

    def post_invocation_result(
        self, invoke_id: str, result_data: Any, content_type: str = "application/json", invocation_id: str | None = None
    ) -> None:  # Any: text or bytes, whatever the marshaller made
        payload = result_data if isinstance(result_data, bytes) else result_data.encode("utf-8")
        if len(payload) > MAX_RESPONSE_BYTES:
            super().post_invocation_result(invoke_id, payload, content_type, invocation_id)
        else:
            self._events.answer(payload, content_type)

    def post_invocation_error(
        self, invoke_id: str, error_response_data: str, xray_fault: str, invocation_id: str | None = None
    ) -> None:
        document = error_response_data.encode("utf-8")
        if len(document) > MAX_ERROR_BYTES:
            super().post_invocation_error(invoke_id, error_response_data, xray_fault, invocation_id)
        else:
            self._events.answer_error(document)


def give_events(fd: int) -> None:
    """AWS's program, when it is run in this process, gets its events from this socket."""
    os.set_inheritable(fd, False)  # what the function starts shall not speak for it
    events = Events(socket.socket(fileno=fd))
    program.LambdaRuntimeClient = lambda runtime_api, use_thread: StandardClient(runtime_api, use_thread, events)
