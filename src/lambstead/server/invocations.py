"""The invoke path as operations call it: joins `dataplane.invoker` with the environments' logs."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from lambstead.core.arn import FunctionRef
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

    async def resolve(self, ref: FunctionRef) -> Target:
        return await self._invoker.resolve(ref)

    async def run(
        self, target: Target, *, request_id: str, payload: bytes, trace_id: str, client_context: str, tenant_id: str
    ) -> Outcome:
        return await self._invoker.invoke(target, Invocation(request_id, payload, trace_id, client_context, tenant_id))

    async def stream(
        self, target: Target, *, request_id: str, payload: bytes, trace_id: str, client_context: str, tenant_id: str
    ) -> ResponseStream:
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
