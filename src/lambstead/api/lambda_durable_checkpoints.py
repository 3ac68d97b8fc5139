"""What the code of a durable function calls while it runs: checkpoint, and read the rest of its state."""

from lambstead.api.context import Call, Context, Request, Response
from lambstead.core.durable.documents import operation_document, page_documents, state_page
from lambstead.core.durable.records import DEFAULT_PAGE, sequence_of_marker, state_marker


async def checkpoint_durable_execution(context: Context, request: Request, call: Call) -> Response:
    token, changed = await context.durable.checkpoint(
        request["DurableExecutionArn"],
        request["CheckpointToken"],
        request.get("ClientToken"),
        request.get("Updates") or (),
    )
    return {
        "CheckpointToken": token,
        "NewExecutionState": {"Operations": [operation_document(each) for each in changed]},
    }


async def get_durable_execution_state(context: Context, request: Request, call: Call) -> Response:
    marker = request.get("Marker")
    after = sequence_of_marker(marker) if marker else -1
    state = await context.durable.state(request["DurableExecutionArn"], request["CheckpointToken"])
    page, next_after = state_page(state, after, request.get("MaxItems") or DEFAULT_PAGE)
    return {
        "Operations": page_documents(state, page),
        "NextMarker": None if next_after is None else state_marker(next_after),
    }
