"""Replay check: does another version of the code go the way that a stored execution went? Beyond AWS; decision record 0031.

The code runs once, with the whole recorded state, as a shadow of the execution that is never stored. Its checkpoints are compared with the log and answered from it.
Contexts that ended are open in the shadow, so that the code in them runs too; steps that have no result yet look as if they waited for a retry, so that none of them runs.
The first divergence revokes the invocation: it is answered without a token, after which AWS's SDKs suspend themselves.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from lambstead.core.durable.lifecycle import Pending, envelope_of
from lambstead.core.durable.model import (
    CheckpointedEnd,
    ErrorObject,
    Execution,
    ExecutionStatus,
    LiveInvocation,
    Operation,
    OperationStatus,
    OperationType,
    State,
)
from lambstead.core.durable.updates import OperationUpdate

NEVER = timedelta(days=300)
"""How far away the retry is that a step without a result seems to wait for."""
_OF_THE_SERVICE = frozenset(
    {"InvalidParameterValueException", "ResourceNotFoundException", "ServiceQuotaExceededException"}
)
"""Types of errors with which the service ends executions: code does not make them again."""


class Verdict(StrEnum):
    """What a check came to."""

    SAME = "SAME"
    DIVERGED = "DIVERGED"
    SKIPPED = "SKIPPED"
    """The execution cannot be compared now."""
    NOT_RUN = "NOT_RUN"
    """The function could not be run."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of a check, and why."""

    verdict: Verdict
    because: str = ""
    operation_id: str | None = None
    operation_name: str | None = None


def why_not(execution: Execution) -> str | None:
    """Why an execution cannot be checked; None if it can."""
    if execution.live is not None:
        return "Its function runs now."
    if execution.status is ExecutionStatus.DELETING:
        return "It is being deleted."
    if (
        execution.status is ExecutionStatus.FAILED
        and execution.error is not None
        and execution.error.type in _OF_THE_SERVICE
    ):
        return f"The service ended it, not its code: {execution.error.message}"
    return None


def shadow_of(source: State, shadow_id: str, version: str, request_id: str, now: datetime) -> State:
    """The state that the code is shown."""
    execution = replace(
        source.execution,
        id=shadow_id,
        version=version,
        status=ExecutionStatus.RUNNING,
        ended_at=None,
        result=None,
        error=None,
        live=LiveInvocation(request_id, now),
        unseen=(),
        announced=(),
        answered=None,
        checkpointed_end=None,
        parent=None,
    )
    unfinished = _with_something_open(source.operations)
    operations = {name: _shown(each, unfinished, now) for name, each in source.operations.items()}
    return State(execution, source.input_payload, operations)


def _with_something_open(operations: Mapping[str, Operation]) -> set[str]:
    """Ids of contexts that hold an operation that has not ended."""
    found: set[str] = set()
    for each in operations.values():
        parent = None if each.status.is_closed else operations.get(each.parent_id or "")
        while parent is not None:
            found.add(parent.id)
            parent = operations.get(parent.parent_id or "")
    return found


def _shown(operation: Operation, unfinished: set[str], now: datetime) -> Operation:
    if operation.type is OperationType.CONTEXT and operation.status.is_closed and operation.id not in unfinished:
        return replace(operation, status=OperationStatus.STARTED, ended_at=None, result=None, error=None)
    if operation.type is OperationType.STEP and not operation.status.is_closed:
        return replace(operation, status=OperationStatus.PENDING, due_at=now + NEVER)
    return operation


@dataclass(frozen=True, slots=True)
class Compared:
    """What a batch of updates comes to: the shadow after it, what changed, and what ends the check."""

    state: State
    delta: tuple[Operation, ...]
    finding: Finding | None = None
    is_revoked: bool = False


def compare(source: State, shadow: State, updates: Sequence[OperationUpdate], now: datetime) -> Compared:
    """Compare the checkpoint of a shadow with the log."""
    changed: dict[str, Operation] = {}
    for update in updates:
        if update.type is OperationType.EXECUTION:
            end = CheckpointedEnd(update.action == "SUCCEED", update.payload, update.error)
            execution = replace(shadow.execution, checkpointed_end=end)
            return Compared(replace(shadow, execution=execution), (), is_revoked=True)
        recorded = source.operations.get(update.id)
        finding = _new(source, update) if recorded is None else _difference(recorded, update)
        if recorded is None or finding is not None:
            return Compared(shadow, (), finding, is_revoked=True)
        shown = shadow.operations[update.id]
        if shown.type is OperationType.CONTEXT and not shown.status.is_closed and update.action != "START":
            changed[update.id] = recorded
    operations = {**shadow.operations, **changed}
    live = shadow.execution.live
    assert live is not None
    execution = replace(shadow.execution, live=replace(live, sequence=live.sequence + 1))
    return Compared(State(execution, shadow.input_payload, operations), tuple(changed.values()))


