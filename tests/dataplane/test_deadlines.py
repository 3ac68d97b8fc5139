"""Deadlines of one publication's lane when synchronous and asynchronous invocations of very different times run side by side."""

import asyncio
import json
import socket
from dataclasses import replace

import msgspec
from tests.samples import managed

from lambstead.core.configurations import Publication
from lambstead.core.errors import DomainError
from lambstead.core.fleet import PublicationKey
from lambstead.core.invocations import Target
from lambstead.core.throttles import Throttles
from lambstead.dataplane.lane import Lane, Link
from lambstead.dataplane.outcomes import Invocation, Outcome
from lambstead.dataplane.records import PlatformRecords
from lambstead.dataplane.turns import Turns
from lambstead.link.connection import LinkConnection
from lambstead.link.frames import Frame, Kind
from lambstead.link.messages import Slots


async def _one_second_call_beside_a_long_event() -> tuple[Outcome | DomainError, list[str]]:
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    _, connection = await loop.create_connection(lambda: LinkConnection(lambda *_: None, lambda *_: None), sock=near)
    lane = Lane(
        PublicationKey("f", "1", 1),
        1.0,
        10,
        lambda _: None,
        lambda: None,
        PlatformRecords(),
        Throttles(),
        lambda: None,
        Turns(),
    )
    links = [Link("env-1", connection, is_worker=True) for _ in range(2)]
    for link in links:
        lane.joined(link, "zone")
        lane.frame_received(link, Frame(Kind.SLOTS, 0, msgspec.json.encode(Slots(1)), b""))
    short = Target("f", "1", Publication(1, managed(timeout_s=1)), "arn")
    long = replace(short, publication=Publication(1, managed(timeout_s=5400)), is_asynchronous=True)
    settled: asyncio.Future[Outcome | DomainError] = loop.create_future()
    others: list[str] = []
    lane.submit(long, Invocation("long", b"{}"), lambda _: others.append("long"))
    lane.submit(short, Invocation("short", b"{}"), settled.set_result)
    outcome = await asyncio.wait_for(settled, 5)
    connection.close()
    far.close()
    return outcome, others


def test_a_long_event_that_came_first_does_not_hide_a_call_s_deadline() -> None:
    outcome, others = asyncio.run(_one_second_call_beside_a_long_event())
    assert isinstance(outcome, Outcome)
    assert json.loads(outcome.payload)["errorMessage"].endswith("Task timed out after 1.00 seconds")
    assert others == [], "the long one still runs"
