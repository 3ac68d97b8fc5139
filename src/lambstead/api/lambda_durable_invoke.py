"""Invoke of a durable function: starts an execution, and waits for its end unless the caller does not."""

import asyncio
from collections.abc import Callable

from lambstead.api.context import Context, Request, Response, nothing_else
from lambstead.core.durable.answers import MAX_WAIT_S, answer_of, refuse_long_wait, unfinished
from lambstead.core.durable.start_options import StartOptions
from lambstead.core.event_queue import check_payload_size
from lambstead.core.invocations import Target
from lambstead.store.port import Transaction


async def invoke_durable(
    context: Context,
    request: Request,
    target: Target,
    payload: bytes,
    trace_header: str,
    options: StartOptions,
    also: Callable[[Transaction], None] = nothing_else,
) -> Response:
    """The answer to an Invoke of a durable function; one whose execution failed carries its ARN too.

    `also` is written in the transaction that starts the execution.
    """
    config = target.publication.configuration.durable
    assert config is not None
    kind = request.get("InvocationType", "RequestResponse")
    if kind == "RequestResponse":
        refuse_long_wait(config)
    elif kind == "Event":
        check_payload_size(payload)
    else:
        return {"StatusCode": 204}
    execution = await context.durable.start(
        target,
        payload,
        name=request.get("DurableExecutionName"),
        is_synchronous=kind == "RequestResponse",
        trace_header=trace_header,
        tenant_id=request.get("TenantId"),
        also=also,
        options=options,
    )
    arn = execution.arn(context.realm)
    if kind == "Event":
        return {"StatusCode": 202, "DurableExecutionArn": arn, "Payload": b""}
    try:
        async with asyncio.timeout(MAX_WAIT_S):
            answer = answer_of(await context.durable.closed(execution.id))
    except TimeoutError:
        answer = unfinished(arn)
    return {
        "StatusCode": 200,
        "ExecutedVersion": execution.version,
        "FunctionError": "Unhandled" if answer.is_error else None,
        "DurableExecutionArn": arn,
        "Payload": answer.payload,
    }
