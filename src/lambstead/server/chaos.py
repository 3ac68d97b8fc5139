"""`/_lambstead/chaos`: faults on demand as JSON, for `lambstead chaos` and for users' own tests.

    GET                 what is at work
    POST {"fault": …}   inflict one
    DELETE, DELETE /id  end what lasts

A member is refused that the fault does not have, so that a misspelt one never widens what is hit.
"""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from datetime import timedelta
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lambstead.config import duration_text, parse_duration
from lambstead.control.chaos import Chaos
from lambstead.core.chaos import NAMES, Active, Fault
from lambstead.core.errors import AccessDenied, DomainError, InvalidParameterValue, ResourceNotFound
from lambstead.server.asgi import BodyTooLarge, read_body

MAX_BODY_BYTES = 64 * 1024
MAX_DURATION = timedelta(hours=24)
OFF = (
    "Chaos is not enabled on this server. Start it with `lambstead up --chaos`, "
    "or with LAMBSTEAD_CHAOS=on, and only where nobody minds that things break."
)
_STATUSES: Mapping[type[DomainError], int] = {AccessDenied: 403, InvalidParameterValue: 400, ResourceNotFound: 404}
_FAULTS = {name: kind for kind, name in NAMES.items()}


def routes(chaos: Chaos | None) -> list[Route]:
    """The pages; every one answers 403 without chaos."""
    pages = _Pages(chaos)
    return [
        Route("/_lambstead/chaos", pages.collection, methods=["GET", "POST", "DELETE"]),
        Route("/_lambstead/chaos/{id}", pages.one, methods=["DELETE"]),
    ]


class _Pages:
    def __init__(self, chaos: Chaos | None) -> None:
        self._chaos = chaos

    async def collection(self, request: Request) -> Response:
        try:
            chaos = self._enabled()
            match request.method:
                case "POST":
                    fault, duration = read_fault(await _document(request))
                    inflicted = await chaos.inflict(fault, duration)
                    active = inflicted.active and shown(inflicted.active)
                    return JSONResponse({"killed": list(inflicted.killed), "active": active}, 201)
                case "DELETE":
                    return JSONResponse({"cleared": [shown(each) for each in chaos.clear(None)]})
                case _:
                    return JSONResponse({"active": [shown(each) for each in chaos.active]})
        except DomainError as error:
            return _refusal(error)

    async def one(self, request: Request) -> Response:
        try:
            cleared = self._enabled().clear(request.path_params["id"])
            return JSONResponse({"cleared": [shown(each) for each in cleared]})
        except DomainError as error:
            return _refusal(error)

    def _enabled(self) -> Chaos:
        if self._chaos is None:
            raise AccessDenied(OFF)
        return self._chaos


def _refusal(error: DomainError) -> Response:
    return JSONResponse({"message": error.message}, _STATUSES.get(type(error), 400))


async def _document(request: Request) -> Mapping[str, Any]:  # Any: JSON that is checked next
    headers = dict(request.headers)
    try:
        body = await read_body(headers, lambda: _received(request), MAX_BODY_BYTES)
        return msgspec.json.decode(body, type=dict[str, Any])
    except BodyTooLarge as exc:
        raise InvalidParameterValue(f"A fault takes at most {MAX_BODY_BYTES} bytes.") from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise InvalidParameterValue(f"The body is not a JSON object: {exc}.") from exc


async def _received(request: Request) -> Mapping[str, Any]:  # Any: an ASGI message
    return await request.receive()


def read_fault(document: Mapping[str, Any]) -> tuple[Fault, timedelta | None]:  # Any: as above
    """The fault of a document, and how long it lasts. Raises InvalidParameterValue."""
    given = {name: value for name, value in document.items() if value is not None}
    name, duration = given.pop("fault", None), given.pop("duration", None)
    kind = _FAULTS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise InvalidParameterValue(f"fault is {name!r}; it must be one of {', '.join(_FAULTS)}.")
    members = {each.name: each for each in fields(kind)}
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}  # Any: each is checked against its member below
    for member, value in given.items():
        if member not in members:
            raise InvalidParameterValue(f"{name} has no {member}; it takes {', '.join(members)} and duration.")
        values[member] = _value(member, value, hints[member])
    for member, each in members.items():
        if member not in values and each.default is MISSING:
            raise InvalidParameterValue(f"{name} needs {member}.")
    return kind(**values), _duration("duration", duration, MAX_DURATION) if duration is not None else None


def _value(member: str, value: object, hint: Any) -> object:  # Any: a type's annotation
    if hint is timedelta:
        return _duration(member, value, MAX_DURATION)
    if hint is int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise InvalidParameterValue(f"{member} is {value!r}; it must be a whole number.")
        return value
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise InvalidParameterValue(f"{member} is {value!r}; it must be one of {', '.join(get_args(hint))}.")
        return value
    if not isinstance(value, str) or not value:
        raise InvalidParameterValue(f"{member} is {value!r}; it must be a text.")
    return value


def _duration(member: str, value: object, most: timedelta) -> timedelta:
    found = None if isinstance(value, bool) else parse_duration(str(value))
    if found is None or not timedelta(0) < found <= most:
        raise InvalidParameterValue(
            f"{member} is {value!r}; it must be a duration up to {duration_text(most)}, as 500ms, 30s or 5m."
        )
    return found


def shown(active: Active) -> dict[str, object]:
    """A lasting fault as JSON."""
    members = {each.name: getattr(active.fault, each.name) for each in fields(active.fault)}
    return {
        "id": active.id,
        "fault": NAMES[type(active.fault)],
        **{
            name: duration_text(value) if isinstance(value, timedelta) else value
            for name, value in members.items()
            if value is not None
        },
        "since": active.since.isoformat(),
        "until": active.until and active.until.isoformat(),
        "hits": active.hits,
    }
