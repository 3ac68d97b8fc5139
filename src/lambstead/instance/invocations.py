"""The invocations of one environment, between the gateway's link and whoever runs them.

    gateway ──INVOKE/CANCEL/WINDOW──► Invocations ──deliver──► a worker's poll     (HTTP: `runtime_api`; frames: `linked_runtime`)
            ◄─RESULT/ERROR/REJECT/SLOTS──         ◄──answer──

What may happen when is decided by `core.runtime_api`; here its decisions meet the link, the clock and the log. Every invocation taken from the link
is answered on it exactly once with RESULT, END or ERROR (nothing after CANCEL), or refused with REJECT. REJECT gives back the slot that INVOKE took: if
a worker died idle, its SLOTS(-1) went out before.
"""

import asyncio
import signal
import time
from typing import Protocol

import msgspec

from lambstead.core.platform_records import InvocationStatus
from lambstead.core.runtime_api import (
    Connections,
    Invocation,
    Late,
    Refused,
    RuntimeApi,
    Unknown,
    WorkerId,
    error_document,
    exit_message,
    response_too_large_message,
    timed_out_message,
)
from lambstead.instance.invocation_log import InvocationLog
from lambstead.instance.platform_log import Ended
from lambstead.instance.streamed_answer import StreamedAnswer
from lambstead.link.connection import LinkConnection
from lambstead.link.frames import Frame, Kind
from lambstead.link.messages import Error, Invoke, Reject, Result, Slots, Window

TOO_LARGE = "Function.ResponseSizeTooLarge"

_invoke_decoder = msgspec.json.Decoder(Invoke)
_window_decoder = msgspec.json.Decoder(Window)
_encode = msgspec.json.encode


class Life(Protocol):
    """What an environment is told of its invocations and of those who run them."""

    def poll_parked(self) -> None:
        """One more worker is ready; called while init is not complete."""

    def init_failed(self, error_type: str, document: str) -> None:
        """The runtime reported that init failed, for the first time."""

    def connection_dropped(self) -> None:
        """A connection ended between an answer and the next poll: the client reconnects, or its worker died."""

    def worker_lost(self, workers_left: int) -> None:
        """A worker that had been ready is gone."""

    def invocation_timed_out(self, request_id: str) -> None:
        """An invocation's deadline came; its caller has been told."""

    def is_ours(self, peer: tuple[str, int], here: tuple[str, int]) -> bool:
        """Whether the connection from `peer` to `here` belongs to a process of the environment."""

    def killed_for_memory(self) -> bool:
        """Whether the kernel killed any of the environment's processes for want of memory."""


class Worker(Protocol):
    """Whoever polled."""

    def deliver(self, head: Invoke, frame: Frame) -> None:
        """The event that the poll was for; `head` is that of the frame."""


