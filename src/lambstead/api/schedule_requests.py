"""What operations of EventBridge Scheduler's API share: ClientToken, NextToken, and groups that are not there."""

import hashlib
import json
from datetime import datetime, timedelta

from lambstead.api.context import Request
from lambstead.api.lists import decode_marker
from lambstead.core.errors import InvalidParameterValue, ResourceNotFound, ValidationError
from lambstead.core.schedules import ScheduleGroup
from lambstead.store.port import Reader, Transaction

REMEMBERED = timedelta(hours=1)
"""How long a ClientToken is known. AWS names no time; SDKs repeat a request within minutes."""
DEFAULT_PAGE = 100


def was_carried_out(reader: Reader, operation: str, resource: str, request: Request, now: datetime) -> bool:
    """True for a request that was carried out before: same ClientToken, same parameters. SDKs send a token with every request."""
    token = request.get("ClientToken")
    return token is not None and reader.schedule_request(operation, resource, token, now) == _fingerprint(request)


def remember(tx: Transaction, operation: str, resource: str, request: Request, now: datetime) -> None:
    """Note that the request is carried out."""
    if (token := request.get("ClientToken")) is not None:
        tx.save_schedule_request(operation, resource, token, _fingerprint(request), now, now + REMEMBERED)


def _fingerprint(request: Request) -> str:
    parameters = {name: value for name, value in request.items() if name != "ClientToken"}
    return hashlib.sha256(json.dumps(parameters, sort_keys=True, default=str).encode()).hexdigest()


def position(request: Request, *start: str) -> tuple[str, ...]:
    """Where the page begins that NextToken asks for. Raises ValidationError for a token that no page ended with."""
    try:
        return tuple(str(part) for part in decode_marker(request.get("NextToken"), start))
    except InvalidParameterValue as exc:
        raise ValidationError("Invalid NextToken: it is not one that this operation returned.") from exc


def existing_group(reader: Reader, name: str) -> ScheduleGroup:
    """The group of this name. Raises ResourceNotFound."""
    group = reader.schedule_group(name)
    if group is None:
        raise ResourceNotFound(f"Schedule group {name} does not exist.")
    return group
