"""Durable executions as documents: the members of the service model, and the event that a function is invoked with.

REST answers carry moments as they are, for the wire to write as epoch seconds; the invocation event has integer epoch milliseconds.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from lambstead.core.arn import Realm
from lambstead.core.durable.draft import epoch_ms, from_epoch_ms
from lambstead.core.durable.identifiers import checkpoint_token
from lambstead.core.durable.model import (
    Document,
    Event,
    Execution,
    ExecutionStatus,
    Operation,
    OperationStatus,
    OperationType,
    State,
)

INLINE_STATE_BYTES = 5 * 1024 * 1024
"""Payloads in the state that an invocation begins with; the rest is fetched by pages. Durable reference §4.1."""

_EXECUTION_OPERATION: dict[ExecutionStatus, OperationStatus] = {
    ExecutionStatus.SUCCEEDED: OperationStatus.SUCCEEDED,
    ExecutionStatus.FAILED: OperationStatus.FAILED,
    ExecutionStatus.TIMED_OUT: OperationStatus.TIMED_OUT,
    ExecutionStatus.STOPPED: OperationStatus.STOPPED,
}


def operation_document(operation: Operation, at: Callable[[datetime], object] = lambda moment: moment) -> Document:
    """An Operation of the API; `at` writes moments."""
    document: Document = {
        "Id": operation.id,
        "ParentId": operation.parent_id,
        "Name": operation.name,
        "Type": operation.type,
        "SubType": operation.sub_type,
        "StartTimestamp": at(operation.started_at),
        "EndTimestamp": None if operation.ended_at is None else at(operation.ended_at),
        "Status": operation.status,
    }
    member, details = _details(operation, at)
    document[member] = _present(details)
    return _present(document)


def _details(operation: Operation, at: Callable[[datetime], object]) -> tuple[str, Document]:
    outcome: Document = {
        "Result": operation.result,
        "Error": None if operation.error is None else operation.error.document(),
    }
    due_at = None if operation.due_at is None else at(operation.due_at)
    match operation.type:
        case OperationType.CONTEXT:
            return "ContextDetails", {"ReplayChildren": operation.replay_children or None, **outcome}
        case OperationType.STEP:
            pending = operation.status is OperationStatus.PENDING
            next_attempt = due_at if pending else None
            return "StepDetails", {"Attempt": operation.attempt, "NextAttemptTimestamp": next_attempt, **outcome}
        case OperationType.WAIT:
            return "WaitDetails", {"ScheduledEndTimestamp": due_at}
        case OperationType.CALLBACK:
            return "CallbackDetails", {"CallbackId": operation.callback_id, **outcome}
        case _:
            return "ChainedInvokeDetails", outcome


def execution_operation(state: State, at: Callable[[datetime], object] = lambda moment: moment) -> Document:
    """The operation that the execution itself is."""
    execution = state.execution
    document: Document = {
        "Id": execution.id,
        "Name": execution.name,
        "Type": OperationType.EXECUTION,
        "StartTimestamp": at(execution.started_at),
        "EndTimestamp": None if execution.ended_at is None else at(execution.ended_at),
        "Status": _EXECUTION_OPERATION.get(execution.status, OperationStatus.STARTED),
        "ExecutionDetails": {"InputPayload": state.input_payload},
    }
    return _present(document)


def visible_operations(operations: Iterable[Operation]) -> list[Operation]:
    """Operations that a replay needs, in order of their start: what a closed context came to stands for all that was in it."""
    hidden: set[str] = set()
    shown: list[Operation] = []
    for operation in sorted(operations, key=lambda each: each.sequence):
        if operation.parent_id in hidden:
            hidden.add(operation.id)
            continue
        shown.append(operation)
        if operation.type is OperationType.CONTEXT and operation.status.is_closed and not operation.replay_children:
            hidden.add(operation.id)
    return shown


def state_page(
    state: State, after: int, max_items: int, max_bytes: int = INLINE_STATE_BYTES
) -> tuple[Sequence[Operation | None], int | None]:
    """Operations after a sequence number, -1 for the beginning; None stands for the execution itself, which is number 0.

    Also the sequence number after which the next page begins; None at the end. A page holds one operation at least.
    """
    rest: list[Operation | None] = [
        each for each in visible_operations(state.operations.values()) if each.sequence > after
    ]
    if after < 0:
        rest.insert(0, None)
    size = 0
    for index, operation in enumerate(rest):
        size += len(state.input_payload) if operation is None else _payload_chars(operation)
        if index and (index == max_items or size > max_bytes):
            last = rest[index - 1]
            return rest[:index], 0 if last is None else last.sequence
    return rest, None


def _payload_chars(operation: Operation) -> int:
    return len(operation.result or "") + (operation.error.size_bytes if operation.error else 0) + 512


def page_documents(
    state: State, page: Iterable[Operation | None], at: Callable[[datetime], object] = lambda moment: moment
) -> list[Document]:
    """The operations of a page of state."""
    return [execution_operation(state, at) if each is None else operation_document(each, at) for each in page]


def invocation_event(state: State, realm: Realm, marker: Callable[[int], str]) -> Document:
    """The event for the live invocation; `marker` writes where the next page of state begins."""
    execution = state.execution
    page, next_after = state_page(state, -1, len(state.operations) + 1)
    return {
        "DurableExecutionArn": execution.arn(realm),
        "CheckpointToken": checkpoint_token(execution),
        "InitialExecutionState": {
            "Operations": page_documents(state, page, epoch_ms),
            "NextMarker": "" if next_after is None else marker(next_after),
        },
        "UpdatedOperationIds": list(execution.announced),
    }


# --- history ------------------------------------------------------------------------------------------------------------------------

_MOMENTS = frozenset(
    {"ScheduledEndTimestamp", "StartTimestamp", "EndTimestamp", "PauseRequestTimestamp", "ResumeRequestTimestamp"}
)


def event_document(event: Event, *, include_data: bool) -> Document:
    """An Event of the API; without data, payloads are left out and marked as truncated."""
    details = {name: _detail(name, value, include_data=include_data) for name, value in event.details.items()}
    return _present(
        {
            "EventType": event.type,
            "SubType": event.sub_type,
            "EventId": event.number,
            "Id": event.operation_id,
            "Name": event.name,
            "EventTimestamp": event.at,
            "ParentId": event.parent_id,
            f"{event.type}Details": details,
        }
    )


def _detail(name: str, value: object, *, include_data: bool) -> object:
    if name in _MOMENTS and isinstance(value, int):
        return from_epoch_ms(value)
    if not include_data and isinstance(value, dict) and "Truncated" in value:
        return {"Truncated": True}
    return value


# --- executions ---------------------------------------------------------------------------------------------------------------------


def execution_summary(execution: Execution, realm: Realm) -> Document:
    """An item of ListDurableExecutionsByFunction."""
    return _present(
        {
            "DurableExecutionArn": execution.arn(realm),
            "DurableExecutionName": execution.name,
            "FunctionArn": realm.function_arn(execution.function, execution.version),
            "Status": execution.status,
            "StartTimestamp": execution.started_at,
            "EndTimestamp": execution.ended_at,
            "KMSKeyArn": execution.config.kms_key_arn,
        }
    )


def execution_document(state: State, realm: Realm, *, include_data: bool) -> Document:
    """The answer of GetDurableExecution."""
    execution = state.execution
    document = execution_summary(execution, realm) | {
        "Version": execution.version,
        "DurableConfig": execution.config.document(),
        "ExecutionDataIncluded": include_data,
        "TraceHeader": None if execution.trace_header is None else {"XAmznTraceId": execution.trace_header},
    }
    document.pop("KMSKeyArn", None)
    if include_data:
        error = execution.error
        document |= {
            "InputPayload": state.input_payload,
            "Result": execution.result,
            "Error": None if error is None else error.document(),
        }
    if not execution.status.is_closed:
        document["ExpectedExecutionTimeoutTimestamp"] = execution.timeout_at
    if execution.pause is not None:
        document["PauseDetails"] = _present(
            {
                "PauseRequestTimestamp": execution.pause.requested_at,
                "Reason": execution.pause.reason,
                "ExecutionTimeoutPaused": execution.pause.stops_timeout,
            }
        )
    return _present(document)


def status_change(execution: Execution, realm: Realm, status: ExecutionStatus, at: datetime) -> Document:
    """The detail of EventBridge's `Durable Execution Status Change`."""
    return _present(
        {
            "durableExecutionArn": execution.arn(realm),
            "durableExecutionName": execution.name,
            "functionArn": realm.function_arn(execution.function, execution.version),
            "status": status,
            "startTimestamp": _iso(execution.started_at),
            "endTimestamp": _iso(at) if status.is_closed else None,
        }
    )


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _present(document: Document) -> Document:
    return {name: value for name, value in document.items() if value is not None}
