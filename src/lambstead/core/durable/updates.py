"""One update of a checkpoint, and what it does to its operation.

The tables of transitions per type stand here; batches, tokens and answers in `checkpoints`. Rules and messages: durable reference §5.3 and §6,
which names the evidence for each.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from lambstead.core.durable.draft import Draft, epoch_ms, error_payload, payload
from lambstead.core.durable.identifiers import callback_id
from lambstead.core.durable.model import (
    MAX_PAYLOAD_BYTES,
    MAX_SYNC_PAYLOAD_BYTES,
    Action,
    ChainedInvoke,
    CheckpointedEnd,
    ErrorObject,
    EventType,
    Operation,
    OperationStatus,
    OperationType,
    StartChained,
)
from lambstead.core.errors import InvalidParameterValue

_LEGAL: Mapping[OperationType, frozenset[Action]] = {
    OperationType.EXECUTION: frozenset({Action.SUCCEED, Action.FAIL}),
    OperationType.CONTEXT: frozenset({Action.START, Action.SUCCEED, Action.FAIL}),
    OperationType.STEP: frozenset({Action.START, Action.SUCCEED, Action.FAIL, Action.RETRY}),
    OperationType.WAIT: frozenset({Action.START, Action.CANCEL}),
    OperationType.CALLBACK: frozenset({Action.START}),
    OperationType.CHAINED_INVOKE: frozenset({Action.START}),
}


@dataclass(frozen=True, slots=True)
class OperationUpdate:
    """What a function's code says of one operation."""

    id: str
    type: OperationType
    action: Action
    parent_id: str | None = None
    name: str | None = None
    sub_type: str | None = None
    payload: str | None = None
    error: ErrorObject | None = None
    replay_children: bool = False
    retry_delay_s: int | None = None
    wait_s: int | None = None
    timeout_s: int = 0
    heartbeat_timeout_s: int = 0
    chained_function: str | None = None
    """Name or ARN of the function that a CHAINED_INVOKE runs; None when its options are missing."""
    tenant_id: str | None = None
    trace_id: str | None = None

    @classmethod
    def of(cls, document: Mapping[str, object]) -> "OperationUpdate":
        """From an OperationUpdate of the API that passed the model's constraints."""
        error = document.get("Error")
        wait, callback = _options(document, "WaitOptions"), _options(document, "CallbackOptions")
        step, chained = _options(document, "StepOptions"), _options(document, "ChainedInvokeOptions")
        return cls(
            id=str(document["Id"]),
            type=OperationType(str(document["Type"])),
            action=Action(str(document["Action"])),
            parent_id=_text(document, "ParentId"),
            name=_text(document, "Name"),
            sub_type=_text(document, "SubType"),
            payload=_text(document, "Payload"),
            error=ErrorObject.of(error) if isinstance(error, Mapping) else None,
            replay_children=bool(_options(document, "ContextOptions").get("ReplayChildren")),
            retry_delay_s=_whole(step, "NextAttemptDelaySeconds"),
            wait_s=_whole(wait, "WaitSeconds"),
            timeout_s=_whole(callback, "TimeoutSeconds") or 0,
            heartbeat_timeout_s=_whole(callback, "HeartbeatTimeoutSeconds") or 0,
            chained_function=_text(chained, "FunctionName"),
            tenant_id=_text(chained, "TenantId"),
            trace_id=_text(chained, "XAmznTraceId"),
        )

    @property
    def stored_bytes(self) -> int:
        """What it adds to the data that the execution has written."""
        return len((self.payload or "").encode()) + (self.error.size_bytes if self.error else 0)


