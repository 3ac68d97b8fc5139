"""Redrive: an execution that failed, timed out or was stopped goes on from the operation that failed. Beyond AWS; decision record 0031.

What succeeded is kept and not run again. Failed operations are opened again in their place, and the contexts around them with them:

    STEP ──► READY, its attempts counted anew         CALLBACK ──► STARTED, the same id, its timers anew
    CHAINED_INVOKE ──► STARTED, run again or redriven  CONTEXT  ──► STARTED, its code runs again

A failure that the code dealt with stays: it is known by what the code did after it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from lambstead.core.durable.checkpoints import exceeded_quota
from lambstead.core.durable.draft import Draft, epoch_ms, payload
from lambstead.core.durable.model import (
    MAX_EXECUTION,
    Change,
    EventType,
    ExecutionStatus,
    Operation,
    OperationStatus,
    OperationType,
    State,
)
from lambstead.core.errors import ResourceConflict, ResourceNotFound

_FAILED = frozenset({OperationStatus.FAILED, OperationStatus.TIMED_OUT, OperationStatus.STOPPED})
_REDRIVABLE = frozenset({ExecutionStatus.FAILED, ExecutionStatus.TIMED_OUT, ExecutionStatus.STOPPED})
_CONCURRENT = frozenset({"Map", "Parallel"})
"""Sub-types of contexts whose children run side by side: one that starts later says nothing of one that failed before. As AWS's SDKs name them."""
MAX_REASON = 1024
"""Characters; the length of a reason in the service model."""


@dataclass(frozen=True, slots=True)
class Redriven:
    """What a redrive comes to."""

    change: Change
    reopened: tuple[Operation, ...]
    """Operations that are open again, without the contexts around them."""
    chained: tuple[Operation, ...]
    """CHAINED_INVOKE operations that are open: what they ran is to be run again, redriven, or its end told."""


def redrive(state: State, origins: Sequence[str], now: datetime) -> Redriven:
    """Open the execution again: from the operations of these ids or names, or from those that made it fail.

    Raises ResourceConflict when it cannot be redriven and ResourceNotFound for an operation that it does not have.
    """
    execution = state.execution
    if execution.status not in _REDRIVABLE:
        raise ResourceConflict(
            f"The durable execution can't be redriven: its status is {execution.status}. FAILED, TIMED_OUT and STOPPED ones can."
        )
    exceeded = exceeded_quota(execution)
    if exceeded is not None:
        raise ResourceConflict(f"The durable execution can't be redriven: {exceeded.message} Fork it instead.")
    if now >= execution.started_at + MAX_EXECUTION:
        raise ResourceConflict(
            f"The durable execution can't be redriven: it began more than {MAX_EXECUTION.days} days ago. Fork it instead."
        )
    tree = _Tree(state)
    if origins:
        chosen = [each for origin in origins for each in _origin(tree, origin)]
    elif execution.status is ExecutionStatus.FAILED or not tree.has_open_leaf():
        chosen = failed_operations(state)
    else:
        chosen = []
    for each in chosen:
        _refuse_lost_target(each)
    return _reopened(state, tree, tuple({each.id: each for each in chosen}.values()), now)


def failed_operations(state: State) -> list[Operation]:
    """The operations that made an execution fail, the innermost ones; none when it failed outside of operations."""
    tree = _Tree(state)
    return tree.failures_in(None)


class _Tree:
    """The operations of an execution by their parents."""

    def __init__(self, state: State) -> None:
        self.operations: Mapping[str, Operation] = state.operations
        self._children: dict[str | None, list[Operation]] = {}
        for each in sorted(state.operations.values(), key=lambda each: each.sequence):
            self._children.setdefault(each.parent_id, []).append(each)

    def failures_in(self, context: Operation | None) -> list[Operation]:
        """What made this context (None: the execution) fail."""
        side_by_side = context is not None and context.sub_type in _CONCURRENT
        found: list[Operation] = []
        for child in self._children.get(None if context is None else context.id, []):
            if not side_by_side and self.was_dealt_with(child):
                continue
            if child.type is not OperationType.CONTEXT:
                found += [child] if child.status in _FAILED else []
            elif child.status in _FAILED:
                found += self.failures_in(child) or [child]
            elif child.sub_type in _CONCURRENT and child.status is OperationStatus.SUCCEEDED:
                found += self._failed_branches(child)
            elif not child.status.is_closed:
                found += self.failures_in(child)
        return found

    def _failed_branches(self, context: Operation) -> list[Operation]:
        """A map or parallel keeps the errors of its branches in its result and lets the code raise them."""
        branches = [each for each in self._children.get(context.id, []) if each.status in _FAILED]
        return [failure for each in branches for failure in self.failures_in(each) or [each]]

    def was_dealt_with(self, operation: Operation) -> bool:
        """True when the code went on after the operation ended."""
        ended_at = operation.ended_at
        return ended_at is not None and any(
            each.sequence > operation.sequence and each.started_at >= ended_at
            for each in self._children[operation.parent_id]
        )

    def ancestors(self, operation: Operation) -> list[Operation]:
        """The contexts around an operation, the innermost first."""
        found: list[Operation] = []
        parent = self.operations.get(operation.parent_id or "")
        while parent is not None:
            found.append(parent)
            parent = self.operations.get(parent.parent_id or "")
        return found

    def has_open_leaf(self) -> bool:
        """True when something other than a context is open."""
        return any(
            not each.status.is_closed and each.type is not OperationType.CONTEXT for each in self.operations.values()
        )


