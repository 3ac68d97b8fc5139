"""What a durable execution consists of: its record, its operations, its history, and what changes them.

An execution is one logical run of one version of a function. It is made of ordinary invocations, and goes on from operations that the
function's code has checkpointed. The rules (`checkpoints`, `triggers`, `lifecycle`) are functions from a `State` and a moment to a `Change`;
nothing here does I/O. Times are UTC and kept in whole milliseconds. Names are those of the Lambda API 2025-12-01.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from lambstead.core.arn import Realm

Document = dict[str, object]
"""A structure by the member names of the service model."""

MAX_OPERATIONS = 3000
"""Metered operations per execution; one more fails it. Developer guide, quotas."""
MAX_STORED_BYTES = 100 * 1024 * 1024
"""Payloads and errors written per execution, counted together; more fails it. Developer guide, quotas."""
MAX_PAYLOAD_BYTES = 1024 * 1024
"""Payload or error of an operation, result of an execution that was started asynchronously or by another one."""
MAX_SYNC_PAYLOAD_BYTES = 6 * 1024 * 1024
"""Result of an execution that a caller waits for."""
MAX_EXECUTION = timedelta(days=366)
"""Longest life of an execution, pauses included."""


class OperationType(StrEnum):
    """The kinds of operations that a function's code checkpoints. The execution itself is one too: `EXECUTION`."""

    EXECUTION = "EXECUTION"
    CONTEXT = "CONTEXT"
    STEP = "STEP"
    WAIT = "WAIT"
    CALLBACK = "CALLBACK"
    CHAINED_INVOKE = "CHAINED_INVOKE"


class Action(StrEnum):
    """What an update does to its operation."""

    START = "START"
    SUCCEED = "SUCCEED"
    FAIL = "FAIL"
    RETRY = "RETRY"
    CANCEL = "CANCEL"


class OperationStatus(StrEnum):
    """Where an operation stands. All but the first three are final."""

    STARTED = "STARTED"
    PENDING = "PENDING"
    READY = "READY"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"
    STOPPED = "STOPPED"

    @property
    def is_closed(self) -> bool:
        """True when the operation will not change any more."""
        return self not in _OPEN


_OPEN = frozenset({OperationStatus.STARTED, OperationStatus.PENDING, OperationStatus.READY})


class ExecutionStatus(StrEnum):
    """Where an execution stands."""

    RUNNING = "RUNNING"
    PAUSING = "PAUSING"
    """A pause was asked for while the function runs."""
    PAUSED = "PAUSED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    STOPPED = "STOPPED"
    DELETING = "DELETING"

    @property
    def is_closed(self) -> bool:
        """True when no invocation will follow."""
        return self not in (ExecutionStatus.RUNNING, ExecutionStatus.PAUSING, ExecutionStatus.PAUSED)


@dataclass(frozen=True, slots=True)
class ErrorObject:
    """An error as code reported it; what it left out stays out."""

    message: str | None = None
    type: str | None = None
    data: str | None = None
    stack_trace: tuple[str, ...] | None = None

    @classmethod
    def of(cls, document: Mapping[str, object]) -> "ErrorObject":
        """From an ErrorObject of the API. Members of a wrong type are left out: function code can send anything."""
        trace = document.get("StackTrace")
        return cls(
            _text(document.get("ErrorMessage")),
            _text(document.get("ErrorType")),
            _text(document.get("ErrorData")),
            tuple(str(line) for line in trace) if isinstance(trace, list | tuple) else None,
        )

    def document(self) -> Document:
        """As the API spells it."""
        members: Document = {"ErrorMessage": self.message, "ErrorType": self.type, "ErrorData": self.data}
        members["StackTrace"] = None if self.stack_trace is None else list(self.stack_trace)
        return {name: value for name, value in members.items() if value is not None}

    @property
    def size_bytes(self) -> int:
        """Bytes of all members together."""
        parts = [self.message, self.type, self.data, *(self.stack_trace or ())]
        return sum(len(part.encode()) for part in parts if part)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of an execution. Which of the optional members mean something depends on `type`."""

    id: str
    """Chosen by the function's code, the same on every replay."""
    type: OperationType
    sequence: int
    """Order of start within the execution, from 1; the execution itself would be 0."""
    status: OperationStatus
    started_at: datetime
    parent_id: str | None = None
    name: str | None = None
    sub_type: str | None = None
    ended_at: datetime | None = None
    result: str | None = None
    """Opaque text: what a STEP, CONTEXT, CALLBACK or CHAINED_INVOKE came to; between polls the state of a wait-for-condition."""
    error: ErrorObject | None = None
    due_at: datetime | None = None
    """When a timer changes the operation: end of a WAIT, next attempt of a PENDING STEP, timeout of a CALLBACK."""
    attempt: int = 0
    """STEP: attempts that have ended."""
    replay_children: bool = False
    """CONTEXT: its result was too large, and is made again from its children."""
    wait_s: int = 0
    """WAIT: as asked for."""
    timeout_s: int = 0
    """CALLBACK: from its start; 0 for none."""
    heartbeat_timeout_s: int = 0
    """CALLBACK: from its start or last heartbeat; 0 for none."""
    heartbeat_due_at: datetime | None = None
    """CALLBACK: when the missing heartbeat times it out."""
    callback_id: str | None = None
    chained: "ChainedInvoke | None" = None

    @property
    def wakes_at(self) -> datetime | None:
        """When the next timer of the operation is due; None when it has none or is closed."""
        if self.status.is_closed:
            return None
        moments = [at for at in (self.due_at, self.heartbeat_due_at) if at is not None]
        return min(moments) if moments else None


