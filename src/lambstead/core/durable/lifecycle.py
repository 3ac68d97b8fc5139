"""The life of an execution: start, its invocations, stop, pause, resume, deletion.

What an invocation may return and what follows from it is §4 of the durable reference, stop and pause §7.3.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from lambstead.core.durable.draft import Draft, epoch_ms, error_payload, payload
from lambstead.core.durable.model import (
    MAX_EXECUTION,
    MAX_OPERATIONS,
    Change,
    CheckpointedEnd,
    DurableConfig,
    ErrorObject,
    EventType,
    Execution,
    ExecutionStatus,
    LiveInvocation,
    OperationStatus,
    OperationType,
    Parent,
    Pause,
    State,
    StatusChanged,
    TimeSkip,
)
from lambstead.core.durable.triggers import fire_due, wants_invocation
from lambstead.core.durable.updates import output_limit
from lambstead.core.errors import IllegalTransition, ResourceConflict

IDLE_LIMIT = 3
"""Invocations in a row that may return PENDING with nothing pending; the last of them fails the execution. Reference §4.2."""
IDLE_DELAY = timedelta(seconds=5)
"""Time between them. Reference §4.2: measured on AWS's emulator."""
TOKEN_WINDOW = timedelta(minutes=15)
"""How long a repeated pause or resume with the same client token is the same request."""

_INVALID = "InvalidParameterValueException"


@dataclass(frozen=True, slots=True)
class Backoff:
    """How failed invocations are repeated: until the execution times out, with growing delay. AWS publishes no figures."""

    first: timedelta = timedelta(seconds=1)
    most: timedelta = timedelta(minutes=5)

    def delay(self, failures: int) -> timedelta:
        """Time before the invocation after so many failures in a row."""
        doubled: timedelta = self.first * 2 ** min(failures - 1, 30)
        return min(doubled, self.most)


# --- start ------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """What an execution is started with."""

    execution_id: str
    name: str
    function: str
    version: str
    config: DurableConfig
    input_payload: str
    is_synchronous: bool = False
    parent: Parent | None = None
    trace_header: str | None = None
    tenant_id: str | None = None
    skip: TimeSkip | None = None


def start(start: Start, now: datetime) -> tuple[State, Change]:
    """A new execution, and what is to be written of it."""
    timeout = timedelta(seconds=start.config.execution_timeout_s)
    execution = Execution(
        id=start.execution_id,
        name=start.name,
        function=start.function,
        version=start.version,
        config=start.config,
        started_at=now,
        timeout_at=now + timeout,
        is_synchronous=start.is_synchronous,
        parent=start.parent,
        trace_header=start.trace_header,
        tenant_id=start.tenant_id,
        skip=start.skip,
        stored_bytes=len(start.input_payload.encode()),
    )
    state = State(execution, start.input_payload, {})
    draft = Draft(state, now)
    draft.record_execution(
        EventType.EXECUTION_STARTED,
        Input=payload(start.input_payload),
        ExecutionTimeout=start.config.execution_timeout_s,
    )
    draft.cause(StatusChanged(ExecutionStatus.RUNNING))
    change = draft.change()
    return change.applied_to(state), change


# --- invocations --------------------------------------------------------------------------------------------------------------------


def begin_invocation(state: State, request_id: str, now: datetime) -> Change:
    """Begin the invocation that the execution wants. Timers that are due happen first, and may end it instead: then nothing is live."""
    if not wants_invocation(state, now):
        raise IllegalTransition(f"execution {state.execution.id} wants no invocation")
    fired = fire_due(state, now)
    if fired is not None and fired.execution.status.is_closed:
        return fired
    execution = fired.execution if fired is not None else state.execution
    begun = replace(
        execution,
        live=LiveInvocation(request_id, now),
        was_invoked=True,
        must_invoke=False,
        retry_at=None,
        announced=execution.unseen,
        unseen=(),
        answered=None,
    )
    return Change(begun) if fired is None else replace(fired, execution=begun)


@dataclass(frozen=True, slots=True)
class Returned:
    """The function returned; its output is whatever bytes it gave."""

    output: bytes


@dataclass(frozen=True, slots=True)
class Crashed:
    """The function did not return: it threw, exited, timed out, or was lost with its instance."""

    error: ErrorObject


@dataclass(frozen=True, slots=True)
class Lost:
    """The server that ran the function ended, which says nothing of the function: it is invoked again at once."""

    error: ErrorObject


@dataclass(frozen=True, slots=True)
class NotRun:
    """The function was never given the event, for want of concurrency or of a place to run."""

    because: str


@dataclass(frozen=True, slots=True)
class Gone:
    """The function or its version does not exist any more."""

    message: str


InvocationEnd = Returned | Crashed | Lost | NotRun | Gone