def _origin(tree: _Tree, origin: str) -> list[Operation]:
    """The failed operations that are meant by an id, or by a name: then the last one of it."""
    named = [each for each in tree.operations.values() if origin in (each.id, each.name)]
    if not named:
        raise ResourceNotFound(f"The durable execution has no operation with the id or name {origin!r}.")
    operation = max(named, key=lambda each: each.sequence)
    if operation.status not in _FAILED:
        raise ResourceConflict(
            f"The durable execution can't be redriven from {described(operation)}: its status is {operation.status}. "
            "To run something again that succeeded, fork the execution."
        )
    for each in (operation, *tree.ancestors(operation)):
        parent = tree.operations.get(each.parent_id or "")
        if (parent is None or parent.sub_type not in _CONCURRENT) and tree.was_dealt_with(each):
            raise ResourceConflict(
                f"The durable execution can't be redriven from {described(operation)}: its code went on after it failed. "
                "Fork the execution instead."
            )
    if operation.type is OperationType.CONTEXT:
        return tree.failures_in(operation) or [operation]
    return [operation]


def _refuse_lost_target(operation: Operation) -> None:
    if operation.type is OperationType.CHAINED_INVOKE and operation.chained is None:
        raise ResourceConflict(
            f"The durable execution can't be redriven from {described(operation)}: there was no function to run. "
            "Create the function and fork the execution."
        )


def _reopened(state: State, tree: _Tree, chosen: tuple[Operation, ...], now: datetime) -> Redriven:
    execution = state.execution
    draft = Draft(state, now)
    draft.execution = replace(
        execution,
        ended_at=None,
        result=None,
        error=None,
        timeout_at=now + timedelta(seconds=execution.config.execution_timeout_s),
        must_invoke=True,
        failures=0,
        idle_returns=0,
        timer_at=None,
    )
    for each in chosen:
        draft.put(_open(each, now))
        for context in tree.ancestors(each):
            if context.status.is_closed:
                draft.put(_open(context, now))
    _rearm(draft, {each.id for each in chosen}, now)
    draft.record_execution(
        EventType.EXECUTION_RESUMED,
        ResumeRequestTimestamp=epoch_ms(now),
        Reason=payload(_reason(chosen)),
    )
    draft.set_status(ExecutionStatus.RUNNING)
    unfinished = [each for each in draft.operations() if not each.status.is_closed]
    return Redriven(
        draft.change(),
        tuple(each for each in unfinished if each.id in {one.id for one in chosen}),
        tuple(each for each in unfinished if each.type is OperationType.CHAINED_INVOKE),
    )


def _open(operation: Operation, now: datetime) -> Operation:
    """A closed operation, open again."""
    status = OperationStatus.READY if operation.type is OperationType.STEP else OperationStatus.STARTED
    again = replace(operation, status=status, ended_at=None, result=None, error=None, replay_children=False, attempt=0)
    return _with_timers(again, now)


def _with_timers(operation: Operation, now: datetime) -> Operation:
    if operation.type is not OperationType.CALLBACK:
        return operation
    timeout, heartbeat = operation.timeout_s, operation.heartbeat_timeout_s
    return replace(
        operation,
        due_at=now + timedelta(seconds=timeout) if timeout else None,
        heartbeat_due_at=now + timedelta(seconds=heartbeat) if heartbeat else None,
    )


def _rearm(draft: Draft, reopened: Collection[str], now: datetime) -> None:
    """What was open when the execution ended goes on: callbacks with their whole time again, other timers as they were."""
    for each in draft.operations():
        if not each.status.is_closed and each.id not in reopened:
            draft.put_unnoticed(_with_timers(each, now))


def _reason(chosen: Sequence[Operation]) -> str:
    origins = ", ".join(described(each) for each in chosen) or "where it ended"
    text = f"redriven from {origins}"
    return text if len(text) <= MAX_REASON else f"{text[: MAX_REASON - 1]}…"


def described(operation: Operation) -> str:
    """An operation in a sentence."""
    return f"{operation.type} {operation.name or operation.id}"
