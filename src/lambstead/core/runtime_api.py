"""The Runtime API of one environment as rules: who polls, what runs, which slots the gateway may count on.

    poll ──► parked ──invoke──► running ──answer──────────────► settled
               │                  │  └─────expire──► lingering ──answer (late), poll or loss of its worker──► gone
               └──lost──► gone    └──lost (its worker died)────► settled as aborted

`RuntimeApi` holds no sockets and reads no clock. Its promises, which the rule machine in the tests checks:

- *No slot is oversold.* What was announced is always `min(parked polls, slots - occupied)`; an invocation beyond it is refused.
- *Every accepted invocation is settled exactly once*, by an answer, by its deadline or by the end of what ran it.
- A timed-out invocation keeps its slot while its code runs, and a late answer for it is told so.

A *worker* is one connection of the runtime; what its end means depends on the interface client (`Connections`). Where each worker keeps one
connection and runs one event at a time, the loss of a connection that polls or runs something is the loss of the worker and of what it ran.
Between an answer and the next poll it means nothing: AWS's Python client drops its connection after a refused response (seen with 413)
and polls on a new one. Where a worker polls on its connection and runs many events (Node.js), the loss is that of the worker, and what it ran
is left to its deadline, as on AWS. Of any other runtime a connection means nothing once its poll was answered.
Every event may change the announced slots: the shell calls `take_slots_change` after each and tells the gateway.
"""

import enum
import json
import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import NewType

REMEMBERED_TIMEOUTS = 1_000
"""Ids of timed-out invocations that still get 410 instead of 400; the oldest are forgotten first."""
MAX_RESPONSE_BYTES = 6_291_556
"""Largest buffered response: 6 MiB and 100 bytes, as AWS counts."""
MAX_ERROR_BYTES = 1024 * 1024
"""Largest error document of `/error` and `/init/error`."""

WorkerId = NewType("WorkerId", int)

_ERROR_TYPE = re.compile(r"(Runtime|Function)\.[A-Z][a-zA-Z]+")


class Connections(enum.Enum):
    """What a connection to the Runtime API is to the runtime behind it."""

    WORKERS = "workers"
    """One connection per worker, on which it polls and answers, one event at a time (Python)."""
    POLLERS = "pollers"
    """One connection per worker for its polls alone; it polls again before it has answered (Node.js, many at once)."""
    ANONYMOUS = "anonymous"
    """Anything: a connection per request, a pool, one for all (custom runtimes, and whatever runs one event at a time)."""


@dataclass(slots=True, eq=False)
class Invocation:
    """One accepted event. `stream` is the gateway's number for it, unique per environment connection."""

    stream: int
    request_id: str
    deadline_ms: int
    """Epoch milliseconds."""
    timeout_ms: int
    worker: WorkerId | None = None
    """The connection whose end would end it; None if nothing ties it to one."""
    abandoned: bool = False
    """The caller's interest ended: settle it without telling anybody."""
    is_streaming: bool = False
    """Its answer has begun and not ended."""


@dataclass(frozen=True, slots=True)
class Refused:
    """No room, or a duplicate: nothing happened, the gateway may try elsewhere."""

    because: str


