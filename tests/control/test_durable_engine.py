"""The engine of durable executions over a real store, with functions that are written here: what happens when something fails."""

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.samples import standard

from lambstead.control.durable.engine import BATCH, DurableEngine, utc_now
from lambstead.control.durable.executions import TimeSkipping
from lambstead.control.durable.notices import Notices
from lambstead.control.durable.ready import ReadyQueue
from lambstead.control.loop import Loop
from lambstead.core.arn import FunctionRef, Realm
from lambstead.core.configurations import Publication
from lambstead.core.durable.lifecycle import Backoff, Start, start
from lambstead.core.durable.model import Change, DurableConfig, Execution, ExecutionStatus, State
from lambstead.core.durable.triggers import wakes_at
from lambstead.core.errors import InvalidParameterValue, TooManyRequests
from lambstead.core.invocations import Target
from lambstead.drivers.webhooks import HttpWebhooks
from lambstead.store.port import Reader, Transaction
from lambstead.store.sqlite import SqliteStore

T = TypeVar("T")
SOON = timedelta(milliseconds=20)
DURABLE = Target("f", "1", Publication(1, standard(durable=DurableConfig(60))), "arn")
PLAIN = Target("plain", "1", Publication(1, standard()), "arn")
PENDING = {"Status": "PENDING"}


def in_loop(test: Callable[..., Coroutine[None, None, None]]) -> Callable[..., None]:
    """Run a test in an event loop of its own."""

    @functools.wraps(test)
    def run(*fixtures: Any, **named: Any) -> None:  # Any: whatever fixtures the test has
        asyncio.run(test(*fixtures, **named))

    return run


class DiskFull(Exception):
    """What a write fails with."""


