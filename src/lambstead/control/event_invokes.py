"""Runs asynchronous invocations from the queue, tries them again, and tells destinations how they ended.

    store ──claim──► run ──► core.event_queue.after_run ──► one transaction: put back, or forget and queue what is to be told

An event is claimed by a lease in its row and run through the same invoke path as every other invocation. Whatever follows from its end is
written in the transaction that takes it out of the queue, so a crash at any moment loses nothing; one between a run and its settlement has the
event run again, which AWS allows too. A destination that is a function of ours is an event in that same transaction; messages to other
services are rows that the loop sends until they arrive or have failed too often.
"""

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Protocol, assert_never

from lambstead.control.invoke_path import Invocations
from lambstead.control.loop import end
from lambstead.core.arn import LATEST, FunctionRef, Realm
from lambstead.core.configurations import Configuration
from lambstead.core.errors import DomainError
from lambstead.core.event_invokes import EventInvokeConfig
from lambstead.core.event_queue import (
    MAX_PAYLOAD_BYTES,
    Answered,
    Circumstances,
    Condition,
    Decision,
    Delivery,
    DeliveryFailed,
    Drop,
    Finish,
    QueuedEvent,
    Response,
    RetryPolicy,
    RunEnd,
    TryAgain,
    Unwanted,
    after_run,
    before_run,
    effective_qualifier,
    json_text,
    messages_of,
    refusal_of,
)
from lambstead.core.lineage import arrive
from lambstead.store.port import Reader, Store, Transaction

log = logging.getLogger(__name__)

MAX_RUNNING = 500
"""Events that run at once; the others wait in the queue."""
MAX_RUNNING_PER_FUNCTION = 100
"""One function's backlog must leave room for others', and its line on the invoke path room for callers that wait."""
MAX_SENDING = 20
"""Messages to other services under way at once."""
LEASE = timedelta(minutes=5)
"""How long a claim holds without being extended; rounds of the loop extend it while the event runs."""


class Destinations(Protocol):
    """Queues, topics, event buses and buckets of other services."""

    def can_reach(self, arn: str) -> bool:
        """True when an endpoint is configured for the service in this ARN."""

    async def send(self, delivery: Delivery) -> None:
        """Send one message. Raises DeliveryFailed."""


@dataclass(slots=True)
class Counts:
    """What happened since the server started, for `status`."""

    ended: Counter[str] = field(default_factory=Counter)
    """Events by the condition of their end."""
    dropped: Counter[str] = field(default_factory=Counter)
    """By function: events whose function was gone."""
    destination_delivery_failures: Counter[str] = field(default_factory=Counter)
    """By function: invocation records that no destination got."""
    dead_letter_errors: Counter[str] = field(default_factory=Counter)
    """By function: dead letters that no queue or topic got."""


@dataclass(frozen=True, slots=True)
class _Settled:
    """What came of a settlement, for logs and counts."""

    decision: Decision
    undeliverable: tuple[tuple[Delivery, str], ...] = ()


