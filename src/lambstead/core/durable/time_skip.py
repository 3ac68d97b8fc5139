"""Time skipping: an execution whose clock is moved to its next timer as soon as it has nothing to do but wait.

The clock of such an execution is the real one plus an offset that is kept with it and only grows. Its rules get that clock as `now`, so whatever they
write (history, timers, deadlines) is in the execution's own time and in order. It is moved when no invocation is live or wanted and no chained
invocation runs: those take real time. Beyond AWS; decision record 0032.

    idle ──► next timer is a wait, a retry, the execution's timeout ──► at once
         ──► next timer ends a callback                             ──► after a grace in real time: others may want to complete it
         ──► only callbacks without a timeout are open              ──► real time; somebody has to complete them
"""

from dataclasses import replace
from datetime import datetime, timedelta

from lambstead.core.durable import triggers
from lambstead.core.durable.model import (
    Change,
    Execution,
    ExecutionStatus,
    Operation,
    OperationType,
    State,
    TimeSkip,
)
from lambstead.core.errors import ResourceConflict


def now_of(execution: Execution, real: datetime) -> datetime:
    """The execution's own time at this moment."""
    return real if execution.skip is None else real + execution.skip.offset


def real_time(execution: Execution, own: datetime) -> datetime:
    """The real moment at which the execution's clock shows `own`, if it is not moved before."""
    return own if execution.skip is None else own - execution.skip.offset


def wake_at(state: State) -> datetime | None:
    """The real time at which something happens to the execution by itself, a skip included; None when it is closed."""
    own = triggers.wakes_at(state)
    if own is None or state.execution.skip is None:
        return own
    following = _next_skip(state)
    if following is not None:
        own = min(own, following[1])
    return real_time(state.execution, own)


def skip(state: State, now: datetime) -> Change | None:
    """Move the clock to the next timer if the execution only waits; `now` is its own time. None when it is to stay.

    What is due at the new time is left to `triggers.fire_due`.
    """
    following = _next_skip(state)
    if following is None or following[1] > now or following[0] <= now:
        return None
    return Change(_moved(state.execution, following[0] - now))


def begin(state: State, grace: timedelta, now: datetime) -> Change | None:
    """Let an execution skip time from now on. None if it does already; raises ResourceConflict when it has ended."""
    execution = state.execution
    if execution.status.is_closed:
        raise ResourceConflict(f"The durable execution can't skip time: its status is {execution.status}.")
    if execution.skip is not None:
        return None
    return Change(replace(execution, skip=TimeSkip(callback_grace=grace, idle_since=now)))


def idle(change: Change, now: datetime) -> Change:
    """The change with which an invocation ended: the grace of callbacks counts from here."""
    skip = change.execution.skip
    if skip is None:
        return change
    return replace(change, execution=replace(change.execution, skip=replace(skip, idle_since=now)))


def caught_up(state: State, child: Execution) -> Change | None:
    """A child execution ended at a later time than its parent's clock shows: the parent's clock follows. None if it need not."""
    mine, its = state.execution.skip, child.skip
    if mine is None or its is None or its.offset <= mine.offset:
        return None
    return Change(_moved(state.execution, its.offset - mine.offset))


def inherited(parent: Execution) -> TimeSkip | None:
    """What a child execution starts with: its parent's clock."""
    return None if parent.skip is None else replace(parent.skip, idle_since=None)


def _moved(execution: Execution, by: timedelta) -> Execution:
    assert execution.skip is not None
    return replace(execution, skip=replace(execution.skip, offset=execution.skip.offset + by))


def _next_skip(state: State) -> tuple[datetime, datetime] | None:
    """Where the clock is to be moved to, and not before when; both in the execution's own time."""
    execution = state.execution
    skip = execution.skip
    if skip is None or execution.status is not ExecutionStatus.RUNNING:
        return None
    if execution.live is not None or triggers.has_cause(execution):
        return None
    unfinished = [each for each in state.operations.values() if not each.status.is_closed]
    if any(each.type is OperationType.CHAINED_INVOKE for each in unfinished):
        return None
    callbacks = [each for each in unfinished if each.type is OperationType.CALLBACK]
    deadline = triggers.deadline(execution)
    timers = [at for each in unfinished if (at := each.wakes_at) is not None and at < deadline]
    if timers:
        to = min(timers)
        ending = [each for each in callbacks if each.wakes_at == to]
    elif any(each.wakes_at is None for each in callbacks):
        return None
    else:
        to, ending = deadline, callbacks
    idle_since = skip.idle_since or execution.started_at
    not_before = max([idle_since, *(_last_word(each, idle_since) + skip.callback_grace for each in ending)])
    return to, not_before


def _last_word(callback: Operation, idle_since: datetime) -> datetime:
    """Since when nothing was heard of whoever is to complete the callback."""
    if callback.heartbeat_due_at is None:
        return idle_since
    return max(idle_since, callback.heartbeat_due_at - timedelta(seconds=callback.heartbeat_timeout_s))
