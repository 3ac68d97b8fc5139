"""Invoke, from a function reference to an outcome: route, admit, deliver, settle.

    Invoke → Routes (which publication) → Ledger (concurrency left) → Lane (which slot) → link → environment → link → Lane → caller

One `Invoker` serves all publications of a gateway. Control tells it which environment belongs to which publication before the environment's
link arrives, and when to drain one; it tells control, through `demand`, how many invocations of standard functions run or wait.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from lambstead.core.account import CONCURRENT_EXECUTIONS
from lambstead.core.admission import Load
from lambstead.core.arn import FunctionRef, Realm
from lambstead.core.concurrency import Drawn, Exhausted, Held, Ledger
from lambstead.core.demand import Counts
from lambstead.core.errors import DomainError, NeedsOrdinaryWay, TooManyRequests
from lambstead.core.fleet import PublicationKey
from lambstead.core.invocations import FunctionSnapshot, Target, resolve
from lambstead.core.streaming import BYTES_PER_SECOND
from lambstead.core.tenancy import check_tenant
from lambstead.core.throttles import Cause, Room, Throttles, throttled
from lambstead.dataplane.lane import Lane, Link, Settle
from lambstead.dataplane.outcomes import Invocation, Outcome
from lambstead.dataplane.records import PlatformRecords
from lambstead.dataplane.routes import Routes
from lambstead.dataplane.streams import Parts, ResponseStream
from lambstead.dataplane.turns import Turns
from lambstead.link.connection import LinkConnection
from lambstead.link.frames import Frame

MAX_TARGETS = 10_000
"""References whose target is remembered; beyond that all are forgotten."""
_OF_THE_ACCOUNT = Room(Cause.ACCOUNT_CONCURRENCY)


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how many may wait."""

    slot_wait_s: float
    """Managed functions: how long for a slot to come free."""
    cold_start_wait_s: float
    """Standard functions: how long for an environment to be started, init included."""
    max_waiting: int
    """Invocations in line per publication."""
    concurrent_executions: int = CONCURRENT_EXECUTIONS
    """The account's limit of standard invocations at once; what functions have reserved or provisioned is part of it."""
    stream_bytes_per_s: int = BYTES_PER_SECOND
    """How fast a streamed response may flow after its burst."""


@dataclass(slots=True)
class _Expected:
    """An environment that was ordered: where its link will belong."""

    lane: Lane
    zone: str
    draining: bool = False
    """Drained before its link arrived, which then offers its slots in vain."""


