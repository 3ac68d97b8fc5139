"""InvokeWithResponseStream: the answer of a function while it comes in.

Everything that can be refused is refused before the first byte; what goes wrong later is told in the last event, InvokeComplete. A function that does not
stream is answered the same way, its whole answer in one go.
"""

import base64
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

from lambstead.api.context import Call, Context, Request, Response, StreamedResponse
from lambstead.api.lambda_invoke import checked_payload, decoded_client_context, refuse_tail_on_managed
from lambstead.core.arn import FunctionRef
from lambstead.core.errors import DomainError, InvalidParameterValue
from lambstead.core.traces import trace_header

PIECE_BYTES = 256 * 1024
"""Whole answers are cut into events of this size: clients keep each event in memory."""

Event = Mapping[str, Mapping[str, Any]]  # Any: members of the service model


async def invoke_with_response_stream(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm, request.get("Qualifier"))
    payload = checked_payload(request.get("Payload") or b"")
    client_context = decoded_client_context(request.get("ClientContext", ""))
    target = await context.invocations.resolve(ref)
    tail = request.get("LogType") == "Tail"
    refuse_tail_on_managed(target, tail=tail)
    if target.publication.configuration.durable is not None:
        raise durable_refused()
    if request.get("InvocationType") == "DryRun":
        return {"StatusCode": 204}
    answer = await context.invocations.stream(
        target,
        request_id=call.request_id,
        payload=payload or b"{}",
        trace_id=trace_header(call.headers.get("x-amzn-trace-id", ""), context.now(), context.new_revision()),
        client_context=client_context,
        tenant_id=request.get("TenantId", ""),
    )
    return as_events(answer, call.request_id, context.invocations.log_tail if tail else None)


def durable_refused() -> InvalidParameterValue:
    """The answer to a streamed invocation of a durable function."""
    return InvalidParameterValue("Durable functions cannot be invoked with response streaming: use Invoke.")


LogTail = Callable[[str, str], Awaitable[bytes]]
"""The end of the log of an environment, as far as it is about a request."""


def as_events(answer: StreamedResponse, request_id: str, log_tail: LogTail | None) -> Response:
    """The members of an answer that has begun."""
    return {
        "StatusCode": 200,
        "ExecutedVersion": answer.executed_version,
        "ResponseStreamContentType": "application/vnd.amazon.eventstream",
        "EventStream": _events(answer, request_id, log_tail),
    }


async def _events(answer: StreamedResponse, request_id: str, log_tail: LogTail | None) -> AsyncGenerator[Event, None]:
    try:
        async for part in answer:
            yield {"PayloadChunk": {"Payload": part}}
        outcome = answer.outcome
        if isinstance(outcome, DomainError):
            yield {"InvokeComplete": {"ErrorCode": outcome.shape, "ErrorDetails": outcome.message}}
            return
        if not outcome.is_error:
            for start in range(0, len(outcome.payload), PIECE_BYTES):
                yield {"PayloadChunk": {"Payload": outcome.payload[start : start + PIECE_BYTES]}}
        log = await log_tail(outcome.environment_id, request_id) if log_tail else None
        complete = {
            # The same word as in the header X-Amz-Function-Error of Invoke; the type stands in the document.
            "ErrorCode": "Unhandled" if outcome.is_error else None,
            "ErrorDetails": outcome.payload.decode("utf-8", "replace") if outcome.is_error else None,
            "LogResult": None if log is None else base64.b64encode(log).decode(),
        }
        yield {"InvokeComplete": {name: value for name, value in complete.items() if value is not None}}
    finally:
        answer.abandon()
