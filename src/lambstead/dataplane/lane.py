"""The invoke path of one publication, of one tenant if it isolates tenants: its pool of slots, the links to its environments, and every invocation that waits or runs.

Each admitted invocation is settled exactly once: by the function's answer, by an error of function or platform, by a refusal while it waits, by its
deadline, or, if its environment vanished without a word, by `ServiceFailure`. Nothing here writes to the store.

An environment has one link through its agent, which speaks for all its workers and keeps their deadlines, or one link per worker. A worker's own link
means: its end is the worker's death, and deadlines are kept here. A worker that exceeded its deadline stays busy until it answers; its answer
is then too late for anybody.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec

from lambstead.core.admission import Granted, LineFull, Pool, Waiting
from lambstead.core.errors import DomainError, ServiceFailure, TooManyRequests
from lambstead.core.fleet import PublicationKey
from lambstead.core.invocations import Target
from lambstead.core.platform_records import InvocationStatus
from lambstead.core.runtime_api import (
    MAX_RESPONSE_BYTES,
    error_document,
    exit_message,
    response_too_large_message,
    timed_out_message,
)
from lambstead.core.throttles import Cause, Throttles, throttled
from lambstead.dataplane.outcomes import Invocation, Outcome
from lambstead.dataplane.records import PlatformRecords
from lambstead.dataplane.streams import Parts
from lambstead.dataplane.turns import Turns
from lambstead.link.connection import LinkConnection
from lambstead.link.frames import Frame, Kind
from lambstead.link.messages import Chunk, Error, Invoke, Reject, Result, Slots, Window

log = logging.getLogger(__name__)

SILENCE_GRACE_S = 5.0
"""How long after an invocation's deadline we wait for the agent to say that it timed out, before we say it ourselves."""
LAST_WORDS_S = 0.25
"""How long after a worker's link ended we wait for the agent to say how its runtime ended, before we say only that it did."""

Settle = Callable[[Outcome | DomainError], None]
"""Told how an invocation ended, exactly once, on the event loop."""

_slots = msgspec.json.Decoder(Slots)
_result = msgspec.json.Decoder(Result)
_chunk = msgspec.json.Decoder(Chunk)
_error = msgspec.json.Decoder(Error)
_reject = msgspec.json.Decoder(Reject)
_encode = msgspec.json.Encoder().encode
_JSON_HEAD = _encode(Result())


@dataclass(slots=True, eq=False)
class Link:
    """One connection into an environment, and what it runs."""

    environment_id: str
    connection: LinkConnection
    is_worker: bool
    """The connection of a single worker; otherwise an agent's, for all of them."""
    is_remote: bool = False
    """It comes over TCP: its end says nothing of what the worker had read, which is told in frames instead."""
    running: set[int] = field(default_factory=set)
    """Tickets given to this connection that it has not answered, too late ones included."""


@dataclass(slots=True, eq=False)
class Running:
    """An invocation between admission and settlement."""

    ticket: int
    target: Target
    invocation: Invocation
    settle: Settle
    stream: Parts | None = None
    """Where parts of a streamed answer go at once; without one they are gathered."""
    parts: list[bytes] = field(default_factory=list)
    size_bytes: int = 0
    content_type: str = Result().content_type
    link: Link | None = None
    began: float = 0.0
    """When it was delivered, on the monotonic clock: the loop's counts whole milliseconds."""
    due: float = 0.0
    """When it is too late, on the loop's clock."""


@dataclass(slots=True)
class _Environment:
    """The links of one environment: its agent's, or its workers', of whom the last one idle is the first to be used."""

    agent: Link | None = None
    workers: list[Link] = field(default_factory=list)
    idle: list[Link] = field(default_factory=list)


