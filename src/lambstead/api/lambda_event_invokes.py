"""Event invoke configs: retries, age and destinations of asynchronous invocations, per qualifier."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from lambstead.api.context import Call, Context, Request, Response
from lambstead.api.lists import DEFAULT_PAGE, decode_marker, page
from lambstead.api.qualifiers import exists
from lambstead.core.arn import LATEST, FunctionRef
from lambstead.core.errors import InvalidParameterValue, ResourceNotFound
from lambstead.core.event_invokes import EventInvokeConfig, check_destinations
from lambstead.store.port import Reader, Transaction

_SETTINGS = ("MaximumRetryAttempts", "MaximumEventAgeInSeconds", "DestinationConfig")


async def put_function_event_invoke_config(context: Context, request: Request, call: Call) -> Response:
    ref = _ref(context, request)
    _refuse_nothing(request)
    config = _changed(EventInvokeConfig(), request, context.now())

    def work(tx: Transaction) -> None:
        _refuse_missing(tx, ref)
        _check_destinations(context, tx, ref, config)
        tx.save_event_invoke_config(ref.name, ref.qualifier or LATEST, config)

    await context.store.write(work)
    return _document(context, ref, config)


async def update_function_event_invoke_config(context: Context, request: Request, call: Call) -> Response:
    ref = _ref(context, request)
    _refuse_nothing(request)

    def work(tx: Transaction) -> EventInvokeConfig:
        _refuse_missing(tx, ref)
        config = _changed(_find(context, tx, ref), request, context.now())
        _check_destinations(context, tx, ref, config)
        tx.save_event_invoke_config(ref.name, ref.qualifier or LATEST, config)
        return config

    return _document(context, ref, await context.store.write(work))


def _ref(context: Context, request: Request) -> FunctionRef:
    """The function and the qualifier that the config is kept under: `$LATEST` when the caller gives none."""
    ref = FunctionRef.parse(request["FunctionName"], context.realm, request.get("Qualifier"))
    return ref._replace(qualifier=ref.qualifier or LATEST)


def _refuse_nothing(request: Request) -> None:
    if not any(member in request for member in _SETTINGS):
        raise InvalidParameterValue("You must specify at least one of error handling or destination setting.")


def _refuse_missing(reader: Reader, ref: FunctionRef) -> None:
    if not exists(reader, ref):
        raise ResourceNotFound("The function doesn't exist.")


def _changed(before: EventInvokeConfig, request: Request, now: datetime) -> EventInvokeConfig:
    """`before` with the members that the request carries; an empty destination removes one."""
    age = request.get("MaximumEventAgeInSeconds")
    destinations = request.get("DestinationConfig") or {}
    return replace(
        before,
        maximum_retry_attempts=request.get("MaximumRetryAttempts", before.maximum_retry_attempts),
        maximum_event_age=before.maximum_event_age if age is None else timedelta(seconds=age),
        on_success=_destination(destinations, "OnSuccess", before.on_success),
        on_failure=_destination(destinations, "OnFailure", before.on_failure),
        last_modified=now,
    )


def _destination(
    destinations: Mapping[str, Any], event: str, before: str | None
) -> str | None:  # Any: DestinationConfig of the API
    if event not in destinations:
        return before
    return destinations[event].get("Destination") or None


def _check_destinations(context: Context, reader: Reader, ref: FunctionRef, config: EventInvokeConfig) -> None:
    check_destinations(
        ref.name,
        config.on_success,
        config.on_failure,
        context.realm,
        lambda name: reader.version(name, LATEST) is not None,
    )


def _find(context: Context, reader: Reader, ref: FunctionRef) -> EventInvokeConfig:
    config = reader.event_invoke_config(ref.name, ref.qualifier or LATEST)
    if config is None:
        raise ResourceNotFound(f"The function {ref.arn(context.realm)} doesn't have an EventInvokeConfig")
    return config


def _document(context: Context, ref: FunctionRef, config: EventInvokeConfig) -> Response:
    age = config.maximum_event_age
    return {
        "LastModified": config.last_modified,
        "FunctionArn": ref.arn(context.realm),
        "MaximumRetryAttempts": config.maximum_retry_attempts,
        "MaximumEventAgeInSeconds": None if age is None else int(age.total_seconds()),
        "DestinationConfig": {
            "OnSuccess": {"Destination": config.on_success},
            "OnFailure": {"Destination": config.on_failure},
        },
    }


async def get_function_event_invoke_config(context: Context, request: Request, call: Call) -> Response:
    ref = _ref(context, request)
    return _document(context, ref, await context.store.read(lambda reader: _find(context, reader, ref)))


async def delete_function_event_invoke_config(context: Context, request: Request, call: Call) -> Response:
    ref = _ref(context, request)

    def work(tx: Transaction) -> None:
        _find(context, tx, ref)
        tx.delete_event_invoke_config(ref.name, ref.qualifier or LATEST)

    await context.store.write(work)
    return {}


async def list_function_event_invoke_configs(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm)
    size = request.get("MaxItems", DEFAULT_PAGE)
    (after,) = decode_marker(request.get("Marker"), ("",))

    def work(reader: Reader) -> list[tuple[str, EventInvokeConfig]]:
        _refuse_missing(reader, FunctionRef(ref.name))
        return list(reader.event_invoke_configs(ref.name, str(after), size + 1))

    configs, marker = page(await context.store.read(work), size, lambda found: (found[0],))
    return {
        "FunctionEventInvokeConfigs": [
            _document(context, FunctionRef(ref.name, qualifier), config) for qualifier, config in configs
        ],
        "NextMarker": marker,
    }