def invocation_ended(
    state: State, request_id: str, end: InvocationEnd, backoff: Backoff, now: datetime
) -> Change | None:
    """What follows from the end of an invocation. None when it is not the live one: its execution ended, or another took its place."""
    execution = state.execution
    live = execution.live
    if live is None or live.request_id != request_id:
        return None
    draft = Draft(state, now)
    draft.execution = replace(execution, live=None, announced=(), answered=None)
    match end:
        case Gone(message):
            draft.end(CheckpointedEnd(is_success=False, error=ErrorObject(message, "ResourceNotFoundException")))
        case NotRun() if execution.checkpointed_end is not None:
            draft.end(
                execution.checkpointed_end
            )  # it did run, whatever the invoke path says: the function's word counts
        case NotRun():
            unseen = (*execution.announced, *(each for each in execution.unseen if each not in execution.announced))
            draft.execution = replace(draft.execution, unseen=unseen)
            _repeat(draft, backoff)
        case Crashed(error):
            _completed(draft, live, error_payload(error))
            _after_crash(draft, error, backoff)
        case Lost(error):
            _completed(draft, live, error_payload(error))
            _after_crash(draft, error, None)
        case Returned(output):
            _after_return(draft, live, envelope_of(output))
    return draft.change()


def _completed(draft: Draft, live: LiveInvocation, error: Mapping[str, object]) -> None:
    draft.record_invocation(
        StartTimestamp=epoch_ms(live.started_at),
        EndTimestamp=epoch_ms(draft.now),
        RequestId=live.request_id,
        Error=error,
    )


def _repeat(draft: Draft, backoff: Backoff | None) -> None:
    """Have the function invoked again, after a while or without back-off at once; a pause that was asked for begins."""
    if backoff is None:
        draft.execution = replace(draft.execution, must_invoke=True, retry_at=None)
    else:
        failures = draft.execution.failures + 1
        retry_at = draft.now + backoff.delay(failures)
        draft.execution = replace(draft.execution, failures=failures, must_invoke=True, retry_at=retry_at)
    if draft.execution.status is ExecutionStatus.PAUSING:
        begin_pause(draft)


def _after_crash(draft: Draft, error: ErrorObject, backoff: Backoff | None) -> None:
    end = draft.execution.checkpointed_end
    if end is not None:
        draft.end(end)
        return
    draft.meter(1, error.size_bytes)
    if draft.execution.operations > MAX_OPERATIONS:
        draft.end(CheckpointedEnd(is_success=False, error=error))
        return
    _repeat(draft, backoff)


@dataclass(frozen=True, slots=True)
class Pending:
    """The function suspended itself."""


def envelope_of(output: bytes) -> CheckpointedEnd | Pending | str:
    """What the function returned: the end of the execution, a suspension, or the message for what is neither."""
    try:
        document = json.loads(output)
    except ValueError:
        document = None
    status = document.get("Status") if isinstance(document, dict) else None
    if not isinstance(document, dict) or status not in ("SUCCEEDED", "FAILED", "PENDING"):
        return "Invalid Status in invocation output."
    result, error = document.get("Result"), document.get("Error")
    if status == "PENDING":
        return Pending()
    if status == "FAILED":
        if result is not None:
            return "Cannot provide a Result for FAILED status."
        described = ErrorObject.of(error) if isinstance(error, dict) else ErrorObject()
        return CheckpointedEnd(is_success=False, error=described)
    if error is not None:
        return "Cannot provide an Error for SUCCEEDED status."
    if result is not None and not isinstance(result, str):
        return "Invalid Result in invocation output: it must be a string."
    return CheckpointedEnd(is_success=True, result=result)


def _after_return(draft: Draft, live: LiveInvocation, returned: CheckpointedEnd | Pending | str) -> None:
    draft.execution = replace(draft.execution, failures=0)
    end = draft.execution.checkpointed_end or returned
    if isinstance(end, str):
        end = CheckpointedEnd(is_success=False, error=ErrorObject(end, _INVALID))
    elif isinstance(end, CheckpointedEnd):
        end = _fitting(end, draft.execution)
    else:
        _completed(draft, live, {})
        _after_pending(draft, live)
        return
    _completed(draft, live, {} if end.is_success else error_payload(end.error or ErrorObject()))
    draft.end(end)


def _fitting(end: CheckpointedEnd, execution: Execution) -> CheckpointedEnd:
    """The end itself, or a failure if its result is larger than may be."""
    limit = output_limit(is_synchronous=execution.is_synchronous)
    if end.result is None or len(end.result.encode()) <= limit:
        return end
    message = f"Execution output payload size must be less than or equal to {limit} bytes."
    return CheckpointedEnd(is_success=False, error=ErrorObject(message, _INVALID))


