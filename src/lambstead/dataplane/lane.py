"""The invoke path of one publication: its pool of slots, the links to its environments, and every invocation that waits or runs.

Each admitted invocation is settled exactly once: by the function's answer, by an error of function or platform, by a refusal while it waits, or, if
its environment vanished without a word, by `ServiceFailure`. Nothing here writes to the store.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec

from lambstead.core.admission import Granted, LineFull, Pool, Waiting
from lambstead.core.errors import DomainError, ServiceFailure, TooManyRequests
from lambstead.core.fleet import PublicationKey
from lambstead.core.invocations import Target
from lambstead.dataplane.outcomes import Invocation, Outcome
from lambstead.link.connection import LinkConnection
from lambstead.link.frames import Frame, Kind
from lambstead.link.messages import Error, Invoke, Reject, Result, Slots

log = logging.getLogger(__name__)

SILENCE_GRACE_S = 5.0
"""How long after an invocation's deadline we wait for the agent to say that it timed out, before we say it ourselves."""

_slots = msgspec.msgpack.Decoder(Slots)
_result = msgspec.msgpack.Decoder(Result)
_error = msgspec.msgpack.Decoder(Error)
_reject = msgspec.msgpack.Decoder(Reject)
_encode = msgspec.msgpack.Encoder().encode


