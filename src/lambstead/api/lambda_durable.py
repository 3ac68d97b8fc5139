"""Durable executions from outside: look at them, stop, pause, resume and delete them, complete their callbacks."""

from lambstead.api.context import Call, Context, Request, Response
from lambstead.api.lambda_functions import find
from lambstead.api.lists import decode_marker, encode_marker
from lambstead.core.arn import LATEST, FunctionRef
from lambstead.core.durable.documents import event_document, execution_document
from lambstead.core.durable.model import ErrorObject, Event, ExecutionStatus, State, execution_arn
from lambstead.core.durable.records import DEFAULT_PAGE, ExecutionQuery, ExecutionSummary
from lambstead.core.errors import ResourceNotFound
from lambstead.store.port import Reader

NEWEST = 2**62
"""A number above that of every event."""


async def get_durable_execution(context: Context, request: Request, call: Call) -> Response:
    include_data = request.get("IncludeExecutionData", True)

    def work(reader: Reader) -> State:
        execution_id = _find(context, reader, request["DurableExecutionArn"])
        execution = reader.durable_execution(execution_id, context.now())
        assert execution is not None
        return State(execution, reader.durable_input(execution_id) if include_data else "", {})

    state = await context.store.read(work)
    return execution_document(state, context.realm, include_data=include_data)


def _find(context: Context, reader: Reader, arn: str) -> str:
    """The id of the execution with this ARN. Raises ResourceNotFound."""
    execution_id = arn.rpartition("/")[2]
    execution = reader.durable_execution(execution_id, context.now())
    if execution is None or execution.arn(context.realm) != arn:
        raise ResourceNotFound("Durable Execution does not exist")
    return execution_id


async def get_durable_execution_history(context: Context, request: Request, call: Call) -> Response:
    size = request.get("MaxItems") or DEFAULT_PAGE
    is_backwards = request.get("ReverseOrder", False)
    (position,) = decode_marker(request.get("Marker"), (NEWEST if is_backwards else 0,))

    def work(reader: Reader) -> list[Event]:
        execution_id = _find(context, reader, request["DurableExecutionArn"])
        read = reader.durable_events_backwards if is_backwards else reader.durable_events
        return list(read(execution_id, int(position), size + 1))

    events = await context.store.read(work)
    include_data = request.get("IncludeExecutionData", True)
    return {
        "Events": [event_document(each, include_data=include_data) for each in events[:size]],
        "NextMarker": encode_marker((events[size - 1].number,)) if len(events) > size else None,
    }


async def list_durable_executions_by_function(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm, request.get("Qualifier"))
    size = request.get("MaxItems") or DEFAULT_PAGE
    marker = request.get("Marker")
    started, last_id = decode_marker(marker, (0, ""))

    def work(reader: Reader) -> list[ExecutionSummary]:
        version = find(context, reader, ref).version if ref.qualifier is not None else None
        if reader.version(ref.name, LATEST) is None:
            raise ResourceNotFound(f"Function not found: {ref.arn(context.realm)}")
        query = ExecutionQuery(
            function=ref.name,
            version=version,
            name=request.get("DurableExecutionName"),
            statuses=tuple(ExecutionStatus(each) for each in request.get("Statuses") or ()),
            started_after=request.get("StartedAfter"),
            started_before=request.get("StartedBefore"),
            oldest_first=request.get("ReverseOrder", False),
        )
        position = (int(started), str(last_id)) if marker else None
        return list(reader.durable_executions(query, position, size + 1, context.now()))

    found = await context.store.read(work)
    shown = found[:size]
    more = len(found) > size
    return {
        "DurableExecutions": [_summary(context, each) for each in shown],
        "NextMarker": encode_marker((round(shown[-1].started_at.timestamp() * 1000), shown[-1].id)) if more else None,
    }


def _summary(context: Context, found: ExecutionSummary) -> Response:
    return {
        "DurableExecutionArn": execution_arn(context.realm, found.function, found.version, found.name, found.id),
        "DurableExecutionName": found.name,
        "FunctionArn": context.realm.function_arn(found.function, found.version),
        "Status": found.status,
        "StartTimestamp": found.started_at,
        "EndTimestamp": found.ended_at,
        "KMSKeyArn": found.kms_key_arn,
    }


async def stop_durable_execution(context: Context, request: Request, call: Call) -> Response:
    given = request.get("Error")
    error = ErrorObject.of(given) if given else None
    return {"StopTimestamp": await context.durable.stop(request["DurableExecutionArn"], error)}


async def pause_durable_execution(context: Context, request: Request, call: Call) -> Response:
    await context.durable.pause(
        request["DurableExecutionArn"],
        reason=request.get("Reason"),
        stops_timeout=request.get("ExecutionTimeoutPaused", True),
        client_token=request.get("ClientToken"),
    )
    return {}


async def resume_durable_execution(context: Context, request: Request, call: Call) -> Response:
    await context.durable.resume(
        request["DurableExecutionArn"], reason=request.get("Reason"), client_token=request.get("ClientToken")
    )
    return {}


async def delete_durable_execution(context: Context, request: Request, call: Call) -> Response:
    return {"DeletionRequestTimestamp": await context.durable.delete(request["DurableExecutionArn"])}


async def send_durable_execution_callback_success(context: Context, request: Request, call: Call) -> Response:
    await context.durable.callback_succeeded(request["CallbackId"], request.get("Result") or b"")
    return {}


async def send_durable_execution_callback_failure(context: Context, request: Request, call: Call) -> Response:
    await context.durable.callback_failed(request["CallbackId"], ErrorObject.of(request.get("Error") or {}))
    return {}


async def send_durable_execution_callback_heartbeat(context: Context, request: Request, call: Call) -> Response:
    await context.durable.callback_heartbeat(request["CallbackId"])
    return {}
