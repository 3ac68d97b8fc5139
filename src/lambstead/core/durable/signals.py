"""Named signals and queries, mapped on what AWS's SDKs have: callbacks and results. Beyond AWS; decision record 0033.

A signal completes the oldest open callback of its name. If there is none it is kept with the execution, in order, and completes the next callback of that name when
that starts. So code that creates a callback of the same name again and again receives one signal after the other, each once.

    signal ──► callback of that name open? ──yes──► completed now
                          └──no──► kept ──callback of that name starts──► completed in the same transaction
"""

from dataclasses import dataclass, replace
from datetime import datetime

from lambstead.core.durable.model import (
    MAX_PAYLOAD_BYTES,
    Change,
    Operation,
    OperationType,
    Signal,
    State,
    joined,
)
from lambstead.core.durable.triggers import callback_succeeded, fire_due
from lambstead.core.errors import InvalidParameterValue, ResourceConflict, TooManyRequests

MAX_KEPT = 1000
"""Signals that wait for a callback, per execution."""
MAX_KEPT_BYTES = 1024 * 1024
"""Their payloads together: they are written with the execution at every change of it."""
MAX_NAME = 256
"""Characters; the length of an operation's name in the service model."""
WAIT_FOR_CALLBACK = "WaitForCallback"
"""Sub-type of the context in which SDKs put a callback and the step that hands its id out; the name that the code gave is the context's."""


def signal(state: State, name: str, data: str, now: datetime) -> tuple[Change, Operation | None]:
    """Send a signal: what is to be written, and the callback that it completes now, if one is open.

    Raises ResourceConflict when the execution has ended, TooManyRequests when too many signals wait, InvalidParameterValue for a name or payload that cannot be.
    """
    if not 1 <= len(name) <= MAX_NAME or not all(" " <= each <= "~" for each in name):
        raise InvalidParameterValue(f"A signal's name has 1 to {MAX_NAME} printable ASCII characters.")
    if len(data.encode()) > MAX_PAYLOAD_BYTES:
        raise InvalidParameterValue(f"A signal carries at most {MAX_PAYLOAD_BYTES} bytes.")
    fired = fire_due(state, now)
    state = state if fired is None else fired.applied_to(state)
    execution = state.execution
    if execution.status.is_closed:
        raise ResourceConflict(f"The durable execution takes no signals: its status is {execution.status}.")
    for callback in open_callbacks(state):
        if name in names_of(state, callback):
            done = callback_succeeded(state, callback.id, data, now)
            return (done if fired is None else fired.then(done)), callback
    kept = (*execution.signals, Signal(name, data))
    if len(kept) > MAX_KEPT or sum(len(each.data.encode()) for each in kept) > MAX_KEPT_BYTES:
        raise TooManyRequests(
            f"{len(execution.signals)} signals wait for callbacks of this execution already; it keeps {MAX_KEPT}, of {MAX_KEPT_BYTES} bytes."
        )
    keeping = Change(replace(execution, signals=kept))
    return (keeping if fired is None else fired.then(keeping)), None


def deliver(state: State, now: datetime) -> Change | None:
    """Let signals that wait complete callbacks that are open by now, the oldest of both first. None when there are none."""
    if not state.execution.signals or state.execution.status.is_closed:
        return None
    change: Change | None = None
    for callback in open_callbacks(state):
        if callback.wakes_at is not None and callback.wakes_at <= now:
            continue
        names = names_of(state, callback)
        waiting = state.execution.signals
        position = next((index for index, each in enumerate(waiting) if each.name in names), None)
        if position is not None:
            rest = (*waiting[:position], *waiting[position + 1 :])
            taken = Change(replace(state.execution, signals=rest))
            done = taken.then(callback_succeeded(taken.applied_to(state), callback.id, waiting[position].data, now))
            change = joined(change, done)
            state = done.applied_to(state)
    return change


def open_callbacks(state: State) -> list[Operation]:
    """Callbacks that somebody may complete, the oldest first."""
    found = [
        each for each in state.operations.values() if each.type is OperationType.CALLBACK and not each.status.is_closed
    ]
    return sorted(found, key=lambda each: each.sequence)


def names_of(state: State, callback: Operation) -> set[str]:
    """The names under which a callback is signalled: its own, and that of the wait-for-callback that it belongs to."""
    parent = state.operations.get(callback.parent_id or "")
    names = {callback.name, parent.name if parent is not None and parent.sub_type == WAIT_FOR_CALLBACK else None}
    return {each for each in names if each is not None}


@dataclass(frozen=True, slots=True)
class View:
    """What a query shows of an execution."""

    latest: tuple[Operation, ...]
    """The last operation of every name that may have a result, in order of their start."""
    callbacks: tuple[Operation, ...]
    signals: tuple[Signal, ...]


def query(state: State, name: str | None = None) -> View:
    """What the code has come to so far; only what has this name, if one is given."""
    latest: dict[str, Operation] = {}
    for each in sorted(state.operations.values(), key=lambda each: each.sequence):
        if each.name is not None and each.type is not OperationType.WAIT and name in (None, each.name):
            latest[each.name] = each
    return View(
        tuple(sorted(latest.values(), key=lambda each: each.sequence)),
        tuple(each for each in open_callbacks(state) if name is None or name in names_of(state, each)),
        tuple(each for each in state.execution.signals if name in (None, each.name)),
    )
