"""Event source mappings: create, read, update, delete, list. Their states are brought on by `control.event_sources`."""

import uuid
from collections.abc import Callable
from typing import Any

from lambstead.api.context import Call, Context, Request, Response
from lambstead.api.documents import event_source_mapping
from lambstead.api.lists import decode_marker, page
from lambstead.core.arn import LATEST, FunctionRef
from lambstead.core.errors import InvalidParameterValue, ResourceNotFound
from lambstead.core.event_sources import (
    NOT_ON_MANAGED_INSTANCES,
    DeletionRequested,
    EventSourceMapping,
    Kind,
    State,
    Updated,
    apply,
    created_parameters,
    refuse_duplicate,
    source_of,
    updated_parameters,
)
from lambstead.core.tenancy import refuse_with_tenancy
from lambstead.store.port import Reader, Transaction

DEFAULT_PAGE = 100
MAX_TAGS = 50


async def create_event_source_mapping(context: Context, request: Request, call: Call) -> Response:
    kind, source = source_of(request)
    ref = FunctionRef.parse(request["FunctionName"], context.realm)
    mapping_id = str(uuid.uuid4())
    parameters = _storable(created_parameters(kind, mapping_id, source, request))
    tags = request.get("Tags") or {}
    if len(tags) > MAX_TAGS:
        raise InvalidParameterValue("Number of tags exceeds resource tag limit.")

    def work(tx: Transaction) -> EventSourceMapping:
        _refuse_target(tx, ref, kind)
        existing = tx.event_source_mappings("", function=ref.name)
        refuse_duplicate(kind, source, ref, parameters, existing, context.realm)
        mapping = EventSourceMapping(
            id=mapping_id,
            kind=kind,
            source=source,
            function=ref.name,
            qualifier=ref.qualifier,
            state=State.CREATING,
            last_modified=context.now(),
            wants_enabled=request.get("Enabled", True),
            parameters=parameters,
        )
        tx.save_event_source_mapping(mapping)
        tx.add_tags(context.realm.event_source_mapping_arn(mapping_id), tags)
        return mapping

    return await _changed(context, work)


def _storable(parameters: dict[str, Any]) -> dict[str, Any]:  # Any: members of the API
    """With times as epoch seconds, which the answer's writer takes and a JSON document can keep."""
    start = parameters.get("StartingPositionTimestamp")
    return parameters if start is None else {**parameters, "StartingPositionTimestamp": start.timestamp()}


def _refuse_target(reader: Reader, ref: FunctionRef, kind: Kind) -> None:
    """Raise InvalidParameterValue unless the function exists, with what its qualifier names (text recorded)."""
    function = reader.function(ref.name)
    known = function is not None and (
        ref.qualifier is None or ref.qualifier in function.versions or ref.qualifier in function.aliases
    )
    if function is None or not known:
        raise InvalidParameterValue("Function does not exist")
    latest = function.versions[LATEST]
    refuse_with_tenancy(latest.configuration.tenant_isolation_mode, "An event source mapping")
    if latest.is_managed and kind in NOT_ON_MANAGED_INSTANCES:
        raise InvalidParameterValue(
            f"Event source mappings of {kind} are not supported for functions with a capacity provider configuration."
        )


async def get_event_source_mapping(context: Context, request: Request, call: Call) -> Response:
    mapping = await context.store.read(lambda reader: _find(reader, request["UUID"]))
    return event_source_mapping(mapping, context.realm)


def _find(reader: Reader, mapping_id: str) -> EventSourceMapping:
    mapping = reader.event_source_mapping(mapping_id)
    if mapping is None:
        raise ResourceNotFound("The resource you requested does not exist.")
    return mapping


async def update_event_source_mapping(context: Context, request: Request, call: Call) -> Response:
    def work(tx: Transaction) -> EventSourceMapping:
        mapping = _find(tx, request["UUID"])
        ref = mapping.ref
        if "FunctionName" in request:
            ref = FunctionRef.parse(request["FunctionName"], context.realm)
            _refuse_target(tx, ref, mapping.kind)
        parameters = updated_parameters(mapping, request)
        updated = apply(mapping, Updated(parameters, ref, request.get("Enabled"), context.now()))
        assert updated is not None
        others = [other for other in tx.event_source_mappings("", function=ref.name) if other.id != mapping.id]
        refuse_duplicate(mapping.kind, mapping.source, ref, parameters, others, context.realm)
        tx.save_event_source_mapping(updated)
        return updated

    return await _changed(context, work)


async def delete_event_source_mapping(context: Context, request: Request, call: Call) -> Response:
    def work(tx: Transaction) -> EventSourceMapping:
        deleting = apply(_find(tx, request["UUID"]), DeletionRequested(context.now()))
        assert deleting is not None
        tx.save_event_source_mapping(deleting)
        return deleting

    return await _changed(context, work)


async def _changed(context: Context, work: Callable[[Transaction], EventSourceMapping]) -> Response:
    mapping = await context.store.write(work)
    context.wake_event_sources()
    return event_source_mapping(mapping, context.realm)


async def list_event_source_mappings(context: Context, request: Request, call: Call) -> Response:
    size = request.get("MaxItems", DEFAULT_PAGE)
    (after,) = decode_marker(request.get("Marker"), ("",))
    source = request.get("EventSourceArn")
    ref = FunctionRef.parse(request["FunctionName"], context.realm) if "FunctionName" in request else None

    def work(reader: Reader) -> list[EventSourceMapping]:
        if ref is None or ref.qualifier is None:
            name = ref.name if ref else None
            return list(reader.event_source_mappings(str(after), size + 1, source, name))
        of_function = reader.event_source_mappings(str(after), None, source, ref.name)
        return [mapping for mapping in of_function if mapping.qualifier == ref.qualifier][: size + 1]

    found, marker = page(await context.store.read(work), size, lambda mapping: (mapping.id,))
    return {
        "EventSourceMappings": [event_source_mapping(mapping, context.realm) for mapping in found],
        "NextMarker": marker,
    }