@dataclass(frozen=True, slots=True)
class Late:
    """An answer for an invocation that had already timed out."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """An answer for an id that is not running here: never delivered, or answered before."""


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """What ended with a connection."""

    aborted: tuple[Invocation, ...]
    workers_left: int
    was_worker: bool
    """Whether the connection polled or ran something, so that its loss is the loss of a worker."""


class RuntimeApi:
    """State of one environment's Runtime API. `slots` is its number of concurrent invocations."""

    def __init__(self, slots: int, connections: Connections) -> None:
        self._slots = slots
        self._connections = connections
        self._parked: dict[WorkerId, None] = {}
        self._workers: set[WorkerId] = set()
        self._running: dict[str, Invocation] = {}
        self._lingering: dict[int, Invocation] = {}
        self._timed_out: OrderedDict[str, None] = OrderedDict()
        self._announced = 0
        self._open = False

    @property
    def parked(self) -> int:
        """Polls waiting for an event."""
        return len(self._parked)

    @property
    def running(self) -> int:
        """Invocations whose outcome is open."""
        return len(self._running)

    @property
    def lingering(self) -> int:
        """Timed-out invocations whose code still holds a slot."""
        return len(self._lingering)

    @property
    def next_deadline_ms(self) -> int | None:
        """The earliest deadline of what runs, epoch milliseconds; None if nothing does."""
        return min((i.deadline_ms for i in self._running.values()), default=None)

    def open(self) -> None:
        """Init is complete: from now on slots are announced."""
        self._open = True

    def take_slots_change(self) -> int:
        """The change in idle slots that the gateway has not been told; it counts as told from now on."""
        change = self._idle() - self._announced
        self._announced += change
        return change

    def poll(self, worker: WorkerId) -> None:
        """The runtime asks for the next event on this connection. What the worker ran before has ended or moved elsewhere."""
        self._parked[worker] = None
        if self._connections is not Connections.ANONYMOUS:
            self._workers.add(worker)
        if self._connections is Connections.WORKERS:
            self._release_lingering_of(worker)
            for invocation in self._running.values():
                if invocation.worker == worker:
                    invocation.worker = None

    def invoke(self, invocation: Invocation) -> WorkerId | Refused:
        """Give the event to a parked poll. Takes one announced slot.

        The most recent poll first, because its caches are warm; where a worker runs many events, the oldest first, so that they spread.
        """
        if self._idle() <= 0:
            return Refused("no idle slot: the worker that announced it is gone")
        if invocation.request_id in self._running:
            return Refused(f"request id {invocation.request_id} is already running in this environment")
        worker = self._next_worker()
        if self._connections is not Connections.ANONYMOUS:
            invocation.worker = worker
        self._timed_out.pop(invocation.request_id, None)
        self._running[invocation.request_id] = invocation
        self._announced -= 1
        return worker

    def answer(self, request_id: str, stream: int | None) -> Invocation | Late | Unknown:
        """The runtime answers. `stream` tells apart two deliveries of one request id when the runtime echoes it."""
        invocation = self._running.get(request_id)
        if invocation is not None and invocation.is_streaming:
            return Unknown()  # it is being answered already
        if invocation is not None and stream in (None, invocation.stream):
            return self._running.pop(request_id)
        late = self._lingering_for(request_id, stream)
        if late is not None:
            del self._lingering[late.stream]
            return Late()
        return Late() if invocation is None and request_id in self._timed_out else Unknown()

    def begin_stream(self, request_id: str, stream: int | None) -> Invocation | None:
        """An answer begins to come in: it keeps its slot and its deadline until `end_stream`. None if there is nothing to answer."""
        invocation = self._running.get(request_id)
        if invocation is None or invocation.is_streaming or stream not in (None, invocation.stream):
            return None
        invocation.is_streaming = True
        return invocation

    def end_stream(self, invocation: Invocation) -> bool:
        """The answer has ended, well or not; false if the invocation was settled before, by its deadline or its worker's loss."""
        if self._running.get(invocation.request_id) is invocation:
            del self._running[invocation.request_id]
            return True
        self._lingering.pop(invocation.stream, None)
        return False

    def cancel(self, stream: int) -> None:
        """Nobody waits for this one any more. It runs on and keeps its slot and its deadline."""
        for invocation in self._running.values():
            if invocation.stream == stream:
                invocation.abandoned = True

    def expire(self, now_ms: int) -> tuple[Invocation, ...]:
        """Everything whose deadline has come, settled by time-out. Its code may run on and keeps its slot meanwhile."""
        late = tuple(i for i in self._running.values() if i.deadline_ms <= now_ms)
        for invocation in late:
            del self._running[invocation.request_id]
            self._remember_timeout(invocation.request_id)
            if invocation.worker is not None or self._connections is Connections.ANONYMOUS:
                self._lingering[invocation.stream] = invocation
        return late

    def lost(self, worker: WorkerId) -> WorkerLost:
        """The connection ended. Its parked poll is void; if it was a worker that runs one event at a time, what it ran is aborted."""
        was_parked = worker in self._parked
        self._parked.pop(worker, None)
        if self._connections is Connections.ANONYMOUS:
            return WorkerLost((), 0, was_worker=False)
        if self._connections is Connections.POLLERS:
            return self._poller_lost(worker)
        aborted = tuple(i for i in self._running.values() if i.worker == worker)
        was_busy = bool(aborted) or any(i.worker == worker for i in self._lingering.values())
        self._workers.discard(worker)
        self._release_lingering_of(worker)
        for invocation in aborted:
            del self._running[invocation.request_id]
        return WorkerLost(aborted, len(self._workers), was_parked or was_busy)

    def end(self) -> tuple[Invocation, ...]:
        """The environment is over: everything still running is aborted and no slot is left."""
        aborted = tuple(self._running.values())
        self._running.clear()
        self._lingering.clear()
        self._parked.clear()
        self._workers.clear()
        return aborted

    def _next_worker(self) -> WorkerId:
        if self._connections is Connections.WORKERS:
            return self._parked.popitem()[0]
        worker = next(iter(self._parked))
        del self._parked[worker]
        return worker

    def _poller_lost(self, worker: WorkerId) -> WorkerLost:
        """What the worker ran goes on to its deadline, since nobody can know that it ended; then it holds no slot any more."""
        was_worker = worker in self._workers
        self._workers.discard(worker)
        self._release_lingering_of(worker)
        for invocation in self._running.values():
            if invocation.worker == worker:
                invocation.worker = None
        return WorkerLost((), len(self._workers), was_worker)

    def _idle(self) -> int:
        if not self._open:
            return 0
        # Lingering code is capped at the slots too: a runtime that polls before its late answer must not push this below zero.
        return max(0, min(len(self._parked), self._slots - len(self._running) - len(self._lingering)))

    def _release_lingering_of(self, worker: WorkerId) -> None:
        if self._lingering:
            self._lingering = {s: i for s, i in self._lingering.items() if i.worker != worker}

    def _lingering_for(self, request_id: str, stream: int | None) -> Invocation | None:
        if stream is not None:
            return self._lingering.get(stream)
        return next((i for i in self._lingering.values() if i.request_id == request_id), None)

    def _remember_timeout(self, request_id: str) -> None:
        self._timed_out[request_id] = None
        self._timed_out.move_to_end(request_id)
        if len(self._timed_out) > REMEMBERED_TIMEOUTS:
            self._timed_out.popitem(last=False)


