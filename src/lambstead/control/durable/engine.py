"""The engine around the rules of durable executions: what is due is found here and sent through the one door.

    a change that wants an invocation ─┐
    a timer, timeout or retry is due ──┤
    room, for want of which it waits ──┼──► ready queue ──► advance: fire timers, begin, run the function, settle
    an errand of a CHAINED_INVOKE ─────┘

What is due stands in the store with its time. The loop looks at the earliest, sleeps until then, and keeps nothing of executions that sleep. A start
after a crash is the same loop, once invocations that a dead server left live are settled as lost.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

from lambstead.control.durable.chained import Errands
from lambstead.control.durable.executions import DurableExecutions, TimeSkipping
from lambstead.control.durable.interventions import Interventions
from lambstead.control.durable.invocations import DurableInvocations
from lambstead.control.durable.lanes import Lanes
from lambstead.control.durable.notices import Notices
from lambstead.control.durable.parked import Parked
from lambstead.control.durable.ready import ReadyQueue
from lambstead.control.invoke_path import Functions
from lambstead.core.arn import Realm
from lambstead.core.durable.lifecycle import Backoff
from lambstead.core.durable.model import Change, Execution, ExecutionStatus, State, StatusChanged
from lambstead.core.durable.records import Errand
from lambstead.core.durable.time_skip import wake_at
from lambstead.core.throttles import Room
from lambstead.store.port import Reader, Store, Transaction

log = logging.getLogger(__name__)

BATCH = 256
"""Executions, and errands, that one look at the store takes up."""
DELETE_ROWS = 1000
"""Operations and events that one transaction removes: others write in between."""
LOST = "The server that ran the function ended."


class DurableEngine:
    """See the module. `start` once before the first round of either loop."""

    def __init__(
        self,
        *,
        store: Store,
        functions: Functions,
        realm: Realm,
        backoff: Backoff,
        poke: Callable[[], None],
        poke_retention: Callable[[], None],
        time: TimeSkipping,
        notices: Notices,
    ) -> None:
        self._store = store
        self._poke = poke
        self._poke_retention = poke_retention
        self.notices = notices
        self._lanes = Lanes(store, utc_now)
        self._lanes.followers = self
        self._ready = ReadyQueue(poke)
        self._parked = Parked()
        self._invocations = DurableInvocations(
            self._lanes, functions, realm, backoff, utc_now, self._parked, self._advance
        )
        self._errands = Errands(store, self._lanes, functions, backoff, utc_now, self._parked, self._do)
        store.on_change(self._parked.changed)
        self.executions = DurableExecutions(store, self._lanes, functions, realm, utc_now, time)
        self.executions.started = self._started
        self.interventions = Interventions(
            store, self._lanes, functions, realm, utc_now, time.callback_grace, self.executions.adopt
        )
        self._wakes_at: datetime | None = None
        """When the loop will look at the store by itself; None while it looks, or when nothing is due ever."""

    @property
    def live(self) -> int:
        """Executions whose function runs now."""
        return self._lanes.live

    async def start(self) -> None:
        """Settle what an earlier server left live. This server must be the only one on its store."""
        await self.notices.start()
        lost = await self._store.read(lambda reader: reader.live_durable_executions())
        for first in range(0, len(lost), BATCH):
            batch = lost[first : first + BATCH]
            await asyncio.gather(*(self._invocations.lost(execution_id, LOST) for execution_id in batch))
        if lost:
            log.info("durable-invocations-lost", extra={"count": len(lost)})

    async def stop(self, grace: timedelta) -> None:
        """Begin nothing more, let running functions end for `grace`, and send waiting callers away."""
        self.executions.stop_waiting()
        await self._ready.close(grace)

    def forget(self) -> None:
        """Every execution was removed from the store."""
        self._lanes.forget()
        self._parked.clear()
        self.notices.forget()
        self.executions.forget()

    # --- what changes cause -------------------------------------------------------------------------------------------------

    def changed(self, state: State, change: Change, at: datetime | None) -> None:
        """See `lanes.Followers`."""
        execution = state.execution
        statuses = [each.status for each in change.effects if isinstance(each, StatusChanged)]
        if statuses:
            self.notices.written()
        if any(status.is_closed for status in statuses):
            self.executions.ended(execution)
        if execution.status is ExecutionStatus.DELETING:
            self._poke_retention()
        elif at is not None:
            self._wake(execution, at)

    def announce(self, tx: Transaction, change: Change) -> None:
        """See `lanes.Followers`."""
        self.notices.announce(tx, change)

    def errand_added(self) -> None:
        """See `lanes.Followers`."""
        self._poke()

    def _started(self, state: State) -> None:
        self.notices.written()
        at = wake_at(state)
        if at is not None:
            self._wake(state.execution, at)

    def _wake(self, execution: Execution, at: datetime) -> None:
        """Something happens to the execution at this time: now, or when the loop looks again."""
        if at <= utc_now() and execution.live is None:
            self._advance(execution.id)
        elif self._wakes_at is None or at < self._wakes_at:
            self._poke()

    def _advance(self, execution_id: str) -> None:
        self._ready.offer(execution_id, lambda: self._invocations.advance(execution_id))

    def _do(self, errand: Errand, room: Room | None = None) -> None:
        self._ready.offer(errand.key, partial(self._errands.do, errand, room))

    def freed(self, room: Room) -> None:
        """There is room for one invocation more on the invoke path: whatever was refused for want of it is tried again."""
        self._parked.freed(room)

    # --- the loops' bodies ------------------------------------------------------------------------------------------------------

    async def reconcile(self) -> timedelta | None:
        """Take up what is due. Returns how soon something will be that nobody pokes for."""
        self._wakes_at = None
        now = utc_now()
        limit = BATCH + self._ready.waiting

        def due(reader: Reader) -> tuple[list[str], list[Errand]]:
            return list(reader.due_durable_executions(now, limit)), list(reader.due_durable_errands(now, limit))

        executions, errands = await self._store.read(due)
        await asyncio.gather(*(self._take_up(each) for each in executions))
        for errand in errands:
            self._do(errand)
        more = max(len(executions), len(errands)) == limit and self._ready.has_room
        return timedelta(milliseconds=1) if more else await self._until_next(now)

    async def _take_up(self, execution_id: str) -> None:
        """An execution is due: its timers happen now, its function runs as soon as there is room."""
        is_live = self._lanes.is_live(execution_id)
        if is_live or not self._ready.has_room:
            await self._invocations.fire(execution_id)
        if not is_live:
            self._advance(execution_id)

    async def _until_next(self, now: datetime) -> timedelta | None:
        wake, errand = await self._store.read(lambda r: (r.next_durable_wake(now), r.next_durable_errand(now)))
        moments = [each for each in (wake, errand) if each is not None]
        if not moments:
            return None
        self._wakes_at = min(moments)
        return max(self._wakes_at - datetime.now(UTC), timedelta(milliseconds=1))

    async def remove_expired(self) -> timedelta | None:
        """Remove executions whose retention is over, or that were deleted. Returns how soon the next one is due."""
        while expired := await self._store.read(lambda r: r.expired_durable_executions(utc_now(), BATCH)):
            for execution_id in expired:
                await self._remove(execution_id)
        following = await self._store.read(lambda r: r.next_durable_expiry())
        return None if following is None else max(following - utc_now(), timedelta(milliseconds=1))

    async def _remove(self, execution_id: str) -> None:
        while not await self._store.write(lambda tx: tx.delete_durable_execution(execution_id, DELETE_ROWS)):
            pass


def utc_now() -> datetime:
    """Now in whole milliseconds, as the rules keep times."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
