"""CloudWatch Logs: reading log events, of one stream or of a whole group.

Pages hold at most `MAX_EVENTS` events and `MAX_PAGE_BYTES` of messages. FilterLogEvents also ends a page, possibly an empty one, after looking at
`MAX_SCANNED_BYTES`: a pattern that matches nothing does not hold the server, and its token goes on from there.
"""

import asyncio
import heapq
import itertools
import re
import sys
from collections.abc import Iterator, Sequence

from lambstead.api.context import Call, Context, Request, Response
from lambstead.api.lists import decode_marker, encode_marker
from lambstead.api.logs_groups import group_name, streams_of
from lambstead.core.errors import InvalidParameter, InvalidParameterValue, ResourceNotFound
from lambstead.core.log_filters import Filter, compile_filter
from lambstead.core.log_streams import LogEvent, LogStream
from lambstead.store.port import Logs

MAX_EVENTS = 10_000
MAX_PAGE_BYTES = 1024 * 1024
MAX_SCANNED_BYTES = 16 * 1024 * 1024
STAMP_DISORDER_MS = 1000
"""How far stamps of one stream can be out of order, generously: two processes write them."""
_FOREVER = sys.maxsize
_TOKEN = re.compile(r"([fb])/(\d{56})/s")


async def get_log_events(ctx: Context, request: Request, call: Call) -> Response:
    group, name = group_name(ctx, request), request["logStreamName"]
    stream = next((stream for stream in await streams_of(ctx, group) if stream.name == name), None)
    if stream is None:
        raise ResourceNotFound("The specified log stream does not exist.")
    start, end, limit = request.get("startTime", 0), request.get("endTime", _FOREVER), request.get("limit", MAX_EVENTS)
    forward, position = _position(request)

    def read() -> list[LogEvent]:
        if forward:
            return _page(ctx.logs.events(stream, start, end, position or 0), limit)
        return _page(ctx.logs.events_backward(stream, start, end, position), limit)[::-1]

    events = await asyncio.to_thread(read)
    # An empty page stays where it is: equal tokens tell the caller that nothing is there, for now.
    here = position if position is not None else 0 if forward else stream.size_bytes
    first, last = (events[0].position, events[-1].end) if events else (here, here)
    return {
        "events": [
            {"timestamp": event.at_ms, "message": event.message, "ingestionTime": event.at_ms} for event in events
        ],
        "nextForwardToken": f"f/{last:056d}/s",
        "nextBackwardToken": f"b/{first:056d}/s",
    }


async def filter_log_events(ctx: Context, request: Request, call: Call) -> Response:
    group = group_name(ctx, request)
    names, prefix = request.get("logStreamNames"), request.get("logStreamNamePrefix")
    if names is not None and prefix is not None:
        raise InvalidParameter("logStreamNames and logStreamNamePrefix cannot be given together.")
    lets_through = compile_filter(request.get("filterPattern"))
    streams = await streams_of(ctx, group)
    if names is not None and set(names) - {stream.name for stream in streams}:
        raise ResourceNotFound("The specified log stream does not exist.")
    chosen = [
        stream
        for stream in streams
        if (stream.name in names if names is not None else stream.name.startswith(prefix or ""))
    ]
    # `endTime` is the last moment that counts here, other than in GetLogEvents. Source: the model's documentation of both.
    search = _Search(ctx.logs, chosen, request.get("startTime", 0), request.get("endTime", _FOREVER - 1) + 1, request)
    events, token = await asyncio.to_thread(search.page, lets_through, request.get("limit", MAX_EVENTS))
    return {
        "events": [
            {
                "logStreamName": event.stream,
                "timestamp": event.at_ms,
                "message": event.message,
                "ingestionTime": event.at_ms,
                "eventId": event.id,
            }
            for event in events
        ],
        "searchedLogStreams": [],
        "nextToken": token,
    }


