"""What moves an execution from outside its function: timers, callbacks, chained invocations; and when the next invocation is due.

Any completion triggers one, not all together: durable reference §7.1.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from lambstead.core.durable.draft import Draft, error_payload, payload
from lambstead.core.durable.model import (
    MAX_EXECUTION,
    MAX_PAYLOAD_BYTES,
    Change,
    ErrorObject,
    EventType,
    Execution,
    ExecutionStatus,
    Operation,
    OperationStatus,
    OperationType,
    State,
)
from lambstead.core.errors import CallbackTimeout, InvalidParameterValue

_GONE_CALLBACK = "The callback is either timed out or already completed"


# --- timers -----------------------------------------------------------------------------------------------------------------------


def fire_due(state: State, now: datetime) -> Change | None:
    """Let everything happen whose time has come: the execution's timeout, or else the timers of its operations."""
    execution = state.execution
    if execution.status.is_closed:
        return None
    draft = Draft(state, now)
    if now >= deadline(execution):
        seconds = execution.config.execution_timeout_s
        error = ErrorObject(f"Execution timed out after {seconds} seconds.")
        draft.record_execution(EventType.EXECUTION_TIMED_OUT, Error=error_payload(error))
        draft.close(ExecutionStatus.TIMED_OUT, error=error)
    else:
        fire_timers(draft)
    return None if draft.is_empty else draft.change()


def deadline(execution: Execution) -> datetime:
    """When the execution times out as things are: a pause may hold that clock, but nothing outlives 366 days."""
    cap = execution.started_at + MAX_EXECUTION
    held = execution.status is ExecutionStatus.PAUSED and execution.pause is not None and execution.pause.stops_timeout
    return cap if held else min(execution.timeout_at, cap)


def fire_timers(draft: Draft) -> None:
    """Let the timers of operations happen that are due, the earliest first."""
    timer_at = draft.timer_at
    if timer_at is None or timer_at > draft.now:
        return
    waiting = [(at, operation) for operation in draft.operations() if (at := operation.wakes_at) is not None]
    due = sorted((each for each in waiting if each[0] <= draft.now), key=lambda each: (each[0], each[1].sequence))
    later = [at for at, _ in waiting if at > draft.now]
    draft.amend(timer_at=min(later) if later else None)
    for at, operation in due:
        _fire(draft, operation, at)


def _fire(draft: Draft, operation: Operation, at: datetime) -> None:
    if operation.type is OperationType.WAIT:
        over = replace(operation, status=OperationStatus.SUCCEEDED, ended_at=draft.now)
        draft.put(over)
        draft.record(EventType.WAIT_SUCCEEDED, over, Duration=operation.wait_s)
    elif operation.type is OperationType.STEP:
        draft.put(replace(operation, status=OperationStatus.READY, due_at=None))
    else:
        assert operation.type is OperationType.CALLBACK
        error = ErrorObject("Callback timed out", "Callback.Timeout")
        if at != operation.due_at:
            error = ErrorObject("Callback timed out on heartbeat", "Callback.Heartbeat")
        over = replace(operation, status=OperationStatus.TIMED_OUT, ended_at=draft.now, error=error)
        draft.put(over)
        draft.record(EventType.CALLBACK_TIMED_OUT, over, Error=error_payload(error))


# --- callbacks --------------------------------------------------------------------------------------------------------------------


def callback_succeeded(state: State, operation_id: str, result: str | None, now: datetime) -> Change:
    """Somebody completed a callback, perhaps with nothing to say. Raises CallbackTimeout when it is not open."""
    operation = _open_callback(state, operation_id, now)
    draft = Draft(state, now)
    over = replace(operation, status=OperationStatus.SUCCEEDED, ended_at=now, result=result)
    draft.put(over)
    draft.meter(0, len((result or "").encode()))
    draft.record(EventType.CALLBACK_SUCCEEDED, over, Result=payload(result))
    return draft.change()


def callback_failed(state: State, operation_id: str, error: ErrorObject, now: datetime) -> Change:
    """Somebody failed a callback. Raises CallbackTimeout when it is not open, InvalidParameterValue for a huge error."""
    if error.size_bytes > MAX_PAYLOAD_BYTES:
        raise InvalidParameterValue(f"Error object size must be less than or equal to {MAX_PAYLOAD_BYTES} bytes.")
    operation = _open_callback(state, operation_id, now)
    draft = Draft(state, now)
    over = replace(operation, status=OperationStatus.FAILED, ended_at=now, error=error)
    draft.put(over)
    draft.meter(0, error.size_bytes)
    draft.record(EventType.CALLBACK_FAILED, over, Error=error_payload(error))
    return draft.change()


