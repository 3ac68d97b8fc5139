"""Invoke: RequestResponse and DryRun."""

import base64
import binascii
import codecs

import msgspec

from lambstead.api.context import Call, Context, Request, Response
from lambstead.core.arn import FunctionRef
from lambstead.core.errors import InvalidParameterValue, InvalidRequestContent, NotImplementedYet
from lambstead.core.invocations import Target
from lambstead.core.traces import trace_header

UTF8_PIECE_BYTES = 64 * 1024


async def invoke(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm, request.get("Qualifier"))
    kind = request.get("InvocationType", "RequestResponse")
    if kind == "Event":
        raise NotImplementedYet("Lambstead does not answer Invoke with InvocationType Event yet. Use RequestResponse.")
    if request.get("DurableExecutionName"):
        raise InvalidParameterValue(
            "This Lambstead does not support durable functions yet: leave DurableExecutionName out."
        )
    payload = checked_payload(request.get("Payload") or b"")
    client_context = decoded_client_context(request.get("ClientContext", ""))
    target = await context.invocations.resolve(ref)
    tail = request.get("LogType") == "Tail"
    _refuse_tail_on_managed(target, tail=tail)
    if kind == "DryRun":
        return {"StatusCode": 204}
    outcome = await context.invocations.run(
        target,
        request_id=call.request_id,
        payload=payload or b"{}",
        trace_id=trace_header(call.headers.get("x-amzn-trace-id", ""), context.now(), context.new_revision()),
        client_context=client_context,
        tenant_id=request.get("TenantId", ""),
    )
    log = await context.invocations.log_tail(outcome.environment_id, call.request_id) if tail else None
    return {
        "StatusCode": 200,
        "ExecutedVersion": outcome.executed_version,
        "FunctionError": "Unhandled" if outcome.is_error else None,
        "LogResult": None if log is None else base64.b64encode(log).decode(),
        "Payload": outcome.payload,
    }


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
    try:
        text = base64.b64decode(header, validate=True)
        msgspec.json.decode(text, type=dict)
        return text.decode()
    except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError, ValueError) as exc:
        raise InvalidRequestContent("Client context must be a valid Base64-encoded JSON object.") from exc


def _refuse_tail_on_managed(target: Target, *, tail: bool) -> None:
    if tail and target.publication.configuration.managed is not None:
        raise InvalidParameterValue("Tail logs are not supported for functions configured with capacity provider")