@dataclass(slots=True, eq=False)
class Running:
    """An invocation between admission and settlement."""

    ticket: int
    target: Target
    invocation: Invocation
    future: "asyncio.Future[Outcome]"
    environment_id: str = ""
    silence: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class Lane:
    """Everything about one publication on the invoke path. Belongs to one event loop; no method blocks."""

    key: PublicationKey
    patience_s: float
    """How long an invocation waits for a slot before it is refused with 429."""
    max_waiting: int
    demand_changed: Callable[["Lane"], None]
    """Called when an invocation starts to wait, so that environments can be started where that is how they start."""
    drained: Callable[[], None]
    """Called when a draining environment has finished its last invocation."""
    pool: Pool = field(init=False)
    _links: dict[str, LinkConnection] = field(default_factory=dict)
    _alive: dict[int, Running] = field(default_factory=dict)
    _tickets: Iterator[int] = field(default_factory=lambda: stream_ids(1))
    _expiry: asyncio.TimerHandle | None = None

    def __post_init__(self) -> None:
        self.pool = Pool(self.max_waiting)

    @property
    def is_unused(self) -> bool:
        """True when no invocation and no environment is left."""
        return not self._alive and not self._links

    # --- callers -------------------------------------------------------------------------------------------------------

    def submit(self, target: Target, invocation: Invocation) -> "asyncio.Future[Outcome]":
        """Admit an invocation; the future is its settlement. Raises TooManyRequests at once when too many wait already."""
        ticket = next(self._tickets)
        running = Running(ticket, target, invocation, asyncio.get_running_loop().create_future())
        decision = self.pool.admit(ticket, time.monotonic(), self.patience_s)
        match decision:
            case LineFull(waiting):
                raise _throttled(
                    f"{waiting} invocations wait for a slot of {self.key.function}:{self.key.version} already"
                )
            case Granted():
                self._alive[ticket] = running
                self._deliver(running, decision.environment_id)
            case Waiting():
                self._alive[ticket] = running
                self._watch_line()
                self.demand_changed(self)
        return running.future

    def answer_waiting(self, error_type: str, document: bytes) -> None:
        """Settle the first waiting invocation with an error document: the environment it waited for failed to initialise."""
        for ticket in self.pool.leave_all(1):
            running = self._alive.pop(ticket)
            _settle(running, Outcome(document, self.key.version, "", is_error=True, error_type=error_type))

    # --- environments ----------------------------------------------------------------------------------------------------

    def joined(self, environment_id: str, zone: str, link: LinkConnection) -> None:
        """An environment's link is there; its slots follow in frames."""
        self._links[environment_id] = link
        self.pool.joined(environment_id, zone)

    def drain(self, environment_id: str) -> None:
        """Give the environment nothing more."""
        self.pool.drain(environment_id)

    def link_lost(self, environment_id: str) -> None:
        """The environment's link ended; invocations that it did not settle before get a platform error."""
        self._links.pop(environment_id, None)
        self.pool.gone(environment_id)
        for running in [r for r in self._alive.values() if r.environment_id == environment_id]:
            self._fail(
                running.ticket,
                ServiceFailure(
                    f"The execution environment {environment_id} was lost while it ran request {running.invocation.request_id}. "
                    "Whether the function finished is unknown."
                ),
            )

    def frame_received(self, environment_id: str, frame: Frame) -> None:
        """One frame from an environment's link."""
        match frame.kind:
            case Kind.SLOTS:
                for granted in self.pool.slots_changed(environment_id, _slots.decode(frame.head).change):
                    self._deliver(self._alive[granted.ticket], environment_id)
            case Kind.RESULT:
                self._settled(environment_id, frame, is_error=False)
            case Kind.ERROR:
                self._settled(environment_id, frame, is_error=True)
            case Kind.REJECT:
                self._rejected(environment_id, frame)
            case _:
                log.warning("link-unexpected-frame", extra={"environment": environment_id, "kind": frame.kind.name})

    # --- inside ----------------------------------------------------------------------------------------------------------

    def _deliver(self, running: Running, environment_id: str) -> None:
        target, invocation = running.target, running.invocation
        running.environment_id = environment_id
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
        running.silence = asyncio.get_running_loop().call_later(
            timeout_ms / 1000 + SILENCE_GRACE_S, self._silent, running.ticket
        )
        self._links[environment_id].send(Kind.INVOKE, running.ticket, _encode(head), invocation.payload)

    def _settled(self, environment_id: str, frame: Frame, *, is_error: bool) -> None:
        running = self._alive.get(frame.stream)
        if running is None or running.environment_id != environment_id:
            return  # settled before, by silence
        del self._alive[frame.stream]
        self._finished(environment_id)
        error_type = _error.decode(frame.head).error_type if is_error else ""
        _settle(running, Outcome(frame.payload, self.key.version, environment_id, is_error, error_type))

    def _finished(self, environment_id: str) -> None:
        self.pool.finished(environment_id)
        if self.pool.is_drained(environment_id):
            self.drained()

    def _rejected(self, environment_id: str, frame: Frame) -> None:
        running = self._alive.get(frame.stream)
        if running is None or running.environment_id != environment_id:
            return
        log.info(
            "invocation-rejected",
            extra={"environment": environment_id, "because": _reject.decode(frame.head).because},
        )
        if running.silence:
            running.silence.cancel()
        running.environment_id = ""
        decision = self.pool.again(running.ticket, environment_id, time.monotonic(), self.patience_s)
        if isinstance(decision, Granted):
            self._deliver(running, decision.environment_id)
        else:
            self._watch_line()
            self.demand_changed(self)

    def _silent(self, ticket: int) -> None:
        """The agent said nothing although the deadline is long over."""
        running = self._alive.get(ticket)
        if running is not None:
            log.error("invocation-unanswered", extra={"environment": running.environment_id, "lane": str(self.key)})
            self._finished(running.environment_id)
            self._fail(ticket, ServiceFailure(f"The execution environment {running.environment_id} does not answer."))

    def _fail(self, ticket: int, error: DomainError) -> None:
        running = self._alive.pop(ticket)
        if running.silence:
            running.silence.cancel()
        if not running.future.done():
            running.future.set_exception(error)

    def _watch_line(self) -> None:
        """Make sure that we wake when the first deadline in the line passes."""
        deadline = self.pool.next_deadline()
        if deadline is None or self._expiry is not None:
            return
        delay = max(0.0, deadline - time.monotonic())
        self._expiry = asyncio.get_running_loop().call_later(delay, self._expire)

    def _expire(self) -> None:
        self._expiry = None
        for ticket in self.pool.expired(time.monotonic()):
            self._fail(ticket, _throttled(f"no slot came free within {self.patience_s:g} s"))
        self._watch_line()


def stream_ids(first: int) -> Iterator[int]:
    """Numbers for invocations, which are stream ids on the links: 32 bits, never 0, round and round. Nothing runs long enough to meet itself."""
    yield from range(first, 1 << 32)
    while True:
        yield from range(1, 1 << 32)


def _settle(running: Running, outcome: Outcome) -> None:
    if running.silence:
        running.silence.cancel()
    if not running.future.done():
        running.future.set_result(outcome)


def _throttled(because: str) -> TooManyRequests:
    return TooManyRequests(
        f"Rate Exceeded. ({because})",
        Reason="ConcurrentInvocationLimitExceeded",
        Type="User",
        retryAfterSeconds="1",
    )