def callback_heartbeat(state: State, operation_id: str, now: datetime) -> Change:
    """Somebody is still at work on a callback: only its heartbeat's deadline moves. Raises CallbackTimeout when it is not open."""
    operation = _open_callback(state, operation_id, now)
    draft = Draft(state, now)
    if operation.heartbeat_timeout_s:
        moved = now + timedelta(seconds=operation.heartbeat_timeout_s)
        draft.put_unnoticed(replace(operation, heartbeat_due_at=moved))
    return draft.change()


def _open_callback(state: State, operation_id: str, now: datetime) -> Operation:
    operation = state.operations.get(operation_id)
    if (
        operation is None
        or operation.type is not OperationType.CALLBACK
        or operation.status.is_closed
        or state.execution.status.is_closed
        or (operation.wakes_at is not None and operation.wakes_at <= now)
    ):
        raise CallbackTimeout(_GONE_CALLBACK)
    return operation


# --- chained invocations ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChainedEnd:
    """How a chained invocation ended."""

    status: OperationStatus
    """SUCCEEDED, FAILED, TIMED_OUT or STOPPED."""
    result: str | None = None
    error: ErrorObject | None = None


_CHAINED_EVENTS = {
    OperationStatus.FAILED: EventType.CHAINED_INVOKE_FAILED,
    OperationStatus.TIMED_OUT: EventType.CHAINED_INVOKE_TIMED_OUT,
    OperationStatus.STOPPED: EventType.CHAINED_INVOKE_STOPPED,
}


def chained_ended(state: State, operation_id: str, end: ChainedEnd, now: datetime) -> Change | None:
    """A chained invocation ended. None when nobody waits for it any more: its result is dropped."""
    operation = state.operations.get(operation_id)
    if state.execution.status.is_closed or operation is None or operation.status.is_closed:
        return None
    if end.result is not None and len(end.result.encode()) > MAX_PAYLOAD_BYTES:
        message = f"CHAINED_INVOKE output payload size must be less than or equal to {MAX_PAYLOAD_BYTES} bytes."
        end = ChainedEnd(OperationStatus.FAILED, error=ErrorObject(message, "InvalidParameterValueException"))
    draft = Draft(state, now)
    over = replace(operation, status=end.status, ended_at=now, result=end.result, error=end.error)
    draft.put(over)
    draft.meter(0, len((end.result or "").encode()) + (end.error.size_bytes if end.error else 0))
    if end.status is OperationStatus.SUCCEEDED:
        draft.record(EventType.CHAINED_INVOKE_SUCCEEDED, over, Result=payload(end.result))
    else:
        error = error_payload(end.error or ErrorObject())
        draft.record(_CHAINED_EVENTS[end.status], over, Error=error)
    return draft.change()


# --- the next invocation ------------------------------------------------------------------------------------------------------------


def wants_invocation(state: State, now: datetime) -> bool:
    """True when the function is to be invoked now: there is news for it, it does not run, and nothing holds it back."""
    execution = state.execution
    return has_cause(execution) and (execution.retry_at is None or execution.retry_at <= now)


def without_delay(state: State) -> State:
    """The state in which the function need not wait for its next invocation: there is room, and for want of it the last one was refused."""
    return replace(state, execution=replace(state.execution, retry_at=None))


def has_cause(execution: Execution) -> bool:
    """True when the function is to be invoked, now or after the pause that follows a failure."""
    if execution.status is not ExecutionStatus.RUNNING or execution.live is not None:
        return False
    return not execution.was_invoked or execution.must_invoke or bool(execution.unseen)


def wakes_at(state: State) -> datetime | None:
    """When something happens to the execution by itself; a moment that is past means now. None when it is closed."""
    execution = state.execution
    if execution.status.is_closed:
        return None
    moments = [deadline(execution)]
    if execution.timer_at is not None:
        moments.append(execution.timer_at)
    if has_cause(execution):
        moments.append(execution.retry_at or execution.started_at)
    return min(moments)