class Invocations:
    """See the module. Belongs to one environment, and to the agent's event loop."""

    def __init__(
        self,
        slots: int,
        life: Life,
        log: InvocationLog,
        connections: Connections,
        *,
        tenant_id: str = "",
    ) -> None:
        """`tenant_id` is the tenant that the environment belongs to; others' invocations are refused."""
        self._rules = RuntimeApi(slots, connections)
        self._life = life
        self._log = log
        self._tenant_id = tenant_id
        self._workers: dict[WorkerId, Worker] = {}
        """Those that polled, while their connections last."""
        self._started: dict[int, float] = {}  # by stream, seconds on the monotonic clock
        self._streams: dict[int, StreamedAnswer] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_deadline_ms = 0
        self.link: LinkConnection | None = None
        """The gateway's, once init is complete."""
        self.is_over = False
        """Nobody gets an event any more: the environment ends, or its init failed."""

    @property
    def init_is_over(self) -> bool:
        """True once slots are announced."""
        return self.link is not None

    @property
    def parked(self) -> int:
        """Polls waiting for an event."""
        return self._rules.parked

    # From the gateway

    def open_link(self, link: LinkConnection) -> None:
        """Init is complete: announce the parked polls on `link` and take invocations from it."""
        self.link = link
        self._rules.open()
        self._announce()

    def link_frame(self, frame: Frame) -> None:
        """A frame from the gateway. Raises msgspec.DecodeError for a head that is not the message of its kind."""
        if frame.kind is Kind.INVOKE:
            self._invoke(frame)
        elif frame.kind is Kind.CANCEL:
            self._rules.cancel(frame.stream)
            if frame.stream in self._streams:
                self._streams[frame.stream].drop()
        elif frame.kind is Kind.WINDOW and frame.stream in self._streams:
            self._streams[frame.stream].grant(_window_decoder.decode(frame.head).size_bytes)

    def end(self, message: str, error_type: str) -> None:
        """The runtime is gone: fail what still runs with `error_type` and `message`."""
        self.is_over = True
        for invocation in self._rules.end():
            self._abort(invocation, message, error_type)
        if self._timer is not None:
            self._timer.cancel()
        self._log.write_now()

    def _invoke(self, frame: Frame) -> None:
        head = _invoke_decoder.decode(frame.head)
        if head.tenant_id != self._tenant_id:
            # The gateway sorts invocations by tenant; what it got wrong must not reach what another tenant left here.
            self._reject(frame.stream, "the environment belongs to another tenant")
            return
        invocation = Invocation(frame.stream, head.request_id, head.deadline_ms, head.timeout_ms)
        worker = self._rules.invoke(invocation)
        if isinstance(worker, Refused):
            self._reject(frame.stream, worker.because)
            return
        self._started[frame.stream] = time.monotonic()
        self._log.started(head.request_id)
        self._workers[worker].deliver(head, frame)
        self._arm(head.deadline_ms)

    def _reject(self, stream: int, because: str) -> None:
        if self.link is not None:
            self.link.send(Kind.REJECT, stream, _encode(Reject(because)))

    def _announce(self) -> None:
        change = self._rules.take_slots_change()
        if change and self.link is not None:
            self.link.send(Kind.SLOTS, 0, _encode(Slots(change)))

    # From the workers

    def poll(self, number: WorkerId, worker: Worker) -> None:
        """A worker asks for an event."""
        self._workers[number] = worker
        self._rules.poll(number)
        if self.init_is_over:
            self._announce()
        else:
            self._life.poll_parked()

    def lost(self, number: WorkerId) -> None:
        """A connection ended, whether it had polled or not."""
        self._workers.pop(number, None)
        lost = self._rules.lost(number)
        self._announce()
        for invocation in lost.aborted:
            if self._life.killed_for_memory():
                self._abort(invocation, exit_message(-signal.SIGKILL), "Runtime.OutOfMemory")
            else:
                self._abort(invocation, exit_message(None))
        if self.is_over:
            return
        if lost.was_worker:
            self._life.worker_lost(lost.workers_left)
        else:
            self._life.connection_dropped()

    def answer(self, request_id: str, delivery: int | None) -> Invocation | Late | Unknown:
        """The invocation that an answer is for, which is settled next; or why there is none. `delivery` is its stream, if the answer says it."""
        answered = self._rules.answer(request_id, delivery)
        self._announce()
        return answered

    # Outcomes

    def settle_result(self, invocation: Invocation, content_type: str, body: bytes) -> None:
        """The function answered."""
        self._report(invocation, "success")
        if self.link is not None and not invocation.abandoned:
            # A worker on the link sends its answer and its next poll together: so do we.
            self.link.send_soon(Kind.RESULT, invocation.stream, _encode(Result(content_type)), body)

    def settle_error(
        self, invocation: Invocation, error_type: str, document: bytes, *, by_function: bool = False
    ) -> None:
        """The invocation ended in an error, of the function or of the platform on its behalf."""
        self._drop_stream(invocation)
        status: InvocationStatus = "error" if by_function or error_type.startswith("Function.") else "failure"
        self._report(invocation, "timeout" if error_type == "Sandbox.Timedout" else status, error_type)
        if self.link is not None and not invocation.abandoned:
            head = Error(error_type, "function" if by_function else "platform")
            self.link.send(Kind.ERROR, invocation.stream, _encode(head), document)

    def settle_too_large(self, invocation: Invocation, message: str = "") -> None:
        """The function's answer is larger than an answer may be."""
        document = error_document(TOO_LARGE, message or response_too_large_message())
        self.settle_error(invocation, TOO_LARGE, document.encode())

    def settle_streamed(self, invocation: Invocation) -> None:
        """All parts of a streamed answer were sent."""
        self._report(invocation, "success")
        if self.link is not None and not invocation.abandoned:
            self.link.send(Kind.END, invocation.stream)

    def _abort(self, invocation: Invocation, message: str, error_type: str = "Runtime.ExitError") -> None:
        text = f"RequestId: {invocation.request_id} Error: {message}"
        self._log.runtime_exited(text, error_type)
        self.settle_error(invocation, error_type, error_document(error_type, text).encode())

    def _time_out(self, invocation: Invocation) -> None:
        text = f"RequestId: {invocation.request_id} Error: {timed_out_message(invocation.timeout_ms)}"
        self.settle_error(invocation, "Sandbox.Timedout", error_document("Sandbox.Timedout", text).encode())
        self._life.invocation_timed_out(invocation.request_id)

    def _report(self, invocation: Invocation, status: InvocationStatus, error_type: str = "") -> None:
        duration_ms = (time.monotonic() - self._started.pop(invocation.stream)) * 1000
        self._log.ended(Ended(invocation.request_id, status, duration_ms, error_type, invocation.timeout_ms))

    # Streamed answers

    def begin_stream(self, request_id: str, delivery: int | None) -> Invocation | None:
        """An answer begins to come in; it keeps its slot and its deadline. None if there is nothing to answer."""
        return self._rules.begin_stream(request_id, delivery)

    def streams(self, answer: StreamedAnswer) -> None:
        """The answer hears what the gateway grants, and when its invocation is settled without it."""
        self._streams[answer.invocation.stream] = answer

    def end_stream(self, answer: StreamedAnswer) -> bool:
        """Its slot is free; false if the invocation was settled before."""
        self._streams.pop(answer.invocation.stream, None)
        is_running = self._rules.end_stream(answer.invocation)
        self._announce()
        return is_running

    def _drop_stream(self, invocation: Invocation) -> None:
        """The invocation was settled while its answer came in."""
        answer = self._streams.pop(invocation.stream, None)
        if answer is not None:
            answer.drop()

    # Deadlines: one timer for the earliest; when it fires without cause (answered meanwhile) it is set for the next.

    def _arm(self, deadline_ms: int) -> None:
        if self._timer is not None:
            if self._timer_deadline_ms <= deadline_ms:
                return
            self._timer.cancel()
        delay = max(0.0, deadline_ms / 1000 - time.time())
        self._timer_deadline_ms = deadline_ms
        self._timer = asyncio.get_running_loop().call_later(delay, self._expire)

    def _expire(self) -> None:
        self._timer = None
        # A timer may fire a hair early against the wall clock.
        now_ms = max(int(time.time() * 1000), self._timer_deadline_ms)
        for invocation in self._rules.expire(now_ms):
            self._time_out(invocation)
        self._announce()
        deadline_ms = self._rules.next_deadline_ms
        if deadline_ms is not None:
            self._arm(deadline_ms)