class Invoker:
    """See the module. All methods belong to the event loop of the gateway."""

    def __init__(
        self,
        routes: Routes,
        realm: Realm,
        limits: Limits,
        records: PlatformRecords,
        throttles: Throttles,
        demand_changed: Callable[[], None],
        refusal: Callable[[str, str], TooManyRequests | None] | None = None,
    ) -> None:
        """`refusal` may refuse invocations of a function and version that are well formed: faults on demand."""
        self._throttles = throttles
        self._routes = routes
        self._realm = realm
        self._limits = limits
        self._records = records
        self._demand_changed = demand_changed
        self._refusal = refusal
        self.freed: Callable[[Room], None] = lambda room: None
        """Called when there is room for one invocation again that nobody in line takes."""
        self._lanes: dict[PublicationKey, Lane] = {}
        self._standard: set[PublicationKey] = set()
        self._targets: dict[FunctionRef, tuple[FunctionSnapshot, Target]] = {}
        """Targets that are the same for every invocation, and the snapshots that say so."""
        self._ledger = Ledger()
        self._turns = Turns()
        self._expected: dict[str, _Expected] = {}
        self._moving: set[asyncio.Task[None]] = set()
        self._lookups: set[asyncio.Task[None]] = set()

    # --- callers -------------------------------------------------------------------------------------------------------

    async def resolve(self, ref: FunctionRef) -> Target:
        """The target of an invocation. Raises what AWS answers when there is none."""
        snapshot = self._routes.known(ref.name) or await self._routes.snapshot(ref.name)
        return self._target(snapshot, ref)

    def _target(self, snapshot: FunctionSnapshot | None, ref: FunctionRef) -> Target:
        remembered = self._targets.get(ref)
        if remembered is not None and remembered[0] is snapshot:
            return remembered[1]
        target = resolve(snapshot, ref, self._realm, random.random())
        if snapshot is not None and ref.qualifier not in snapshot.aliases:  # an alias draws anew each time
            if len(self._targets) >= MAX_TARGETS:
                self._targets.clear()
            self._targets[ref] = snapshot, target
        return target

    async def invoke(self, target: Target, invocation: Invocation) -> Outcome:
        """Run one event to its settlement.

        Raises TooManyRequests when the function's or the account's concurrency is used up or no slot comes free, ServiceFailure when the
        platform lost it.
        """
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def settle(outcome: Outcome | DomainError) -> None:
            if future.done():
                return  # the caller was cancelled
            if isinstance(outcome, Outcome):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)

        self.submit(target, invocation, settle)
        return await future

    def stream(self, target: Target, invocation: Invocation) -> ResponseStream:
        """Run one event; its answer can be read as it comes. Raises TooManyRequests as `submit` does."""
        stream = ResponseStream(self._limits.stream_bytes_per_s)
        self.submit(target, invocation, stream.settle, stream)
        return stream

    def start(self, ref: FunctionRef, invocation: Invocation, settle: Settle, stream: Parts | None = None) -> None:
        """Run one event of what `ref` names; `settle` hears how it ended or why it was refused, exactly once. Never raises.

        A durable function is not run here: `settle` hears NeedsOrdinaryWay.
        """
        snapshot = self._routes.known(ref.name)
        if snapshot is None:
            task = asyncio.create_task(self._start_unknown(ref, invocation, settle, stream), name="invoke look-up")
            self._lookups.add(task)
            task.add_done_callback(self._lookups.discard)
            return
        try:
            self._start(self._target(snapshot, ref), invocation, settle, stream)
        except DomainError as error:
            settle(error)

    async def _start_unknown(
        self, ref: FunctionRef, invocation: Invocation, settle: Settle, stream: Parts | None
    ) -> None:
        """The function is not in memory: it is read from the store first."""
        try:
            self._start(await self.resolve(ref), invocation, settle, stream)
        except DomainError as error:
            settle(error)

    def _start(self, target: Target, invocation: Invocation, settle: Settle, stream: Parts | None) -> None:
        if target.publication.configuration.durable is not None:
            raise NeedsOrdinaryWay("A durable function is invoked by an operation of the API.")
        self.submit(target, invocation, settle, stream)

    def submit(self, target: Target, invocation: Invocation, settle: Settle, stream: Parts | None = None) -> None:
        """Run one event; `settle` hears how it ended, exactly once, after `stream` got the parts of an answer that came in parts.

        Raises TooManyRequests when the function's or the account's concurrency is used up, or too many wait already, and
        InvalidParameterValue unless a tenant is named exactly if the function isolates tenants.
        """
        check_tenant(target.publication.configuration.tenant_isolation_mode, invocation.tenant_id)
        refused = self._refusal(target.function, target.version) if self._refusal is not None else None
        if refused is not None:
            raise refused
        if target.publication.configuration.managed is not None:
            self._lane_of(target, "").submit(
                target, invocation, settle, stream
            )  # only slots count on a capacity provider
            return
        held = self._admit(target)

        def settled(outcome: Outcome | DomainError) -> None:
            self._ledger.settle(held)
            settle(outcome)
            if held.drawn is Drawn.UNRESERVED:
                self.freed(_OF_THE_ACCOUNT)
            else:
                self.freed(Room(Cause.RESERVED_CONCURRENCY, held.function))

        try:
            self._lane_of(target, invocation.tenant_id).submit(target, invocation, settled, stream)
        except TooManyRequests:
            self._ledger.settle(held)
            raise

    def _lane_of(self, target: Target, tenant_id: str) -> Lane:
        key = PublicationKey(target.function, target.version, target.publication.number, tenant_id)
        return self._lanes.get(key) or self._lane(key, managed=target.publication.configuration.managed is not None)

    def _admit(self, target: Target) -> Held:
        unreserved = self._limits.concurrent_executions - self._routes.concurrency_taken
        held = self._ledger.admit(target.function, target.version, target.limits, unreserved)
        if isinstance(held, Exhausted):
            reserved = held is Exhausted.RESERVATION
            cause = Cause.RESERVED_CONCURRENCY if reserved else Cause.ACCOUNT_CONCURRENCY
            self._throttles.add(target.function, target.version, cause)
            raise throttled(cause)
        return held

    # --- control ---------------------------------------------------------------------------------------------------------

    def expect(self, environment_id: str, key: PublicationKey, zone: str, *, managed: bool) -> None:
        """An environment is being started; its link will come and name it."""
        self._expected[environment_id] = _Expected(self._lanes.get(key) or self._lane(key, managed=managed), zone)

    def drain(self, environment_id: str) -> None:
        """Give the environment nothing more."""
        expected = self._expected.get(environment_id)
        if expected is not None:
            expected.draining = True
            expected.lane.drain(environment_id)
            self._move_line(expected.lane)

    def forget(self, environment_id: str) -> None:
        """The environment is over. Where its agent spoke for it, the end of that link says so, after its last words."""
        expected = self._expected.get(environment_id)
        if expected is not None and not expected.lane.has_agent_link(environment_id):
            del self._expected[environment_id]
            expected.lane.gone(environment_id)
            self._drop_if_unused(expected.lane)

    def ended(self, environment_id: str, error_type: str, story: str) -> None:
        """The agent says how the environment's runtime ended."""
        expected = self._expected.get(environment_id)
        if expected is not None:
            expected.lane.ended(environment_id, error_type, story)

    def init_failed(self, environment_id: str, error_type: str, document: bytes) -> None:
        """An environment failed to initialise: the standard invocation it was started for gets the error as its answer."""
        expected = self._expected.get(environment_id)
        if expected is not None and expected.lane.key in self._standard:
            expected.lane.answer_waiting(error_type, document)

    def demand(self) -> dict[PublicationKey, int]:
        """Standard publications, of each tenant if they isolate tenants, with invocations that run or wait, and how many."""
        lanes = (self._lanes[key] for key in self._standard if key in self._lanes)
        return {lane.key: count for lane in lanes if (count := lane.pool.running + lane.pool.waiting)}

    def loads(self) -> dict[str, Load]:
        """What every linked environment is doing."""
        found: dict[str, Load] = {}
        for lane in list(self._lanes.values()):
            found.update(lane.pool.loads())
            self._drop_if_unused(lane)
        return found

    def counts(self) -> dict[PublicationKey, Counts]:
        """What managed publications have served and refused since they were first invoked or expected, and how they stand now."""
        lanes = (lane for key, lane in self._lanes.items() if key not in self._standard)
        return {
            lane.key: Counts(lane.pool.running, lane.pool.waiting, lane.pool.ever_given, lane.throttled)
            for lane in lanes
        }

    def waiting(self) -> dict[PublicationKey, int]:
        """Invocations that wait for a slot, per publication."""
        return {key: lane.pool.waiting for key, lane in self._lanes.items() if lane.pool.waiting}

    # --- links -----------------------------------------------------------------------------------------------------------

    def link_arrived(
        self, environment_id: str, connection: LinkConnection, *, is_worker: bool, is_remote: bool = False
    ) -> Link | None:
        """Take a link into an environment; None if nobody ordered such an environment, or its agent's link is there already."""
        expected = self._expected.get(environment_id)
        if expected is None or expected.lane.has_agent_link(environment_id):
            return None
        link = Link(environment_id, connection, is_worker, is_remote)
        expected.lane.joined(link, expected.zone)
        if expected.draining:
            expected.lane.drain(environment_id)
        return link

    def link_frame(self, link: Link, frame: Frame) -> None:
        """A frame of a link that was taken."""
        expected = self._expected.get(link.environment_id)
        if expected is not None:
            expected.lane.frame_received(link, frame)

    def link_lost(self, link: Link, exc: Exception | None) -> None:
        """A link that was taken ended, with the connection's error if it had one."""
        expected = self._expected.get(link.environment_id)
        if expected is None:
            return
        expected.lane.link_lost(link, exc)
        if not link.is_worker:
            del self._expected[link.environment_id]
            self._demand_changed()
            self._drop_if_unused(expected.lane)

    def _move_line(self, lane: Lane) -> None:
        """Whoever waits for a publication that is being replaced shall be served by the one that replaced it."""
        if lane.pool.waiting and lane.pool.is_closing:
            task = asyncio.ensure_future(self._moved_line(lane))
            self._moving.add(task)
            task.add_done_callback(self._moving.discard)

    async def _moved_line(self, lane: Lane) -> None:
        key = lane.key
        snapshot = await self._routes.snapshot(key.function)
        version = snapshot.versions.get(key.version) if snapshot else None
        if version is None or version.serving is None or version.serving.number == key.number:
            return  # nobody else serves it: the line stays, and is refused when its time is over
        for waiting in lane.take_waiting():
            target = replace(waiting.target, publication=version.serving)
            try:
                # Not through `submit`: its share of the function's concurrency is held until it is settled, wherever that is.
                self._lane_of(target, key.tenant_id).submit(target, waiting.invocation, waiting.settle, waiting.stream)
            except DomainError as error:
                waiting.settle(error)
        self._drop_if_unused(lane)

    # --- inside ----------------------------------------------------------------------------------------------------------

    def _lane(self, key: PublicationKey, *, managed: bool) -> Lane:
        limits = self._limits
        room = Room(Cause.NO_SLOT, key.function)
        lane = Lane(
            key,
            limits.slot_wait_s if managed else limits.cold_start_wait_s,
            limits.max_waiting,
            (lambda _: None) if managed else (lambda _: self._demand_changed()),
            self._demand_changed,
            self._records,
            self._throttles,
            lambda: self.freed(room),
            self._turns,
        )
        self._lanes[key] = lane
        if not managed:
            self._standard.add(key)
        return lane

    def _drop_if_unused(self, lane: Lane) -> None:
        if lane.is_unused and not any(e.lane is lane for e in self._expected.values()):
            self._lanes.pop(lane.key, None)
            self._standard.discard(lane.key)
