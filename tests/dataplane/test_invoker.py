"""The invoke path over real links: what is settled how, and what no environment is given."""

import asyncio
import base64
import json
import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from tests.samples import created, managed, serving

from lambstead.api.lambda_invoke import MAX_CLIENT_CONTEXT_BYTES, decoded_client_context
from lambstead.core.arn import LATEST_PUBLISHED, Realm
from lambstead.core.configurations import Publication
from lambstead.core.errors import InvalidRequestContent, TooManyRequests
from lambstead.core.fleet import PublicationKey
from lambstead.core.invocations import Target
from lambstead.core.throttles import Throttles
from lambstead.core.traces import trace_header
from lambstead.dataplane.invoker import Invoker, Limits
from lambstead.dataplane.lane import Link, stream_ids
from lambstead.dataplane.outcomes import Invocation
from lambstead.dataplane.records import PlatformRecords
from lambstead.dataplane.routes import Routes
from lambstead.link.connection import LinkConnection
from lambstead.link.frames import Frame, Kind
from lambstead.link.messages import Invoke, Reject, Result, Slots
from lambstead.store.sqlite import SqliteStore

_NOW = datetime(2026, 11, 21, tzinfo=UTC)
KEY = PublicationKey("f", LATEST_PUBLISHED, 1)
TARGET = Target("f", LATEST_PUBLISHED, Publication(1, managed()), "arn:f")


class Executor:
    """The far end of an environment's link."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[Frame] = asyncio.Queue()
        self.link = LinkConnection(lambda _, frame: self.frames.put_nowait(frame), lambda _, exc: None)

    def offers(self, change: int) -> None:
        self.link.send(Kind.SLOTS, 0, msgspec.json.encode(Slots(change)))

    def rejects(self, frame: Frame) -> None:
        self.link.send(Kind.REJECT, frame.stream, msgspec.json.encode(Reject("gone")))

    def answers(self, frame: Frame, payload: bytes) -> None:
        self.link.send(Kind.RESULT, frame.stream, msgspec.json.encode(Result()), payload)


async def connected(invoker: Invoker, environment_id: str, *, is_worker: bool = False) -> Executor:
    """An environment, or one worker of it, whose link has arrived."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    loop = asyncio.get_running_loop()
    executor = Executor()
    await loop.create_connection(lambda: executor.link, sock=far)
    taken: list[Link] = []
    gateway = LinkConnection(
        lambda _, frame: invoker.link_frame(taken[0], frame), lambda _, exc: invoker.link_lost(taken[0], exc)
    )
    await loop.create_connection(lambda: gateway, sock=near)
    link = invoker.link_arrived(environment_id, gateway, is_worker=is_worker)
    assert link is not None
    taken.append(link)
    return executor


def run(tmp_path: Path, story: Callable[[Invoker], Awaitable[None]], slot_wait_s: float = 20.0) -> None:
    run_with_store(tmp_path, lambda invoker, _: story(invoker), slot_wait_s)


def run_with_store(
    tmp_path: Path, story: Callable[[Invoker, SqliteStore], Awaitable[None]], slot_wait_s: float = 20.0
) -> None:
    async def told() -> None:
        store = await SqliteStore.open(tmp_path / "lambstead.db")
        try:
            limits = Limits(slot_wait_s, slot_wait_s, 10)
            invoker = Invoker(Routes(store), Realm(), limits, PlatformRecords(), Throttles(), lambda: None)
            await asyncio.wait_for(story(invoker, store), 30)
        finally:
            await store.close()

    asyncio.run(told())


def test_an_environment_drained_before_its_link_arrived_is_given_nothing(tmp_path: Path) -> None:
    async def story(invoker: Invoker) -> None:
        invoker.expect("env", KEY, "zone", managed=True)
        invoker.drain("env")
        executor = await connected(invoker, "env")
        executor.offers(16)
        with pytest.raises(TooManyRequests):
            await invoker.invoke(TARGET, Invocation("r", b"{}"))
        assert executor.frames.empty()
        executor.link.close()

    run(tmp_path, story, slot_wait_s=0.1)