def _position(request: Request) -> tuple[bool, int | None]:
    """The direction of GetLogEvents and where it goes on; None for its natural start."""
    token = request.get("nextToken")
    if token is None:
        return bool(request.get("startFromHead", False)), None
    found = _TOKEN.fullmatch(token)
    if found is None:
        raise InvalidParameter("The specified nextToken is invalid.")
    return found[1] == "f", min(int(found[2]), _FOREVER)


def _page(events: Iterator[LogEvent], limit: int) -> list[LogEvent]:
    page: list[LogEvent] = []
    size = 0
    for event in itertools.islice(events, limit):
        size += event.size_bytes
        if page and size > MAX_PAGE_BYTES:
            break
        page.append(event)
    return page


class _Search:
    """One request's way through the streams of a group, by time."""

    def __init__(self, logs: Logs, streams: Sequence[LogStream], start: int, end: int, request: Request) -> None:
        self._logs = logs
        self._streams = streams
        self._start = start
        self._end = end
        forward = request.get("startFromHead", True)
        self._after: tuple[int, str, int] | None = None
        if request.get("nextToken"):
            try:
                direction, at_ms, stream, position = decode_marker(request["nextToken"], ("", 0, "", 0))
            except InvalidParameterValue as exc:
                raise InvalidParameter("The specified nextToken is invalid.") from exc
            forward = direction == "f"
            self._after = int(at_ms), str(stream), int(position)
        self._forward = bool(forward)

    def page(self, lets_through: Filter, limit: int) -> tuple[list[LogEvent], str | None]:
        """The next events that are let through, and the token if there may be more."""
        found: list[LogEvent] = []
        size = scanned = 0
        last: LogEvent | None = None
        for event in self._events():
            matches = lets_through(event.message)
            if last and (len(found) == limit or scanned > MAX_SCANNED_BYTES or size > MAX_PAGE_BYTES):
                direction = "f" if self._forward else "b"
                return found, encode_marker((direction, last.at_ms, last.stream, last.position))
            scanned += event.size_bytes
            if matches:
                found.append(event)
                size += event.size_bytes
            last = event
        return found, None

    def _events(self) -> Iterator[LogEvent]:
        """Events of all streams in order, behind the token's."""
        start, end, after = self._start, self._end, self._after
        if after is None:
            return self._merged(start, end)
        if self._forward:
            events = self._merged(max(start, after[0]), end)
        else:
            events = self._merged(start, min(end, after[0] + 1))
        last = self._order(*after)
        return itertools.dropwhile(lambda event: self._key(event) <= last, events)

    def _merged(self, start: int, end: int) -> Iterator[LogEvent]:
        """A stream is opened when the search comes near its first event: a group can have thousands of them."""
        read = self._logs.events if self._forward else self._logs.events_backward
        waiting = sorted(((self._nearest(stream), stream) for stream in self._streams), key=_first, reverse=True)
        heads: list[tuple[_Order, LogEvent, Iterator[LogEvent]]] = []
        while waiting or heads:
            while waiting and (not heads or waiting[-1][0] <= heads[0][0][0]):
                events = read(waiting.pop()[1], start, end)
                if (head := next(events, None)) is not None:
                    heapq.heappush(heads, (self._key(head), head, events))
            if not heads:
                return
            _, event, events = heads[0]
            if (head := next(events, None)) is not None:
                heapq.heapreplace(heads, (self._key(head), head, events))
            else:
                heapq.heappop(heads)
            yield event

    def _nearest(self, stream: LogStream) -> int:
        """From where in the search's order the stream has to be open. Its ends are known to within the disorder of its stamps."""
        if self._forward:
            return (stream.first_event_ms or 0) - STAMP_DISORDER_MS
        return -(stream.last_event_ms or 0) - STAMP_DISORDER_MS

    def _order(self, at_ms: int, stream: str, position: int) -> "_Order":
        """Place of an event in the search; small comes first."""
        return (at_ms, stream, position) if self._forward else (-at_ms, stream, -position)

    def _key(self, event: LogEvent) -> "_Order":
        return self._order(event.at_ms, event.stream, event.position)


_Order = tuple[int, str, int]


def _first(pair: tuple[int, LogStream]) -> int:
    return pair[0]
