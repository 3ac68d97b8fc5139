"""CloudWatch Logs: which log groups and log streams are there? Both come into being when an environment writes for the first time."""

import asyncio
from collections.abc import Sequence

from lambstead.api.context import Call, Context, Request, Response
from lambstead.api.lists import DEFAULT_PAGE, decode_marker, page
from lambstead.core.errors import InvalidParameter, InvalidParameterValue, ResourceNotFound
from lambstead.core.log_streams import LogGroup, LogStream

NO_SUCH_GROUP = "The specified log group does not exist."
"""AWS's words, from users' reports of the error; so are those for streams and for orderBy."""


async def describe_log_groups(ctx: Context, request: Request, call: Call) -> Response:
    prefix, part = request.get("logGroupNamePrefix"), request.get("logGroupNamePattern")
    named = request.get("logGroupIdentifiers")
    if prefix is not None and part is not None:
        raise InvalidParameter("logGroupNamePrefix and logGroupNamePattern cannot be given together.")
    if named and (prefix is not None or part is not None):
        raise InvalidParameter("With logGroupIdentifiers no other filter can be given.")
    after = str(_after(request, ("",))[0])
    names = {_name(ctx, identifier) for identifier in named or ()}
    groups = [
        group
        for group in await asyncio.to_thread(ctx.logs.groups)
        if group.name > after
        and group.name.startswith(prefix or "")
        and (part or "") in group.name
        and (not names or group.name in names)
        and request.get("logGroupClass", "STANDARD") == "STANDARD"
    ]
    size = request.get("limit", DEFAULT_PAGE)
    shown, token = page(groups[: size + 1], size, lambda group: (group.name,))
    return {"logGroups": [_group(ctx, group) for group in shown], "nextToken": token}


async def describe_log_streams(ctx: Context, request: Request, call: Call) -> Response:
    group, prefix = group_name(ctx, request), request.get("logStreamNamePrefix", "")
    by_time, descending = request.get("orderBy") == "LastEventTime", request.get("descending", False)
    if by_time and prefix:
        raise InvalidParameter("Cannot order by LastEventTime with a logStreamNamePrefix.")

    def key(stream: LogStream) -> tuple[int, str]:
        return (stream.last_event_ms or 0) if by_time else 0, stream.name

    found = await streams_of(ctx, group)
    streams = sorted((stream for stream in found if stream.name.startswith(prefix)), key=key, reverse=descending)
    if request.get("nextToken"):
        moment, name = _after(request, (0, ""))
        last = (int(moment), str(name))
        streams = [stream for stream in streams if (key(stream) < last if descending else key(stream) > last)]
    size = request.get("limit", DEFAULT_PAGE)
    shown, token = page(streams[: size + 1], size, key)
    return {"logStreams": [_stream(ctx, stream) for stream in shown], "nextToken": token}


def group_name(ctx: Context, request: Request) -> str:
    """The one log group that a request is about. Raises InvalidParameter or ResourceNotFound."""
    name, identifier = request.get("logGroupName"), request.get("logGroupIdentifier")
    if (name is None) == (identifier is None):
        raise InvalidParameter("Exactly one of logGroupName and logGroupIdentifier must be given.")
    return str(name) if name is not None else _name(ctx, str(identifier))


async def streams_of(ctx: Context, group: str) -> Sequence[LogStream]:
    """The streams of a group. Raises ResourceNotFound if there is no such group."""
    streams = await asyncio.to_thread(ctx.logs.streams, group)
    if not streams:
        raise ResourceNotFound(NO_SUCH_GROUP)
    return streams


def _name(ctx: Context, identifier: str) -> str:
    """A log group's name from its name or ARN; groups of other accounts and regions are not here."""
    if not identifier.startswith("arn:"):
        return identifier
    own = ctx.realm.log_group_arn("")
    if not identifier.startswith(own):
        raise ResourceNotFound(NO_SUCH_GROUP)
    return identifier.removeprefix(own).removesuffix(":*")


def _after(request: Request, start: tuple[str | int, ...]) -> tuple[str | int, ...]:
    try:
        return decode_marker(request.get("nextToken"), start)
    except InvalidParameterValue as exc:
        raise InvalidParameter("The specified nextToken is invalid.") from exc


def _group(ctx: Context, group: LogGroup) -> Response:
    arn = ctx.realm.log_group_arn(group.name)
    return {
        "logGroupName": group.name,
        "creationTime": group.created_ms,
        "metricFilterCount": 0,
        "arn": f"{arn}:*",
        "storedBytes": group.stored_bytes,
        "logGroupClass": "STANDARD",
        "logGroupArn": arn,
    }


def _stream(ctx: Context, stream: LogStream) -> Response:
    return {
        "logStreamName": stream.name,
        "creationTime": stream.created_ms,
        "firstEventTimestamp": stream.first_event_ms,
        "lastEventTimestamp": stream.last_event_ms,
        "lastIngestionTime": stream.last_event_ms,
        "arn": f"{ctx.realm.log_group_arn(stream.group)}:log-stream:{stream.name}",
        "storedBytes": 0,  # AWS reports 0 for every stream since 2019, says the model
    }
