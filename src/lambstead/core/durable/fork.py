"""Fork: a new execution that begins with a part of another one's log. Beyond AWS; decision record 0031.

The source may have any status, and nothing of it changes. Its operations up to the chosen one are copied where they ended; the code of the fork replays
them and goes on from there. Contexts around the chosen operation, and those that hold something that is not copied, are open in the fork.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from lambstead.core.durable.draft import Draft
from lambstead.core.durable.lifecycle import Start, start
from lambstead.core.durable.model import (
    Change,
    Event,
    EventType,
    Operation,
    OperationStatus,
    OperationType,
    State,
)
from lambstead.core.durable.redrive import failed_operations
from lambstead.core.errors import ResourceConflict, ResourceNotFound


def fork(
    source: State, events: Iterable[Event], order: Start, up_to: str | None, now: datetime
) -> tuple[State, Change]:
    """The new execution, and what is to be written of it. `up_to` is an id, or a name: then the last operation of it.

    Without it everything is copied that ended, except the failures that made the source fail. Raises ResourceNotFound for an operation that there is not,
    ResourceConflict for one that has not ended.
    """
    kept = {each.id: each for each in _kept(source.operations, *_cut(source, up_to))}
    state, started = start(order, now)
    draft = Draft(started.applied_to(state), now)
    draft.execution = replace(started.execution, last_sequence=len(kept))
    draft.meter(len(kept), sum(_stored_bytes(each) for each in kept.values()))
    for event in events:
        operation = kept.get(event.operation_id or "")
        if operation is None or (not operation.status.is_closed and event.type is not EventType.CONTEXT_STARTED):
            continue
        draft.record(event.type, operation, **event.details)
    change = started.then(draft.change())
    change = replace(change, operations=tuple(kept.values()))
    return change.applied_to(state), change


def _cut(source: State, up_to: str | None) -> tuple[Operation | None, Sequence[Operation]]:
    """The operation that is copied last, and those that are not copied although they ended."""
    if up_to is None:
        return None, failed_operations(source) if source.execution.error is not None else ()
    named = [each for each in source.operations.values() if up_to in (each.id, each.name)]
    if not named:
        raise ResourceNotFound(f"The durable execution has no operation with the id or name {up_to!r}.")
    last = max(named, key=lambda each: each.sequence)
    if not last.status.is_closed:
        raise ResourceConflict(
            f"The durable execution can't be forked at {last.type} {last.name or last.id}: its status is {last.status}. "
            "Choose an operation that has ended."
        )
    return last, ()


def _kept(operations: Mapping[str, Operation], last: Operation | None, dropped: Sequence[Operation]) -> list[Operation]:
    """The operations of the fork, in order and numbered anew."""
    ordered = sorted(operations.values(), key=lambda each: each.sequence)
    lost = {each.id for each in dropped}
    again: set[str] = set()
    """Contexts that are open in the fork."""
    for each in dropped:
        again |= _around(operations, each)
        if each.type is OperationType.CONTEXT:  # its own code failed: it runs again
            lost.discard(each.id)
            again.add(each.id)
    if last is not None:
        again |= _around(operations, last)
    for each in ordered:
        is_later = last is not None and each.sequence > last.sequence and last.id not in _around(operations, each)
        is_open_leaf = not each.status.is_closed and each.type is not OperationType.CONTEXT
        if is_later or is_open_leaf:
            lost.add(each.id)
        if is_later or not each.status.is_closed:
            again |= _around(operations, each)
    kept = [each for each in ordered if each.id not in lost]
    return [
        replace(_reopened(each) if each.id in again else each, sequence=sequence)
        for sequence, each in enumerate(kept, 1)
    ]


def _around(operations: Mapping[str, Operation], operation: Operation) -> set[str]:
    """Ids of the contexts around an operation."""
    found: set[str] = set()
    parent = operations.get(operation.parent_id or "")
    while parent is not None:
        found.add(parent.id)
        parent = operations.get(parent.parent_id or "")
    return found


def _reopened(context: Operation) -> Operation:
    return replace(
        context, status=OperationStatus.STARTED, ended_at=None, result=None, error=None, replay_children=False
    )


def _stored_bytes(operation: Operation) -> int:
    return len((operation.result or "").encode()) + (operation.error.size_bytes if operation.error else 0)
