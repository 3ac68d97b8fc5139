"""What an operation may use: the store, the packages, the way to poke the control loops, the invoke path, time and fresh ids."""

import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from lambstead.core.arn import FunctionRef, Realm
from lambstead.core.durable.model import ErrorObject, Execution, State
from lambstead.core.durable.model import Operation as DurableOperation
from lambstead.core.durable.start_options import StartOptions
from lambstead.core.errors import DomainError
from lambstead.core.invocations import Target
from lambstead.core.throttles import Throttles
from lambstead.store.port import Logs, Packages, Store, Transaction

Request = Mapping[str, Any]
"""A parsed and validated request by the members of the service model."""  # Any: documents typed by the model, checked at the wire
Response = dict[str, Any]
"""A response by the members of the service model."""  # Any: see Request


def nothing_else(_: Transaction) -> None:
    """What is written with a start or an event when nothing else is."""


class Outcome(Protocol):
    """How an invocation ended."""

    @property
    def payload(self) -> bytes: ...
    @property
    def executed_version(self) -> str: ...
    @property
    def environment_id(self) -> str: ...
    @property
    def is_error(self) -> bool: ...
    @property
    def content_type(self) -> str: ...


class StreamedResponse(Protocol):
    """An answer that can be read while it comes in: iterate its parts, then look at the outcome."""

    @property
    def outcome(self) -> Outcome | DomainError:
        """How it ended. The payload is what did not come in parts."""

    @property
    def executed_version(self) -> str:
        """The version that answers."""

    @property
    def content_type(self) -> str | None:
        """What the runtime says the parts are; None if none came."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...
    def abandon(self) -> None:
        """Nobody reads on; harmless at the end."""


class Invocations(Protocol):
    """The invoke path as operations see it."""

    async def resolve(self, ref: FunctionRef) -> Target:
        """What an invocation of `ref` would run."""

    async def run(
        self, target: Target, *, request_id: str, payload: bytes, trace_id: str, client_context: str, tenant_id: str
    ) -> Outcome:
        """Run it to its settlement."""

    async def stream(
        self, target: Target, *, request_id: str, payload: bytes, trace_id: str, client_context: str, tenant_id: str
    ) -> StreamedResponse:
        """Run it; returns when the first part of its answer is there, or its end."""

    async def log_tail(self, environment_id: str, request_id: str) -> bytes:
        """The last 4 KB that the invocation wrote to the environment's log."""


class DurableExecutions(Protocol):
    """Durable executions as operations see them. By ARN: ResourceNotFound when there is no such execution."""

    async def start(
        self,
        target: Target,
        payload: bytes,
        *,
        name: str | None,
        is_synchronous: bool,
        trace_header: str | None = None,
        tenant_id: str | None = None,
        also: Callable[[Transaction], None] = nothing_else,
        options: StartOptions = ...,
    ) -> Execution:
        """Start an execution, or find the one that was started with this name and input before. `also` is written in the same transaction."""

    async def closed(self, execution_id: str) -> Execution:
        """The execution once it has ended."""

    async def checkpoint(
        self,
        arn: str,
        token: str,
        client_token: str | None,
        updates: Sequence[Mapping[str, Any]],  # Any: documents of the API
    ) -> tuple[str | None, Sequence[DurableOperation]]:
        """Apply a batch of updates: the next token, and the operations that changed."""

    async def state(self, arn: str, token: str) -> State:
        """What the live invocation with this token may read."""

    async def callback_succeeded(self, callback_id: str, result: bytes) -> None:
        """Complete a callback."""

    async def callback_failed(self, callback_id: str, error: ErrorObject) -> None:
        """Fail a callback."""

    async def callback_heartbeat(self, callback_id: str) -> None:
        """Put off the timeout of a callback whose heartbeat is expected."""

    async def stop(self, arn: str, error: ErrorObject | None) -> datetime:
        """When the execution was stopped, or had ended before."""

    async def pause(self, arn: str, *, reason: str | None, stops_timeout: bool, client_token: str | None) -> None:
        """Begin no invocation until the execution is resumed."""

    async def resume(self, arn: str, *, reason: str | None, client_token: str | None) -> None:
        """Let a paused execution go on."""

    async def delete(self, arn: str) -> datetime:
        """Remove an execution that has ended; when that was asked for."""


class Objects(Protocol):
    """S3, as far as code comes from there."""

    async def fetch(self, bucket: str, key: str, version: str | None, limit_bytes: int) -> bytes:
        """The object. Raises InvalidParameterValue in AWS's words if it cannot be had or is larger than the limit."""


@dataclass(frozen=True, slots=True)
class Context:
    """Handed to every operation."""

    realm: Realm
    store: Store
    packages: Packages
    objects: Objects
    invocations: Invocations
    durable: DurableExecutions
    logs: Logs
    poke: Callable[[], None]
    """Wakes the control loops after a write that gave them something to do."""
    wake_events: Callable[[], None]
    """Wakes the loop that runs asynchronous invocations, after one was queued."""
    wake_event_sources: Callable[[], None]
    """Wakes the loop of event source mappings, after one was changed."""
    wake_schedules: Callable[[], None]
    """Wakes the loop of schedules, after one was created or changed."""
    default_minimum: int
    """Environments of a version whose scaling nobody configured."""
    throttles: Throttles
    """Where refused invocations are counted."""
    concurrent_executions: int
    """The account's limit of standard invocations at once."""
    runtime_obstacle: Callable[[str], str]
    """What a runtime needs that this machine lacks, as a sentence; empty if it can be had. May block while it looks."""
    base_url: str
    """Where clients reach this server; for links in answers."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def timestamp(self) -> str:
        """Now, as `LastModified` members spell it: `2026-11-21T10:00:00.000+0000`."""
        now = self.now()
        return f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03d}+0000"

    def first_publication(self) -> int:
        """Number of a new function's first publication: microseconds, so above all numbers of a function that had its name before."""
        return int(self.now().timestamp() * 1_000_000)

    def new_revision(self) -> str:
        """A fresh RevisionId."""
        return str(uuid.uuid4())

    def new_id(self) -> str:
        """32 random hexadecimal digits."""
        return uuid.uuid4().hex

    def draw(self) -> float:
        """A random number from 0 up to 1."""
        return random.random()


@dataclass(frozen=True, slots=True)
class Call:
    """One request to one operation."""

    request_id: str
    headers: Mapping[str, str]
    """Lower-case names."""


Operation = Callable[[Context, Request, Call], Awaitable[Response]]