class FailingStore:
    """A store whose next write fails when told so."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.fail_next = 0

    async def write(self, work: Callable[[Transaction], T], *, refuses_first: bool = False) -> T:
        if self.fail_next:
            self.fail_next -= 1
            await asyncio.sleep(0.01)  # as long as a write takes: the function is running meanwhile
            raise DiskFull
        return await self._store.write(work, refuses_first=refuses_first)

    async def read(self, work: Callable[[Reader], T]) -> T:
        return await self._store.read(work)

    def on_change(self, listener: Callable[[frozenset[str]], None]) -> None:
        self._store.on_change(listener)

    async def close(self) -> None:
        await self._store.close()


@dataclass
class Output:
    payload: bytes
    executed_version: str = "1"
    is_error: bool = False


@dataclass
class Functions:
    """The invoke path: `code` is the durable function, given its event."""

    code: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
    plain: Callable[[], Awaitable[Any]] | None = None
    refusals: int = 0
    """How many invocations are throttled yet."""
    began: list[str] = field(default_factory=list)
    tasks: list[asyncio.Future[dict[str, Any]]] = field(default_factory=list)

    async def resolve(self, ref: FunctionRef) -> Target:
        return PLAIN if ref.name == "plain" else DURABLE

    async def run_once(
        self, target: Target, *, request_id: str, payload: bytes, trace_id: str, tenant_id: str
    ) -> Output:
        if self.refusals:
            self.refusals -= 1
            raise TooManyRequests("Rate Exceeded.")
        if target.function == "plain":
            assert self.plain is not None
            return Output(json.dumps(await self.plain()).encode())
        self.began.append(request_id)
        # A function is a process of its own: it goes on when nobody waits for its answer any more.
        self.tasks.append(asyncio.ensure_future(self.code(json.loads(payload))))
        return Output(json.dumps(await asyncio.shield(self.tasks[-1])).encode())


@dataclass
class Running:
    engine: DurableEngine
    store: FailingStore

    async def start(self, name: str | None = None) -> Execution:
        return await self.engine.executions.start(DURABLE, b"{}", name=name, is_synchronous=True)

    async def end(self, execution: Execution) -> Execution:
        async with asyncio.timeout(20):
            return await self.engine.executions.closed(execution.id)

    async def checkpoint(self, event: dict[str, Any], *updates: dict[str, Any], token: str | None = None) -> str | None:
        given = token or event["CheckpointToken"]
        arn = event["DurableExecutionArn"]
        following, _ = await self.engine.executions.checkpoint(arn, given, None, updates)
        return following


@asynccontextmanager
async def running(path: Path, functions: Functions) -> AsyncIterator[Running]:
    store = FailingStore(await SqliteStore.open(path / "store.db"))
    loops: list[Loop] = []
    engine = DurableEngine(
        store=store,
        functions=functions,
        realm=Realm(),
        backoff=Backoff(SOON, SOON),
        poke=lambda: loops[0].poke(),
        poke_retention=lambda: loops[1].poke(),
        time=TimeSkipping(),
        notices=Notices(
            store=store,
            webhooks=HttpWebhooks(),
            realm=Realm(),
            backoff=Backoff(SOON, SOON),
            now=utc_now,
            poke=lambda: None,
            wake_events=lambda: None,
        ),
    )
    loops += [
        Loop("due", lambda: engine.reconcile(), timedelta(milliseconds=200)),
        Loop("retention", lambda: engine.remove_expired(), timedelta(seconds=60)),
    ]
    await engine.start()
    tasks = [asyncio.create_task(loop.run()) for loop in loops]
    try:
        yield Running(engine, store)
    finally:
        await engine.stop(timedelta(seconds=5))
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await store.close()


def step(name: str, action: str, **members: Any) -> dict[str, Any]:
    return {"Id": name, "Type": "STEP", "Action": action, **members}


def statuses(event: dict[str, Any]) -> dict[str, str]:
    return {each["Id"]: each["Status"] for each in event["InitialExecutionState"]["Operations"][1:]}


@in_loop
async def test_a_checkpoint_that_could_not_be_written_can_be_made_again(tmp_path: Path) -> None:
    async def code(event: dict[str, Any]) -> dict[str, Any]:
        host.store.fail_next = 1
        with pytest.raises(DiskFull):
            await host.checkpoint(event, step("a", "START"), step("a", "SUCCEED", Payload="1"))
        assert await host.checkpoint(event, step("a", "START"), step("a", "SUCCEED", Payload="2"))
        return {"Status": "SUCCEEDED", "Result": "2"}

    async with running(tmp_path, Functions(code)) as host:
        found = await host.end(await host.start())
        assert (found.status, found.result) == (ExecutionStatus.SUCCEEDED, "2")
        events = await host.store.read(lambda r: [each.type for each in r.durable_events(found.id, 0, 100)])
        assert events.count(events[2]) == 1, "the refused batch left nothing behind"


@in_loop
async def test_an_invocation_whose_begin_could_not_be_written_may_not_checkpoint(tmp_path: Path) -> None:
    refused: list[str] = []

    async def code(event: dict[str, Any]) -> dict[str, Any]:
        if not refused:
            try:
                await host.checkpoint(event, step("a", "START"))
            except InvalidParameterValue as error:
                refused.append(error.message)
        return {"Status": "SUCCEEDED", "Result": "1"}

    functions = Functions(code)
    async with running(tmp_path, functions) as host:
        # The start is written, the begin is not.
        follow = host.engine.executions.started

        def failing(state: State) -> None:
            host.store.fail_next = 1
            follow(state)

        host.engine.executions.started = failing
        found = await host.end(await host.start())
        assert found.status is ExecutionStatus.SUCCEEDED
        await asyncio.gather(*functions.tasks)
        assert refused == ["Invalid checkpoint token"]
        assert len(functions.began) == 2


@in_loop
async def test_throttled_invocations_are_begun_again_and_leave_no_trace(tmp_path: Path) -> None:
    async def code(event: dict[str, Any]) -> dict[str, Any]:
        return {"Status": "SUCCEEDED", "Result": "1"}

    functions = Functions(code, refusals=3)
    async with running(tmp_path, functions) as host:
        found = await host.end(await host.start())
        assert found.result == "1"
        events = await host.store.read(lambda r: [each.type for each in r.durable_events(found.id, 0, 100)])
        assert events == ["ExecutionStarted", "InvocationCompleted", "ExecutionSucceeded"]


@in_loop
async def test_a_throttled_chained_function_is_run_later(tmp_path: Path) -> None:
    async def code(event: dict[str, Any]) -> dict[str, Any]:
        if "c" not in statuses(event):
            functions.refusals = 2
            call = {"Id": "c", "Type": "CHAINED_INVOKE", "Action": "START"}
            await host.checkpoint(event, {**call, "ChainedInvokeOptions": {"FunctionName": "plain"}})
            return PENDING
        return {"Status": "SUCCEEDED", "Result": statuses(event)["c"]}

    async def plain() -> str:
        return "there"

    functions = Functions(code, plain)
    async with running(tmp_path, functions) as host:
        found = await host.end(await host.start())
        assert found.result == "SUCCEEDED"
        assert await host.store.read(lambda r: list(r.due_durable_errands(utc_now() + timedelta(days=1), 10))) == []


@in_loop
async def test_news_that_comes_while_an_invocation_ends_is_not_lost(tmp_path: Path) -> None:
    """A callback is completed at every moment around the end of the invocation that waits for it."""

    async def code(event: dict[str, Any]) -> dict[str, Any]:
        number = len(statuses(event))
        if number == 40:
            return {"Status": "SUCCEEDED", "Result": "40"}
        await host.checkpoint(event, {"Id": f"c{number}", "Type": "CALLBACK", "Action": "START"})
        completions.append(asyncio.create_task(complete(event["DurableExecutionArn"], f"c{number}", number)))
        return PENDING

    async def complete(arn: str, operation_id: str, turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        state = await host.store.read(lambda r: r.durable_state(arn.rpartition("/")[2]))
        assert state is not None
        callback_id = state.operations[operation_id].callback_id
        assert callback_id is not None
        await host.engine.executions.callback_succeeded(callback_id, b"1")

    completions: list[asyncio.Task[None]] = []
    async with running(tmp_path, Functions(code)) as host:
        assert (await host.end(await host.start())).result == "40"
        await asyncio.gather(*completions)


@in_loop
async def test_more_executions_than_one_look_takes_up_are_all_run_after_a_restart(tmp_path: Path) -> None:
    async def code(event: dict[str, Any]) -> dict[str, Any]:
        return {"Status": "SUCCEEDED", "Result": "1"}

    store = await SqliteStore.open(tmp_path / "store.db")
    ids = [f"e{number}" for number in range(BATCH * 3)]

    def insert(tx: Transaction) -> None:
        for execution_id in ids:
            order = Start(execution_id, execution_id, "f", "1", DurableConfig(60), "{}")
            state, change = start(order, utc_now())
            tx.start_durable_execution(state, change, wakes_at(state))

    await store.write(insert)
    await store.close()
    functions = Functions(code)
    async with running(tmp_path, functions) as host:
        async with asyncio.timeout(60):
            for execution_id in ids:
                await host.engine.executions.closed(execution_id)
        assert await host.store.read(lambda r: r.durable_totals()) == {"SUCCEEDED": len(ids)}
    assert len(functions.began) == len(ids), "each was invoked once"


@in_loop
async def test_executions_go_when_their_retention_is_over(tmp_path: Path) -> None:
    async def code(event: dict[str, Any]) -> dict[str, Any]:
        return {"Status": "SUCCEEDED", "Result": "1"}

    async with running(tmp_path, Functions(code)) as host:
        old, kept = await host.end(await host.start("old")), await host.end(await host.start("kept"))
        long_ago = replace(old, ended_at=utc_now() - timedelta(days=15))
        await host.store.write(lambda tx: tx.save_durable_change(Change(long_ago), None))
        again = await host.start("old")
        assert again.id != old.id, "the name is free"
        await host.end(again)
        longer_ago = replace(kept, ended_at=utc_now() - timedelta(days=15))
        await host.store.write(lambda tx: tx.save_durable_change(Change(longer_ago), None))
        await host.engine.remove_expired()
        assert await host.store.read(lambda r: r.durable_totals()) == {"SUCCEEDED": 1}


# --- the ready queue ------------------------------------------------------------------------------------------------------------


class Gate:
    """Work that goes on until it is let go, and counts how often it began."""

    def __init__(self) -> None:
        self.began = 0
        self.opened = asyncio.Event()

    async def work(self) -> None:
        self.began += 1
        await self.opened.wait()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@in_loop
async def test_no_more_runs_than_may_and_no_more_waits_than_may() -> None:
    rooms: list[str] = []
    queue = ReadyQueue(lambda: rooms.append("room"), running=2, waiting=1)
    gates = {name: Gate() for name in "abcd"}
    accepted = [name for name in "abcd" if queue.offer(name, gates[name].work)]
    await settled()
    assert accepted == ["a", "b", "c"]
    assert [gates[name].began for name in "abcd"] == [1, 1, 0, 0]
    assert not rooms
    gates["a"].opened.set()
    await settled()
    assert gates["c"].began == 1
    assert rooms == ["room"], "what was refused is to be looked for again"
    gates["b"].opened.set()
    gates["c"].opened.set()
    await queue.close(timedelta(seconds=1))


@in_loop
async def test_work_offered_while_it_runs_is_done_once_more() -> None:
    queue = ReadyQueue(lambda: None)
    gate = Gate()
    for _ in range(3):
        queue.offer("a", gate.work)
        await settled()
    assert gate.began == 1
    gate.opened.set()
    await settled()
    assert gate.began == 2
    await queue.close(timedelta(seconds=1))


@in_loop
async def test_a_closed_queue_begins_nothing() -> None:
    queue = ReadyQueue(lambda: None, running=1)
    gate, later = Gate(), Gate()
    queue.offer("a", gate.work)
    queue.offer("b", later.work)
    await settled()
    closing = asyncio.create_task(queue.close(timedelta(seconds=5)))
    await settled()
    assert not queue.offer("c", later.work)
    gate.opened.set()
    await closing
    assert later.began == 0