def test_an_invocation_that_one_environment_rejects_runs_in_another(tmp_path: Path) -> None:
    async def story(invoker: Invoker) -> None:
        invoker.expect("one", KEY, "zone", managed=True)
        invoker.expect("two", KEY, "zone", managed=True)
        one = await connected(invoker, "one")
        one.offers(1)
        first = asyncio.ensure_future(invoker.invoke(TARGET, Invocation("r", b"{}")))
        frame = await one.frames.get()
        two = await connected(invoker, "two")
        two.offers(1)
        one.offers(-1)
        one.rejects(frame)
        two.answers(await two.frames.get(), b'"from two"')
        outcome = await first
        assert (outcome.payload, outcome.environment_id) == (b'"from two"', "two")
        one.link.close()
        two.link.close()

    run(tmp_path, story)


def test_whoever_waits_for_a_publication_that_is_replaced_is_served_by_the_new_one(tmp_path: Path) -> None:
    async def story(invoker: Invoker, store: SqliteStore) -> None:
        invoker.expect("old", KEY, "zone", managed=True)
        old = await connected(invoker, "old")
        waiting = asyncio.ensure_future(invoker.invoke(TARGET, Invocation("r", b"{}")))
        await asyncio.sleep(0)
        renewed = managed(description="new")
        successor = serving(renewed, target=2, serving=Publication(2, renewed))
        await store.write(lambda tx: tx.save_version(created(managed())))
        await store.write(lambda tx: tx.save_version(successor))
        new_key = PublicationKey("f", LATEST_PUBLISHED, 2)
        invoker.expect("new", new_key, "zone", managed=True)
        new = await connected(invoker, "new")
        new.offers(1)
        invoker.drain("old")
        new.answers(await new.frames.get(), b'"from new"')
        assert (await waiting).payload == b'"from new"'
        old.link.close()
        new.link.close()

    run_with_store(tmp_path, story)


def test_an_event_that_a_dead_worker_left_unread_goes_to_another(tmp_path: Path) -> None:
    async def story(invoker: Invoker) -> None:
        invoker.expect("env", KEY, "zone", managed=True)
        dead, living = await connected(invoker, "env", is_worker=True), await connected(invoker, "env", is_worker=True)
        dead.link.pause_reading()
        dead.offers(1)
        outcome = asyncio.ensure_future(invoker.invoke(TARGET, Invocation("r", b"{}")))
        async with asyncio.timeout(10):
            while invoker.loads()["env"].running == 0:  # noqa: ASYNC110 - the fact is in the pool, which has no event
                await asyncio.sleep(0)
        dead.link.abort()  # it was given the event, and ends with it unread
        living.offers(1)
        living.answers(await living.frames.get(), b'"from the living"')
        assert (await outcome).payload == b'"from the living"'
        living.link.close()

    run(tmp_path, story)


def test_stream_ids_stay_within_their_32_bits() -> None:
    ids = stream_ids((1 << 32) - 2)
    assert [next(ids) for _ in range(4)] == [(1 << 32) - 2, (1 << 32) - 1, 1, 2]


def test_whatever_a_caller_sends_fits_the_head_of_a_frame() -> None:
    longest = base64.b64encode(json.dumps({"a": "b" * (MAX_CLIENT_CONTEXT_BYTES * 3 // 4 - 12)}).encode()).decode()
    context = decoded_client_context(longest)
    trace = "Root=1-5759e988-bd862e3fe1be46a994272793" + f";{'k' * 32}={'v' * 128}" * 8
    assert trace_header(trace, _NOW, "seed") == trace
    head = Invoke("r" * 36, 2**53, 900_000, "a" * 300, trace, context, "", "t" * 256)
    assert len(msgspec.json.encode(head)) < 0xFFFF


def test_a_client_context_beyond_awss_limit_is_refused() -> None:
    header = base64.b64encode(json.dumps({"a": "b" * 70_000}).encode()).decode()
    with pytest.raises(InvalidRequestContent, match="3583"):
        decoded_client_context(header)


def test_a_trace_header_of_any_length_is_not_passed_on() -> None:
    endless = "Root=1-5759e988-bd862e3fe1be46a994272793;" + "k" * 70_000 + "=v"
    assert trace_header(endless, _NOW, "12345678-9abc-4def-8123-456789abcdef") != endless
