"""What a caller who waits for a durable execution is answered."""

import json
from dataclasses import dataclass

from lambstead.core.durable.model import DurableConfig, ErrorObject, Execution, ExecutionStatus
from lambstead.core.errors import InvalidParameterValue

MAX_WAIT_S = 900
"""How long a synchronous caller waits. Developer guide, invoking durable functions."""


@dataclass(frozen=True, slots=True)
class ExecutionAnswer:
    """The body of the answer, and whether it is an error."""

    payload: bytes
    is_error: bool


def refuse_long_wait(config: DurableConfig) -> None:
    """Raise InvalidParameterValue if nobody may wait for executions that are allowed to take so long. Durable reference §8."""
    if config.execution_timeout_s > MAX_WAIT_S:
        raise InvalidParameterValue(
            "You cannot synchronously invoke a durable function with an executionTimeout greater than 15 minutes."
        )


def answer_of(execution: Execution) -> ExecutionAnswer:
    """The answer for an execution that has ended: its result, or its error in the form of a function's error."""
    if execution.error is None and (execution.status is ExecutionStatus.SUCCEEDED or execution.result is not None):
        return ExecutionAnswer((execution.result or "null").encode(), is_error=False)
    return _error(execution.error or ErrorObject(f"The durable execution ended: {execution.status}."))


def unfinished(arn: str) -> ExecutionAnswer:
    """The answer when the execution did not end in time, for example because it was paused. It goes on."""
    message = f"The durable execution did not end within {MAX_WAIT_S} seconds and goes on: {arn}"
    return _error(ErrorObject(message, "Sandbox.Timedout"))


def _error(error: ErrorObject) -> ExecutionAnswer:
    document = {
        "errorMessage": error.message,
        "errorType": error.type,
        "errorData": error.data,
        "stackTrace": None if error.stack_trace is None else list(error.stack_trace),
    }
    present = {name: value for name, value in document.items() if value is not None}
    return ExecutionAnswer(json.dumps(present).encode(), is_error=True)