@dataclass(slots=True)
class Lane:
    """Everything about one publication, or one tenant of it, on the invoke path. Belongs to one event loop; no method blocks."""

    key: PublicationKey
    patience_s: float
    """How long an invocation waits for a slot before it is refused with 429."""
    max_waiting: int
    demand_changed: Callable[["Lane"], None]
    """Called when an invocation starts to wait, so that environments can be started where that is how they start."""
    drained: Callable[[], None]
    """Called when a draining environment has finished its last invocation."""
    records: PlatformRecords
    """Where starts and ends of what workers run are recorded; agents record what goes through them."""
    throttles: Throttles
    """Where refusals are counted."""
    freed: Callable[[], None]
    """Called when a slot comes free that nobody in line takes, once for each."""
    turns: Turns
    """When to let whoever was given something have the core."""
    throttled: int = 0
    """Invocations that were refused for want of a slot."""
    pool: Pool = field(init=False)
    loop: asyncio.AbstractEventLoop = field(init=False)
    _environments: dict[str, _Environment] = field(default_factory=dict)
    _alive: dict[int, Running] = field(default_factory=dict)
    _due: tuple[dict[int, Running], dict[int, Running]] = field(default_factory=lambda: ({}, {}))
    """What runs, synchronous and asynchronous apart: all invocations of one sort have the same time, so each stands in the order of deadlines."""
    _tickets: Iterator[int] = field(default_factory=lambda: stream_ids(1))
    _expiry: asyncio.TimerHandle | None = None
    _deadline: asyncio.TimerHandle | None = None

    def __post_init__(self) -> None:
        self.pool = Pool(self.max_waiting)
        self.loop = asyncio.get_running_loop()

    @property
    def is_unused(self) -> bool:
        """True when no invocation and no environment is left."""
        return not self._alive and not self._environments

    # --- callers -------------------------------------------------------------------------------------------------------

    def submit(self, target: Target, invocation: Invocation, settle: Settle, stream: Parts | None = None) -> None:
        """Admit an invocation; `settle` hears how it ended, after `stream` got the parts of an answer that came in parts.

        Raises TooManyRequests at once when too many wait already.
        """
        ticket = next(self._tickets)
        running = Running(ticket, target, invocation, settle, stream)
        match self.pool.admit(ticket, time.monotonic(), self.patience_s):
            case Granted(_, environment_id):
                self._alive[ticket] = running
                self._deliver(running, environment_id)
            case LineFull(waiting):
                raise self._throttled(
                    Cause.LINE_FULL,
                    f"{waiting} invocations wait for a slot of {self.key.function}:{self.key.version} already",
                )
            case Waiting():
                self._alive[ticket] = running
                self._watch_line()
                self.demand_changed(self)

    def answer_waiting(self, error_type: str, document: bytes) -> None:
        """Settle the first waiting invocation with an error document: the environment it waited for failed to initialise."""
        for ticket in self.pool.leave_all(1):
            self._settle(ticket, Outcome(document, self.key.version, "", is_error=True, error_type=error_type))

    def take_waiting(self) -> list[Running]:
        """Everybody in line, who leaves it unsettled: another lane shall serve them."""
        return [self._alive.pop(ticket) for ticket in self.pool.leave_all()]

    # --- environments ----------------------------------------------------------------------------------------------------

    def joined(self, link: Link, zone: str) -> None:
        """A link is there; its slots follow in frames. The environment joins with its first link."""
        environment = self._environments.get(link.environment_id)
        if environment is None:
            environment = self._environments[link.environment_id] = _Environment()
            self.pool.joined(link.environment_id, zone)
        if link.is_worker:
            environment.workers.append(link)
        else:
            environment.agent = link

    def drain(self, environment_id: str) -> None:
        """Give the environment nothing more."""
        self.pool.drain(environment_id)

    def link_lost(self, link: Link, exc: Exception | None) -> None:
        """A link ended: with an agent's its environment is over, with a worker's the worker is."""
        environment = self._environments.get(link.environment_id)
        if environment is None:
            return
        if not link.is_worker:
            self.gone(link.environment_id)
            return
        environment.workers.remove(link)
        if link in environment.idle:
            environment.idle.remove(link)
            self.pool.slots_changed(link.environment_id, -1)
        # A Unix socket tells: closed with bytes unread, or written to after it was closed, it is reset or broken; else it just ends.
        # So an event that was on its way when its worker died is known not to have reached the function.
        if link.running and not link.is_remote and isinstance(exc, ConnectionResetError | BrokenPipeError):
            log.info("invocation-undelivered", extra={"environment": link.environment_id})
            for ticket in list(link.running):
                self.pool.slots_changed(link.environment_id, -1)  # the worker's slot is not there to be tried again
                self._not_started(link, ticket, elsewhere=False)
        elif link.running:
            self.loop.call_later(LAST_WORDS_S, self._worker_died, link, exc)

    def has_agent_link(self, environment_id: str) -> bool:
        """True while the environment's agent speaks for it; then the end of that link is the end of the environment."""
        environment = self._environments.get(environment_id)
        return environment is not None and environment.agent is not None

    def gone(self, environment_id: str) -> None:
        """The environment is over. What it did not settle gets a platform error: nobody knows whether it finished."""
        environment = self._environments.pop(environment_id, None)
        if environment is None:
            return
        self.pool.gone(environment_id)
        for link in (*environment.workers, *([environment.agent] if environment.agent else [])):
            link.connection.close()
        for running in self._running_in(environment_id):
            self._settle(running.ticket, _lost(running, f"The execution environment {environment_id}"))

    def ended(self, environment_id: str, error_type: str, story: str) -> None:
        """The agent says how the environment's runtime ended: what its workers ran gets that as its answer."""
        for running in self._running_in(environment_id):
            if running.link is not None and running.link.is_worker:
                self._settle(running.ticket, self._exit_outcome(running, story, error_type))

    def _running_in(self, environment_id: str) -> list[Running]:
        return [r for r in self._alive.values() if r.link is not None and r.link.environment_id == environment_id]

    def frame_received(self, link: Link, frame: Frame) -> None:
        """One frame of a link."""
        match frame.kind:
            case Kind.RESULT | Kind.END:
                self._answered(link, frame, is_error=False)
            case Kind.CHUNK:
                self._chunk(link, frame)
            case Kind.SLOTS:
                self._slots_changed(link, _slots.decode(frame.head).change)
            case Kind.ERROR:
                self._answered(link, frame, is_error=True)
            case Kind.REJECT:
                self._rejected(link, frame)
            case _:
                log.warning(
                    "link-unexpected-frame", extra={"environment": link.environment_id, "kind": frame.kind.name}
                )

    # --- slots ---------------------------------------------------------------------------------------------------------------

    def _slots_changed(self, link: Link, change: int) -> None:
        environment = self._environments.get(link.environment_id)
        if environment is None:
            return
        if link.is_worker and change > 0:
            environment.idle.append(link)
        elif link.is_worker and link in environment.idle:
            # A relayed worker died. If an event is on its way to it, it is not idle here: the event comes back rejected.
            environment.idle.remove(link)
            link.connection.close()
        grants = self.pool.slots_changed(link.environment_id, change)
        for granted in grants:
            self._deliver(self._alive[granted.ticket], link.environment_id)
        for _ in range(change - len(grants)):
            self.freed()

    def _deliver(self, running: Running, environment_id: str) -> None:
        target, invocation = running.target, running.invocation
        environment = self._environments[environment_id]
        link = environment.agent or environment.idle.pop()
        running.link = link
        link.running.add(running.ticket)
        timeout_ms = target.timeout_ms
        head = Invoke(
            invocation.request_id,
            int(time.time() * 1000) + timeout_ms,
            timeout_ms,
            target.invoked_arn,
            invocation.trace_id,
            invocation.client_context,
            "",
            invocation.tenant_id,
        )
        is_first = running.began == 0.0  # else it was on its way to a worker that never read it
        running.began = time.monotonic()
        running.due = self.loop.time() + timeout_ms / 1000 + (0.0 if link.is_worker else SILENCE_GRACE_S)
        link.connection.send(Kind.INVOKE, running.ticket, _encode(head), invocation.payload)
        # From here on the worker is at it.
        if link.is_worker and is_first:
            self.records.started(environment_id, invocation.request_id)
        self._due[target.is_asynchronous][running.ticket] = running
        self._watch_deadline(running.due)
        if len(self._alive) > 1 and self.turns.is_over(running.began):
            self.loop.call_soon(os.sched_yield)

    # --- answers ---------------------------------------------------------------------------------------------------------------

    def _chunk(self, link: Link, frame: Frame) -> None:
        """A part of an answer: to its caller as it is, or to what was gathered before."""
        ticket, part = frame.stream, frame.payload

        def grant(size_bytes: int) -> None:
            link.connection.send(Kind.WINDOW, ticket, _encode(Window(size_bytes)))

        running = self._alive.get(ticket)
        if running is not None and frame.head:
            running.content_type = _chunk.decode(frame.head).content_type
        if running is not None and running.stream is not None:
            running.stream.chunk(part, grant, running.content_type, self.key.version)
            return
        if running is not None:
            running.size_bytes += len(part)
            # Beyond the limit only the size is kept, for the error at the end.
            if running.size_bytes <= MAX_RESPONSE_BYTES:
                running.parts.append(part)
            else:
                running.parts.clear()
        grant(len(part))

    def _answered(self, link: Link, frame: Frame, *, is_error: bool) -> None:
        ticket = frame.stream
        if ticket not in link.running:
            return
        link.running.remove(ticket)
        self._finished(link.environment_id)
        running = self._alive.get(ticket)
        if running is None:
            return  # it was settled before, by its deadline
        error_type = _error.decode(frame.head).error_type if is_error else ""
        if frame.kind is Kind.RESULT and frame.head != _JSON_HEAD:
            running.content_type = _result.decode(frame.head).content_type
        self._settle(ticket, self._outcome(running, frame.payload, error_type if is_error else None))
        if link.is_worker:
            self._record(running, "error" if is_error else "success", error_type)

    def _outcome(self, running: Running, payload: bytes, error_type: str | None) -> Outcome:
        """What the executor said, or the whole of what it said in parts."""
        environment_id = running.link.environment_id if running.link else ""
        if error_type is not None:
            return Outcome(payload, self.key.version, environment_id, is_error=True, error_type=error_type)
        if running.size_bytes > MAX_RESPONSE_BYTES:
            too_large = "Function.ResponseSizeTooLarge"
            document = error_document(too_large, response_too_large_message()).encode()
            return Outcome(document, self.key.version, environment_id, is_error=True, error_type=too_large)
        whole = payload or b"".join(running.parts)
        return Outcome(whole, self.key.version, environment_id, content_type=running.content_type)

    def _rejected(self, link: Link, frame: Frame) -> None:
        if frame.stream in link.running:
            because = _reject.decode(frame.head).because
            log.info("invocation-rejected", extra={"environment": link.environment_id, "because": because})
            self._not_started(link, frame.stream, elsewhere=not link.is_worker)
            if link.is_worker:
                link.connection.close()

    def _not_started(self, link: Link, ticket: int, *, elsewhere: bool) -> None:
        """Nobody ran the event: the next slot is for it, of another environment first if this one refused it."""
        link.running.remove(ticket)
        running = self._alive.get(ticket)
        if running is None:
            self._finished(link.environment_id)
            return
        running.link = None
        self._due[running.target.is_asynchronous].pop(ticket, None)
        match self.pool.again(ticket, link.environment_id, time.monotonic(), self.patience_s, elsewhere=elsewhere):
            case Granted(_, environment_id):
                self._deliver(running, environment_id)
            case Waiting():
                self._watch_line()
                self.demand_changed(self)
        if self.pool.is_drained(link.environment_id):
            self.drained()

    def _finished(self, environment_id: str) -> None:
        self.pool.finished(environment_id)
        if self.pool.is_drained(environment_id):
            self.drained()

    def _worker_died(self, link: Link, exc: Exception | None) -> None:
        """Nobody said more than that the worker's link ended: the worker exited without a reason, or the network broke."""
        for ticket in link.running:
            running = self._alive.get(ticket)
            if running is not None and link.is_remote and exc is not None:
                self._settle(ticket, _lost(running, f"The connection to execution environment {link.environment_id}"))
            elif running is not None:
                self._settle(ticket, self._exit_outcome(running, None))
            if link.environment_id in self._environments:
                self._finished(link.environment_id)
        link.running.clear()

    def _record(self, running: Running, status: InvocationStatus, error_type: str = "") -> None:
        link = running.link
        if link is not None:
            duration = time.monotonic() - running.began
            self.records.ended(link.environment_id, running.invocation.request_id, status, duration, error_type)

    def _exit_outcome(self, running: Running, story: str | None, error_type: str = "") -> Outcome:
        error_type = error_type if error_type == "Runtime.OutOfMemory" else "Runtime.ExitError"
        self._record(running, "failure", error_type)
        return self._platform_error(running, error_type, story or exit_message(None))

    def _platform_error(self, running: Running, error_type: str, story: str) -> Outcome:
        """An error document that the platform writes on behalf of the function."""
        request_id = running.invocation.request_id
        document = error_document(error_type, f"RequestId: {request_id} Error: {story}").encode()
        environment_id = running.link.environment_id if running.link else ""
        return Outcome(document, self.key.version, environment_id, is_error=True, error_type=error_type)

    # --- deadlines -----------------------------------------------------------------------------------------------------------------

    def _watch_deadline(self, due: float) -> None:
        """Make sure that we wake at `due` or earlier."""
        if self._deadline is not None:
            if self._deadline.when() <= due:
                return
            self._deadline.cancel()
        self._deadline = self.loop.call_at(due, self._deadline_passed)

    def _deadline_passed(self) -> None:
        self._deadline = None
        now = self.loop.time()
        for line in self._due:
            while line:
                ticket, running = next(iter(line.items()))
                if running.due > now:
                    self._watch_deadline(running.due)
                    break
                self._settle(ticket, self._too_late(running))

    def _too_late(self, running: Running) -> Outcome | DomainError:
        """What the caller hears at the deadline. The slot stays taken until its worker answers or dies."""
        link = running.link
        assert link is not None
        if link.is_worker:
            self._record(running, "timeout", "Sandbox.Timedout")
            return self._platform_error(running, "Sandbox.Timedout", timed_out_message(running.target.timeout_ms))
        log.error("invocation-unanswered", extra={"environment": link.environment_id, "lane": str(self.key)})
        return ServiceFailure(f"The execution environment {link.environment_id} does not answer.")

    def _settle(self, ticket: int, outcome: Outcome | DomainError) -> None:
        running = self._alive.pop(ticket)
        self._due[running.target.is_asynchronous].pop(ticket, None)
        running.settle(outcome)

    def _watch_line(self) -> None:
        """Make sure that we wake when the first deadline in the line passes."""
        deadline = self.pool.next_deadline()
        if deadline is None or self._expiry is not None:
            return
        delay = max(0.0, deadline - time.monotonic())
        self._expiry = self.loop.call_later(delay, self._expire)

    def _expire(self) -> None:
        self._expiry = None
        for ticket in self.pool.expired(time.monotonic()):
            self._settle(ticket, self._throttled(Cause.NO_SLOT, f"no slot came free within {self.patience_s:g} s"))
        self._watch_line()

    def _throttled(self, cause: Cause, because: str) -> TooManyRequests:
        self.throttled += 1
        self.throttles.add(self.key.function, self.key.version, cause)
        return throttled(cause, because)


def _lost(running: Running, what: str) -> ServiceFailure:
    return ServiceFailure(
        f"{what} was lost while it ran request {running.invocation.request_id}. Whether the function finished is unknown."
    )


def stream_ids(first: int) -> Iterator[int]:
    """Numbers for invocations, which are stream ids on the links: 32 bits, never 0, round and round. Nothing runs long enough to meet itself."""
    yield from range(first, 1 << 32)
    while True:
        yield from range(1, 1 << 32)
