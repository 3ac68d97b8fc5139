"""Lanes: one change of an execution after another, each durable before it counts.

A lane has the state of one execution in memory while somebody works on it or its function runs; every other execution is rows in the store only.
Whoever holds a lane makes a `Change` by a rule of `core.durable` and writes it. If the write fails, nobody knows what is on the disk: the state
is read again before the lane is used further.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from datetime import datetime
from typing import Protocol

from lambstead.core.durable.lifecycle import Start, start
from lambstead.core.durable.model import Change, Execution, State, StatusChanged
from lambstead.core.durable.records import Errand, is_shown
from lambstead.core.durable.time_skip import now_of, wake_at
from lambstead.store.port import Store, Transaction

Work = Callable[[Transaction], None]


class UnknownExecution(Exception):
    """There is no execution of this id, or it is gone by now."""


class Followers(Protocol):
    """Who hears of changes once they are durable."""

    def changed(self, state: State, change: Change, at: datetime | None) -> None:
        """The execution is now in this state; something happens to it by itself at this (real) time."""

    def announce(self, tx: Transaction, change: Change) -> None:
        """Write what else belongs to the transaction of a change."""

    def errand_added(self) -> None:
        """Something is to be done for a CHAINED_INVOKE."""


class Lane:
    """One execution in the hands of whoever holds it."""

    def __init__(self, execution_id: str, lanes: "Lanes") -> None:
        self.execution_id = execution_id
        self.lock = asyncio.Lock()
        self.users = 0
        self.loaded: State | None = None
        self._lanes = lanes

    @property
    def state(self) -> State:
        """The state as of the last durable change. Only for the holder, who was given a lane that is loaded."""
        if self.loaded is None:
            raise UnknownExecution(self.execution_id)
        return self.loaded

    @property
    def execution(self) -> Execution:
        return self.state.execution

    def now(self) -> datetime:
        """Now by the execution's own clock."""
        return now_of(self.execution, self._lanes.real_now())

    async def write(self, change: Change, *also: Work) -> State:
        """Make a change durable, in one transaction with what `also` does; the state after it."""
        after = change.applied_to(self.state)
        self.loaded = None
        await self._lanes.write(after, change, also)
        self.loaded = after
        self._lanes.tell(after, change)
        return after


class Lanes:
    """All lanes that are in memory."""

    def __init__(self, store: Store, now: Callable[[], datetime]) -> None:
        self._store = store
        self.real_now = now
        self._lanes: dict[str, Lane] = {}
        self.followers: Followers | None = None

    @property
    def live(self) -> int:
        """Executions in memory whose function runs."""
        return sum(1 for lane in self._lanes.values() if _is_live(lane))

    def is_live(self, execution_id: str) -> bool:
        """True when the function of this execution runs, as far as memory knows."""
        lane = self._lanes.get(execution_id)
        return lane is not None and _is_live(lane)

    @contextlib.asynccontextmanager
    async def hold(self, execution_id: str) -> AsyncGenerator[Lane, None]:
        """Have an execution to oneself, in order of asking. Raises UnknownExecution."""
        lane = self._lanes.get(execution_id)
        if lane is None:
            lane = self._lanes[execution_id] = Lane(execution_id, self)
        lane.users += 1
        try:
            async with lane.lock:
                if lane.loaded is None:
                    lane.loaded = await self._store.read(lambda reader: reader.durable_state(execution_id))
                if not is_shown(lane.execution, self.real_now()):
                    raise UnknownExecution(execution_id)
                yield lane
        finally:
            lane.users -= 1
            if not lane.users and not _is_live(lane):
                self._lanes.pop(execution_id, None)

    def forget(self) -> None:
        """Every execution was removed from the store."""
        for lane in self._lanes.values():
            lane.loaded = None
        self._lanes = {name: lane for name, lane in self._lanes.items() if lane.users}

    async def write(self, after: State, change: Change, also: tuple[Work, ...]) -> None:
        """One transaction: the change, what else belongs to it, and word for the parent if the execution ended."""
        at = wake_at(after)
        ended = _end_for_parent(change)
        now = self.real_now()

        def work(tx: Transaction) -> None:
            if not tx.save_durable_change(change, at):
                raise UnknownExecution(change.execution.id)
            self.announce(tx, change)
            if ended is not None:
                tx.save_durable_errand(ended, now)
            for each in also:
                each(tx)

        await self._store.write(work, refuses_first=not also)

    def tell(self, after: State, change: Change) -> None:
        """Let followers know of a durable change."""
        if self.followers is not None:
            self.followers.changed(after, change, wake_at(after))
            if _end_for_parent(change) is not None:
                self.followers.errand_added()

    def tell_errand(self) -> None:
        """Let followers know of an errand that is durable."""
        if self.followers is not None:
            self.followers.errand_added()

    def announce(self, tx: Transaction, change: Change) -> None:
        """Write what else belongs to the transaction of a change."""
        if self.followers is not None:
            self.followers.announce(tx, change)

    def adopt(self, state: State) -> None:
        """Keep the state of an execution that was just written, for whoever takes it up next."""
        execution_id = state.execution.id
        if execution_id not in self._lanes:
            lane = self._lanes[execution_id] = Lane(execution_id, self)
            lane.loaded = state


class Started:
    """A new execution: how it is written, and what follows once it is."""

    def __init__(self, state: State, change: Change, lanes: Lanes) -> None:
        self.state = state
        self.change = change
        self._lanes = lanes

    @classmethod
    def by(cls, order: Start, lanes: Lanes, now: datetime) -> "Started":
        """As `order` says."""
        return cls(*start(order, now), lanes)

    def write(self, tx: Transaction) -> None:
        """Insert it."""
        tx.start_durable_execution(self.state, self.change, wake_at(self.state))
        self._lanes.announce(tx, self.change)


def _is_live(lane: Lane) -> bool:
    return lane.loaded is not None and lane.loaded.execution.live is not None


def _end_for_parent(change: Change) -> Errand | None:
    """The errand of telling the parent, if this change ends an execution that has one."""
    parent = change.execution.parent
    ended = any(isinstance(each, StatusChanged) and each.status.is_closed for each in change.effects)
    if parent is None or not ended:
        return None
    return Errand(parent.execution_id, parent.operation_id, change.execution.id)
