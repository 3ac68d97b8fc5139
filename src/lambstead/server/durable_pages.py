"""Our own pages for durable executions, under `/_lambstead/durable`: JSON in, JSON out. Times are ISO 8601, in an execution's own clock.

An execution stands in a path by its id, the last segment of its ARN. A refusal is `{"error": <AWS's name of it>, "message": <a sentence>}`.
"""

import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lambstead.control.durable.engine import DurableEngine
from lambstead.core.arn import Realm
from lambstead.core.durable.documents import event_document, execution_document
from lambstead.core.durable.model import ErrorObject, Event, Execution, State
from lambstead.core.errors import (
    DomainError,
    InvalidParameterValue,
    ResourceConflict,
    ResourceNotFound,
    ServiceFailure,
    TooManyRequests,
)
from lambstead.store.port import Reader, Store

MAX_BODY_BYTES = 8 * 1024 * 1024
EVENTS_PAGE = 1000
ROOT = "/_lambstead/durable"

Document = dict[str, Any]  # Any: JSON

_STATUS: dict[type[DomainError], int] = {
    ResourceNotFound: 404,
    ResourceConflict: 409,
    TooManyRequests: 429,
    ServiceFailure: 500,
}


class DurablePages:
    """The routes; see the module."""

    def __init__(self, store: Store, engine: DurableEngine, realm: Realm, now: Callable[[], datetime]) -> None:
        self._store = store
        self._engine = engine
        self._realm = realm
        self._now = now
        one = f"{ROOT}/executions/{{id}}"
        self.routes = [
            self._route(one, "GET", self._show),
            self._route(f"{one}/history", "GET", self._history),
            self._route(f"{one}/stop", "POST", self._stop),
            self._route(f"{one}/skip", "POST", self._skip),
            self._route(f"{one}/redrive", "POST", self._redrive),
        ]

    def _route(self, path: str, method: str, page: Callable[[Request, Document], Awaitable[object]]) -> Route:
        return Route(path, partial(_answer, page), methods=[method])

    # --- looking ---------------------------------------------------------------------------------------------------------

    async def _show(self, request: Request, body: Document) -> object:
        state = await self._read(request.path_params["id"])
        return self._document(state)

    async def _history(self, request: Request, body: Document) -> object:
        after = _whole(request, "after", 0)
        state_of = request.path_params["id"]

        def work(reader: Reader) -> list[Event]:
            self._found(reader, state_of)
            return list(reader.durable_events(state_of, after, EVENTS_PAGE))

        events = await self._store.read(work)
        return {
            "Events": [event_document(each, include_data=True) for each in events],
            "NextAfter": events[-1].number if len(events) == EVENTS_PAGE else None,
        }

    async def _read(self, execution_id: str) -> State:
        def work(reader: Reader) -> State:
            self._found(reader, execution_id)
            state = reader.durable_state(execution_id)
            assert state is not None
            return state

        return await self._store.read(work)

    def _found(self, reader: Reader, execution_id: str) -> Execution:
        execution = reader.durable_execution(execution_id, self._now())
        if execution is None:
            raise ResourceNotFound(f"There is no durable execution {execution_id}, or its retention is over.")
        return execution

    def _document(self, state: State) -> Document:
        execution = state.execution
        document = execution_document(state, self._realm, include_data=True)
        document["Id"] = execution.id
        if execution.skip is not None:
            document["TimeSkip"] = {"SkippedSeconds": round(execution.skip.offset.total_seconds(), 3)}
        return document

    # --- doing -----------------------------------------------------------------------------------------------------------

    async def _stop(self, request: Request, body: Document) -> object:
        given = body.get("Error")
        if given is not None and not isinstance(given, dict):
            raise InvalidParameterValue("Error is an object with ErrorMessage and ErrorType.")
        state = await self._read(request.path_params["id"])
        at = await self._engine.executions.stop(
            state.execution.arn(self._realm), ErrorObject.of(given) if given else None
        )
        return {"StopTimestamp": at}

    async def _skip(self, request: Request, body: Document) -> object:
        return self._named(await self._engine.interventions.skip_time(request.path_params["id"]))

    async def _redrive(self, request: Request, body: Document) -> object:
        execution, reopened = await self._engine.interventions.redrive(
            request.path_params["id"], _texts(body.get("From"), "From")
        )
        found = [{"Id": each.id, "Name": each.name, "Type": each.type} for each in reopened]
        return {**self._named(execution), "Reopened": found}

    def _named(self, execution: Execution) -> Document:
        return {
            "Id": execution.id,
            "DurableExecutionArn": execution.arn(self._realm),
            "DurableExecutionName": execution.name,
            "Status": execution.status,
        }


async def _answer(page: Callable[[Request, Document], Awaitable[object]], request: Request) -> Response:
    try:
        found = await page(request, await _body(request))
    except DomainError as error:
        status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 400)
        return _json({"error": error.shape, "message": error.message}, status)
    return _json(found, 200)


def _json(document: object, status: int) -> Response:
    return Response(msgspec.json.encode(document), status, media_type="application/json")


async def _body(request: Request) -> Document:
    """The JSON object that was sent; empty when nothing was. Raises InvalidParameterValue."""
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > MAX_BODY_BYTES:
            raise InvalidParameterValue(f"The body is larger than {MAX_BODY_BYTES} bytes.")
    if not content:
        return {}
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as exc:
        raise InvalidParameterValue("The body is not JSON.") from exc
    if not isinstance(document, dict):
        raise InvalidParameterValue("The body is not a JSON object.")
    return document


def _texts(value: object, name: str) -> list[str]:
    """A list of texts that need not be there. Raises InvalidParameterValue."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise InvalidParameterValue(f"{name} is a list of strings.")
    return value


def _whole(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise InvalidParameterValue(f"{name} must be a number, not {text[:80]!r}.")
    return int(text)