def reported_error_type(claimed: str, *, init: bool = False) -> str:
    """The error type as the platform reports it: the runtime's own if it has the form, else `Function.Unknown` (`Runtime.Unknown` in init)."""
    if _ERROR_TYPE.fullmatch(claimed):
        return claimed
    return "Runtime.Unknown" if init else "Function.Unknown"


def error_document(error_type: str, error_message: str) -> str:
    """An error document of the platform, members in AWS's order."""
    return json.dumps(
        {"errorType": error_type, "errorMessage": error_message}, ensure_ascii=False, separators=(",", ":")
    )


def timed_out_message(timeout_ms: int) -> str:
    """AWS's words for a time-out, seconds with two decimals."""
    return f"Task timed out after {timeout_ms / 1000:.2f} seconds"


def exit_message(exit_code: int | None) -> str:
    """AWS's words for the end of a runtime. `exit_code` as a subprocess reports it: negative for a signal; None if unknown."""
    if exit_code is None or exit_code == 0:
        return "Runtime exited without providing a reason"
    if exit_code < 0:
        return f"Runtime exited with error: signal: {_SIGNAL_WORDS.get(-exit_code, f'signal {-exit_code}')}"
    return f"Runtime exited with error: exit status {exit_code}"


_SIGNAL_WORDS = {
    1: "hangup",
    2: "interrupt",
    3: "quit",
    4: "illegal instruction",
    6: "aborted",
    7: "bus error",
    8: "floating point exception",
    9: "killed",
    11: "segmentation fault",
    13: "broken pipe",
    14: "alarm clock",
    15: "terminated",
}
"""Words of the platform's agent for signals, which are those of Go's runtime on Linux."""


def response_too_large_message(limit_bytes: int = MAX_RESPONSE_BYTES) -> str:
    """AWS's words for a response above the limit."""
    return f"Response payload size exceeded maximum allowed payload size ({limit_bytes} bytes)."


@dataclass(frozen=True, slots=True)
class InitProgress:
    """What is known of an environment's init: polls parked, polls expected, workers alive (None while nobody counted them)."""

    parked: int
    expected: int
    workers_alive: int | None = None


def is_initialized(progress: InitProgress) -> bool:
    """Whether init is complete: every expected poll is parked, or some are and no living worker is still on its way."""
    if progress.parked >= progress.expected:
        return True
    return progress.workers_alive is not None and progress.parked > 0 and progress.workers_alive <= progress.parked