def _options(document: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = document.get(name)
    return found if isinstance(found, Mapping) else {}


def _text(document: Mapping[str, object], name: str) -> str | None:
    found = document.get(name)
    return found if isinstance(found, str) else None


def _whole(document: Mapping[str, object], name: str) -> int | None:
    found = document.get(name)
    return found if isinstance(found, int) else None


Target = ChainedInvoke | ErrorObject
"""What a CHAINED_INVOKE was resolved to: the function to run, or why there is none."""


def apply_update(draft: Draft, update: OperationUpdate, targets: Mapping[str, Target]) -> None:
    """Check one update against the operations so far and write what it does. Raises InvalidParameterValue in AWS's words."""
    _check_form(draft, update)
    if update.type is OperationType.EXECUTION:
        _end_execution(draft, update)
        return
    existing = draft.operation(update.id)
    _check_consistency(draft, update, existing)
    if update.type is OperationType.CHAINED_INVOKE:
        _start_chained(draft, update, existing, targets)
    else:
        _TRANSITIONS[update.type](draft, update, existing)
    draft.meter(0, update.stored_bytes)


def _check_form(draft: Draft, update: OperationUpdate) -> None:
    """What can be said of an update without knowing its operation."""
    if update.action not in _LEGAL[update.type]:
        raise InvalidParameterValue("Invalid action for the given operation type.")
    if update.action is Action.FAIL and update.payload is not None:
        raise InvalidParameterValue("Cannot provide a Payload for FAIL action.")
    if update.action is Action.SUCCEED and update.error is not None:
        raise InvalidParameterValue("Cannot provide an Error for SUCCEED action.")
    if update.payload is not None:
        size, limit, what = len(update.payload.encode()), MAX_PAYLOAD_BYTES, f"{update.type} payload"
        if update.type is OperationType.EXECUTION:
            limit, what = output_limit(is_synchronous=draft.execution.is_synchronous), "Execution output payload"
        elif update.type is OperationType.CHAINED_INVOKE:
            what = "CHAINED_INVOKE input payload"
        if size > limit:
            raise InvalidParameterValue(f"{what} size must be less than or equal to {limit} bytes.")
    if update.error is not None and update.error.size_bytes > MAX_PAYLOAD_BYTES:
        raise InvalidParameterValue(f"Error object size must be less than or equal to {MAX_PAYLOAD_BYTES} bytes.")


def output_limit(*, is_synchronous: bool) -> int:
    """Bytes that the result of an execution may have: more when a caller waits for it."""
    return MAX_SYNC_PAYLOAD_BYTES if is_synchronous else MAX_PAYLOAD_BYTES


def _check_consistency(draft: Draft, update: OperationUpdate, existing: Operation | None) -> None:
    if existing is not None:
        if existing.type is not update.type:
            raise InvalidParameterValue("Inconsistent operation type.")
        if update.sub_type is not None and existing.sub_type != update.sub_type:
            raise InvalidParameterValue("Inconsistent operation subtype.")
        if update.name is not None and existing.name != update.name:
            raise InvalidParameterValue("Inconsistent operation name.")
        if existing.parent_id != update.parent_id:
            raise InvalidParameterValue("Inconsistent parent operation id.")
    elif update.parent_id is not None:
        parent = draft.operation(update.parent_id)
        if parent is None or parent.type is not OperationType.CONTEXT:
            raise InvalidParameterValue("Invalid parent operation id.")


def _end_execution(draft: Draft, update: OperationUpdate) -> None:
    # The Id is made up by the client and says nothing (reference §4.3). The execution closes when the invocation ends, so that
    # the last InvocationCompleted stands before the end of the execution as in every other history.
    is_success = update.action is Action.SUCCEED
    draft.execution = replace(
        draft.execution, checkpointed_end=CheckpointedEnd(is_success, update.payload, update.error)
    )
    draft.meter(0, update.stored_bytes)


def _new(draft: Draft, update: OperationUpdate) -> Operation:
    return Operation(
        id=update.id,
        type=update.type,
        sequence=draft.next_sequence,
        status=OperationStatus.STARTED,
        started_at=draft.now,
        parent_id=update.parent_id,
        name=update.name,
        sub_type=update.sub_type,
    )


# --- CONTEXT --------------------------------------------------------------------------------------------------------------------


def _context(draft: Draft, update: OperationUpdate, existing: Operation | None) -> None:
    if update.action is Action.START:
        if existing is not None:
            raise InvalidParameterValue("Cannot start a CONTEXT that already exists.")
        _start(draft, update, EventType.CONTEXT_STARTED)
        return
    if existing is not None and existing.status.is_closed:
        raise InvalidParameterValue("Invalid current CONTEXT state to close.")
    # Clients deliver at least once, and may never have sent the START.
    open_ = existing or _start(draft, update, EventType.CONTEXT_STARTED)
    if update.action is Action.SUCCEED:
        closed = _succeeded(draft, open_, update, replay_children=update.replay_children)
        draft.record(EventType.CONTEXT_SUCCEEDED, closed, Result=payload(update.payload))
    else:
        closed = _failed(draft, open_, update)
        draft.record(EventType.CONTEXT_FAILED, closed, Error=error_payload(update.error or ErrorObject()))


def _start(draft: Draft, update: OperationUpdate, event: EventType) -> Operation:
    operation = _new(draft, update)
    draft.put(operation)
    draft.meter()
    draft.record(event, operation)
    return operation


def _succeeded(
    draft: Draft, operation: Operation, update: OperationUpdate, *, attempt: int = 0, replay_children: bool = False
) -> Operation:
    closed = replace(
        operation,
        status=OperationStatus.SUCCEEDED,
        attempt=attempt,
        ended_at=draft.now,
        result=update.payload,
        error=None,
        due_at=None,
        replay_children=replay_children,
    )
    draft.put(closed)
    return closed


def _failed(draft: Draft, operation: Operation, update: OperationUpdate, *, attempt: int = 0) -> Operation:
    closed = replace(
        operation,
        status=OperationStatus.FAILED,
        attempt=attempt,
        ended_at=draft.now,
        result=None,
        error=update.error,
        due_at=None,
    )
    draft.put(closed)
    return closed


# --- STEP -----------------------------------------------------------------------------------------------------------------------


def _step(draft: Draft, update: OperationUpdate, existing: Operation | None) -> None:
    if update.action is Action.START:
        if existing is None:
            _start(draft, update, EventType.STEP_STARTED)
            return
        if existing.status is not OperationStatus.READY:
            raise InvalidParameterValue("Invalid current STEP state to start.")
        again = replace(existing, status=OperationStatus.STARTED)
        draft.put(again)
        draft.record(EventType.STEP_STARTED, again)
        return
    if existing is not None and existing.status not in (OperationStatus.STARTED, OperationStatus.READY):
        verb = "re-attempt" if update.action is Action.RETRY else "close"
        raise InvalidParameterValue(f"Invalid current STEP state to {verb}.")
    open_ = existing or _start(draft, update, EventType.STEP_STARTED)
    attempt = open_.attempt + 1
    if update.action is Action.RETRY:
        _retry(draft, update, replace(open_, attempt=attempt))
        return
    if update.action is Action.SUCCEED:
        closed = _succeeded(draft, open_, update, attempt=attempt)
        details = _attempts(closed.attempt)
        draft.record(EventType.STEP_SUCCEEDED, closed, Result=payload(update.payload), RetryDetails=details)
    else:
        closed = _failed(draft, open_, update, attempt=attempt)
        draft.record(
            EventType.STEP_FAILED,
            closed,
            Error=error_payload(update.error or ErrorObject()),
            RetryDetails=_attempts(closed.attempt),
        )


def _attempts(attempt: int, delay_s: int | None = None) -> dict[str, object]:
    """RetryDetails of an attempt that ended, the first one included: AWS's test runner for deployed functions reads attempts from it."""
    found: dict[str, object] = {"CurrentAttempt": attempt}
    if delay_s is not None:
        found["NextAttemptDelaySeconds"] = delay_s
    return found


def _retry(draft: Draft, update: OperationUpdate, attempted: Operation) -> None:
    if update.retry_delay_s is None:
        raise InvalidParameterValue("Invalid StepOptions for the given action.")
    if update.payload is not None and update.error is not None:
        raise InvalidParameterValue("Cannot provide both error and payload to RETRY a STEP.")
    pending = replace(
        attempted,
        status=OperationStatus.PENDING,
        result=update.payload,
        error=update.error,
        due_at=draft.now + timedelta(seconds=update.retry_delay_s),
    )
    draft.put(pending)
    draft.meter()
    details = _attempts(pending.attempt, update.retry_delay_s)
    if update.error is not None:
        draft.record(EventType.STEP_FAILED, pending, Error=error_payload(update.error), RetryDetails=details)
    else:
        # A poll of a wait-for-condition: its state rides in the result.
        draft.record(EventType.STEP_SUCCEEDED, pending, Result=payload(update.payload), RetryDetails=details)


# --- WAIT, CALLBACK -------------------------------------------------------------------------------------------------------------


def _wait(draft: Draft, update: OperationUpdate, existing: Operation | None) -> None:
    if update.action is Action.CANCEL:
        if existing is None or existing.status.is_closed:
            raise InvalidParameterValue("Cannot cancel a WAIT that does not exist or has already completed.")
        cancelled = replace(existing, status=OperationStatus.CANCELLED, ended_at=draft.now)
        draft.put(cancelled)
        error = None if update.error is None else error_payload(update.error)
        draft.record(EventType.WAIT_CANCELLED, cancelled, Error=error)
        return
    if existing is not None:
        raise InvalidParameterValue("Cannot start a WAIT that already exist.")
    if update.wait_s is None:
        raise InvalidParameterValue("Update for WAIT operation requires WaitOptions.")
    due_at = draft.now + timedelta(seconds=update.wait_s)
    wait = replace(_new(draft, update), due_at=due_at, wait_s=update.wait_s)
    draft.put(wait)
    draft.meter()
    draft.record(EventType.WAIT_STARTED, wait, Duration=update.wait_s, ScheduledEndTimestamp=epoch_ms(due_at))


def _callback(draft: Draft, update: OperationUpdate, existing: Operation | None) -> None:
    if existing is not None:
        raise InvalidParameterValue("Cannot start a CALLBACK that already exists.")
    timeout, heartbeat = update.timeout_s, update.heartbeat_timeout_s
    operation = replace(
        _new(draft, update),
        callback_id=callback_id(draft.execution.id, update.id),
        timeout_s=timeout,
        heartbeat_timeout_s=heartbeat,
        due_at=draft.now + timedelta(seconds=timeout) if timeout else None,
        heartbeat_due_at=draft.now + timedelta(seconds=heartbeat) if heartbeat else None,
    )
    draft.put(operation)
    draft.meter()
    draft.record(
        EventType.CALLBACK_STARTED,
        operation,
        CallbackId=operation.callback_id,
        Timeout=timeout or None,
        HeartbeatTimeout=heartbeat or None,
    )


# --- CHAINED_INVOKE -------------------------------------------------------------------------------------------------------------


def _start_chained(
    draft: Draft, update: OperationUpdate, existing: Operation | None, targets: Mapping[str, Target]
) -> None:
    if existing is not None:
        raise InvalidParameterValue("Cannot start a CHAINED_INVOKE operation that already exists.")
    if update.chained_function is None:
        raise InvalidParameterValue("Update for CHAINED_INVOKE operation requires ChainedInvokeOptions.")
    target = targets[update.id]
    chained = target if isinstance(target, ChainedInvoke) else None
    operation = replace(_new(draft, update), chained=chained)
    draft.put(operation)
    draft.meter()
    draft.record(
        EventType.CHAINED_INVOKE_STARTED,
        operation,
        FunctionName=update.chained_function,
        TenantId=update.tenant_id,
        Input=payload(update.payload),
        ExecutedVersion=chained.version if chained else None,
        DurableExecutionArn=chained.execution_arn if chained else None,
    )
    if chained is not None:
        draft.cause(StartChained(operation.id, chained))
        return
    assert isinstance(target, ErrorObject)
    failed = replace(operation, status=OperationStatus.FAILED, ended_at=draft.now, error=target)
    draft.put(failed)
    draft.record(EventType.CHAINED_INVOKE_FAILED, failed, Error=error_payload(target))


_TRANSITIONS: Mapping[OperationType, Callable[[Draft, OperationUpdate, Operation | None], None]] = {
    OperationType.CONTEXT: _context,
    OperationType.STEP: _step,
    OperationType.WAIT: _wait,
    OperationType.CALLBACK: _callback,
}
