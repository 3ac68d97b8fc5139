"""Checkpoints: the token that fences them, the batch that is applied whole or not at all, and the answer.

The protocol is that of the durable reference, §5. An update batch goes: repeated request, token, batch rules, each update in turn, timers
that are due, quotas, answer.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from lambstead.core.durable.draft import Draft
from lambstead.core.durable.identifiers import checkpoint_token, execution_of_token, invocation_token
from lambstead.core.durable.lifecycle import begin_pause
from lambstead.core.durable.model import (
    MAX_OPERATIONS,
    MAX_STORED_BYTES,
    Action,
    AnsweredCheckpoint,
    Change,
    CheckpointedEnd,
    ErrorObject,
    Execution,
    ExecutionStatus,
    Operation,
    OperationType,
    State,
)
from lambstead.core.durable.triggers import fire_timers
from lambstead.core.durable.updates import OperationUpdate, Target, apply_update
from lambstead.core.errors import InvalidParameterValue

REPLAY_WINDOW = timedelta(minutes=15)
"""How long a repeated request gets the first one's answer. Durable reference §5.2."""


@dataclass(frozen=True, slots=True)
class CheckpointRequest:
    """One call of CheckpointDurableExecution."""

    token: str
    client_token: str | None
    updates: Sequence[OperationUpdate]


@dataclass(frozen=True, slots=True)
class Checkpointed:
    """The answer to a checkpoint, to be given once `change` is written."""

    change: Change | None
    """None for a repeated request: nothing is to be written."""
    token: str | None
    """For the next checkpoint; None when the invocation may make no more."""
    delta: tuple[Operation, ...]
    """Operations that changed since the function last saw its state, in order of their start."""


def check_token(state: State, token: str) -> None:
    """Raise InvalidParameterValue unless the token is that of the live invocation, unused.

    SDKs tell this error from others by the beginning of its message, and let the invocation fail so that it is repeated.
    """
    execution = state.execution
    of = execution_of_token(token)
    if of is not None and of != execution.id:
        raise InvalidParameterValue("Invalid checkpoint token: it is not valid for the durable execution ARN")
    live = execution.live
    if live is None or live.is_revoked or execution.status.is_closed or token != checkpoint_token(execution):
        raise InvalidParameterValue("Invalid checkpoint token")


def checkpoint(state: State, request: CheckpointRequest, targets: Mapping[str, Target], now: datetime) -> Checkpointed:
    """Apply a batch of updates. `targets` has, for every CHAINED_INVOKE among them, what it was resolved to.

    Raises InvalidParameterValue in AWS's words; nothing of a refused batch is applied.
    """
    repeated = _repeated(state.execution, request, now)
    if repeated is not None:
        return Checkpointed(None, repeated.next_token, repeated.delta)
    check_token(state, request.token)
    _check_batch(request.updates)
    draft = Draft(state, now)
    for update in request.updates:
        apply_update(draft, update, targets)
    fire_timers(draft)
    return _answered(draft, request)


def _repeated(execution: Execution, request: CheckpointRequest, now: datetime) -> AnsweredCheckpoint | None:
    """The answer that this request got already; its client lost it and asks again."""
    answered = execution.answered
    if answered is None or request.client_token is None:
        return None
    same = (answered.client_token, answered.checkpoint_token) == (request.client_token, request.token)
    return answered if same and now - answered.at <= REPLAY_WINDOW else None


def _check_batch(updates: Sequence[OperationUpdate]) -> None:
    ends = [index for index, update in enumerate(updates) if update.type is OperationType.EXECUTION]
    if len(ends) > 1:
        raise InvalidParameterValue("Cannot checkpoint multiple EXECUTION updates.")
    if ends and ends[0] != len(updates) - 1:
        raise InvalidParameterValue("EXECUTION checkpoint must be the last update.")
    counts = Counter(update.id for update in updates)
    for operation_id in (each for each, count in counts.items() if count > 1):
        if not _is_start_and_end([update for update in updates if update.id == operation_id]):
            raise InvalidParameterValue("Cannot checkpoint multiple operations with the same ID.")


def _is_start_and_end(updates: Sequence[OperationUpdate]) -> bool:
    """True for the one pair that may share a batch: the START and what came of it, of a STEP or CONTEXT."""
    if len(updates) != 2 or updates[0].type not in (OperationType.STEP, OperationType.CONTEXT):
        return False
    return updates[0].action is Action.START and updates[1].action is not Action.START


def _answered(draft: Draft, request: CheckpointRequest) -> Checkpointed:
    execution = draft.execution
    live = execution.live
    assert live is not None
    exceeded = exceeded_quota(execution)
    if exceeded is not None:
        draft.execution = replace(execution, checkpointed_end=CheckpointedEnd(is_success=False, error=exceeded))
    if draft.execution.checkpointed_end is not None:
        draft.execution = replace(draft.execution, live=replace(live, is_revoked=True), answered=None)
        return Checkpointed(draft.change(), None, ())
    if execution.status is ExecutionStatus.PAUSING:
        draft.execution = replace(execution, live=replace(live, is_revoked=True), answered=None, must_invoke=True)
        begin_pause(draft)
        return Checkpointed(draft.change(), None, ())
    changed = (operation for each in execution.unseen if (operation := draft.operation(each)) is not None)
    delta = tuple(sorted(changed, key=lambda operation: operation.sequence))
    following = replace(live, sequence=live.sequence + 1)
    token = invocation_token(execution.id, following)
    answered = None
    if request.client_token is not None:
        answered = AnsweredCheckpoint(request.client_token, request.token, draft.now, token, delta)
    draft.amend(live=following, unseen=(), answered=answered)
    return Checkpointed(draft.change(), token, delta)


def exceeded_quota(execution: Execution) -> ErrorObject | None:
    """Why the execution has to fail: a quota that it used up; None if it did not."""
    if execution.operations > MAX_OPERATIONS:
        return ErrorObject(
            f"The durable execution exceeded its quota of {MAX_OPERATIONS} operations.", "ServiceQuotaExceededException"
        )
    if execution.stored_bytes > MAX_STORED_BYTES:
        return ErrorObject(
            f"The durable execution exceeded its quota of {MAX_STORED_BYTES} bytes of stored data.",
            "ServiceQuotaExceededException",
        )
    return None