def _new(source: State, update: OperationUpdate) -> Finding | None:
    """An operation that is not in the log: a divergence, unless the code may have come to the end of the log."""
    execution = source.execution
    ended_by_code = execution.status in (ExecutionStatus.SUCCEEDED, ExecutionStatus.FAILED)
    if not ended_by_code and not _waits(source):
        return None
    return Finding(
        Verdict.DIVERGED, f"It starts {_described(update)}, which is not in the log.", update.id, update.name
    )


def _waits(source: State) -> bool:
    return any(
        not each.status.is_closed and each.type is not OperationType.CONTEXT for each in source.operations.values()
    )


def _difference(recorded: Operation, update: OperationUpdate) -> Finding | None:
    """How an update does not fit the operation of its id."""

    def diverged(because: str) -> Finding:
        return Finding(Verdict.DIVERGED, because, recorded.id, recorded.name)

    named = {
        "type": (recorded.type, update.type),
        "name": (recorded.name, update.name if update.name is not None else recorded.name),
        "sub-type": (recorded.sub_type, update.sub_type if update.sub_type is not None else recorded.sub_type),
        "parent": (recorded.parent_id, update.parent_id),
    }
    for what, (was, now) in named.items():
        if was != now:
            return diverged(f"Its {what} was {was or 'none'} and is {now or 'none'} now.")
    if recorded.type is not OperationType.CONTEXT:
        return diverged(f"It was {recorded.status}, and {update.action} of it is checkpointed.")
    if not recorded.status.is_closed or update.action == "START":
        return None
    succeeds = update.action == "SUCCEED"
    if succeeds != (recorded.status is OperationStatus.SUCCEEDED):
        return diverged(f"It was {recorded.status} and {'succeeds' if succeeds else 'fails'} now.")
    if succeeds and not recorded.replay_children and not _same_text(recorded.result, update.payload):
        return diverged(f"Its result was {_short(recorded.result)} and is {_short(update.payload)} now.")
    if not succeeds and not _same_error(recorded.error, update.error):
        return diverged(f"Its error was {_error(recorded.error)} and is {_error(update.error)} now.")
    return None


def compare_end(source: State, shadow: State, output: bytes) -> Finding:
    """Compare what the code returned, after checkpoints that did not differ."""
    execution = source.execution
    end = shadow.execution.checkpointed_end or envelope_of(output)
    if isinstance(end, str):
        return Finding(Verdict.DIVERGED, end)
    if isinstance(end, Pending):
        if execution.status in (ExecutionStatus.SUCCEEDED, ExecutionStatus.FAILED):
            return Finding(Verdict.DIVERGED, f"It ended {execution.status}, and waits for something now.")
        return Finding(Verdict.SAME)
    status = ExecutionStatus.SUCCEEDED if end.is_success else ExecutionStatus.FAILED
    if execution.status not in (ExecutionStatus.SUCCEEDED, ExecutionStatus.FAILED):
        if _waits(source):
            return Finding(Verdict.DIVERGED, f"It waits for something in the log, and ends {status} now.")
        return Finding(Verdict.SAME)
    if status is not execution.status:
        return Finding(Verdict.DIVERGED, f"It ended {execution.status}, and ends {status} now.")
    if end.is_success and not _same_text(execution.result, end.result):
        return Finding(Verdict.DIVERGED, f"Its result was {_short(execution.result)} and is {_short(end.result)} now.")
    if not end.is_success and not _same_error(execution.error, end.error):
        return Finding(Verdict.DIVERGED, f"Its error was {_error(execution.error)} and is {_error(end.error)} now.")
    return Finding(Verdict.SAME)


def _same_text(was: str | None, now: str | None) -> bool:
    """Equal as JSON, or as text if they are none."""
    if (was or "") == (now or ""):
        return True
    try:
        return bool(json.loads(was or "null") == json.loads(now or "null"))
    except (ValueError, RecursionError):
        return False


def _same_error(was: ErrorObject | None, now: ErrorObject | None) -> bool:
    """Stack traces differ between versions of the code; type, message and data do not."""
    one, other = was or ErrorObject(), now or ErrorObject()
    return (one.type, one.message, one.data) == (other.type, other.message, other.data)


def _described(update: OperationUpdate) -> str:
    return f"{update.type} {update.name or update.id}"


def _short(text: str | None) -> str:
    shown = "nothing" if text is None else text
    return shown if len(shown) <= 120 else f"{shown[:119]}…"


def _error(error: ErrorObject | None) -> str:
    return "none" if error is None else _short(f"{error.type}: {error.message}")