@dataclass(frozen=True, slots=True)
class ChainedInvoke:
    """What a CHAINED_INVOKE runs, resolved when it was started."""

    function_name: str
    """As the code named it."""
    function: str
    version: str | None
    """The version that it was resolved to; None when there was none."""
    is_durable: bool
    payload: str
    tenant_id: str | None = None
    trace_id: str | None = None
    execution_arn: str | None = None
    """Of the child execution, for a durable function."""


@dataclass(frozen=True, slots=True)
class DurableConfig:
    """What a function says of its durable executions."""

    execution_timeout_s: int
    retention_days: int = 14
    kms_key_arn: str | None = None

    def document(self) -> Document:
        """As the API spells it."""
        found: Document = {"ExecutionTimeout": self.execution_timeout_s, "RetentionPeriodInDays": self.retention_days}
        if self.kms_key_arn:
            found["KMSKeyArn"] = self.kms_key_arn
        return found


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal that waits for a callback of its name: see `signals`."""

    name: str
    data: str


@dataclass(frozen=True, slots=True)
class TimeSkip:
    """The clock of an execution that skips time: see `time_skip`."""

    callback_grace: timedelta
    """Real time that others have to complete a callback before its timeout is skipped to."""
    offset: timedelta = timedelta(0)
    """How far its clock is ahead of the real one."""
    idle_since: datetime | None = None
    """When its last invocation ended, by its own clock."""


@dataclass(frozen=True, slots=True)
class Parent:
    """The operation of another execution that waits for this one."""

    execution_id: str
    operation_id: str


@dataclass(frozen=True, slots=True)
class LiveInvocation:
    """The one invocation that may checkpoint."""

    request_id: str
    started_at: datetime
    sequence: int = 0
    """Checkpoints it has made: part of the token, so that each is good for one."""
    is_revoked: bool = False
    """It may checkpoint no further: it closed the execution, used up a quota, or was paused."""


@dataclass(frozen=True, slots=True)
class AnsweredCheckpoint:
    """The last accepted checkpoint, kept so that a repeated request gets the same answer."""

    client_token: str
    checkpoint_token: str
    at: datetime
    next_token: str
    delta: tuple[Operation, ...]


@dataclass(frozen=True, slots=True)
class Pause:
    """Why and since when an execution is to be paused."""

    requested_at: datetime
    reason: str | None
    stops_timeout: bool
    client_token: str | None
    began_at: datetime | None = None
    """When the last invocation had let go; None while PAUSING."""


@dataclass(frozen=True, slots=True)
class CheckpointedEnd:
    """How the function said, in a checkpoint, that the execution ended: for results that no response can carry."""

    is_success: bool
    result: str | None = None
    error: ErrorObject | None = None


@dataclass(frozen=True)
class Execution:
    """One durable execution, without its operations and its input. Without slots, for the sake of `amended`."""

    id: str
    """Last segment of its ARN, and the id of its EXECUTION operation."""
    name: str
    function: str
    version: str
    config: DurableConfig
    started_at: datetime
    timeout_at: datetime
    """When it times out, unless a pause stops that clock; moved by what the pause took."""
    is_synchronous: bool = False
    """A caller waited for it when it was started: its result may be larger."""
    parent: Parent | None = None
    trace_header: str | None = None
    tenant_id: str | None = None
    status: ExecutionStatus = ExecutionStatus.RUNNING
    ended_at: datetime | None = None
    result: str | None = None
    error: ErrorObject | None = None
    live: LiveInvocation | None = None
    was_invoked: bool = False
    """At least one invocation was begun."""
    must_invoke: bool = False
    """An invocation was interrupted by a pause: the next one needs no other trigger."""
    unseen: tuple[str, ...] = ()
    """Ids of operations that changed since the function last saw its state."""
    announced: tuple[str, ...] = ()
    """Ids of operations that had changed when the live invocation began: its event names them."""
    timer_at: datetime | None = None
    """No timer of an operation is due before; the first one may be due later."""
    checkpointed_end: CheckpointedEnd | None = None
    answered: AnsweredCheckpoint | None = None
    """Need not be stored: it is of use to the live invocation only, and that ends with the server."""
    failures: int = 0
    """Invocations in a row that failed; they are repeated with growing delay."""
    idle_returns: int = 0
    """Invocations in a row that returned PENDING with nothing pending."""
    retry_at: datetime | None = None
    """Not to be invoked before: after a failure, a throttle or an idle return."""
    pause: Pause | None = None
    resumed_by: str | None = None
    """Client token of the last resume."""
    resumed_at: datetime | None = None
    operations: int = 1
    """Metered operations so far; the start is one."""
    stored_bytes: int = 0
    last_event: int = 0
    """`EventId` of the last event of its history."""
    last_sequence: int = 0
    """`sequence` of the operation that was started last."""
    skip: TimeSkip | None = None
    """None for the real clock."""
    signals: tuple[Signal, ...] = ()
    """Those that no callback has taken yet, the oldest first."""

    def amended(self, members: Mapping[str, Any]) -> "Execution":  # Any: whatever the members are
        """With other values for some members: `dataclasses.replace` at a fraction of its cost, for what every checkpoint does."""
        copied = object.__new__(Execution)
        mine = vars(copied)
        mine.update(vars(self))
        mine.update(members)
        if len(mine) != len(vars(self)):
            raise TypeError(f"Execution has no {' and no '.join(members.keys() - vars(self).keys())}")
        return copied

    def arn(self, realm: Realm) -> str:
        """The execution's ARN."""
        return execution_arn(realm, self.function, self.version, self.name, self.id)


