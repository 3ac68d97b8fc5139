"""Our own pages for durable executions, under `/_lambstead/durable`: JSON in, JSON out. Times are ISO 8601, in an execution's own clock.

An execution stands in a path by its id, the last segment of its ARN. A refusal is `{"error": <AWS's name of it>, "message": <a sentence>}`.
"""

import json
import re
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lambstead.api.lists import decode_marker, encode_marker
from lambstead.control.durable.engine import DurableEngine
from lambstead.control.durable.interventions import Fork
from lambstead.core.arn import Realm
from lambstead.core.durable.documents import event_document, execution_document
from lambstead.core.durable.model import (
    MAX_SYNC_PAYLOAD_BYTES,
    ErrorObject,
    Event,
    Execution,
    ExecutionStatus,
    Operation,
    State,
    execution_arn,
)
from lambstead.core.durable.records import ExecutionSummary
from lambstead.core.durable.search import ExecutionSearch, checked_pattern
from lambstead.core.durable.signals import names_of, query
from lambstead.core.durable.subscriptions import Subscription, checked_target
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
SEARCH_PAGE = 1000
ROOT = "/_lambstead/durable"
EXECUTION_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")

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
            self._route(f"{ROOT}/executions", "GET", self._search),
            self._route(one, "GET", self._show),
            self._route(f"{one}/attributes", "POST", self._attributes),
            self._route(f"{one}/history", "GET", self._history),
            self._route(f"{one}/stop", "POST", self._stop),
            self._route(f"{one}/skip", "POST", self._skip),
            self._route(f"{one}/signal", "POST", self._signal),
            self._route(f"{one}/query", "GET", self._query),
            self._route(f"{one}/redrive", "POST", self._redrive),
            self._route(f"{one}/fork", "POST", self._fork),
            self._route(f"{one}/replay-check", "POST", self._replay_check),
            self._route(f"{ROOT}/subscriptions", "GET", self._subscriptions),
            self._route(f"{ROOT}/subscriptions", "POST", self._subscribe),
            self._route(f"{ROOT}/subscriptions/{{id}}", "DELETE", self._unsubscribe),
        ]

    def _route(self, path: str, method: str, page: Callable[[Request, Document], Awaitable[object]]) -> Route:
        return Route(path, partial(_answer, page), methods=[method])

    # --- looking ---------------------------------------------------------------------------------------------------------

    async def _search(self, request: Request, body: Document) -> object:
        given = request.query_params
        name = given.get("name")
        search = ExecutionSearch(
            function=given.get("function"),
            name_pattern=None if name is None else checked_pattern(name),
            statuses=_statuses(given.getlist("status")),
            started_after=_moment(request, "after"),
            started_before=_moment(request, "before"),
            attributes=_pairs(given.getlist("attribute")),
        )
        size = min(_whole(request, "limit", 100), SEARCH_PAGE) or SEARCH_PAGE
        marker = given.get("marker")
        started, last_id = decode_marker(marker, (0, ""))
        position = (int(started), str(last_id)) if marker else None
        found = await self._store.read(
            lambda reader: list(reader.search_durable_executions(search, position, size + 1, self._now()))
        )
        shown = found[:size]
        last = (round(shown[-1].started_at.timestamp() * 1000), shown[-1].id) if len(found) > size else None
        return {
            "Executions": [self._line(each) for each in shown],
            "NextMarker": None if last is None else encode_marker(last),
        }

    def _line(self, found: ExecutionSummary) -> Document:
        return {
            "Id": found.id,
            "DurableExecutionArn": execution_arn(self._realm, found.function, found.version, found.name, found.id),
            "DurableExecutionName": found.name,
            "Function": found.function,
            "Version": found.version,
            "Status": found.status,
            "StartTimestamp": found.started_at,
            "EndTimestamp": found.ended_at,
        }

    async def _show(self, request: Request, body: Document) -> object:
        state = await self._read(request.path_params["id"])
        attributes = await self._store.read(lambda reader: reader.durable_attributes(state.execution.id))
        return {**self._document(state), "Attributes": dict(attributes)}

    async def _query(self, request: Request, body: Document) -> object:
        state = await self._read(request.path_params["id"])
        name = request.query_params.get("name")
        view = query(state, name)
        if name is not None and not (view.latest or view.callbacks or view.signals):
            raise ResourceNotFound(f"The durable execution has nothing of the name {name!r} yet.")
        return {
            "Status": state.execution.status,
            "Results": [_result(each) for each in view.latest],
            "Callbacks": [
                {
                    "Names": sorted(names_of(state, each)),
                    "CallbackId": each.callback_id,
                    "StartTimestamp": each.started_at,
                    "TimeoutTimestamp": each.wakes_at,
                }
                for each in view.callbacks
            ],
            "Signals": [{"Name": each.name, "Data": each.data} for each in view.signals],
        }

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
        return {"DurableExecutionArn": state.execution.arn(self._realm), "StopTimestamp": at}

    async def _skip(self, request: Request, body: Document) -> object:
        return self._named(await self._engine.interventions.skip_time(request.path_params["id"]))

    async def _attributes(self, request: Request, body: Document) -> object:
        changes = body.get("Attributes")
        if not isinstance(changes, dict) or not all(
            value is None or isinstance(value, str) for value in changes.values()
        ):
            raise InvalidParameterValue("Attributes is an object of strings, and null for those to be removed.")
        kept = await self._engine.interventions.set_attributes(request.path_params["id"], changes)
        return {"Attributes": dict(kept)}

    async def _signal(self, request: Request, body: Document) -> object:
        name, data = body.get("Name"), body.get("Data", "")
        if not isinstance(name, str) or not isinstance(data, str):
            raise InvalidParameterValue("Name and Data are strings.")
        completed = await self._engine.interventions.signal(request.path_params["id"], name, data)
        return {"CompletedCallbackId": None if completed is None else completed.callback_id}

    async def _redrive(self, request: Request, body: Document) -> object:
        execution, reopened = await self._engine.interventions.redrive(
            request.path_params["id"], _texts(body.get("From"), "From")
        )
        found = [{"Id": each.id, "Name": each.name, "Type": each.type} for each in reopened]
        return {**self._named(execution), "Reopened": found}

    async def _fork(self, request: Request, body: Document) -> object:
        given = {name: body.get(name) for name in ("UpTo", "Qualifier", "Input", "Name")}
        for name, value in given.items():
            if value is not None and not isinstance(value, str):
                raise InvalidParameterValue(f"{name} is a string.")
        if given["Input"] is not None:
            _refuse_bad_input(given["Input"])
        if given["Name"] is not None and not EXECUTION_NAME.fullmatch(given["Name"]):
            raise InvalidParameterValue("Name has 1 to 64 letters, digits, - and _.")
        fork = Fork(given["UpTo"], given["Qualifier"], given["Input"], given["Name"])
        return self._named(await self._engine.interventions.fork(request.path_params["id"], fork))

    async def _replay_check(self, request: Request, body: Document) -> object:
        qualifier = body.get("Qualifier")
        if not isinstance(qualifier, str):
            raise InvalidParameterValue("Qualifier names the version or alias whose code is to be checked.")
        state = await self._read(request.path_params["id"])
        finding = await self._engine.executions.replays.check(state, qualifier)
        return {
            **self._named(state.execution),
            "Verdict": finding.verdict,
            "Because": finding.because,
            "OperationId": finding.operation_id,
            "OperationName": finding.operation_name,
        }

    async def _subscriptions(self, request: Request, body: Document) -> object:
        return {"Subscriptions": [_subscription(each) for each in self._engine.notices.subscriptions]}

    async def _subscribe(self, request: Request, body: Document) -> object:
        target, function = body.get("Target"), body.get("Function")
        if not isinstance(target, str) or not (function is None or isinstance(function, str)):
            raise InvalidParameterValue("Target is a URL or a function; Function, if given, the name of one.")
        subscription = Subscription(
            id=str(uuid.uuid4()),
            target=checked_target(target),
            function=function,
            statuses=_statuses(_texts(body.get("Statuses"), "Statuses")),
        )
        await self._engine.notices.subscribe(subscription)
        return _subscription(subscription)

    async def _unsubscribe(self, request: Request, body: Document) -> object:
        await self._engine.notices.unsubscribe(request.path_params["id"])
        return {}

    def _named(self, execution: Execution) -> Document:
        return {
            "Id": execution.id,
            "DurableExecutionArn": execution.arn(self._realm),
            "DurableExecutionName": execution.name,
            "Status": execution.status,
        }


