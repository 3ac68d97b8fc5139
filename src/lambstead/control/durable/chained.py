"""Errands of CHAINED_INVOKE operations: run a plain function once, tell a parent how its child execution ended.

A child execution is inserted in the transaction of the checkpoint that starts it, and the word of its end is a row of the transaction that ends it:
neither can be lost or doubled. A plain function is a row until its end is written in the parent: after a crash it is run again.
"""

import contextlib
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from lambstead.control.durable.invocations import error_of
from lambstead.control.durable.lanes import Lanes, UnknownExecution
from lambstead.control.durable.parked import Parked
from lambstead.control.invoke_path import Functions
from lambstead.core.arn import FunctionRef
from lambstead.core.durable.lifecycle import Backoff
from lambstead.core.durable.model import ChainedInvoke, ErrorObject, Execution, ExecutionStatus, OperationStatus, joined
from lambstead.core.durable.records import Errand
from lambstead.core.durable.time_skip import caught_up, now_of
from lambstead.core.durable.triggers import ChainedEnd, chained_ended, fire_due
from lambstead.core.errors import DomainError, InvalidParameterValue, ResourceNotFound, ServiceFailure
from lambstead.core.throttles import Room, room_for
from lambstead.store.port import Store

_ENDS = {
    ExecutionStatus.SUCCEEDED: OperationStatus.SUCCEEDED,
    ExecutionStatus.FAILED: OperationStatus.FAILED,
    ExecutionStatus.TIMED_OUT: OperationStatus.TIMED_OUT,
    ExecutionStatus.STOPPED: OperationStatus.STOPPED,
}


class Errands:
    """See the module."""

    def __init__(
        self,
        store: Store,
        lanes: Lanes,
        functions: Functions,
        backoff: Backoff,
        now: Callable[[], datetime],
        parked: Parked,
        do_soon: Callable[[Errand, Room | None], None],
    ) -> None:
        """`do_soon` has an errand done soon."""
        self._parked = parked
        self._do_soon = do_soon
        self._store = store
        self._lanes = lanes
        self._functions = functions
        self._backoff = backoff
        self._now = now

    async def do(self, errand: Errand, room: Room | None = None) -> None:
        """Do one errand to its end, or put it off when the function could not be run. `room` is what it was called for, after a refusal."""
        self._parked.forget(errand.key)
        end: ChainedEnd | None = None
        child: Execution | None = None
        if errand.child_id is not None:
            child = await self._child(errand.child_id)
            end = _end_of(child)
        else:
            chained = await self._chained(errand)
            if chained is not None:
                end = await self._run(chained, errand)
                if end is None:
                    await self._put_off(errand)
                    return
            elif room is not None:
                self._parked.freed(room)  # not needed here: for the next one
        await self._settle(errand, end, child)

    async def _child(self, child_id: str) -> Execution | None:
        child = await self._store.read(lambda reader: reader.durable_state(child_id))
        return None if child is None else child.execution

    async def _chained(self, errand: Errand) -> ChainedInvoke | None:
        """What to run; None when nobody waits for it any more."""
        with contextlib.suppress(UnknownExecution):
            async with self._lanes.hold(errand.execution_id) as lane:
                operation = lane.state.operations.get(errand.operation_id)
                if operation is not None and not operation.status.is_closed and not lane.execution.status.is_closed:
                    return operation.chained
        return None

    async def _run(self, chained: ChainedInvoke, errand: Errand) -> ChainedEnd | None:
        """How the function ended; None when it could not be run now."""
        try:
            target = await self._functions.resolve(FunctionRef(chained.function, chained.version))
            answer = await self._functions.run_once(
                replace(target, is_asynchronous=False),
                request_id=str(uuid.uuid4()),
                payload=chained.payload.encode(),
                trace_id=chained.trace_id or "",
                tenant_id=chained.tenant_id or "",
            )
        except (ResourceNotFound, ServiceFailure, InvalidParameterValue) as error:
            return ChainedEnd(OperationStatus.FAILED, error=ErrorObject(error.message, error.shape))
        except DomainError as error:
            room = room_for(error, chained.function)
            if room is not None:
                self._parked.add(room, errand.key, lambda: self._do_soon(errand, room))
            return None
        if answer.is_error:
            return ChainedEnd(OperationStatus.FAILED, error=error_of(answer.payload))
        return ChainedEnd(OperationStatus.SUCCEEDED, result=answer.payload.decode(errors="replace"))

    async def _put_off(self, errand: Errand) -> None:
        later = replace(errand, refusals=errand.refusals + 1)
        due = self._now() + self._backoff.delay(later.refusals)
        await self._store.write(lambda tx: tx.save_durable_errand(later, due))

    async def _settle(self, errand: Errand, end: ChainedEnd | None, child: Execution | None) -> None:
        """Write the end into the parent and forget the errand, in one transaction. A clock that the child skipped ahead is followed."""
        with contextlib.suppress(UnknownExecution):
            async with self._lanes.hold(errand.execution_id) as lane:
                moved = None if child is None else caught_up(lane.state, child)
                state = lane.state if moved is None else moved.applied_to(lane.state)
                now = now_of(state.execution, self._now())
                if moved is not None:  # timers of the parent that were due before the child ended come first
                    moved = joined(moved, fire_due(state, now))
                    state = state if moved is None else moved.applied_to(state)
                ended = chained_ended(state, errand.operation_id, end, now) if end is not None else None
                change = joined(moved, ended)
                if change is not None:
                    await lane.write(change, lambda tx: tx.delete_durable_errand(errand))
                    return
        await self._store.write(lambda tx: tx.delete_durable_errand(errand))


def _end_of(child: Execution | None) -> ChainedEnd:
    """How a child execution ended, as its parent's operation shows it. A timeout has a type of its own there."""
    if child is None:
        return ChainedEnd(OperationStatus.FAILED, error=ErrorObject("The execution was deleted."))
    status = _ENDS.get(child.status, OperationStatus.FAILED)
    if status is OperationStatus.SUCCEEDED:
        return ChainedEnd(status, result=child.result)
    error = child.error or ErrorObject()
    if status is OperationStatus.TIMED_OUT:
        error = replace(error, type="ChainedInvoke.Timeout")
    return ChainedEnd(status, error=error)