class EventInvokes:
    """The loop's body; see the module. `start` once before the first round."""

    def __init__(
        self,
        *,
        store: Store,
        invocations: Invocations,
        destinations: Destinations,
        realm: Realm,
        policy: RetryPolicy,
        now: Callable[[], datetime],
        poke: Callable[[], None],
    ) -> None:
        self._store = store
        self._invocations = invocations
        self._destinations = destinations
        self._realm = realm
        self._policy = policy
        self._now = now
        self._poke = poke
        self._owner = str(uuid.uuid4())
        self._running: dict[str, tuple[str, asyncio.Task[None]]] = {}
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._extended_at = now()
        self._told: set[tuple[str, str]] = set()
        self._is_stopping = False
        self.counts = Counts()

    @property
    def running(self) -> int:
        """Events that run now."""
        return len(self._running)

    async def start(self) -> None:
        """Take back what an earlier run of the server had claimed. This server must be the only one on its store."""
        await self._store.write(lambda tx: tx.release_leases(self._now()))

    async def stop(self, grace: timedelta) -> None:
        """Claim nothing more and let what runs end for `grace`. What does not is run again by the next server."""
        self._is_stopping = True
        await end(self._tasks(), grace)

    async def idle(self) -> None:
        """Return once nothing runs that was running at the call."""
        tasks = self._tasks()
        if tasks:
            await asyncio.wait(tasks)

    def _tasks(self) -> list["asyncio.Task[None]"]:
        return [*(task for _, task in self._running.values()), *self._sending.values()]

    # --- the loop's body ---------------------------------------------------------------------------------------------------

    async def reconcile(self) -> timedelta | None:
        """One round: claim what is due and start it. Returns how soon something will be due that nobody pokes for."""
        if self._is_stopping:
            return None
        await self._extend_leases()
        now = self._now()
        first_events, first_delivery = await self._store.read(lambda r: (r.next_events(), r.next_delivery()))
        if any(due <= now for function, due in first_events if self._room(function)):
            for event, payload in await self._store.write(lambda tx: self._claim(tx, now)):
                self._start_run(event, payload)
        if first_delivery is not None and first_delivery <= now:
            room = MAX_SENDING - len(self._sending)
            for delivery in await self._store.write(
                lambda tx: tx.claim_deliveries(self._owner, now, now + LEASE, room)
            ):
                self._start_sending(delivery)
        return await self._until_next()

    async def _until_next(self) -> timedelta | None:
        """Time to the first row that there is room for; whatever ends a run or a send pokes the loop."""
        events, delivery = await self._store.read(lambda r: (r.next_events(), r.next_delivery()))
        dues = [due for function, due in events if self._room(function)]
        if delivery is not None and len(self._sending) < MAX_SENDING:
            dues.append(delivery)
        # A moment more than nothing: a row's time is kept in whole milliseconds.
        return max(min(dues) - self._now(), timedelta(milliseconds=1)) if dues else None

    def _room(self, function: str) -> int:
        """How many more events of the function may run."""
        of_function = sum(1 for name, _ in self._running.values() if name == function)
        return max(0, min(MAX_RUNNING - len(self._running), MAX_RUNNING_PER_FUNCTION - of_function))

    def _claim(self, tx: Transaction, now: datetime) -> list[tuple[QueuedEvent, bytes]]:
        """Take what is due, the function that has waited longest first."""
        claimed: list[tuple[QueuedEvent, bytes]] = []
        for function, due in sorted(tx.next_events(), key=lambda each: each[1]):
            room = min(self._room(function), MAX_RUNNING - len(self._running) - len(claimed))
            if due <= now and room > 0:
                claimed += tx.claim_events(function, self._owner, now, now + LEASE, room)
        return claimed

    async def _extend_leases(self) -> None:
        now = self._now()
        if now - self._extended_at < LEASE / 3 or not (self._running or self._sending):
            return
        events, deliveries = list(self._running), list(self._sending)

        def work(tx: Transaction) -> None:
            for request_id in events:
                tx.extend_event(request_id, self._owner, now + LEASE)
            for delivery_id in deliveries:
                tx.extend_delivery(delivery_id, self._owner, now + LEASE)

        await self._store.write(work)
        self._extended_at = now

    # --- one event -----------------------------------------------------------------------------------------------------------

    def _start_run(self, event: QueuedEvent, payload: bytes) -> None:
        if event.request_id in self._running:
            return  # its lease ran out while the loop was held up; it still runs
        task = asyncio.create_task(self._live(event, payload), name=f"event {event.request_id}")
        self._running[event.request_id] = (event.function, task)
        task.add_done_callback(lambda _: self._run_ended(event.request_id))

    def _run_ended(self, request_id: str) -> None:
        del self._running[request_id]
        self._poke()

    async def _live(self, event: QueuedEvent, payload: bytes) -> None:
        """Run one event and settle it."""
        try:
            configuration, end = await self._run(event, payload)
            now = self._now()
            settled = await self._store.write(lambda tx: self._settle(tx, event, payload, end, configuration, now))
        except Exception:
            # Task boundary. The row stays ours until its lease runs out; then the event is run again.
            log.exception("event-run-broke", extra={"request_id": event.request_id, "function": event.function})
            return
        if settled is None:
            log.warning("event-lost-lease", extra={"request_id": event.request_id, "function": event.function})
        else:
            self._note(settled)

    async def _run(self, event: QueuedEvent, payload: bytes) -> tuple[Configuration | None, RunEnd | Finish]:
        """Run the event unless it is over already. Returns the configuration that it ran with, if one did, and its end."""
        circumstances = await self._store.read(lambda reader: self._circumstances(reader, event, None))
        if circumstances is None:
            return None, Unwanted("the function does not exist any more")
        finish = before_run(event, circumstances, self._now())
        if finish is not None:
            return None, finish
        configuration = None
        try:
            target = replace(await self._invocations.resolve(event.ref), is_asynchronous=True)
            configuration = target.publication.configuration
            answer = await self._invocations.run(
                target,
                request_id=event.request_id,
                payload=payload,
                trace_id=event.trace_id,
                client_context=event.client_context,
                tenant_id=event.tenant_id,
            )
        except DomainError as error:
            return configuration, refusal_of(error)
        return configuration, Answered(Response(answer.executed_version, json_text(answer.payload), answer.is_error))

    def _circumstances(
        self, reader: Reader, event: QueuedEvent, configuration: Configuration | None
    ) -> Circumstances | None:
        """What is configured for the event now; None if its function is gone. `configuration` is what it ran with, if it did."""
        latest = reader.version(event.function, LATEST)
        if latest is None:
            return None
        qualifier = effective_qualifier(event, managed=latest.is_managed)
        recorded = (configuration or latest.configuration).recorded
        own = reader.settings(event.function)
        return Circumstances(
            config=reader.event_invoke_config(event.function, qualifier) or EventInvokeConfig(),
            function_arn=self._realm.function_arn(event.function, qualifier),
            dead_letter_target=(recorded.get("DeadLetterConfig") or {}).get("TargetArn") or None,
            reserved_concurrency=own.reserved_concurrency,
            may_loop=own.recursive_loop == "Allow",
        )

    def _settle(
        self,
        tx: Transaction,
        event: QueuedEvent,
        payload: bytes,
        end: RunEnd | Finish,
        configuration: Configuration | None,
        now: datetime,
    ) -> _Settled | None:
        """Write what follows from the end of a run; None if the event is not ours any more."""
        circumstances = self._circumstances(tx, event, configuration)
        if circumstances is None:
            decision: Decision = Drop(event, "the function does not exist any more")
        elif isinstance(end, Finish):
            decision = end
        else:
            decision = after_run(event, end, circumstances.config, self._policy, now)
        match decision:
            case TryAgain(again, due):
                return _Settled(decision) if tx.reschedule_event(again, self._owner, due) else None
            case Drop():
                return _Settled(decision) if tx.delete_event(event.request_id, self._owner) else None
            case Finish():
                assert circumstances is not None
                if not tx.delete_event(event.request_id, self._owner):
                    return None
                return _Settled(decision, self._tell(tx, decision, circumstances, payload, now))
            case _:
                assert_never(decision)

    def _tell(
        self, tx: Transaction, finish: Finish, circumstances: Circumstances, payload: bytes, now: datetime
    ) -> tuple[tuple[Delivery, str], ...]:
        """Queue the messages that the end of an event causes. Returns those that cannot go anywhere, and why."""
        undeliverable: list[tuple[Delivery, str]] = []
        for message in messages_of(finish, circumstances, json_text(payload), now):
            if message.target.split(":")[2:3] == ["lambda"]:
                problem = self._invoke_destination(tx, message, finish.event, now)
            elif self._destinations.can_reach(message.target):
                problem = None
                tx.enqueue_delivery(message, now)
            else:
                problem = "no endpoint is configured for its service"
            if problem is not None:
                undeliverable.append((message, problem))
        return tuple(undeliverable)

    def _invoke_destination(self, tx: Transaction, message: Delivery, cause: QueuedEvent, now: datetime) -> str | None:
        """Queue an asynchronous invocation of a destination function; why not, if it cannot be."""
        try:
            ref = FunctionRef.parse(message.target, self._realm)
        except DomainError as error:
            return error.message
        if tx.version(ref.name, LATEST) is None:
            return "the function does not exist"
        record = message.body.encode()
        if len(record) > MAX_PAYLOAD_BYTES:
            return f"the record has {len(record)} bytes, more than an asynchronous invocation may carry"
        step = arrive(cause.trace_id, self._realm.function_arn(ref.name))
        event = QueuedEvent(
            request_id=str(uuid.uuid4()),
            function=ref.name,
            qualifier=ref.qualifier,
            accepted_at=now,
            trace_id=step.trace_header,
            is_looping=step.is_loop,
        )
        tx.enqueue_event(event, record, now)
        return None

    def _note(self, settled: _Settled) -> None:
        decision = settled.decision
        fields = {"request_id": decision.event.request_id, "function": decision.event.function}
        match decision:
            case TryAgain(_, due, because):
                log.info("event-retried", extra={**fields, "due": due.isoformat(), "because": because})
            case Drop(event, because):
                self.counts.dropped[event.function] += 1
                log.warning("event-dropped", extra={**fields, "because": because})
            case Finish(_, condition, invoke_count):
                self.counts.ended[condition] += 1
                level = logging.DEBUG if condition is Condition.SUCCESS else logging.INFO
                log.log(level, "event-ended", extra={**fields, "condition": condition, "runs": invoke_count})
        for message, because in settled.undeliverable:
            self._count_failure(message, because)

    # --- messages to other services ----------------------------------------------------------------------------------------

    def _start_sending(self, delivery: Delivery) -> None:
        if delivery.id in self._sending:
            return
        task = asyncio.create_task(self._send(delivery), name=f"delivery {delivery.id}")
        self._sending[delivery.id] = task
        task.add_done_callback(lambda _: self._send_ended(delivery.id))

    def _send_ended(self, delivery_id: str) -> None:
        del self._sending[delivery_id]
        self._poke()

    async def _send(self, delivery: Delivery) -> None:
        try:
            await self._destinations.send(delivery)
        except DeliveryFailed as failure:
            await self._failed_to_send(delivery, str(failure))
            return
        except Exception:
            log.exception("delivery-broke", extra={"delivery": delivery.id, "target": delivery.target})
            await self._failed_to_send(delivery, "it could not be sent; the log has the details")
            return
        await self._store.write(lambda tx: tx.delete_delivery(delivery.id, self._owner))

    async def _failed_to_send(self, delivery: Delivery, because: str) -> None:
        failed = replace(delivery, attempts=delivery.attempts + 1)
        if failed.is_over:
            await self._store.write(lambda tx: tx.delete_delivery(failed.id, self._owner))
            self._count_failure(failed, because)
            return
        due = self._now() + self._policy.refusal_delay(failed.attempts)
        await self._store.write(lambda tx: tx.reschedule_delivery(failed, self._owner, due))
        log.info("delivery-retried", extra={"delivery": failed.id, "target": failed.target, "because": because})

    def _count_failure(self, message: Delivery, because: str) -> None:
        """Count a message that nobody got, and log the first of each function and target."""
        counter = (
            self.counts.dead_letter_errors if message.is_dead_letter else self.counts.destination_delivery_failures
        )
        counter[message.function] += 1
        key = (message.function, message.target)
        if key not in self._told:
            self._told.add(key)
            log.warning(
                "event-undeliverable",
                extra={"function": message.function, "target": message.target, "because": because},
            )
