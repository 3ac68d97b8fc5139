"""Frames over real sockets, on asyncio's own loop and on uvloop."""

import asyncio
import itertools
import socket
import tracemalloc
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from lambstead.link.connection import JOIN_BELOW_BYTES, LinkConnection
from lambstead.link.frames import (
    LAST_BYTES,
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    RECEIVE_BYTES,
    Frame,
    FrameError,
    FrameReader,
    Kind,
    encode,
)

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on the loop the test is for, with a deadline."""

    async def bounded(main: Coroutine[Any, Any, None]) -> None:
        async with asyncio.timeout(30):
            await main

    def run_it(main: Coroutine[Any, Any, None]) -> None:
        if request.param == "uvloop":
            uvloop.run(bounded(main))
        else:
            asyncio.run(bounded(main))

    return run_it


class End:
    """One end of a pair and what it saw."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[Frame] = asyncio.Queue()
        self.lost: asyncio.Queue[Exception | None] = asyncio.Queue()
        self.link = LinkConnection(
            lambda _, frame: self.frames.put_nowait(frame), lambda _, exc: self.lost.put_nowait(exc)
        )


async def a_pair() -> tuple[End, End]:
    ours, theirs = socket.socketpair()
    left, right = End(), End()
    loop = asyncio.get_running_loop()
    await loop.create_unix_connection(lambda: left.link, sock=ours)
    await loop.create_unix_connection(lambda: right.link, sock=theirs)
    return left, right


@pytest.mark.parametrize("size", [0, 1, JOIN_BELOW_BYTES - 1, JOIN_BELOW_BYTES, 6_291_556])
def test_frames_of_every_size_arrive_whole_and_in_order(run: Run, size: int) -> None:
    async def main() -> None:
        left, right = await a_pair()
        payload = bytes(i % 251 for i in range(size))
        left.link.send(Kind.INVOKE, 7, b"head", payload)
        left.link.send(Kind.CANCEL, 7)
        assert await right.frames.get() == Frame(Kind.INVOKE, 7, b"head", payload)
        assert await right.frames.get() == Frame(Kind.CANCEL, 7, b"", b"")
        left.link.close()
        assert await right.lost.get() is None

    run(main())


@pytest.mark.parametrize("size", [0, JOIN_BELOW_BYTES])
@pytest.mark.parametrize("then", ["nothing", "a frame", "a large frame", "a frame that can wait", "close"])
def test_a_frame_that_can_wait_leaves_in_its_turn_ahead_of_what_follows(run: Run, size: int, then: str) -> None:
    async def main() -> None:
        left, right = await a_pair()
        left.link.send_soon(Kind.RESULT, 1, b"head", b"x" * size)
        match then:
            case "a frame":
                left.link.send(Kind.SLOTS, 2)
            case "a large frame":
                left.link.send(Kind.RESULT, 2, b"", b"y" * JOIN_BELOW_BYTES)
            case "a frame that can wait":
                left.link.send_soon(Kind.SLOTS, 2)
            case "close":
                left.link.close()
                left.link.send_soon(Kind.SLOTS, 2)
            case _:
                pass
        assert await right.frames.get() == Frame(Kind.RESULT, 1, b"head", b"x" * size)
        if then.startswith("a "):
            assert (await right.frames.get()).stream == 2
        left.link.close()
        assert await right.lost.get() is None
        assert right.frames.empty()

    run(main())


def test_what_was_sent_before_close_arrives_and_the_end_is_told_once(run: Run) -> None:
    async def main() -> None:
        left, right = await a_pair()
        left.link.send(Kind.RESULT, 1, b"", b"x" * 2_000_000)
        left.link.close()
        left.link.close()
        left.link.send(Kind.RESULT, 2)
        assert (await right.frames.get()).stream == 1
        assert await right.lost.get() is None
        assert await left.lost.get() is None
        assert right.frames.empty()
        assert left.lost.empty()
        assert not left.link.is_open
        assert not right.link.is_open

    run(main())


