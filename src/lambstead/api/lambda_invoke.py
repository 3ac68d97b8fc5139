"""Invoke: RequestResponse, Event and DryRun; InvokeAsync, which is Event by its older name. Durable functions: `lambda_durable_invoke`."""

import base64
import binascii
import codecs
from collections.abc import Callable

import msgspec

from lambstead.api.context import Call, Context, Request, Response, nothing_else
from lambstead.api.lambda_durable_invoke import invoke_durable
from lambstead.core.arn import FunctionRef
from lambstead.core.durable.start_options import StartOptions
from lambstead.core.errors import InvalidParameterValue, InvalidRequestContent, TooManyRequests
from lambstead.core.event_queue import QueuedEvent, check_payload_size, check_room
from lambstead.core.invocations import Target
from lambstead.core.lineage import arrive
from lambstead.core.tenancy import check_tenant
from lambstead.core.throttles import Cause
from lambstead.core.traces import trace_header
from lambstead.store.port import Transaction

MAX_CLIENT_CONTEXT_BYTES = 3583
"""Lambda API reference, Invoke, ClientContext. Beyond any limit it would not fit the head of a frame on the invocation link."""

UTF8_PIECE_BYTES = 64 * 1024


async def invoke(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm, request.get("Qualifier"))
    kind = request.get("InvocationType", "RequestResponse")
    payload = checked_payload(request.get("Payload") or b"")
    client_context = decoded_client_context(request.get("ClientContext", ""))
    target = await context.invocations.resolve(ref)
    tenant_id = request.get("TenantId", "")
    check_tenant(target.publication.configuration.tenant_isolation_mode, tenant_id)
    tail = request.get("LogType") == "Tail" and kind != "Event"  # nobody is there to read it
    refuse_tail_on_managed(target, tail=tail)
    if target.publication.configuration.durable is not None:
        options = StartOptions.of_headers(call.headers)
        return await invoke_durable(context, request, target, payload, _trace(context, call), options)
    _refuse_execution_name(request.get("DurableExecutionName"))
    if kind == "DryRun":
        return {"StatusCode": 204}
    if kind == "Event":
        await queue_event(context, call, ref, payload, client_context, tenant_id)
        return {"StatusCode": 202, "Payload": b""}
    outcome = await context.invocations.run(
        target,
        request_id=call.request_id,
        payload=payload or b"{}",
        trace_id=_trace(context, call),
        client_context=client_context,
        tenant_id=tenant_id,
    )
    log = await context.invocations.log_tail(outcome.environment_id, call.request_id) if tail else None
    return {
        "StatusCode": 200,
        "ExecutedVersion": outcome.executed_version,
        "FunctionError": "Unhandled" if outcome.is_error else None,
        "LogResult": None if log is None else base64.b64encode(log).decode(),
        "Payload": outcome.payload,
    }


async def invoke_async(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm)
    payload = checked_payload(request["InvokeArgs"])
    await invoke_event(context, call, ref, payload, "")
    return {"Status": 202}


def _refuse_execution_name(name: str | None) -> None:
    if name:
        raise InvalidParameterValue(
            "DurableExecutionName is supported only for functions that were created with DurableConfig."
        )


async def invoke_event(
    context: Context,
    call: Call,
    ref: FunctionRef,
    payload: bytes,
    client_context: str,
    *,
    execution_name: str | None = None,
    tenant_id: str = "",
    also: Callable[[Transaction], None] = nothing_else,
) -> None:
    """Take an asynchronous invocation: queue it, or start an execution if the function is durable. It is durable when this returns.

    `also` is written in the same transaction, or nothing is. Raises what resolving the function raises, and what `queue_event` does.
    """
    target = await context.invocations.resolve(ref)
    check_tenant(target.publication.configuration.tenant_isolation_mode, tenant_id)
    if target.publication.configuration.durable is not None:
        request = {
            "InvocationType": "Event",
            "DurableExecutionName": execution_name,
            "TenantId": tenant_id or None,
        }
        options = StartOptions.of_headers(call.headers)
        await invoke_durable(context, request, target, payload, _trace(context, call), options, also)
        return
    _refuse_execution_name(execution_name)
    await queue_event(context, call, ref, payload, client_context, tenant_id, also)


async def queue_event(
    context: Context,
    call: Call,
    ref: FunctionRef,
    payload: bytes,
    client_context: str,
    tenant_id: str,
    also: Callable[[Transaction], None] = nothing_else,
) -> None:
    """Take an asynchronous invocation of a function that can be invoked; it is durable, and so is what `also` writes, when this returns.

    Raises RequestEntityTooLarge for more than 1 MB and TooManyRequests when the queue is full.
    """
    check_payload_size(payload)
    step = arrive(_trace(context, call), context.realm.function_arn(ref.name))
    event = QueuedEvent(
        request_id=call.request_id,
        function=ref.name,
        qualifier=ref.qualifier,
        accepted_at=context.now(),
        trace_id=step.trace_header,
        client_context=client_context,
        tenant_id=tenant_id,
        is_looping=step.is_loop,
    )

    def work(tx: Transaction) -> None:
        also(tx)
        check_room(tx.queue_totals(), payload)
        tx.enqueue_event(event, payload or b"{}", event.accepted_at)

    try:
        await context.store.write(work)
    except TooManyRequests:
        context.throttles.add(ref.name, "", Cause.EVENT_QUEUE_FULL)
        raise
    context.wake_events()


def _trace(context: Context, call: Call) -> str:
    return trace_header(call.headers.get("x-amzn-trace-id", ""), context.now(), context.new_revision())


def checked_payload(payload: bytes) -> bytes:
    """The payload if it is JSON. Raises InvalidRequestContent as AWS does; its size was checked when it was read."""
    if payload:
        try:
            # Raw checks the whole text and builds nothing.
            msgspec.json.decode(payload, type=msgspec.Raw)
            _check_utf8(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise InvalidRequestContent(
                f"Could not parse request body into json: Could not parse payload into json: {exc}"
            ) from exc
    return payload


def _check_utf8(payload: bytes) -> None:
    """Raise UnicodeDecodeError unless the payload is UTF-8. Piece by piece, so that no second payload comes into being."""
    if payload.isascii():
        return
    view = memoryview(payload)
    start = 0
    while start < len(payload):
        end = start + UTF8_PIECE_BYTES
        _, used = codecs.utf_8_decode(view[start:end], "strict", end >= len(payload))
        start += used


def decoded_client_context(header: str) -> str:
    """JSON text of the X-Amz-Client-Context header. Raises InvalidRequestContent if it is not base64 of a JSON object."""
    if not header:
        return ""
    if len(header) > MAX_CLIENT_CONTEXT_BYTES:
        raise InvalidRequestContent(f"Client context must be at most {MAX_CLIENT_CONTEXT_BYTES} bytes of Base64.")
    try:
        text = base64.b64decode(header, validate=True)
        msgspec.json.decode(text, type=dict)
        return text.decode()
    except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError, ValueError) as exc:
        raise InvalidRequestContent("Client context must be a valid Base64-encoded JSON object.") from exc


def refuse_tail_on_managed(target: Target, *, tail: bool) -> None:
    """Raise if the caller wants the tail of a log that managed functions do not give."""
    if tail and target.publication.configuration.managed is not None:
        raise InvalidParameterValue("Tail logs are not supported for functions configured with capacity provider")