def _refuse_bad_input(text: str) -> None:
    try:
        json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidParameterValue("Input is not JSON.") from exc
    if len(text.encode(errors="replace")) > MAX_SYNC_PAYLOAD_BYTES:
        raise InvalidParameterValue(f"Input is larger than {MAX_SYNC_PAYLOAD_BYTES} bytes.")


def _result(operation: Operation) -> Document:
    return {
        "Name": operation.name,
        "Type": operation.type,
        "Status": operation.status,
        "Result": operation.result,
        "Error": None if operation.error is None else operation.error.document(),
        "Attempt": operation.attempt or None,
        "StartTimestamp": operation.started_at,
        "EndTimestamp": operation.ended_at,
    }


def _subscription(subscription: Subscription) -> Document:
    return {
        "Id": subscription.id,
        "Target": subscription.target,
        "Function": subscription.function,
        "Statuses": list(subscription.statuses),
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


def _statuses(texts: list[str]) -> tuple[ExecutionStatus, ...]:
    try:
        return tuple(dict.fromkeys(ExecutionStatus(each.upper()) for each in texts))
    except ValueError as exc:
        known = ", ".join(ExecutionStatus)
        raise InvalidParameterValue(f"{str(exc).partition(' is not')[0]} is not a status; these are: {known}.") from exc


def _moment(request: Request, name: str) -> datetime | None:
    """A time in the query, UTC unless it says otherwise."""
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise InvalidParameterValue(f"{name} must be a time such as 2026-11-21T10:00:00Z, not {text[:80]!r}.") from exc


def _pairs(texts: list[str]) -> dict[str, str]:
    for each in texts:
        if not each.partition("=")[1]:
            raise InvalidParameterValue(f"attribute must be NAME=VALUE, not {each[:80]!r}.")
    return {name: value for name, _, value in (each.partition("=") for each in texts)}


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
