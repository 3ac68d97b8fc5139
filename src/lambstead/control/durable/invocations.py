"""Invocations of durable executions: begun when the execution wants one, run by the ordinary invoke path, settled by `core.durable`.

    wants one ──► begin (being written while the function starts) ──► run ──► what follows from its end

A checkpoint of an invocation waits in the lane until its begin is durable; one whose begin could not be written is refused by its token.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime

import msgspec

from lambstead.control.durable.lanes import Lane, Lanes, UnknownExecution
from lambstead.control.durable.parked import Parked
from lambstead.control.invoke_path import Functions
from lambstead.core.arn import FunctionRef, Realm
from lambstead.core.durable.documents import invocation_event
from lambstead.core.durable.lifecycle import (
    Backoff,
    Crashed,
    Gone,
    InvocationEnd,
    Lost,
    NotRun,
    Returned,
    begin_invocation,
    invocation_ended,
)
from lambstead.core.durable.model import ErrorObject, Execution, joined
from lambstead.core.durable.records import state_marker
from lambstead.core.durable.time_skip import idle, now_of, skip
from lambstead.core.durable.triggers import fire_due, wants_invocation, without_delay
from lambstead.core.errors import DomainError, ResourceNotFound, ServiceFailure
from lambstead.core.throttles import Room, room_for


class DurableInvocations:
    """See the module."""

    def __init__(
        self,
        lanes: Lanes,
        functions: Functions,
        realm: Realm,
        backoff: Backoff,
        now: Callable[[], datetime],
        parked: Parked,
        advance: Callable[[str], None],
    ) -> None:
        """`advance` has an execution advanced soon."""
        self._parked = parked
        self._advance_soon = advance
        self._called: dict[str, Room] = {}
        """Executions that were refused for want of room, of which there is some now."""
        self._lanes = lanes
        self._functions = functions
        self._realm = realm
        self._backoff = backoff
        self._now = now

    async def advance(self, execution_id: str) -> None:
        """Let timers happen that are due, and run the function if the execution wants that then."""
        room = self._called.pop(execution_id, None)
        with contextlib.suppress(UnknownExecution):
            async with self._lanes.hold(execution_id) as lane:
                begun = await self._begin(lane, has_room=room is not None)
            if begun is not None:
                request_id, run = begun
                await self._settle(execution_id, request_id, await run)
                return
        if room is not None:
            self._parked.freed(room)  # not needed here: for the next one

    def _park(self, execution_id: str, room: Room) -> None:
        def call() -> None:
            self._called[execution_id] = room
            self._advance_soon(execution_id)

        self._parked.add(room, execution_id, call)

    async def fire(self, execution_id: str) -> None:
        """Let timers happen that are due, and no more."""
        with contextlib.suppress(UnknownExecution):
            async with self._lanes.hold(execution_id) as lane:
                change = fire_due(lane.state, lane.now())
                if change is not None:
                    await lane.write(change)

    async def lost(self, execution_id: str, because: str) -> None:
        """The invocation that the store has as live does not run any more: an earlier server ran it."""
        with contextlib.suppress(UnknownExecution):
            async with self._lanes.hold(execution_id) as lane:
                live = lane.execution.live
                request_id = live.request_id if live is not None else ""
            await self._settle(execution_id, request_id, Lost(ErrorObject(because, "ServiceException")))

    async def _begin(self, lane: Lane, *, has_room: bool) -> "tuple[str, asyncio.Task[InvocationEnd]] | None":
        """Start the function and write that it started, both at once. None when there is nothing to run."""
        found = without_delay(lane.state) if has_room else lane.state
        skipped = skip(found, lane.now())
        state = found if skipped is None else skipped.applied_to(found)
        now = now_of(state.execution, self._now())
        fired = joined(skipped, fire_due(state, now))
        state = found if fired is None else fired.applied_to(found)
        if not wants_invocation(state, now):
            if fired is not None:
                await lane.write(fired)
            return None
        self._parked.forget(lane.execution_id)
        request_id = str(uuid.uuid4())
        begun = begin_invocation(state, request_id, now)
        change = begun if fired is None else fired.then(begun)
        after = change.applied_to(lane.state)
        event = msgspec.json.encode(invocation_event(after, self._realm, state_marker))
        run = asyncio.create_task(self._run(after.execution, request_id, event), name=f"invocation {request_id}")
        try:
            await lane.write(change)
        except BaseException:
            run.cancel()
            raise
        return request_id, run

    async def _run(self, execution: Execution, request_id: str, event: bytes) -> InvocationEnd:
        try:
            target = await self._functions.resolve(FunctionRef(execution.function, execution.version))
            answer = await self._functions.run_once(
                replace(target, is_asynchronous=True),
                request_id=request_id,
                payload=event,
                trace_id=execution.trace_header or "",
                tenant_id=execution.tenant_id or "",
            )
        except ResourceNotFound as error:
            return Gone(error.message)
        except ServiceFailure as error:
            return Crashed(ErrorObject(error.message, error.shape))
        except DomainError as error:
            room = room_for(error, execution.function)
            if room is not None:
                self._park(execution.id, room)
            return NotRun(error.message)
        return Crashed(error_of(answer.payload)) if answer.is_error else Returned(answer.payload)

    async def _settle(self, execution_id: str, request_id: str, end: InvocationEnd) -> None:
        async with self._lanes.hold(execution_id) as lane:
            now = lane.now()
            change = invocation_ended(lane.state, request_id, end, self._backoff, now)
            if change is not None:
                await lane.write(idle(change, now))


def error_of(payload: bytes) -> ErrorObject:
    """The error document that a runtime posted, as an ErrorObject."""
    try:
        document = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        document = None
    if not isinstance(document, Mapping):
        return ErrorObject(payload.decode(errors="replace"))
    trace = document.get("stackTrace")
    lines = tuple(str(each) for each in trace) if isinstance(trace, list) and trace else None
    return ErrorObject(_text(document.get("errorMessage")), _text(document.get("errorType")), None, lines)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