def execution_arn(realm: Realm, function: str, version: str, name: str, execution_id: str) -> str:
    """ARN of a durable execution; the version is a concrete one."""
    return f"{realm.function_arn(function, version)}/durable-execution/{name}/{execution_id}"


class EventType(StrEnum):
    """Kinds of events in a history: the 26 of the service model."""

    EXECUTION_STARTED = "ExecutionStarted"
    EXECUTION_SUCCEEDED = "ExecutionSucceeded"
    EXECUTION_FAILED = "ExecutionFailed"
    EXECUTION_TIMED_OUT = "ExecutionTimedOut"
    EXECUTION_STOPPED = "ExecutionStopped"
    EXECUTION_PAUSED = "ExecutionPaused"
    EXECUTION_RESUMED = "ExecutionResumed"
    CONTEXT_STARTED = "ContextStarted"
    CONTEXT_SUCCEEDED = "ContextSucceeded"
    CONTEXT_FAILED = "ContextFailed"
    STEP_STARTED = "StepStarted"
    STEP_SUCCEEDED = "StepSucceeded"
    STEP_FAILED = "StepFailed"
    WAIT_STARTED = "WaitStarted"
    WAIT_SUCCEEDED = "WaitSucceeded"
    WAIT_CANCELLED = "WaitCancelled"
    CALLBACK_STARTED = "CallbackStarted"
    CALLBACK_SUCCEEDED = "CallbackSucceeded"
    CALLBACK_FAILED = "CallbackFailed"
    CALLBACK_TIMED_OUT = "CallbackTimedOut"
    CHAINED_INVOKE_STARTED = "ChainedInvokeStarted"
    CHAINED_INVOKE_SUCCEEDED = "ChainedInvokeSucceeded"
    CHAINED_INVOKE_FAILED = "ChainedInvokeFailed"
    CHAINED_INVOKE_TIMED_OUT = "ChainedInvokeTimedOut"
    CHAINED_INVOKE_STOPPED = "ChainedInvokeStopped"
    INVOCATION_COMPLETED = "InvocationCompleted"


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a history."""

    number: int
    """`EventId`: from 1, without gaps, in order of writing."""
    type: EventType
    at: datetime
    operation_id: str | None
    name: str | None = None
    sub_type: str | None = None
    parent_id: str | None = None
    details: Document = field(default_factory=dict)
    """Members of `<EventType>Details` by the model's names, payloads included; times as epoch milliseconds."""


# --- effects ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartChained:
    """Run what a CHAINED_INVOKE asks for, once; its end comes back by `triggers.chained_ended`."""

    operation_id: str
    chained: ChainedInvoke


@dataclass(frozen=True, slots=True)
class StatusChanged:
    """The execution's status changed: subscribers hear of it, and so do waiting callers and the parent when it closed."""

    status: ExecutionStatus


Effect = StartChained | StatusChanged


@dataclass(frozen=True, slots=True)
class State:
    """An execution with everything that the rules look at."""

    execution: Execution
    input_payload: str
    """JSON text as the caller sent it."""
    operations: Mapping[str, Operation]
    """By id, in order of their start; without the execution itself."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a rule made of a state: written in one transaction, or not at all."""

    execution: Execution
    operations: tuple[Operation, ...] = ()
    """New and changed ones."""
    events: tuple[Event, ...] = ()
    effects: tuple[Effect, ...] = ()

    def applied_to(self, state: State) -> State:
        """The state after the change."""
        if not self.operations:
            return replace(state, execution=self.execution)
        changed = {operation.id: operation for operation in self.operations}
        return replace(state, execution=self.execution, operations={**state.operations, **changed})

    def then(self, following: "Change") -> "Change":
        """This change and one that was made of the state after it, as one."""
        operations = {each.id: each for each in (*self.operations, *following.operations)}
        return Change(
            following.execution,
            tuple(operations.values()),
            (*self.events, *following.events),
            (*self.effects, *following.effects),
        )


def joined(first: Change | None, second: Change | None) -> Change | None:
    """Two changes, the second made of the state after the first, as one; None when there is neither."""
    if first is None or second is None:
        return first or second
    return first.then(second)