def _after_pending(draft: Draft, live: LiveInvocation) -> None:
    execution = draft.execution
    if execution.status is ExecutionStatus.PAUSING:
        draft.execution = replace(execution, idle_returns=0, must_invoke=True)
        begin_pause(draft)
    elif live.is_revoked or execution.unseen or _has_something_pending(draft):
        draft.execution = replace(execution, idle_returns=0)
    elif execution.idle_returns + 1 >= IDLE_LIMIT:
        message = "Cannot return PENDING status with no pending operations."
        draft.end(CheckpointedEnd(is_success=False, error=ErrorObject(message, _INVALID)))
    else:
        draft.execution = replace(
            execution,
            idle_returns=execution.idle_returns + 1,
            must_invoke=True,
            retry_at=draft.now + IDLE_DELAY,
        )


_WAITED_FOR = frozenset({OperationType.WAIT, OperationType.CALLBACK, OperationType.CHAINED_INVOKE})


def _has_something_pending(draft: Draft) -> bool:
    return any(
        operation.status is OperationStatus.PENDING
        or (operation.status is OperationStatus.STARTED and operation.type in _WAITED_FOR)
        for operation in draft.operations()
    )


# --- stop, pause, resume, delete ------------------------------------------------------------------------------------------------------


def stop(state: State, error: ErrorObject | None, now: datetime) -> tuple[datetime, Change | None]:
    """End an execution from outside: when it ended, and what is to be written. One that has ended stays as it is.

    Open operations stay as they are; a function that runs learns of it at its next checkpoint.
    """
    execution = state.execution
    if execution.status.is_closed:
        return execution.ended_at or now, None
    draft = Draft(state, now)
    draft.record_execution(EventType.EXECUTION_STOPPED, Error=error_payload(error or ErrorObject()))
    draft.close(ExecutionStatus.STOPPED, error=error)
    return now, draft.change()


def pause(
    state: State, *, reason: str | None, stops_timeout: bool, client_token: str | None, now: datetime
) -> Change | None:
    """Hold an execution: no invocation begins until it is resumed. None for a repeated request; raises ResourceConflict unless it runs."""
    execution = state.execution
    held = execution.pause
    if held is not None and _repeats(client_token, held.client_token, held.requested_at, now):
        return None
    if execution.status is not ExecutionStatus.RUNNING:
        raise ResourceConflict(f"The durable execution can't be paused: its status is {execution.status}.")
    draft = Draft(state, now)
    asked = Pause(now, reason, stops_timeout, client_token)
    draft.execution = replace(execution, pause=asked, resumed_by=None, resumed_at=None)
    if execution.live is not None:
        draft.set_status(ExecutionStatus.PAUSING)
    else:
        begin_pause(draft)
    return draft.change()


def begin_pause(draft: Draft) -> None:
    """The pause that was asked for begins: no invocation is live, or the live one may checkpoint no more."""
    pause = draft.execution.pause
    if pause is None:
        raise IllegalTransition(f"execution {draft.execution.id} was not asked to pause")
    draft.execution = replace(draft.execution, pause=replace(pause, began_at=draft.now))
    draft.set_status(ExecutionStatus.PAUSED)
    draft.record_execution(
        EventType.EXECUTION_PAUSED,
        PauseRequestTimestamp=epoch_ms(pause.requested_at),
        Reason=None if pause.reason is None else payload(pause.reason),
        ExecutionTimeoutPaused=pause.stops_timeout,
    )


def resume(state: State, *, reason: str | None, client_token: str | None, now: datetime) -> Change | None:
    """Let a paused execution go on, or call off a pause that has not begun. None for a repeated request; raises ResourceConflict otherwise."""
    execution = state.execution
    if execution.resumed_at is not None and _repeats(client_token, execution.resumed_by, execution.resumed_at, now):
        return None
    pause = execution.pause
    if pause is None or execution.status not in (ExecutionStatus.PAUSING, ExecutionStatus.PAUSED):
        raise ResourceConflict(f"The durable execution can't be resumed: its status is {execution.status}.")
    draft = Draft(state, now)
    timeout_at = execution.timeout_at
    if pause.began_at is not None:
        if pause.stops_timeout:
            timeout_at = min(timeout_at + (now - pause.began_at), execution.started_at + MAX_EXECUTION)
        draft.record_execution(
            EventType.EXECUTION_RESUMED,
            ResumeRequestTimestamp=epoch_ms(now),
            Reason=None if reason is None else payload(reason),
        )
    draft.execution = replace(
        draft.execution, pause=None, timeout_at=timeout_at, resumed_by=client_token, resumed_at=now
    )
    draft.set_status(ExecutionStatus.RUNNING)
    return draft.change()


def _repeats(token: str | None, known: str | None, at: datetime, now: datetime) -> bool:
    return token is not None and token == known and now - at <= TOKEN_WINDOW


def delete(state: State) -> Change | None:
    """Mark an execution that has ended for deletion. None if it is already; raises ResourceConflict while it has not ended."""
    execution = state.execution
    if not execution.status.is_closed:
        raise ResourceConflict(
            f"The durable execution can't be deleted: its status is {execution.status}. Stop it first."
        )
    if execution.status is ExecutionStatus.DELETING:
        return None
    return Change(replace(execution, status=ExecutionStatus.DELETING))
