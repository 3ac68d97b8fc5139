"""The invoke path as operations call it: joins `dataplane.invoker` with the environments' logs."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from lambstead.api.context import DurableExecutions
from lambstead.api.lambda_invoke_stream import durable_refused
from lambstead.core.arn import FunctionRef
from lambstead.core.durable.answers import answer_of, refuse_long_wait
from lambstead.core.invocations import Target
from lambstead.dataplane.invoker import Invoker
from lambstead.dataplane.outcomes import Invocation, Outcome
from lambstead.dataplane.streams import ResponseStream

TAIL_BYTES = 4096
TAIL_WAIT_S = 0.5
"""How long the tail of a log waits for the report line, which the agent writes once the environment's output is drained."""


class GatewayInvocations:
    """See `api.context.Invocations`."""

    def __init__(self, invoker: Invoker, log_of: Callable[[str], Path | None]) -> None:
        self._invoker = invoker
        self._log_of = log_of
        self.durable: DurableExecutions | None = None
        """Set before the first invocation: executions run functions, and functions are run as executions."""

    async def resolve(self, ref: FunctionRef) -> Target:
        return await self._invoker.resolve(ref)

    async def run(
        self, target: Target, *, request_id: str, payload: bytes, trace_id: str, client_context: str, tenant_id: str
    ) -> Outcome:
        if target.publication.configuration.durable is not None:
            return await self._execute(target, request_id, payload, trace_id, tenant_id)
        return await self._invoker.invoke(target, Invocation(request_id, payload, trace_id, client_context, tenant_id))

    async def run_once(
        self, target: Target, *, request_id: str, payload: bytes, trace_id: str, tenant_id: str
    ) -> Outcome:
        """One invocation of a function, also of a durable one: then the payload is the event of its execution."""
        return await self._invoker.invoke(target, Invocation(request_id, payload, trace_id, tenant_id=tenant_id))

    async def _execute(self, target: Target, request_id: str, payload: bytes, trace_id: str, tenant_id: str) -> Outcome:
        """A whole execution of a durable function, named by the request: one that is repeated finds it again."""
        config = target.publication.configuration.durable
        assert config is not None
        assert self.durable is not None
        if not target.is_asynchronous:
            refuse_long_wait(config)
        execution = await self.durable.start(
            target,
            payload,
            name=request_id,
            is_synchronous=not target.is_asynchronous,
            trace_header=trace_id,
            tenant_id=tenant_id or None,
        )
        if target.is_asynchronous:
            return Outcome(b"null", execution.version, "")
        answer = answer_of(await self.durable.closed(execution.id))
        return Outcome(answer.payload, execution.version, "", is_error=answer.is_error)

    async def stream(
        self, target: Target, *, request_id: str, payload: bytes, trace_id: str, client_context: str, tenant_id: str
    ) -> ResponseStream:
        if target.publication.configuration.durable is not None:
            raise durable_refused()
        invocation = Invocation(request_id, payload, trace_id, client_context, tenant_id)
        stream = self._invoker.stream(target, invocation)
        await stream.begun()
        return stream

    async def log_tail(self, environment_id: str, request_id: str) -> bytes:
        path = self._log_of(environment_id)
        deadline = time.monotonic() + TAIL_WAIT_S
        while path is not None:
            found = _since_start(path, request_id)
            if f"REPORT RequestId: {request_id}".encode() in found or time.monotonic() >= deadline:
                return found[-TAIL_BYTES:]
            await asyncio.sleep(0.01)
        return b""


def _since_start(path: Path, request_id: str) -> bytes:
    """What the log holds from the start line of a request on; all we read of it if the line is further back than 1 MiB."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - (1 << 20)))
            text = file.read()
    except FileNotFoundError:
        return b""
    return text[max(0, text.find(f"START RequestId: {request_id}".encode())) :]
