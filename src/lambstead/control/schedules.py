"""Fires schedules that are due.

    store ──due──► core.schedules.fire ──► one transaction: the event into the queue of asynchronous invocations, and the next time of the schedule

The transaction checks that the schedule still has the time that was read: whatever changed it, or a second look at the same row, fires nothing. So a
crash at any moment loses no scheduled time and fires none twice. An invocation that is refused (a throttle, a full queue) becomes a row of its own
and is tried again as the schedule's retry policy says; a synchronous one is a row from the start, because it runs longer than a transaction.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

from lambstead.control.invoke_path import Invocations
from lambstead.control.loop import end
from lambstead.core.arn import Realm
from lambstead.core.errors import DomainError
from lambstead.core.event_queue import RetryPolicy
from lambstead.core.schedule_targets import (
    GiveUp,
    ScheduledInvocation,
    TargetCall,
    TryAgain,
    after_refusal,
    too_old,
)
from lambstead.core.schedules import Firing, Schedule, fire
from lambstead.core.traces import trace_header
from lambstead.store.port import Store, Transaction

log = logging.getLogger(__name__)

MAX_PER_ROUND = 100
"""Schedules that are fired side by side: they share commits."""
MAX_RUNNING = 50
"""Waiting invocations that are attempted at once."""
LEASE = timedelta(minutes=20)
"""How long a claim of an invocation holds: longer than a synchronous one can run."""


class InvokeEvent(Protocol):
    """What Invoke with InvocationType Event does: the same function, handed in."""

    async def __call__(self, request_id: str, call: TargetCall, also: Callable[[Transaction], None]) -> None:
        """Take the invocation; `also` is written in the same transaction. Raises DomainError, and what `also` raises."""


class _Superseded(Exception):
    """What a transaction wanted to take is not there any more: somebody else has taken or changed it."""


class Schedules:
    """The loop's body; see the module. `start` once before the first round."""

    def __init__(
        self,
        *,
        store: Store,
        invoke_event: InvokeEvent,
        invocations: Invocations,
        can_reach: Callable[[str], bool],
        realm: Realm,
        policy: RetryPolicy,
        now: Callable[[], datetime],
        draw: Callable[[], float],
        poke: Callable[[], None],
        wake_events: Callable[[], None],
    ) -> None:
        """`can_reach` knows whether an endpoint is configured for the service in an ARN, `draw` gives random numbers from 0 up to 1 for flexible
        windows, `wake_events` wakes the loop that sends dead letters.
        """
        self._store = store
        self._invoke_event = invoke_event
        self._invocations = invocations
        self._can_reach = can_reach
        self._realm = realm
        self._policy = policy
        self._now = now
        self._draw = draw
        self._poke = poke
        self._wake_events = wake_events
        self._owner = str(uuid.uuid4())
        self._running: dict[str, asyncio.Task[None]] = {}
        self._is_stopping = False

    async def start(self) -> None:
        """Take back what an earlier run of the server had claimed. This server must be the only one on its store."""
        await self._store.write(lambda tx: tx.release_scheduled_invocations(self._now()))

    async def stop(self, grace: timedelta) -> None:
        """Fire nothing more and let what runs end for `grace`. What does not is run again by the next server."""
        self._is_stopping = True
        await end(self._running.values(), grace)

    # --- the loop's body ---------------------------------------------------------------------------------------------------

    async def reconcile(self) -> timedelta | None:
        """One round: fire what is due, attempt what waits. Returns how soon something will be due that nobody pokes for."""
        if self._is_stopping:
            return None
        now = self._now()
        due, waiting = await self._store.read(
            lambda reader: (reader.due_schedules(now, MAX_PER_ROUND), reader.next_scheduled_invocation())
        )
        failures = await asyncio.gather(*(self._fire(schedule) for schedule in due), return_exceptions=True)
        room = MAX_RUNNING - len(self._running)
        if waiting is not None and waiting <= now and room > 0:
            claimed = await self._store.write(
                lambda tx: tx.claim_scheduled_invocations(self._owner, now, now + LEASE, room)
            )
            self._start_attempts(claimed)
        # One broken schedule must neither hold up the others nor vanish: all of them had their turn, now the loop logs it.
        for failure in failures:
            if failure is not None:
                raise failure
        return await self._until_next()

    async def _until_next(self) -> timedelta | None:
        schedule, invocation = await self._store.read(
            lambda reader: (reader.next_schedule(), reader.next_scheduled_invocation())
        )
        dues = [schedule] if schedule is not None else []
        if invocation is not None and len(self._running) < MAX_RUNNING:
            dues.append(invocation)
        # A moment more than nothing: a row's time is kept in whole milliseconds.
        return max(min(dues) - self._now(), timedelta(milliseconds=1)) if dues else None

    # --- a schedule that is due ----------------------------------------------------------------------------------------------

    async def _fire(self, schedule: Schedule) -> None:
        assert schedule.upcoming is not None
        now = self._now()
        if schedule.upcoming.due > now:
            return  # its row's time is rounded to a millisecond
        firing = fire(schedule.timing, schedule.upcoming, now, self._draw())
        invocation = ScheduledInvocation(
            str(uuid.uuid4()), schedule.arn, schedule.target, firing.scheduled_at, firing.since
        )
        await self._deliver(invocation, lambda tx: _advance(tx, schedule, firing))
        log.info(
            "schedule-fired",
            extra={"schedule": schedule.arn, "scheduled_at": firing.scheduled_at.isoformat(), "id": invocation.id},
        )

    async def _deliver(self, invocation: ScheduledInvocation, take: Callable[[Transaction], None]) -> None:
        """Attempt an invocation. `take` takes what it comes from out of the store, in the transaction that settles the attempt."""
        execution_id = uuid.uuid4().hex[:16]
        try:
            outcome = await self._attempt(invocation, take, execution_id)
        except _Superseded:
            return
        except DomainError as error:
            outcome = after_refusal(invocation, error, execution_id, self._policy, self._now())
        if outcome is not None:
            await self._settle(outcome, take)

    async def _attempt(
        self, invocation: ScheduledInvocation, take: Callable[[Transaction], None], execution_id: str
    ) -> TryAgain | GiveUp | None:
        """None if the attempt was settled; else what is to be settled. Raises DomainError if the target refused it."""
        now = self._now()
        if (over := too_old(invocation, execution_id, now)) is not None:
            return over
        call = invocation.call(execution_id, self._realm)
        if not call.is_synchronous:
            await self._invoke_event(str(uuid.uuid4()), call, take)
            return None
        if invocation.id not in self._running:
            return TryAgain(invocation, now)  # it becomes a row, and runs from there
        target = await self._invocations.resolve(call.ref)
        answer = await self._invocations.run(
            target,
            request_id=invocation.id,  # also the name of a durable function's execution: an attempt after a crash finds it again
            payload=call.payload or b"{}",
            trace_id=trace_header("", now, str(uuid.uuid4())),
            client_context=call.client_context,
            tenant_id=call.tenant_id,
        )
        # A function error is an answer of Invoke like any other: the schedule has done its part.
        log.info("schedule-invoked", extra={"schedule": invocation.schedule_arn, "is_error": answer.is_error})
        await self._store.write(take)
        return None

    async def _settle(self, outcome: TryAgain | GiveUp, take: Callable[[Transaction], None]) -> None:
        invocation = outcome.invocation
        letter = outcome.dead_letter if isinstance(outcome, GiveUp) else None
        reachable = letter is not None and self._can_reach(letter.target)

        def work(tx: Transaction) -> None:
            take(tx)
            if isinstance(outcome, TryAgain):
                tx.enqueue_scheduled_invocation(outcome.invocation, outcome.due)
            elif letter is not None and reachable:
                tx.enqueue_delivery(letter, self._now())

        try:
            await self._store.write(work)
        except _Superseded:
            return
        if isinstance(outcome, TryAgain):
            self._poke()
            return
        where = {"schedule": invocation.schedule_arn, "id": invocation.id, "because": outcome.because}
        log.warning("schedule-gave-up", extra={**where, "dead_letter_queue": letter.target if letter else None})
        if letter is not None and not reachable:
            log.warning("schedule-undeliverable", extra={**where, "target": letter.target})
        self._wake_events()

    # --- invocations that wait -----------------------------------------------------------------------------------------------

    def _start_attempts(self, claimed: Iterable[ScheduledInvocation]) -> None:
        for invocation in claimed:
            if invocation.id in self._running:
                continue  # its lease ran out while the loop was held up; it still runs
            task = asyncio.create_task(self._live(invocation), name=f"scheduled invocation {invocation.id}")
            self._running[invocation.id] = task
            task.add_done_callback(lambda _, each=invocation.id: self._ended(each))  # type: ignore[misc]  # mypy cannot infer lambdas with defaults

    def _ended(self, invocation_id: str) -> None:
        del self._running[invocation_id]
        self._poke()

    async def _live(self, invocation: ScheduledInvocation) -> None:
        def take(tx: Transaction) -> None:
            if not tx.delete_scheduled_invocation(invocation.id, self._owner):
                raise _Superseded

        try:
            await self._deliver(invocation, take)
        except Exception:
            # Task boundary. The row stays ours until its lease runs out; then the invocation is attempted again.
            log.exception("scheduled-invocation-broke", extra={"id": invocation.id})


def _advance(tx: Transaction, schedule: Schedule, firing: Firing) -> None:
    """Write the next time of a schedule that is fired now. Raises _Superseded if it has another time than the one that is fired."""
    current = tx.schedule(schedule.group, schedule.name)
    if current is None or current != schedule:
        raise _Superseded
    if firing.upcoming is None and schedule.deletes_itself:
        tx.delete_schedule(schedule.group, schedule.name)
    else:
        tx.save_schedule(replace(schedule, upcoming=firing.upcoming))
