"""A change in the making: what the rules of durable executions write their consequences into."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from lambstead.core.durable.model import (
    Change,
    CheckpointedEnd,
    Document,
    Effect,
    ErrorObject,
    Event,
    EventType,
    Execution,
    ExecutionStatus,
    Operation,
    State,
    StatusChanged,
)


class Draft:
    """Collects what a rule does to a state at one moment; `change` is the sum. Nothing of the state itself is touched."""

    def __init__(self, state: State, now: datetime) -> None:
        self.now = now
        self._execution = state.execution
        self._amended: dict[str, Any] = {}
        self._state = state
        self._changed: dict[str, Operation] = {}
        self._events: list[Event] = []
        self._effects: list[Effect] = []

    @property
    def execution(self) -> Execution:
        """The execution as it is now."""
        if self._amended:
            # All amendments since the last look at once: an execution has many members to copy, and a batch amends it many times.
            self._execution = self._execution.amended(self._amended)
            self._amended = {}
        return self._execution

    @execution.setter
    def execution(self, execution: Execution) -> None:
        self._execution = execution
        self._amended = {}

    def _latest(self, member: str) -> Any:  # Any: whatever the member is
        """One member of the execution as it is now, without making the whole of it."""
        amended = self._amended
        return amended[member] if member in amended else getattr(self._execution, member)

    def operation(self, operation_id: str) -> Operation | None:
        """One operation as it is now."""
        return self._changed.get(operation_id) or self._state.operations.get(operation_id)

    def operations(self) -> list[Operation]:
        """All operations as they are now, in order of their start."""
        return list({**self._state.operations, **self._changed}.values())

    def put(self, operation: Operation) -> None:
        """Add or replace an operation that the function has not seen so."""
        self._changed[operation.id] = operation
        unseen = self._latest("unseen")
        if operation.id not in unseen:
            self._amended["unseen"] = (*unseen, operation.id)
        self._amended["last_sequence"] = max(self._latest("last_sequence"), operation.sequence)
        self._amend_timer(operation)

    def put_unnoticed(self, operation: Operation) -> None:
        """Replace an operation in a way that the function need not hear of."""
        self._changed[operation.id] = operation
        self._amend_timer(operation)

    def _amend_timer(self, operation: Operation) -> None:
        self._amended["timer_at"] = _earlier(self._latest("timer_at"), operation.wakes_at)

    @property
    def next_sequence(self) -> int:
        """The sequence number of an operation that starts now."""
        number: int = self._latest("last_sequence") + 1
        return number

    @property
    def timer_at(self) -> datetime | None:
        """No timer of an operation is due before."""
        at: datetime | None = self._latest("timer_at")
        return at

    def amend(self, **members: Any) -> None:  # Any: members of Execution
        """Replace members of the execution."""
        self._amended |= members

    def meter(self, operations: int = 1, stored_bytes: int = 0) -> None:
        """Count towards the quotas of the execution."""
        self._amended["operations"] = self._latest("operations") + operations
        self._amended["stored_bytes"] = self._latest("stored_bytes") + stored_bytes

    def record(self, type: EventType, operation: Operation, **details: object) -> None:
        """Append an event of an operation to the history. Members that are None are left out."""
        self._append(type, operation.id, operation.name, operation.sub_type, operation.parent_id, details)

    def record_execution(self, type: EventType, **details: object) -> None:
        """Append an event of the execution itself."""
        self._append(type, self.execution.id, self.execution.name, None, None, details)

    def record_invocation(self, **details: object) -> None:
        """Append the end of an invocation."""
        self._append(EventType.INVOCATION_COMPLETED, None, None, None, None, details)

    def _append(
        self,
        type: EventType,
        operation_id: str | None,
        name: str | None,
        sub_type: str | None,
        parent_id: str | None,
        details: Document,
    ) -> None:
        number = self._latest("last_event") + 1
        present = {member: value for member, value in details.items() if value is not None}
        self._events.append(Event(number, type, self.now, operation_id, name, sub_type, parent_id, present))
        self._amended["last_event"] = number

    def cause(self, effect: Effect) -> None:
        """Something is to follow once the change is written."""
        self._effects.append(effect)

    def set_status(self, status: ExecutionStatus) -> None:
        """Move the execution to another status, which subscribers hear of."""
        self._amended["status"] = status
        self.cause(StatusChanged(status))

    def close(self, status: ExecutionStatus, *, result: str | None = None, error: ErrorObject | None = None) -> None:
        """End the execution: no invocation follows, and what is live may do no more. Its event is the caller's to record."""
        self.execution = replace(
            self.execution,
            ended_at=self.now,
            result=result,
            error=error,
            live=None,
            must_invoke=False,
            unseen=(),
            announced=(),
            checkpointed_end=None,
            answered=None,
            retry_at=None,
            timer_at=None,
            pause=None,
        )
        self.set_status(status)

    def end(self, end: CheckpointedEnd) -> None:
        """Close the execution as its function said, with the event of it."""
        if end.is_success:
            self.record_execution(EventType.EXECUTION_SUCCEEDED, Result=payload(end.result))
            self.close(ExecutionStatus.SUCCEEDED, result=end.result)
        else:
            error = end.error or ErrorObject()
            self.record_execution(EventType.EXECUTION_FAILED, Error=error_payload(error))
            self.close(ExecutionStatus.FAILED, error=error)

    def change(self) -> Change:
        """All of it."""
        return Change(self.execution, tuple(self._changed.values()), tuple(self._events), tuple(self._effects))

    @property
    def is_empty(self) -> bool:
        """True when nothing changed."""
        return not (self._changed or self._events or self._effects) and self.execution == self._state.execution


def payload(text: str | None) -> Document:
    """A payload as events hold it; without text when there was none."""
    return {"Truncated": False} if text is None else {"Payload": text, "Truncated": False}


def error_payload(error: ErrorObject) -> Document:
    """An error as events hold it."""
    return {"Payload": error.document(), "Truncated": False}


def epoch_ms(moment: datetime) -> int:
    """A moment as epoch milliseconds."""
    return round(moment.timestamp() * 1000)


def from_epoch_ms(milliseconds: int) -> datetime:
    """The moment of epoch milliseconds."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    if one is None or other is None:
        return one or other
    return min(one, other)
