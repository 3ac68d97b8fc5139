"""A worker on demand that speaks the link with its agent, frame by frame: what it may say, and what comes of what it may not."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator

import msgspec
import pytest
from tests.instance.harness import Gateway, eventually
from tests.instance.test_runtime_api import Bench, bench

from lambstead.core.runtime_api import MAX_ERROR_BYTES, MAX_RESPONSE_BYTES
from lambstead.instance.linked_runtime import LinkedRuntime
from lambstead.link.connection import LinkConnection
from lambstead.link.frames import HEADER, Frame, Kind
from lambstead.link.messages import Error, Reject, Result

pytestmark = pytest.mark.anyio

PATIENCE = 30.0
JSON = msgspec.json.encode(Result())


class Worker:
    """The worker's end of its socket, and the table with everything else."""

    def __init__(self, table: Bench) -> None:
        self.table = table
        self.runtime = LinkedRuntime(table.life)
        self.frames: asyncio.Queue[Frame] = asyncio.Queue()
        self.is_lost = asyncio.Event()
        self.link = LinkConnection(
            lambda _, frame: self.frames.put_nowait(frame), lambda *_: self.is_lost.set(), lambda _: None
        )

    async def begin(self) -> None:
        fd = await self.runtime.open()
        self.runtime.serve(self.table.api.invocations)
        await asyncio.get_running_loop().create_unix_connection(lambda: self.link, sock=socket.socket(fileno=fd))

    def poll(self) -> None:
        self.link.send(Kind.SLOTS, 0, b"[1]")

    async def polled(self) -> None:
        self.poll()
        assert await self.table.slots() == 1

    async def event(self) -> Frame:
        async with asyncio.timeout(PATIENCE):
            frame = await self.frames.get()
        assert frame.kind is Kind.INVOKE
        return frame

    def answer(self, stream: int, payload: bytes) -> None:
        self.link.send(Kind.RESULT, stream, JSON, payload)


@contextlib.asynccontextmanager
async def working(*, opened: bool = True, tenant_id: str = "") -> AsyncIterator[Worker]:
    async with bench(managed=False, opened=opened, tenant_id=tenant_id) as table:
        worker = Worker(table)
        await worker.begin()
        yield worker
        worker.runtime.close()
        worker.link.close()


async def test_the_first_poll_completes_init_and_is_announced_when_the_link_opens() -> None:
    async with working(opened=False) as worker:
        worker.poll()
        await eventually(lambda: worker.table.life.parked == 1, "the poll is heard")
        worker.table.open()
        assert await worker.table.slots() == 1


async def test_an_event_arrives_as_it_was_sent_and_its_answer_too() -> None:
    async with working() as worker:
        await worker.polled()
        worker.table.invoke(7, "one", b"[1]", client_context='{"a": "\\u2603"}', trace_id="Root=1")
        event = await worker.event()
        assert (event.stream, event.payload) == (7, b"[1]")
        assert msgspec.json.decode(event.head)[4:6] == ["Root=1", '{"a": "\\u2603"}']
        worker.link.send(Kind.RESULT, 7, b'["application/unknown"]', b"\x00")
        worker.poll()
        answer = await worker.table.frame(Kind.RESULT)
        assert (answer.stream, answer.head, answer.payload) == (7, b'["application/unknown"]', b"\x00")
        assert await worker.table.slots() == 1
        assert [line.split("\t")[0] for line in worker.table.log][:3] == [
            "START RequestId: one Version: 7",
            "END RequestId: one\nREPORT RequestId: one",
        ]


async def test_there_is_one_slot_however_often_it_is_promised() -> None:
    async with working() as worker:
        await worker.polled()
        worker.poll()
        worker.table.invoke(1, "one")
        worker.table.invoke(2, "two")
        refused = await worker.table.frame(Kind.REJECT)
        assert refused.stream == 2
        assert "no idle slot" in msgspec.json.decode(refused.head, type=Reject).because


async def test_errors_are_the_functions_whatever_the_worker_says_of_them() -> None:
    async with working() as worker:
        for said, told in (("Runtime.MarshalError", "Runtime.MarshalError"), ("evil\r\n", "Function.Unknown")):
            await worker.polled()
            worker.table.invoke(1, said)
            await worker.event()
            worker.link.send(Kind.ERROR, 1, msgspec.json.encode(Error(said, "platform")), b'{"errorType":"X"}')
            error, frame = await worker.table.error()
            assert error == Error(told, "function")
            assert frame.payload == b'{"errorType":"X"}'


