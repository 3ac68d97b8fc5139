"""AWS's event-stream framing, read back by botocore's own parser."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from lambstead.wire.eventstream import message
from lambstead.wire.gateway import AwsApi

names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=60)
headers = st.dictionaries(names, st.text(st.characters(exclude_categories=["Cs"]), max_size=300), max_size=8)


@given(headers=headers, payload=st.binary(max_size=5_000), cuts=st.lists(st.integers(1, 50), max_size=20))
def test_messages_are_what_botocore_reads_however_they_are_cut(
    headers: dict[str, str], payload: bytes, cuts: list[int]
) -> None:
    whole = message(headers, payload) * 2
    buffer: Any = EventStreamBuffer()  # Any: the stubs take headers for numbers
    found = []
    for cut in [*cuts, len(whole)]:
        buffer.add_data(whole[:cut])
        whole = whole[cut:]
        found += list(buffer)
    assert [(event.headers, event.payload) for event in found] == [(headers, payload)] * 2


EVENTS: list[dict[str, dict[str, Any]]] = [
    {"PayloadChunk": {"Payload": b"\x00\xff bytes"}},
    {"PayloadChunk": {"Payload": b""}},
    {"InvokeComplete": {"ErrorCode": "Unhandled", "ErrorDetails": '{"käse":"🧀"}', "LogResult": "YQ=="}},
    {"InvokeComplete": {}},
]


async def _each(events: list[dict[str, dict[str, Any]]]) -> AsyncGenerator[dict[str, dict[str, Any]], None]:
    for event in events:
        yield event


def test_events_are_written_as_the_model_says() -> None:
    result = {
        "StatusCode": 200,
        "ExecutedVersion": "7",
        "ResponseStreamContentType": "application/vnd.amazon.eventstream",
        "EventStream": _each(EVENTS),
    }
    response = AwsApi.load("lambda").respond("InvokeWithResponseStream", result, "id-1")
    assert (response.status, response.body) == (200, b"")
    assert ("X-Amz-Executed-Version", "7") in response.headers
    assert response.parts is not None
    parts = response.parts

    async def gathered() -> list[bytes]:
        return [part async for part in parts]

    buffer: Any = EventStreamBuffer()  # Any: see above
    messages = asyncio.run(gathered())
    assert len(messages) == len(EVENTS), "one message an event, as it comes"
    buffer.add_data(b"".join(messages))
    read = list(buffer)
    assert [event.headers[":event-type"] for event in read] == [next(iter(event)) for event in EVENTS]
    assert {event.headers[":message-type"] for event in read} == {"event"}
    assert [event.payload for event in read[:2]] == [b"\x00\xff bytes", b""]
    assert [json.loads(event.payload) for event in read[2:]] == [EVENTS[2]["InvokeComplete"], {}]


def test_an_event_that_the_model_does_not_have_is_a_bug() -> None:
    result = {"EventStream": _each([{"Payload": {}}])}
    response = AwsApi.load("lambda").respond("InvokeWithResponseStream", result, "id-1")
    assert response.parts is not None
    with pytest.raises(KeyError):
        asyncio.run(anext(response.parts))


def test_a_stream_may_also_be_given_as_bytes() -> None:
    response = AwsApi.load("lambda").respond("InvokeWithResponseStream", {"EventStream": b"frames"}, "id-1")
    assert (response.parts, response.body) == (None, b"frames")
