"""Durable executions as they are kept: what a list shows, how long they stay, when a start is a repetition of an earlier one."""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from lambstead.core.durable.model import Execution, ExecutionStatus
from lambstead.core.durable.time_skip import real_time
from lambstead.core.errors import InvalidParameterValue

DEFAULT_PAGE = 100
"""Items of a page of executions, events or operations when the caller names no number, or 0. Service model, ItemCount."""


@dataclass(frozen=True, slots=True)
class ExecutionSummary:
    """An execution as lists show it: without its result, which may be large."""

    id: str
    name: str
    function: str
    version: str
    status: ExecutionStatus
    started_at: datetime
    ended_at: datetime | None
    kms_key_arn: str | None


@dataclass(frozen=True, slots=True)
class ExecutionQuery:
    """Which executions of one function a list shows."""

    function: str
    version: str | None = None
    name: str | None = None
    statuses: tuple[ExecutionStatus, ...] = ()
    """Any of these; every one when empty."""
    started_after: datetime | None = None
    started_before: datetime | None = None
    oldest_first: bool = False


@dataclass(frozen=True, slots=True)
class KeptExecution:
    """An execution that was found by its name, and what tells a repeated start from another one."""

    execution: Execution
    input_digest: str

    def is_started_by(self, version: str, input_digest: str) -> bool:
        """True when a start of this version with this input asks for the same execution."""
        return (self.execution.version, self.input_digest) == (version, input_digest)


@dataclass(frozen=True, slots=True)
class Errand:
    """What is still to be done for a CHAINED_INVOKE: run its function, or tell it how its child execution ended."""

    execution_id: str
    """Of the execution that the operation belongs to."""
    operation_id: str
    child_id: str | None = None
    """The closed child execution whose end is to be told; None when the function is to be run."""
    refusals: int = 0
    """How often the function could not be run."""

    @property
    def key(self) -> str:
        """Tells it from all others; begins with its execution."""
        return f"{self.execution_id}/{self.operation_id}"


def input_digest(payload: str) -> str:
    """SHA-256 of an input, by which a repeated start is known."""
    return hashlib.sha256(payload.encode()).hexdigest()


def expires_at(execution: Execution) -> datetime | None:
    """From when on the execution is gone: its retention after its end, at once when it was deleted; None while it is not closed."""
    if execution.ended_at is None:
        return None
    if execution.status is ExecutionStatus.DELETING:
        return real_time(execution, execution.ended_at)
    return real_time(execution, execution.ended_at) + timedelta(days=execution.config.retention_days)


def is_kept(execution: Execution, now: datetime) -> bool:
    """True while the execution has its name."""
    expiry = expires_at(execution)
    return expiry is None or expiry > now


def is_shown(execution: Execution, now: datetime) -> bool:
    """True while the execution can be looked at: as long as it is kept, and while it is being removed because somebody deleted it."""
    return is_kept(execution, now) or execution.status is ExecutionStatus.DELETING


def state_marker(sequence: int) -> str:
    """The marker of the page of state that begins after the operation with this sequence number."""
    return base64.b64encode(f"state|{sequence}".encode()).decode()


def sequence_of_marker(marker: str) -> int:
    """The sequence number in a marker of state. Raises InvalidParameterValue for a marker that no page ended with."""
    try:
        kind, _, sequence = base64.b64decode(marker, validate=True).decode().partition("|")
        if kind == "state" and sequence.isdecimal():
            return int(sequence)
    except (binascii.Error, UnicodeDecodeError, ValueError):
        pass
    raise InvalidParameterValue("Invalid marker")
