"""The invoke path as loops see it: what a queued event, a schedule or a durable execution runs is run like every other invocation."""

from typing import Protocol

from lambstead.core.arn import FunctionRef
from lambstead.core.invocations import Target


class Answer(Protocol):
    """How an invocation ended."""

    @property
    def payload(self) -> bytes: ...
    @property
    def executed_version(self) -> str: ...
    @property
    def is_error(self) -> bool: ...


class Invocations(Protocol):
    """Invocations as Invoke makes them: that of a durable function is an execution, run to its end."""

    async def resolve(self, ref: FunctionRef) -> Target:
        """What an invocation of `ref` would run. Raises DomainError."""

    async def run(
        self, target: Target, *, request_id: str, payload: bytes, trace_id: str, client_context: str, tenant_id: str
    ) -> Answer:
        """Run it to its settlement. Raises DomainError."""


class Functions(Protocol):
    """The functions themselves: one invocation, also of a durable function."""

    async def resolve(self, ref: FunctionRef) -> Target:
        """What an invocation of `ref` would run. Raises DomainError."""

    async def run_once(
        self, target: Target, *, request_id: str, payload: bytes, trace_id: str, tenant_id: str
    ) -> Answer:
        """One invocation; for a durable function the payload is the event of its execution. Raises DomainError."""