def test_bytes_that_are_no_frame_end_the_connection_with_the_reason(run: Run) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        end = End()
        await asyncio.get_running_loop().create_unix_connection(lambda: end.link, sock=theirs)
        ours.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert isinstance(await end.lost.get(), FrameError)
        ours.close()

    run(main())


def test_a_peer_that_does_not_read_makes_the_sender_wait_and_then_go_on(run: Run) -> None:
    async def main() -> None:
        left, right = await a_pair()
        right.link.pause_reading()
        sent = 0
        while left.link.is_writable:
            left.link.send(Kind.RESULT, sent, b"", b"x" * 65_536)
            sent += 1
            assert sent < 10_000
            await asyncio.sleep(0)  # the transport tells of its mark from the loop
        drained = asyncio.ensure_future(left.link.drain())
        assert not drained.done()
        right.link.resume_reading()
        await drained
        assert [(await right.frames.get()).stream for _ in range(sent)] == list(range(sent))
        left.link.abort()
        right.link.abort()

    run(main())


def test_drain_fails_when_the_connection_ends_first(run: Run) -> None:
    async def main() -> None:
        left, right = await a_pair()
        right.link.pause_reading()
        while left.link.is_writable:
            left.link.send(Kind.RESULT, 1, b"", b"x" * 65_536)
            await asyncio.sleep(0)
        drained = asyncio.ensure_future(left.link.drain())
        left.link.abort()
        with pytest.raises(ConnectionError):
            await drained
        right.link.abort()

    run(main())


def test_a_frame_above_the_limit_is_refused_before_a_byte_of_it_is_sent(run: Run) -> None:
    async def main() -> None:
        left, right = await a_pair()
        with pytest.raises(FrameError):
            left.link.send(Kind.RESULT, 1, b"h", bytes(MAX_BODY_BYTES))
        left.link.send(Kind.RESULT, 2)
        assert (await right.frames.get()).stream == 2
        left.link.abort()
        right.link.abort()

    run(main())


@given(
    st.lists(
        st.builds(
            lambda stream, head, size: (stream, b"h" * head, (stream % 250).to_bytes() * size),
            st.integers(1, 1000),
            st.sampled_from([0, 1, 300, RECEIVE_BYTES, MAX_HEAD_BYTES]),
            st.one_of(
                st.sampled_from([0, 1, LAST_BYTES, RECEIVE_BYTES - 12, RECEIVE_BYTES - 11, RECEIVE_BYTES + LAST_BYTES]),
                st.integers(0, 5 * RECEIVE_BYTES),
            ),
        ),
        min_size=1,
        max_size=6,
    ),
    st.lists(st.integers(1, 3 * RECEIVE_BYTES), min_size=1),
)
def test_frames_are_the_same_however_their_bytes_arrive(
    sent: list[tuple[int, bytes, bytes]], pieces: list[int]
) -> None:
    wire = b"".join(encode(Kind.INVOKE, *frame) for frame in sent)
    reader, at = FrameReader(), 0
    found: list[Frame] = []
    for wanted in itertools.cycle(pieces):
        room = reader.room()
        count = min(wanted, len(room), len(wire) - at)
        assert len(room) > 0
        room[:count] = wire[at : at + count]
        at += count
        found += reader.arrived(count)
        if at == len(wire):
            break
    assert found == [Frame(Kind.INVOKE, *frame) for frame in sent]
    assert all(type(frame.payload) is bytes for frame in found)


@pytest.mark.parametrize("size", [65_536, 1_048_576, 6_291_556])
def test_a_large_payload_is_received_into_the_memory_in_which_it_stays(size: int) -> None:
    async def peak_bytes() -> int:
        left, right = await a_pair()
        payload = bytes(size)
        left.link.send(Kind.RESULT, 1, b"", payload)
        await right.frames.get()  # the first time, modules and buffers come into being
        tracemalloc.start()
        left.link.send(Kind.RESULT, 2, b"head", payload)
        received = await right.frames.get()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        left.link.abort()
        right.link.abort()
        assert received == Frame(Kind.RESULT, 2, b"head", payload)
        return peak

    # Not asyncio's own loop: its sender joins what `writelines` is given before Python 3.12.
    assert size <= uvloop.run(peak_bytes()) < size + 50_000