async def test_what_is_too_large_is_not_passed_on() -> None:
    async with working() as worker:
        await worker.polled()
        worker.table.invoke(1, "one")
        await worker.event()
        worker.answer(1, b"1" * (MAX_RESPONSE_BYTES + 1))
        error, frame = await worker.table.error()
        assert error == Error("Function.ResponseSizeTooLarge", "platform")
        assert len(frame.payload) < 1000
        await worker.polled()
        worker.table.invoke(2, "two")
        await worker.event()
        worker.link.send(Kind.ERROR, 2, b'["Function.Unknown"]', b"1" * (MAX_ERROR_BYTES + 1))
        error, frame = await worker.table.error()
        assert error == Error("Function.Unknown", "function")
        assert b"larger than 1048576 bytes" in frame.payload


async def test_answers_for_nothing_change_nothing() -> None:
    async with working() as worker:
        worker.answer(1, b"1")
        await worker.polled()
        worker.answer(1, b"1")
        worker.table.invoke(3, "one")
        await worker.event()
        worker.answer(2, b"2")
        worker.answer(3, b"3")
        worker.answer(3, b"4")
        answer = await worker.table.frame(Kind.RESULT)
        assert (answer.stream, answer.payload) == (3, b"3")
        worker.poll()
        assert await worker.table.slots() == 1
        assert worker.table.frames.empty()


async def test_an_answer_after_its_deadline_is_nobodys() -> None:
    async with working() as worker:
        await worker.polled()
        worker.table.invoke(1, "one", timeout_ms=50)
        await worker.event()
        error, frame = await worker.table.error()
        assert error == Error("Sandbox.Timedout", "platform")
        assert b"Task timed out after 0.05 seconds" in frame.payload
        assert worker.table.life.timed_out == ["one"]
        worker.answer(1, b"late")
        worker.poll()
        assert await worker.table.slots() == 1, "the next frame is no answer"


async def test_another_tenants_event_does_not_reach_the_worker() -> None:
    async with working(tenant_id="blue") as worker:
        await worker.polled()
        worker.table.invoke(1, "one", tenant_id="green")
        assert (await worker.table.frame(Kind.REJECT)).stream == 1
        worker.table.invoke(2, "two", tenant_id="blue")
        assert (await worker.event()).stream == 2


@pytest.mark.parametrize(
    "junk",
    [
        b"\xff" * 64,
        HEADER.pack(3, Kind.RESULT, 0, 3, 1) + b"{}!",
        HEADER.pack(3, Kind.ERROR, 0, 3, 1) + b"nul",
        HEADER.pack(1 << 30, Kind.RESULT, 0, 0, 1),
    ],
    ids=["no frame", "no head of a result", "no head of an error", "larger than any frame"],
)
async def test_a_worker_that_sends_junk_loses_its_socket_and_is_said_to_be_lost_if_it_lives_on(junk: bytes) -> None:
    async with bench(managed=False) as table:
        runtime = LinkedRuntime(table.life)
        fd = await runtime.open()
        runtime.serve(table.api.invocations)
        with socket.socket(fileno=os.dup(fd)) as worker:
            os.close(fd)
            worker.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(worker, HEADER.pack(3, Kind.SLOTS, 0, 3, 0) + b"[1]")
            assert await table.slots() == 1
            await loop.sock_sendall(worker, junk)
            async with asyncio.timeout(PATIENCE):
                with contextlib.suppress(ConnectionResetError):
                    assert await loop.sock_recv(worker, 1) == b""
                assert await table.slots() == -1
                await eventually(lambda: table.life.workers_left == [0], "the worker is said to be lost")
        runtime.close()


MEDDLER = """
    import os, socket

    def handler(event, context):
        if event:
            for fd in map(int, os.listdir("/proc/self/fd")):
                try:
                    if os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):
                        socket.socket(fileno=os.dup(fd)).send(bytes.fromhex(event))
                except OSError:
                    pass
        return event
"""


async def test_a_function_that_meddles_with_its_socket_ends_its_own_environment_only(gateway: Gateway) -> None:
    meddled = await gateway.start(MEDDLER, mode="linked")
    other = await gateway.start(MEDDLER, mode="linked")
    answer = await meddled.invoke("ff" * 64)
    assert answer.head == Error("Runtime.ExitError", "platform")
    assert (await meddled.exited()).error_type == "Runtime.ExitError"
    assert (await other.invoke()).json is None


async def test_children_of_a_function_do_not_inherit_its_socket(gateway: Gateway) -> None:
    code = """
        import subprocess

        def handler(event, context):
            listed = subprocess.run(["ls", "-l", "/proc/self/fd"], capture_output=True, text=True, close_fds=False)
            return listed.stdout.count("socket:")
    """
    environment = await gateway.start(code, mode="linked")
    assert (await environment.invoke()).json == 0
